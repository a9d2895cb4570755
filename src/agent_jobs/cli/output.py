"""Let a command finish when the reader of its output leaves, such as `head -1`."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Descriptors whose reader is gone.
_left: set[int] = set()


class _PatientFile(io.FileIO):
    """A file that accepts writes after its reader is gone."""

    def write(self, data: "WriteableBuffer", /) -> int:
        """Write; after a write that failed, discard all others. Raise an error that does not mean a missing reader."""
        try:
            return super().write(data) or 0
        except OSError as error:
            self._discard_writes()  # buffered text would fail again at exit
            if not _is_reader_gone(error):
                raise
        _left.add(self.fileno())
        return memoryview(data).nbytes

    def _discard_writes(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def outlive_readers() -> None:
    """Replace stdout and stderr by streams that work without a reader."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            with suppress(OSError, ValueError):  # the stream has no file descriptor
                setattr(sys, name, _open_patient_stream(cast("io.TextIOWrapper[io.BufferedWriter]", stream)))


def is_stdout_left() -> bool:
    """Return True if a write to stdout failed because its reader is gone."""
    return 1 in _left


def require_stdout() -> None:
    """Check that there is a stdout.

    Raises:
        OSError: The caller closed it, and `__main__` put the null device in its place.
    """
    if getattr(sys.stdout, "name", "") == os.devnull:
        raise OSError(errno.EBADF, "stdout is closed")


def _open_patient_stream(stream: "io.TextIOWrapper[io.BufferedWriter]") -> TextIO:
    """Return a text stream on the same descriptor."""
    stream.flush()
    file = _PatientFile(stream.fileno(), "w", closefd=False)
    buffered = io.BufferedWriter(file)
    is_direct = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(buffered, stream.encoding, stream.errors, line_buffering=is_direct)


def _is_reader_gone(error: OSError) -> bool:
    if sys.platform == "win32" and error.errno == errno.EINVAL:
        return True  # Windows reports a broken pipe as EINVAL
    return error.errno == errno.EPIPE
