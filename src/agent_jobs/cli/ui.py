"""`agent-jobs ui`: serve the page of this user's jobs."""

import socket
import time
import webbrowser
from contextlib import closing
from pathlib import Path

import click

from agent_jobs.cli.session import Session, read_settings, run_in_session
from agent_jobs.text import describe_listen_error

#: No well-known program listens there.
DEFAULT_PORT = 4777
LOOPBACK = "127.0.0.1"


@click.command("ui")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option("--open/--no-open", "opens", default=True, help="Open the page in a browser.")
def ui_command(port: int, opens: bool) -> None:
    """Show your jobs in a browser.

    The page is on this machine only. It prints a link that signs one browser in.
    """
    settings = read_settings()
    with closing(_open_listener(port)) as listener:

        async def serve(session: Session) -> None:
            await _serve_page(session, settings.data_path(), listener, opens=opens)

        # Other processes read there where the page is.
        run_in_session(serve, role="works", what=f"ui http://{LOOPBACK}:{listener.getsockname()[1]}", settings=settings)


def _open_listener(port: int) -> socket.socket:
    """Return a socket that listens on this port of this machine alone."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()
    except OSError as error:
        listener.close()
        reason = describe_listen_error(error)
        raise click.ClickException(
            f"Cannot listen on port {port} ({reason}). Another page may be running: choose another --port, or "
            "0 for a free one."
        ) from None
    return listener


async def _serve_page(session: Session, folder: Path, listener: socket.socket, *, opens: bool) -> None:
    """Serve the page until the command is interrupted."""
    from agent_jobs.page.access import LinkAccess, read_secret
    from agent_jobs.page.server import serve_page

    access = LinkAccess(read_secret(folder), time.time)
    port = listener.getsockname()[1]
    link = f"http://{LOOPBACK}:{port}/sign-in?token={access.create_link_token()}"
    click.echo(f"Your jobs: {link}")
    click.echo("The link signs one browser in, within ten minutes. Ctrl-C stops the page; jobs continue.", err=True)
    if opens:
        webbrowser.open(link)
    await serve_page(session.app.engine, access, listener)
