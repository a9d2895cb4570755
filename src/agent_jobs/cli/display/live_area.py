"""Write over the last lines of a terminal."""

import os
import shutil
from collections.abc import Sequence
from typing import IO, Any

#: Move the cursor up by a number of lines, to the first column, and clear everything below.
_ERASE = "\r\x1b[{count}A\x1b[J"
#: Columns and lines of a terminal that does not say how large it is.
DEFAULT_SIZE = (80, 24)


class LiveArea:
    """Lines at the bottom of the terminal, none wider than it. The cursor is below them, in the first column."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream
        self._shown: Sequence[str] = ()

    @property
    def size(self) -> os.terminal_size:
        """Return the columns and lines of the terminal."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return shutil.get_terminal_size(DEFAULT_SIZE)
        return os.terminal_size((size.columns or DEFAULT_SIZE[0], size.lines or DEFAULT_SIZE[1]))

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of those that are shown."""
        if tuple(lines) == self._shown:
            return
        self._write_at_once(self._build_erasing() + "\n".join([*lines, ""]))
        self._shown = tuple(lines)

    def erase(self) -> None:
        """Show nothing, so that other output can be written where the lines were."""
        self.draw(())

    def _build_erasing(self) -> str:
        if not self._shown:
            return ""
        return _ERASE.format(count=len(self._shown))

    def _write_at_once(self, text: str) -> None:
        """Write everything at once: a terminal that shows half of it flickers."""
        self._stream.write(text)
        self._stream.flush()
