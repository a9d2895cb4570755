"""Run the team server for `agent-jobs serve --http`."""

import gc
import logging
import os
from contextlib import closing
from dataclasses import replace
from socket import socket

import anyio
import click

from agent_jobs.cli.session import convert_errors, read_settings, reload_settings
from agent_jobs.settings.settings import Settings
from agent_jobs.team_server.app import MCP_PATH
from agent_jobs.team_server.server import describe_address, open_listener, open_team_server

#: File descriptors that this process may open. The usual limit of 1024 is less than the connections of a busy team.
MAX_FILES = 65_536
#: Objects that are made between two searches for garbage. By default they take a tenth of the CPU of a busy server.
GARBAGE_OBJECTS = 20_000


def serve_team(host: str | None, port: int | None) -> None:
    """Serve until a signal ends it. The options go before the settings."""
    settings = read_settings()
    if host is not None:
        settings = replace(settings, host=host)
    if port is not None:
        settings = replace(settings, port=port)
    # Other packages log messages with prompts, and headers with tokens, at their finer levels.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("agent_jobs").setLevel(settings.log_level.upper())
    _raise_file_limit()
    with convert_errors(), closing(open_listener(settings)) as listener:
        settings = replace(settings, port=listener.getsockname()[1])
        anyio.run(_serve_until_signal, settings, listener)


async def _serve_until_signal(settings: Settings, listener: socket) -> None:
    async with open_team_server(settings, reload=reload_settings) as server:
        address = describe_address(settings)
        click.echo(f"Serving MCP at {address} (pid {os.getpid()}).", err=True)
        click.echo(f"The page is at {address.removesuffix(MCP_PATH)}/ for users with a token.", err=True)
        if not await server.engine.owners.has_good_token():
            click.echo("There is no token yet. Make one with: agent-jobs token add OWNER", err=True)
        _search_garbage_less()
        await server.run(listener)


def _search_garbage_less() -> None:
    """Search for garbage less often, and never among what was loaded: that would stop all callers for 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)


def _raise_file_limit() -> None:
    try:
        import resource
    except ImportError:  # pragma: no cover  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
