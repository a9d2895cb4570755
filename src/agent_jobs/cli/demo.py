"""`agent-jobs demo`: show that a job outlives its server."""

import click


@click.command("demo")
@click.argument("question", required=False)
def demo_command(question: str | None) -> None:
    """Show a job that outlives its killed server.

    Needs no key and no network, and takes about ten seconds.
    """
    from agent_jobs.cli.demo_story import QUESTION, run_demo

    raise SystemExit(run_demo(question or QUESTION))
