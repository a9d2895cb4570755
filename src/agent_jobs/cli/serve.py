"""`agent-jobs serve`: run the MCP server."""

import click


@click.command("serve")
def serve_command() -> None:
    """Serve MCP on stdin and stdout.

    A host gets the same server without a command.
    """
    from agent_jobs.mcp_server.front_door import open_front_door

    door = open_front_door()
    from agent_jobs.mcp_server.stdio import serve

    serve(door)
