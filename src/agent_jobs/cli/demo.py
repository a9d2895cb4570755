"""`agent-jobs demo`."""

import click


@click.command("demo")
@click.argument("question", default="What makes a background job trustworthy?")
def demo_command(question: str) -> None:
    """Watch a job outlive its killed server.

    No key, no network, about ten seconds.
    """
    from agent_jobs.cli.demo_story import run

    raise SystemExit(run(question))
