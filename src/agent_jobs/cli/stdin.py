"""Read text that was piped or redirected into a command."""

import os
import sys
from contextlib import suppress
from stat import S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK
from threading import Thread

import click

from agent_jobs.files.text_file import decode_text

#: Seconds until a silent pipe counts as inherited: hosts and ssh leave one open that never brings anything.
PIPE_WAIT_S = 3.0
FIRST_READ_BYTES = 65_536  # the capacity of a pipe on Linux


def read_prompt(prompt: str) -> str:
    """Return the prompt with the piped text appended; for a prompt of `-`, only stdin."""
    if prompt == "-":
        return _decode_stdin(sys.stdin.buffer.read())
    piped = read_piped()
    if not piped.strip():
        return prompt
    return f"{prompt}\n\n{piped}"


def read_piped() -> str:
    """Return the text piped or redirected into stdin; an empty string for a terminal, a device or a closed stdin.

    A pipe that was only inherited may never bring anything, so the first byte is waited for at most `PIPE_WAIT_S`.
    """
    if not _is_stdin_redirected():
        return ""
    first: list[bytes] = []

    def read_first() -> None:
        with suppress(OSError):
            first.append(os.read(0, FIRST_READ_BYTES))

    reader = Thread(target=read_first, daemon=True)
    reader.start()
    reader.join(PIPE_WAIT_S)
    if reader.is_alive():
        click.echo(
            f"Nothing came from stdin within {PIPE_WAIT_S:g} s, so it is not part of the prompt. "
            "Use - as the prompt to wait for it, or add </dev/null.",
            err=True,
        )
        return ""
    if not any(first):
        return ""
    return _decode_stdin(first[0] + sys.stdin.buffer.read())


def _is_stdin_redirected() -> bool:
    """Return True if stdin is a file, a pipe or a socket."""
    try:
        kind = os.fstat(0).st_mode
    except OSError:  # stdin is closed
        return False
    return S_IFMT(kind) in (S_IFREG, S_IFIFO, S_IFSOCK)


def _decode_stdin(data: bytes) -> str:
    """Return bytes of stdin as text. The locale is ignored, because it may put other characters there."""
    try:
        return decode_text(data).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"stdin is not UTF-8 (byte {error.start + 1}): save it as text in UTF-8.") from None
