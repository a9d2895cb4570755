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
#: Errors of a write whose reader is gone.
_READER_GONE = {errno.EPIPE}
if sys.platform == "win32":
    _READER_GONE.add(errno.EINVAL)  # Windows reports a broken pipe so

STDOUT, STDERR = 1, 2


class OutputError(OSError):
    """Stdout cannot be written."""


class _PatientFile(io.FileIO):
    """A file that accepts writes after its reader is gone."""

    def write(self, data: "WriteableBuffer", /) -> int:
        """Write; after a write that failed, discard all others.

        Raises:
            OutputError: It is stdout, and the error does not mean that its reader is gone.
        """
        try:
            return super().write(data) or 0
        except OSError as error:
            self._discard_writes()  # buffered text would fail again at exit
            if error.errno in _READER_GONE:
                _left.add(self.fileno())
            elif self.fileno() != STDERR:  # a command does not fail because it cannot say something
                raise OutputError(error.errno, error.strerror) from None
        return memoryview(data).nbytes

    def _discard_writes(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


class _ClosedFile(io.RawIOBase):
    """A stdout that the caller closed: the first write fails, and later ones are discarded."""

    def __init__(self) -> None:
        self._has_failed = False

    def writable(self) -> bool:
        """Return True: text can be given to it."""
        return True

    def write(self, data: "WriteableBuffer", /) -> int:
        """Fail once.

        Raises:
            OutputError: At the first write; buffered text would fail again at exit.
        """
        if not self._has_failed:
            self._has_failed = True
            raise OutputError(errno.EBADF, "stdout is closed")
        return memoryview(data).nbytes


def replace_output_streams() -> None:
    """Replace stdout and stderr by streams that work without a reader, and a closed stdout by one that reports it."""
    if _is_stdout_closed():
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_ClosedFile()), "utf-8")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            with suppress(OSError, ValueError):  # the stream has no file descriptor
                setattr(sys, name, _open_patient_stream(cast("io.TextIOWrapper[io.BufferedWriter]", stream)))


def is_stdout_abandoned() -> bool:
    """Return True if a write to stdout failed because its reader is gone."""
    return STDOUT in _left


def require_stdout() -> None:
    """Check that there is a stdout.

    Raises:
        OutputError: The caller closed it.
    """
    if isinstance(getattr(getattr(sys.stdout, "buffer", None), "raw", None), _ClosedFile):
        raise OutputError(errno.EBADF, "stdout is closed")


def _is_stdout_closed() -> bool:
    """Return True if the caller closed stdout, and `__main__` put the null device in its place."""
    return getattr(sys.stdout, "name", "") == os.devnull


class _WrappedText(io.TextIOWrapper):
    """The output of a command on a terminal: no line ends within a word."""

    def write(self, text: str, /) -> int:
        """Write a text, wrapped to the width of the terminal."""
        super().write(self._wrap(text))
        return len(text)

    def _wrap(self, text: str) -> str:
        with suppress(OSError):  # a terminal that does not say how wide it is
            columns = os.get_terminal_size(self.fileno()).columns
            if columns and len(text) > columns:
                from agent_jobs.cli.display.wrapping import wrap_text  # the help does without

                return wrap_text(text, columns)
        return text


def _open_patient_stream(stream: "io.TextIOWrapper[io.BufferedWriter]") -> TextIO:
    """Return a text stream on the same descriptor."""
    stream.flush()
    file = _PatientFile(stream.fileno(), "w", closefd=False)
    buffered = io.BufferedWriter(file)
    is_direct = stream.line_buffering or stream.write_through
    is_spoken = file.fileno() == STDERR and stream.isatty()
    kind = _WrappedText if is_spoken else io.TextIOWrapper
    return kind(buffered, stream.encoding, stream.errors, line_buffering=is_direct)
