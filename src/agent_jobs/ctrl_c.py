"""Have Ctrl-C end the process at once, with one sentence and one exit status, unless it is caught.

A `KeyboardInterrupt` may be raised anywhere. Inside an import, an event loop or the interpreter's own end it becomes
a traceback, a wrong exit status, or is lost. So Python's handler is replaced. Code that has to finish first says so.
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

INTERRUPTED_STATUS = 130  # a shell reports this for a program that SIGINT ended


class _State:
    """The state of the handler. It is mutable, because a command learns while it runs what becomes of its jobs."""

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
    signal.signal(signal.SIGINT, _end_process)
    # Callbacks run in reverse order. After the last one Python restores the signal's default, which would kill us.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _end_process(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """End the process without its clean-up: the data on the disk survives even a SIGKILL."""
    if _state.is_delayed:
        _state.is_delayed = False
        return
    if not _state.is_reported:
        _state.is_reported = True
        with suppress(OSError):
            os.write(2, f"Interrupted. {_state.describe()}".strip().encode() + b"\n")
    os._exit(INTERRUPTED_STATUS)


def mark_interruption_reported() -> None:
    """Have later presses end the process without repeating that it was interrupted."""
    _state.is_reported = True


def describe_interruption(describe: Callable[[], str]) -> None:
    """Have Ctrl-C also say what becomes of the jobs, as it is known then."""
    _state.describe = describe


@contextmanager
def delay_ctrl_c() -> Generator[None]:
    """Ignore the first Ctrl-C inside, where finished work only has to be saved; the second one ends the process."""
    _state.is_delayed = True
    try:
        yield
    finally:
        _state.is_delayed = False


@contextmanager
def raise_on_ctrl_c() -> Generator[None]:
    """Have Ctrl-C raise `KeyboardInterrupt` inside, where something has to be cleaned up."""
    before = signal.getsignal(signal.SIGINT)
    if before is not _end_process:  # it is ignored, or the caller's own
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

    If the loop has not handled the previous press, another one acts as it does outside: the loop may be stuck.
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
