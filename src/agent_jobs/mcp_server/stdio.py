"""Run the MCP server on stdin and stdout, with its signals and its log."""

import asyncio
import gc
import logging
import os
import select
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from logging.handlers import RotatingFileHandler
from select import PIPE_BUF

import anyio
from anyio import CancelScope
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.server import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse

from agent_jobs import jsonrpc
from agent_jobs.app import open_app
from agent_jobs.errors import ConfigError
from agent_jobs.files.text_file import BOM
from agent_jobs.mcp_server.front_door import FrontDoor, write_all
from agent_jobs.mcp_server.server import build_server
from agent_jobs.settings.configuration import load_settings, load_usable_settings
from agent_jobs.settings.settings import Settings
from agent_jobs.wiring.end_signals import cancel_on_signal

logger = logging.getLogger(__name__)

LOG_BYTES = 2_000_000  # of one log file
LOG_FILES = 5  # older ones are deleted


def serve(door: FrontDoor, env_file: str | None = None) -> None:
    """Serve MCP on the wire of `door` until the host closes stdin or sends SIGTERM, SIGINT or SIGHUP.

    The variables of `env_file` join the environment first, so that the file may also name proxies and certificates.
    With wrong settings, or on a broken machine, the server stays up and its tools say what to do: hosts do not start a
    server again after it has exited.
    """
    settings = _load_settings(env_file)
    if isinstance(settings, ConfigError):
        _log_to_stderr("warning")
    else:
        _log_to_stderr(settings.log_level)
        _log_warnings(settings)
    anyio.run(_serve_until_closed, settings, door, partial(_load_settings, env_file))


def _log_warnings(settings: Settings) -> None:
    if not settings.warnings:
        return
    from agent_jobs.mcp_server.wording import LOG_READER  # not needed to start

    for warning in settings.warnings:
        logger.warning("%s", LOG_READER.describe(warning))


def _load_settings(env_file: str | None) -> Settings | ConfigError:
    """Return the settings, or the error about them."""
    try:
        if env_file is not None:
            from agent_jobs.settings.env_file import add_env_file  # few hosts name one

            os.environ.update(add_env_file(os.environ, env_file))
        return load_settings(os.environ)
    except ConfigError as error:
        return error


async def _serve_until_closed(
    settings: Settings | ConfigError, door: FrontDoor, reload: Callable[[], Settings | ConfigError]
) -> None:
    # A signal cancels the task group. The app is outside of it, because its last writes need the loop.
    async with open_app(settings, reload=reload) as app, anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_on_signal, tasks.cancel_scope)
        if isinstance(settings, Settings):
            tasks.start_soon(anyio.to_thread.run_sync, _log_to_file, settings)
            server = build_server(
                app.engine,
                max_wait_s=settings.max_wait_s,
                may_approve=settings.approvals == "model",
                has_tasks=settings.tasks == "auto",
                is_structured=settings.structured,
            )
        else:
            usable, _ = load_usable_settings(os.environ)  # a program must be able to read the error
            server = build_server(app.engine, is_structured=usable.structured)
        _collect_garbage_again()
        await run_server(server, door)
        tasks.cancel_scope.cancel()


async def run_server(server: MCPServer, door: FrontDoor) -> None:
    """Take over the connection from the front door, and serve it until the host ends it."""
    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # mcp 2.3 has no public way to run on streams
    async with _open_wire(door) as (incoming, outgoing):
        await low.run(incoming, outgoing, low.create_initialization_options())


def _collect_garbage_again() -> None:
    """Start the collector that `__main__` stopped, and exempt the objects that the imports made."""
    gc.freeze()
    gc.enable()


@asynccontextmanager
async def _open_wire(
    door: FrontDoor,
) -> AsyncGenerator[tuple[ObjectReceiveStream[SessionMessage | Exception], ObjectSendStream[SessionMessage]]]:
    """Take over the connection from the front door, and yield the SDK's streams for reading and writing."""
    lines_in, lines = anyio.create_memory_object_stream[bytes](float("inf"))
    incoming_in, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, outgoing_out = anyio.create_memory_object_stream[SessionMessage](0)
    loop = asyncio.get_running_loop()

    def put_line(line: bytes | None) -> None:
        if line is None:
            lines_in.close()
            return
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # a signal has ended the server
            lines_in.send_nowait(line)

    def receive_line(line: bytes | None) -> None:
        with suppress(RuntimeError):  # the loop ends before the thread that reads
            loop.call_soon_threadsafe(put_line, line)

    answered = door.hand_over(receive_line)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_read_messages, lines, incoming_in, outgoing.clone())
        tasks.start_soon(_write_messages, outgoing_out, door.stdout, answered, tasks.cancel_scope)
        yield incoming, outgoing


async def _read_messages(
    lines: ObjectReceiveStream[bytes],
    incoming: ObjectSendStream[SessionMessage | Exception],
    outgoing: ObjectSendStream[SessionMessage],
) -> None:
    """Pass the host's messages on to the SDK; a line that is no message is answered at once."""
    async with lines, incoming, outgoing:
        with suppress(anyio.BrokenResourceError):  # the SDK has ended
            async for line in lines:
                text = line.decode("utf-8", "replace").lstrip(BOM)
                if not text.strip():
                    continue
                message, error = jsonrpc.read_request(text)
                if message is not None:
                    await incoming.send(SessionMessage(message))
                elif error is not None:
                    await outgoing.send(SessionMessage(error))


async def _write_messages(
    outgoing: ObjectReceiveStream[SessionMessage], descriptor: int, answered: set[int | str], connection: CancelScope
) -> None:
    """Write the messages of the SDK, except its answers to requests that the front door has answered.

    Cancels `connection` once the host no longer reads.
    """
    async with outgoing:
        async for each in outgoing:
            message = each.message
            if answered and isinstance(message, JSONRPCResponse | JSONRPCError) and message.id in answered:
                answered.discard(message.id)
                continue
            data = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
            try:
                if len(data) <= PIPE_BUF and _can_write(descriptor):
                    write_all(descriptor, data)
                else:
                    await anyio.to_thread.run_sync(write_all, descriptor, data)
            except OSError:
                connection.cancel()
                return


def _can_write(descriptor: int) -> bool:
    """Return True if `PIPE_BUF` bytes can be written without waiting for the reader."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _log_to_stderr(level: str) -> None:
    """Log to stderr our own records from `level` on, and warnings of other packages: hosts show them as errors."""
    handler = logging.StreamHandler()
    handler.setLevel(level.upper())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", handlers=[handler])
    logging.getLogger("agent_jobs").setLevel(min(logging.INFO, handler.level))


def _log_to_file(settings: Settings) -> None:
    """Log the details to a file beside the database. If the folder cannot be written, the tools report it."""
    with suppress(OSError):
        folder = settings.data_path()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            folder / "agent-jobs.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True
        )
        handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
