"""Answers the first questions of a host from static data, before the SDK is imported.

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
    from collections.abc import Callable, Mapping
    from typing import Any, TypeGuard

    JSON = dict[str, Any]
    #: Accepts a line without its line feed, or None at the end of the input.
    Receiver = Callable[[bytes | None], None]

# Importing `pathlib` is slow, too.
ANSWERS = os.path.join(os.path.dirname(__file__), os.pardir, "data", "handshake.json")
READ_BYTES = 65_536  # the capacity of a pipe on Linux
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
REQUEST_FIELDS = {"jsonrpc", "id", "method", "params"}
INITIALIZE_FIELDS = {"protocolVersion", "capabilities", "clientInfo"}
CLIENT_FIELDS = {"name", "version", "title", "description", "websiteUrl"}
ENVELOPE_VERSION = "io.modelcontextprotocol/protocolVersion"
ENVELOPE_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
ENVELOPE_CLIENT = "io.modelcontextprotocol/clientInfo"
ENVELOPE_FIELDS = {ENVELOPE_VERSION, ENVELOPE_CAPABILITIES, ENVELOPE_CLIENT}
#: Capabilities whose members are objects of any content.
CAPABILITIES = {"sampling", "elicitation", "experimental", "extensions"}

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
        params = request.get("params", {})
        if request.get("jsonrpc") != "2.0" or not request.keys() <= REQUEST_FIELDS:
            return {}
        if not _is_json_object(params):
            return {}
        if request["method"] == "initialize":
            return self._answers_to_initialize(params)
        meta = params.get("_meta", {})
        if params.keys() - {"_meta"} or not _is_json_object(meta) or not _is_id(meta.get("progressToken", 0)):
            return {}
        return self._answers_to_meta(meta)

    def _answers_to_meta(self, meta: JSON) -> Mapping[str, JSON]:
        """Return the answers of the era that a request's `_meta` names; none if the connection has another era."""
        if meta.keys() <= {"progressToken"}:
            era = self._answers["handshake"]
            may_open = False  # only `initialize` opens this era
        else:
            era = self._answers_to_envelope(meta)
            may_open = self._era is None
        if may_open or self._era is era:
            return era
        return {}

    def _answers_to_initialize(self, params: JSON) -> Mapping[str, JSON]:
        if self._era is not None or params.keys() != INITIALIZE_FIELDS:
            return {}
        version = params["protocolVersion"]
        if not isinstance(version, str) or not _is_client(params["clientInfo"]):
            return {}
        if not _is_capabilities(params["capabilities"]) or _declares_apps(params["capabilities"]):
            return {}
        result: JSON = self._answers["initialize"]
        if version in self._answers["versions"]:
            result = result | {"protocolVersion": version}
        return {"initialize": result}

    def _answers_to_envelope(self, meta: JSON) -> Mapping[str, JSON]:
        version = meta.get(ENVELOPE_VERSION)
        if meta.keys() - ENVELOPE_FIELDS - {"progressToken"} or not isinstance(version, str):
            return {}
        if not _is_capabilities(meta.get(ENVELOPE_CAPABILITIES)) or _declares_apps(meta[ENVELOPE_CAPABILITIES]):
            return {}
        if ENVELOPE_CLIENT in meta and not _is_client(meta[ENVELOPE_CLIENT]):
            return {}
        return self._answers["envelope"].get(version, {})

    def _write_answer(self, message: JSON) -> None:
        data = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        write_all(self.stdout, data)


def _parse_request(line: bytes) -> JSON | None:
    """Return a request; None for anything else: a batch, an answer or a notification decides nothing."""
    try:
        request = json.loads(line.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        return None
    if not _is_json_object(request) or not _is_id(request.get("id")) or not isinstance(request.get("method"), str):
        return None
    return request


def _is_message(line: bytes) -> bool:
    """Return True if this may be a message of a host, also one that the protocol forbids."""
    try:
        message = json.loads(line.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        return False
    return isinstance(message, list) or (isinstance(message, dict) and "jsonrpc" in message)


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


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_json_object(value: object) -> TypeGuard[JSON]:
    return isinstance(value, dict)


def _is_client(value: object) -> bool:
    """Return True if this is a client's description: its name and version, and all values are strings."""
    if not _is_json_object(value) or not {"name", "version"} <= value.keys() <= CLIENT_FIELDS:
        return False
    return all(isinstance(each, str) for each in value.values())


def _is_capabilities(value: object) -> bool:
    """Return True if the SDK accepts these capabilities in every version of the protocol."""
    return _is_json_object(value) and all(_is_capability(name, each) for name, each in value.items())


def _declares_apps(capabilities: JSON) -> bool:
    """Return True if a client shows cards: its list of tools names them."""
    mime_types = capabilities.get("extensions", {}).get(APPS, {}).get("mimeTypes")
    return isinstance(mime_types, list) and CARD_MIME_TYPE in mime_types


def _is_capability(name: str, value: object) -> bool:
    if not _is_json_object(value):
        return False
    if name == "roots":
        return not value or (value.keys() == {"listChanged"} and isinstance(value["listChanged"], bool))
    if name == "tasks":
        return _is_object_tree(value)
    return name in CAPABILITIES and all(_is_json_object(each) for each in value.values())


def _is_object_tree(value: object, depth: int = TASKS_DEPTH) -> bool:
    """Return True if the value consists of objects only, and is at most this deep."""
    return _is_json_object(value) and depth > 0 and all(_is_object_tree(each, depth - 1) for each in value.values())
