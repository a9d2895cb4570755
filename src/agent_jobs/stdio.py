"""The MCP server on stdin and stdout: the wire, the signals, the log."""

import json
import logging
import os
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from typing import Any, cast

import anyio
from anyio.from_thread import run_sync
from anyio.lowlevel import EventLoopToken, current_token
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from agent_jobs.app import leave_on_signal, open_app
from agent_jobs.errors import ConfigError
from agent_jobs.server import build_server
from agent_jobs.settings import Settings, with_env_file

logger = logging.getLogger(__name__)

LOG_BYTES, LOG_FILES = 2_000_000, 5
#: The id in a line that cannot be parsed.
_ID = re.compile(r'"id"\s*:\s*(\d{1,18}|"[\w-]{1,100}")(?=\s*[,}])')


#: A text in JSON, whose braces count for nothing.
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


def serve(env_file: str | None = None) -> None:
    """Serve MCP over stdio until the host closes stdin or sends SIGTERM, SIGINT or SIGHUP.

    The variables of `env_file` join the environment first, so that proxies and certificates may stand there too.
    Whatever is wrong with the settings or the machine, the server stays up and its tools say what to do: hosts do
    not start a server again that ended.
    """
    try:
        if env_file is not None:
            os.environ.update(with_env_file(os.environ, env_file))
        settings: Settings | ConfigError = Settings.from_env(os.environ)
    except ConfigError as error:
        settings = error
    _log_to_stderr(settings.log_level if isinstance(settings, Settings) else "warning")
    for warning in settings.warnings if isinstance(settings, Settings) else ():
        logger.warning("%s", warning)
    try:
        anyio.run(_serve, settings)
    except* BrokenPipeError:  # the host closed stdout, which ends a session as well as closing stdin
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is buffered goes there at exit


async def _serve(settings: Settings | ConfigError) -> None:
    # The app is entered outside of what a signal cancels: its last writes need the loop.
    async with open_app(settings) as app, anyio.create_task_group() as tasks:
        tasks.start_soon(leave_on_signal, tasks.cancel_scope)
        if isinstance(settings, Settings):
            tasks.start_soon(anyio.to_thread.run_sync, _log_to_file, settings)
            server = build_server(app.engine, max_wait_s=settings.max_wait_s, may_approve=settings.approvals == "model")
        else:
            server = build_server(app.engine)
        low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # mcp 2.3 has no public way to run on streams
        lines = _Lines(_take_stdin())
        async with stdio_server(stdin=cast("anyio.AsyncFile[str]", lines)) as (incoming, outgoing):
            lines.refuse = outgoing.send
            await low.run(incoming, outgoing, low.create_initialization_options())
        tasks.cancel_scope.cancel()


def _take_stdin() -> int:
    """A private descriptor of stdin; what tools and child processes read is empty from now on."""
    wire = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return wire


class _Lines:
    """Lines of a file descriptor as an async iterator that can be cancelled.

    A thread that reads through Python's buffered stdin holds its lock until a line comes, and the interpreter waits
    for that at exit; a daemon thread on `os.read` holds nothing.
    """

    def __init__(self, descriptor: int) -> None:
        self.refuse: Callable[[SessionMessage], Awaitable[None]] | None = None
        self._send, self._lines = anyio.create_memory_object_stream[bytes](float("inf"))
        threading.Thread(target=self._pump, args=(descriptor, current_token()), daemon=True).start()

    def _pump(self, descriptor: int, token: EventLoopToken) -> None:
        rest = b""
        # The loop ends before this thread does.
        with suppress(RuntimeError, OSError, anyio.BrokenResourceError):
            while chunk := os.read(descriptor, 65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    run_sync(self._send.send_nowait, line, token=token)
            run_sync(self._send.close, token=token)

    def __aiter__(self) -> "_Lines":
        return self

    async def __anext__(self) -> str:
        while True:
            try:
                line = (await self._lines.receive()).decode("utf-8", "replace").lstrip("\ufeff")
            except anyio.EndOfStream:
                raise StopAsyncIteration from None
            if not line.strip():
                continue
            if _is_message(line):
                return line
            repaired, error = _repaired(line)
            if error is None:
                return repaired
            if self.refuse is not None:
                await self.refuse(SessionMessage(error))


def _is_message(line: str) -> bool:
    try:
        jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return False
    return True


def _repaired(line: str) -> tuple[str, JSONRPCError | None]:
    """Return a line without half surrogate pairs, or the error that answers a line that is no message."""
    code, why, message = PARSE_ERROR, "This line is not JSON.", None
    with suppress(ValueError, RecursionError):
        message = json.loads(line, strict=False)
        text = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace").decode()
        if _is_message(text):
            return text, None
        code, why = INVALID_REQUEST, "This line is no JSON-RPC message: send one request a line."
    number = _id_in(line) if message is None else _id_of(message)
    return "", JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=code, message=why))


def _id_of(message: object) -> int | str | None:
    """Return the id of a request; None for an answer, whose id is one of ours, and for anything without an id."""
    if not isinstance(message, dict):
        return None
    fields = cast("dict[str, Any]", message)
    number = fields.get("id")
    is_answer = "result" in fields or "error" in fields
    return None if is_answer or isinstance(number, bool) or not isinstance(number, int | str) else number


def _id_in(line: str) -> int | str | None:
    """Return the id of a request in a line that is no JSON: the first at its top level, not one of an argument."""
    for found in _ID.finditer(line):
        before = _TEXT.sub("", line[: found.start()])
        if before.count("{") - before.count("}") == 1 and before.count("[") == before.count("]"):
            return json.loads(found[1])
    return None


def _log_to_stderr(level: str) -> None:
    """Little to stderr, which hosts show as errors: our own loggers from `level`, everybody else's warnings."""
    handler = logging.StreamHandler()
    handler.setLevel(level.upper())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", handlers=[handler])
    logging.getLogger("agent_jobs").setLevel(min(logging.INFO, handler.level))


def _log_to_file(settings: Settings) -> None:
    """The detail goes to a file beside the database; a folder that cannot be written is the tools' to tell."""
    with suppress(OSError):
        folder = settings.data_path()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            folder / "agent-jobs.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True
        )
        handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
