"""`agent-jobs` without a command is the stdio server; everything else is the command line, imported only then."""

import gc
import os
import sys

from agent_jobs.ctrl_c import end_on_ctrl_c


def main() -> None:
    """Run the server or a command; Ctrl-C ends both in one wording, from here to the end of the interpreter."""
    end_on_ctrl_c()
    _serve_or_command()


def _serve_or_command() -> None:
    """Decide before anything is imported: a host waits for `initialize`."""
    _open_what_is_closed()
    match sys.argv[1:]:
        case []:
            # A shell that asks what may follow gives no arguments either.
            serving, env_file = "_AGENT_JOBS_COMPLETE" not in os.environ, None
        case ["--env-file", env_file]:
            serving = True
        case _:
            serving, env_file = False, None
    if serving and not sys.stdin.isatty():
        from agent_jobs.mcp_server.front_door import open_front_door

        door = open_front_door(has_env_file=env_file is not None)
        gc.disable()  # what is imported stays; `stdio` starts the collector again
        from agent_jobs.mcp_server.stdio import serve

        serve(door, env_file)
    else:
        from agent_jobs.cli.main import cli

        cli(prog_name="agent-jobs")


def _open_what_is_closed() -> None:
    """Put nothing in the place of standard streams that are closed: the next file that is opened would take theirs."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for good


if __name__ == "__main__":
    main()
