"""The lock of an open file, which the operating system frees the moment its process dies."""

import sys

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def take(descriptor: int) -> None:
        """Lock an open file; OSError where another process has it."""
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def take(descriptor: int) -> None:
        """Lock an open file; OSError where another process has it."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
