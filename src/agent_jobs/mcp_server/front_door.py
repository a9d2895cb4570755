"""Answer the first questions of a host from static data, before the SDK is imported.

Hosts wait one to three seconds for the list of tools and then continue without it. Importing the SDK takes most of a
second on a quiet machine and several on a busy one. So only the standard library is imported here.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress

from agent_jobs.settings.config_folder import find_config_file

TYPE_CHECKING = False  # importing `typing` costs a fifth of the time to the first answer
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set
    from typing import Any, TypeGuard

    JSON = dict[str, Any]
    #: Accepts a line without its line feed, or None at the end of the input.
    Receiver = Callable[[bytes | None], None]
    #: By the name of each member that an object may have: returns True if its value is right.
    Shape = Mapping[str, Callable[[object], bool]]

# Importing `pathlib` is slow, too.
ANSWERS = os.path.join(os.path.dirname(__file__), os.pardir, "data", "handshake.json")
READ_BYTES = 65_536  # the capacity of a pipe on Linux
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
REQUEST_FIELDS = {"jsonrpc", "id", "method", "params"}
ENVELOPE_VERSION = "io.modelcontextprotocol/protocolVersion"
ENVELOPE_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
ENVELOPE_CLIENT = "io.modelcontextprotocol/clientInfo"
#: The extension of hosts that render cards.
APPS = "io.modelcontextprotocol/ui"
CARD_MIME_TYPE = "text/html;profile=mcp-app"
#: The hint for a person who pipes text into the server.
NOT_A_MESSAGE = b"""\
This is an MCP server: it expects the JSON-RPC messages of a host on stdin, and this input is none.
To run a job with the input, write: agent-jobs run -
All commands: agent-jobs --help
"""

TASKS_DEPTH = 4  # tasks.requests.sampling.createMessage is the deepest that the protocol knows


def load_answers() -> JSON:
    """Return the answers that scripts/pages wrote.

    `{"initialize": result, "versions": [...], "handshake": {method: result}, "envelope": {version: {method: result}}}`.
    `versions` are those that `initialize` agrees to; its result names the one that it answers to all others.
    """
    with open(ANSWERS, encoding="utf-8") as file:
        return json.load(file)


def open_front_door(*, has_env_file: bool = False) -> FrontDoor:
    """Reserve stdin and stdout for the protocol, and answer the host's first questions from now on.

    Other code that reads the standard input finds it empty; other code that prints writes to stderr.
    """
    left_out = _find_left_out(has_env_file)
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    door = FrontDoor(stdin, stdout, load_answers(), left_out=left_out)
    door.open()
    return door


class FrontDoor:
    """Answers the requests that every process of this version answers alike, and saves all other lines for the server.

    The first request fixes the era of a connection, for the SDK too. So that request is answered here and also handed
    over, and the server drops its own answer to it. `server/discover` is the exception: a host may give up on it and
    send `initialize`, so the server never sees it. A first request that is odd in any way closes the door: the server
    answers it and all that follow.
    """

    def __init__(self, stdin: int, stdout: int, answers: JSON, *, left_out: frozenset[str] = frozenset()) -> None:
        """Take the descriptors of the wire.

        Args:
            stdin: The host writes to it.
            stdout: The host reads from it.
            answers: As `load_answers` returns them.
            left_out: Methods whose static answers do not apply in this process.
        """
        self.stdout = stdout
        self._stdin = stdin
        self._answers = answers
        self._left_out = left_out
        #: The answers of the era that the first request opened.
        self._era: Mapping[str, JSON] | None = None
        self._is_closed = False
        self._is_first_line = True
        self._answered: set[int | str] = set()
        self._kept: list[bytes | None] = []
        self._receiver: Receiver | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Begin to read in a daemon thread, which does not delay the exit while it waits for a line."""
        threading.Thread(target=self._read_lines, name="stdin", daemon=True).start()

    def hand_over(self, receiver: Receiver) -> set[int | str]:
        """Send the saved lines, and every later one, to `receiver`.

        Returns the ids of the requests among them that are answered already. `receiver` is called from two threads,
        but never at once.
        """
        with self._lock:
            for line in self._kept:
                receiver(line)
            self._kept.clear()
            self._receiver = receiver
            return self._answered

    def _read_lines(self) -> None:
        rest = b""
        with suppress(OSError):  # a host that no longer reads has gone, like one that no longer writes
            while chunk := os.read(self._stdin, READ_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._take_line(line)
        if rest and self._is_first_line:
            self._explain_first_line(rest)
        self._take_line(None)

    def _take_line(self, line: bytes | None) -> None:
        if self._is_first_line and line is not None:
            self._explain_first_line(line)
        with self._lock:
            if self._receiver is not None:
                self._receiver(line)
            elif line is None or self._is_closed or not self._answer_line(line):
                self._kept.append(line)

    def _explain_first_line(self, line: bytes) -> None:
        """Write a hint on stderr if the first line with text is not from a host."""
        if not line.strip():
            return
        self._is_first_line = False
        if not _is_message(line):
            with suppress(OSError):
                write_all(2, NOT_A_MESSAGE)

    def _answer_line(self, line: bytes) -> bool:
        """Answer a line; return False if the server has to see it."""
        request = _parse_request(line)
        if request is None:
            return False
        method: str = request["method"]
        answers = self._answers_for(request)
        if method not in answers or method in self._left_out:
            self._is_closed = self._era is None
            return False
        self._write_answer({"jsonrpc": "2.0", "id": request["id"], "result": answers[method]})
        if self._era is not None or method == "server/discover":
            return True
        self._open_era(request, answers)
        return False

    def _open_era(self, request: JSON, answers: Mapping[str, JSON]) -> None:
        """Select the answers that apply from the first request on, which the server sees as well."""
        self._era = answers
        if request["method"] == "initialize":
            self._era = self._answers["handshake"]
        self._answered.add(request["id"])

    def _answers_for(self, request: JSON) -> Mapping[str, JSON]:
        """Return the static answers for a request; none if the server may object to anything in it."""
        if request.get("jsonrpc") != "2.0" or not request.keys() <= REQUEST_FIELDS:
            return {}
        params = request.get("params", {})
        if request["method"] == "initialize":
            return self._answers_to_initialize(params)
        if not _fits_shape(params, PARAMS):
            return {}
        return self._answers_to_meta(params.get("_meta", {}))

    def _answers_to_meta(self, meta: JSON) -> Mapping[str, JSON]:
        """Return the answers of the era that a request's `_meta` names; none if the connection has another era."""
        if _fits_shape(meta, META):
            era = self._answers["handshake"]
            may_open = False  # only `initialize` opens this era
        elif _fits_shape(meta, ENVELOPE, {ENVELOPE_VERSION, ENVELOPE_CAPABILITIES}):
            era = self._answers["envelope"].get(meta[ENVELOPE_VERSION], {})
            may_open = self._era is None
        else:
            return {}
        if may_open or self._era is era:
            return era
        return {}

    def _answers_to_initialize(self, params: object) -> Mapping[str, JSON]:
        if self._era is not None or not _fits_shape(params, INITIALIZE, INITIALIZE.keys()):
            return {}
        version = params["protocolVersion"]
        result: JSON = self._answers["initialize"]
        if version in self._answers["versions"]:
            result = result | {"protocolVersion": version}
        return {"initialize": result}

    def _write_answer(self, message: JSON) -> None:
        data = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        write_all(self.stdout, data)


def _parse_request(line: bytes) -> JSON | None:
    """Return a request; None for anything else: a batch, an answer or a notification decides nothing."""
    match _parse_json_line(line):
        case {"id": bool()}:  # a bool is an int in Python
            return None
        case {"id": int() | str(), "method": str()} as request:
            return request
        case _:
            return None


def _is_message(line: bytes) -> bool:
    """Return True if this may be a message of a host, also one that the protocol forbids."""
    match _parse_json_line(line):
        case list() | {"jsonrpc": _}:
            return True
        case _:
            return False


def _parse_json_line(line: bytes) -> Any:
    """Return the value of JSON in a line; None if it has none."""
    try:
        return json.loads(line.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        return None


def _find_left_out(has_env_file: bool) -> frozenset[str]:
    """Return the methods whose static answers may not apply with the user's settings."""
    left_out: set[str] = set()
    file = _read_settings_file()
    if has_env_file or "AGENT_JOBS_PRESETS" in os.environ or b"presets" in file:
        left_out.add("prompts/list")  # presets of the user are prompts, too
    if has_env_file or os.environ.get("AGENT_JOBS_TASKS", "").strip().lower() not in ("", "auto") or b"tasks" in file:
        left_out.add("server/discover")  # names the extensions
    return frozenset(left_out)


def _read_settings_file() -> bytes:
    """Return the text of the user's settings file. Parsing takes longer than answering the affected requests later."""
    try:
        with open(find_config_file(os.environ), "rb") as file:
            return file.read()
    except (OSError, ValueError):
        return b""


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, and wait for a slow reader.

    Raises:
        OSError: The reader has gone.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _fits_shape(value: object, shape: Shape, required: Set[str] = frozenset()) -> TypeGuard[JSON]:
    """Return True if a value is an object with all required members, and with no unknown or wrong ones."""
    return (
        _is_json_object(value)
        and required <= value.keys() <= shape.keys()
        and all(shape[name](each) for name, each in value.items())
    )


def _is_id(value: object) -> bool:
    return type(value) in (int, str)  # not bool, which is an int in Python


def _is_string_value(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_json_object(value: object) -> TypeGuard[JSON]:
    return isinstance(value, dict)


def _is_client(value: object) -> bool:
    """Return True if this is a client's description: its name and version, and all values are strings."""
    return _fits_shape(value, CLIENT, {"name", "version"})


def _is_cardless(value: object) -> bool:
    """Return True if the SDK accepts these capabilities in every version of the protocol, and they show no cards.

    The list of tools names the cards, so it is another one for a client that shows them.
    """
    if not _fits_shape(value, CAPABILITIES):
        return False
    mime_types = value.get("extensions", {}).get(APPS, {}).get("mimeTypes")
    return not isinstance(mime_types, list) or CARD_MIME_TYPE not in mime_types


def _is_roots(value: object) -> bool:
    return _fits_shape(value, {"listChanged": _is_flag})


def _is_map_of_objects(value: object) -> bool:
    return _is_json_object(value) and all(map(_is_json_object, value.values()))


def _is_object_tree(value: object, depth: int = TASKS_DEPTH) -> bool:
    """Return True if the value consists of objects only, and is at most this deep."""
    return _is_json_object(value) and depth > 0 and all(_is_object_tree(each, depth - 1) for each in value.values())


CLIENT: Shape = dict.fromkeys(("name", "version", "title", "description", "websiteUrl"), _is_string_value)
CAPABILITIES: Shape = {
    "roots": _is_roots,
    "tasks": _is_object_tree,
    "sampling": _is_map_of_objects,
    "elicitation": _is_map_of_objects,
    "experimental": _is_map_of_objects,
    "extensions": _is_map_of_objects,
}
INITIALIZE: Shape = {"protocolVersion": _is_string_value, "capabilities": _is_cardless, "clientInfo": _is_client}
PARAMS: Shape = {"_meta": _is_json_object}
META: Shape = {"progressToken": _is_id}
ENVELOPE: Shape = {
    **META,
    ENVELOPE_VERSION: _is_string_value,
    ENVELOPE_CAPABILITIES: _is_cardless,
    ENVELOPE_CLIENT: _is_client,
}
