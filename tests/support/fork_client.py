"""Ask a fork server for a fork, and stand for it: pass signals on, and end as it ends.

`python -IS fork_client.py SOCKET PYTHON ARGUMENT...` is `PYTHON ARGUMENT...`, where the arguments begin with
`-m agent_jobs` or a script. The fork takes itself to be run by that PYTHON, and has the folders of `PYTHONPATH`. This
program imports next to nothing.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH)


def ask(end: socket.socket, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Send what is to be forked, with its standard streams."""
    socket.send_fds(end, [b"."], descriptors)
    body = json.dumps(request).encode()
    end.sendall(len(body).to_bytes(4) + body)


def main(address: str, python: str, *arguments: str) -> None:
    """Run the arguments of an interpreter as a fork."""
    end = socket.socket(socket.AF_UNIX)
    end.connect(address)
    # Until the pid is there, a signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "is_session": False,
        "python": python,
        "module_folders": [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))],
    }
    ask(end, request, (0, 1, 2))
    pid = int.from_bytes(end.recv(4, socket.MSG_WAITALL))
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    status = int.from_bytes(end.recv(4, socket.MSG_WAITALL), signed=True)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
