"""Run the stdio server, or a command if there is one: the command line is imported only then."""

import gc
import os
import sys

from agent_jobs.ctrl_c import end_on_ctrl_c


def main() -> None:
    """Run the server or a command. Ctrl-C ends both with the same sentence, up to the end of the interpreter."""
    end_on_ctrl_c()
    _serve_or_command()


def _serve_or_command() -> None:
    """Decide before anything is imported: a host waits for `initialize`."""
    _open_closed_streams()
    match sys.argv[1:]:
        case []:
            # A shell that asks for completions gives no arguments either.
            serving, env_file = "_AGENT_JOBS_COMPLETE" not in os.environ, None
        case ["--env-file", env_file]:
            serving = True
        case _:
            serving, env_file = False, None
    if serving and not sys.stdin.isatty():
        from agent_jobs.mcp_server.front_door import open_front_door

        door = open_front_door(has_env_file=env_file is not None)
        gc.disable()  # imported modules are no garbage; `stdio` starts the collector again
        from agent_jobs.mcp_server.stdio import serve

        serve(door, env_file)
    else:
        from agent_jobs.cli.main import cli

        cli(prog_name="agent-jobs")


def _open_closed_streams() -> None:
    """Open the null device in place of closed standard streams: the next file would get their descriptors."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for good


if __name__ == "__main__":
    main()
