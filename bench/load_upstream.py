"""The emulator in a process of its own, so that its CPU time is in no other figure."""

import sys
import threading

from agent_jobs.emulator.server import run_emulator


def main() -> None:
    """Serve until killed; print the port. The arguments are where webhooks go, and their secret, if any are sent."""
    with run_emulator() as server:
        if sys.argv[1:]:
            server.emulator.send_webhooks(*sys.argv[1:])
        print(server.url.rpartition(":")[2], flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
