"""`agent-jobs` without a command is the stdio server; everything else is the command line, imported only then."""

import sys


def main() -> None:
    """Decide before anything is imported: a host waits for `initialize`."""
    match sys.argv[1:]:
        case []:
            serving, env_file = True, None
        case ["--env-file", env_file]:
            serving = True
        case _:
            serving, env_file = False, None
    if serving and not sys.stdin.isatty():
        from agent_jobs.stdio import serve

        serve(env_file)
    else:
        from agent_jobs.cli import cli

        cli()


if __name__ == "__main__":
    main()
