"""Send signals to a process and to all that it started."""

import os
import signal
import sys
from contextlib import suppress
from typing import Protocol


class GroupLeader(Protocol):
    """A process that was started in a session of its own."""

    @property
    def pid(self) -> int:
        """Return the id of the process, which is also that of its group."""
        ...

    def kill(self) -> None:
        """End the process alone."""
        ...


def signal_group(leader: GroupLeader, name: str = "SIGKILL") -> None:
    """Send a signal to a process and its children; Windows has no groups, so it ends the process alone."""
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses it for processes that just died
        if sys.platform == "win32":  # pragma: no cover
            leader.kill()
        else:
            os.killpg(leader.pid, getattr(signal, name))
