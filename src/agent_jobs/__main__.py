"""`agent-jobs` without arguments is the stdio server; everything else is the command line, imported only then."""

import os
import sys


def main() -> None:
    """Decide before anything is imported: a host waits for `initialize`."""
    # A shell that asks what may follow gives no arguments either.
    if len(sys.argv) == 1 and not sys.stdin.isatty() and "_AGENT_JOBS_COMPLETE" not in os.environ:
        from agent_jobs.stdio import serve

        serve()
    else:
        from agent_jobs.cli import cli

        cli(prog_name="agent-jobs")


if __name__ == "__main__":
    main()
