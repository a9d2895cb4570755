"""`agent-jobs emulator`: serve an emulated Responses API."""

import threading
from contextlib import ExitStack, suppress

import click

from agent_jobs.ctrl_c import raise_on_ctrl_c
from agent_jobs.text import describe_listen_error


@click.command("emulator")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option(
    "--time-scale", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
    help="Emulated seconds in each real second.",
)  # fmt: skip
def emulator_command(host: str, port: int, time_scale: float) -> None:
    """Serve an emulated Responses API.

    Use it to try agent-jobs without a key.
    """
    from agent_jobs.emulator.server import run_emulator

    with ExitStack() as stack:
        try:
            server = stack.enter_context(run_emulator(host=host, port=port, time_scale=time_scale))
        except (OSError, ValueError) as error:  # a name that IDNA cannot encode is a ValueError
            reason = describe_listen_error(error)
            raise click.ClickException(
                f"Cannot listen on {host}:{port} ({reason}). Choose another --port, or 0 for a free one."
            ) from None
        stack.enter_context(suppress(KeyboardInterrupt))
        stack.enter_context(raise_on_ctrl_c())
        click.echo("An emulated Responses API is ready. Its answers do not come from a model.\n")
        click.echo(f"  export OPENAI_BASE_URL={server.base_url} OPENAI_API_KEY=emulated\n")
        click.echo(f"Its faults, counters and log: {server.url}/_emulator")
        threading.Event().wait()
