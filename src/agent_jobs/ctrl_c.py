"""Ctrl-C from `main` on: it ends the process at once, in one wording and with one exit status, unless it is caught.

A `KeyboardInterrupt` may be raised anywhere. Inside an import, an event loop or the interpreter's own end it becomes
a traceback, a wrong exit status, or is lost. So Python's handler is replaced; what has to be finished first says so.
"""

from __future__ import annotations

import atexit
import os
import signal
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # importing `typing` costs a fifth of the time to the server's first answer
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

INTERRUPTED_STATUS = 130  # what a shell reports of a program that SIGINT ended


class _State:
    """What the handler needs. Mutable: a command learns on its way what becomes of its jobs."""

    def __init__(self) -> None:
        self.describe: Callable[[], str] = str
        self.is_reported = False
        self.is_delayed = False


_state = _State()


def end_on_ctrl_c() -> None:
    """Have Ctrl-C end this process at once from now on, up to the last instruction of the interpreter.

    Where SIGINT is ignored, as in a background job of a shell script, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    signal.signal(signal.SIGINT, _end)
    # Callbacks run in reverse order. After the last one Python restores the signal's default, which would kill us.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _end(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """End the process without its clean-up: whatever is on the disk survives a SIGKILL, too."""
    if _state.is_delayed:
        _state.is_delayed = False
        return
    words = b"" if _state.is_reported else f"Interrupted. {_state.describe()}".strip().encode() + b"\n"
    _state.is_reported = True
    with suppress(OSError):
        os.write(2, words)
    os._exit(INTERRUPTED_STATUS)


def mark_interruption_reported() -> None:
    """Have later presses end the process without repeating that it was interrupted."""
    _state.is_reported = True


def describe_interruption(describe: Callable[[], str]) -> None:
    """Have Ctrl-C also say what becomes of the jobs, as it is known then."""
    _state.describe = describe


@contextmanager
def delay_ctrl_c() -> Generator[None]:
    """Ignore the first Ctrl-C in here, since the work is done and only has to be put away; the second one ends it."""
    _state.is_delayed = True
    try:
        yield
    finally:
        _state.is_delayed = False


@contextmanager
def raise_on_ctrl_c() -> Generator[None]:
    """Have Ctrl-C raise `KeyboardInterrupt` in here, where something has to be cleaned up."""
    before = signal.getsignal(signal.SIGINT)
    if before is not _end:  # it is ignored, or the caller's own
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def catch_ctrl_c(handle: Callable[[], None]) -> Generator[None]:
    """Have Ctrl-C call `handle` in the running event loop.

    A press that comes before the loop has handled the one before does what it did outside: the loop may be stuck.
    """
    import asyncio

    loop, unhandled = asyncio.get_running_loop(), 0

    def handle_one() -> None:
        nonlocal unhandled
        unhandled = 0
        handle()

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal unhandled
        unhandled += 1
        if unhandled > 1 and callable(before):
            before(number, frame)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(handle_one)

    before = signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
