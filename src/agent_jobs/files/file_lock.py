"""Lock an open file; the operating system frees the lock as soon as its process dies."""

import sys

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def take(descriptor: int) -> None:
        """Lock an open file; raise OSError if another process has it."""
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def take(descriptor: int) -> None:
        """Lock an open file; raise OSError if another process has it."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
