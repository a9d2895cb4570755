"""`agent-jobs serve`: run the MCP server."""

import sys

import click

#: What a person reads who starts the server at a terminal.
WAITING = """\
This is the MCP server. It waits on stdin for the messages of a host, which starts it itself. Ctrl-C ends it.
To add it to a host:    agent-jobs install HOST
To run a job from here: agent-jobs run PROMPT"""


@click.command("serve")
def serve_command() -> None:
    """Serve MCP on stdin and stdout.

    A host gets the same server without a command. At a terminal, stderr says what it waits for.
    """
    if sys.stdin.isatty():
        click.echo(WAITING, err=True)
    from agent_jobs.mcp_server.front_door import open_front_door

    door = open_front_door()
    from agent_jobs.mcp_server.stdio import serve

    serve(door)
