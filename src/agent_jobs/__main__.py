"""`agent-jobs` without arguments is the stdio server; everything else is the command line, imported only then."""

import sys


def main() -> None:
    """Decide before anything is imported: a host waits for `initialize`."""
    if len(sys.argv) == 1 and not sys.stdin.isatty():
        from agent_jobs.stdio import serve

        serve()
    else:
        from agent_jobs.cli import cli

        cli()


if __name__ == "__main__":
    main()
