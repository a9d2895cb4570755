"""`agent-jobs serve`: run the MCP server."""

import sys

import click

#: What a person reads who starts the server at a terminal.
WAITING = """\
This is the MCP server. It waits on stdin for the messages of a host, which starts it itself. Ctrl-C ends it.
To add it to a host:    agent-jobs install HOST
To run a job from here: agent-jobs run PROMPT"""


@click.command("serve")
@click.option("--http", "over_http", is_flag=True, help="Serve a team over HTTP instead.")
@click.option("--host", metavar="ADDRESS", help="Listen on this address.  [AGENT_JOBS_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="And on this port.  [AGENT_JOBS_PORT, else 8000]")
def serve_command(over_http: bool, host: str | None, port: int | None) -> None:
    """Serve MCP on stdin and stdout, or over HTTP.

    A host gets the same server without a command. At a terminal, stderr says what it waits for.

    With --http it serves Streamable HTTP at /mcp. Each caller needs a token, which `agent-jobs token add` makes, and
    sees the jobs of its owner alone.
    """
    if over_http:
        if host is not None:
            host = _check_host(host)
        from agent_jobs.cli.serve_http import serve_team

        return serve_team(host, port)
    if host is not None or port is not None:
        raise click.UsageError("--host and --port belong to --http.")
    if sys.stdin.isatty():
        click.echo(WAITING, err=True)
    from agent_jobs.mcp_server.front_door import open_front_door

    door = open_front_door()
    from agent_jobs.mcp_server.stdio import serve

    return serve(door)


def _check_host(text: str) -> str:
    """Return the address of --host. It is checked as AGENT_JOBS_HOST is."""
    from agent_jobs.settings.address_values import HOST_ACCEPTS, find_host  # not needed on stdin

    host = find_host(text)
    if not host:
        raise click.UsageError(f"--host accepts {HOST_ACCEPTS}.")
    return host
