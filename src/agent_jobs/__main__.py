"""`agent-jobs` without a command is the stdio server; everything else is the command line, imported only then."""

import os
import sys


def main() -> None:
    """Decide before anything is imported: a host waits for `initialize`."""
    match sys.argv[1:]:
        case []:
            # A shell that asks what may follow gives no arguments either.
            serving, env_file = "_AGENT_JOBS_COMPLETE" not in os.environ, None
        case ["--env-file", env_file]:
            serving = True
        case _:
            serving, env_file = False, None
    if serving and not sys.stdin.isatty():
        from agent_jobs.stdio import serve

        serve(env_file)
    else:
        from agent_jobs.cli import cli

        cli(prog_name="agent-jobs")


if __name__ == "__main__":
    main()
