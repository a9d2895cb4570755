"""`agent-jobs emulator`: the look-alike of the Responses API on a port of its own."""

import threading
from contextlib import ExitStack, suppress

import click

from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.emulator import running


def run(host: str, port: int, time_scale: float) -> None:
    """Serve until somebody interrupts."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running(host=host, port=port, time_scale=time_scale))
        except OSError as error:
            raise click.ClickException(
                f"Nothing can listen there ({error.strerror}): give another --port, or 0."
            ) from None
        stack.enter_context(suppress(KeyboardInterrupt))
        stack.enter_context(raise_on_ctrl_c())
        click.echo("An emulated Responses API is ready. Nothing it answers comes from a model.\n")
        click.echo(f"  export OPENAI_BASE_URL={server.base_url} OPENAI_API_KEY=emulated\n")
        click.echo(f"Faults, counters and its log: {server.url}/_emulator")
        threading.Event().wait()
