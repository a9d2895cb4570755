"""Standard output and error whose reader may leave: what a command does and how it exits do not depend on that."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_left: set[int] = set()


class _PatientFile(io.FileIO):
    """A descriptor that takes what is written to it although nothing reads from it any more."""

    def write(self, data: "WriteableBuffer", /) -> int:
        """Write, or from the first write on that fails, write to nowhere; raise why, unless the reader is gone."""
        try:
            return super().write(data) or 0
        except OSError as error:
            self._lead_nowhere()  # what is still buffered would fail once more at exit
            if not _is_reader_gone(error):
                raise
        _left.add(self.fileno())
        return memoryview(data).nbytes

    def _lead_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def outlive_readers() -> None:
    """Have both streams go on without a reader, such as `head -1` once it has its line."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            with suppress(OSError, ValueError):  # no descriptor of the system stands behind it
                setattr(sys, name, _patient(cast("io.TextIOWrapper[io.BufferedWriter]", stream)))


def is_stdout_left() -> bool:
    """Return True if something could not be written to stdout, since its reader is gone."""
    return 1 in _left


def _patient(stream: "io.TextIOWrapper[io.BufferedWriter]") -> TextIO:
    stream.flush()
    file = _PatientFile(stream.fileno(), "w", closefd=False)
    buffered = io.BufferedWriter(file)
    is_direct = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(buffered, stream.encoding, stream.errors, line_buffering=is_direct)


def _is_reader_gone(error: OSError) -> bool:
    # Windows says EINVAL.
    return error.errno == errno.EPIPE or (sys.platform == "win32" and error.errno == errno.EINVAL)
