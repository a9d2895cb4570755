"""The signed-in caller of a request."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller whose token was accepted."""

    owner: str  #: whose jobs the caller sees
    token_id: str  #: of a team token, or the issuer of an OAuth token; for the audit log
    client: str = ""  #: the program that calls, as it names itself
    address: str = ""  #: the address of the sender
    #: Verifies the token again, as at the start of the request; None for a caller without one.
    verify_again: Callable[[], Awaitable[object]] | None = field(default=None, compare=False, repr=False)


_current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)


def set_current_caller(caller: Caller) -> None:
    """Set the caller of the current task and of all tasks that it starts."""
    _current_caller.set(caller)


def get_current_caller() -> Caller:
    """Return the caller of the current task.

    Raises:
        LookupError: No caller has signed in: a route of this server is not behind the check of tokens.
    """
    caller = _current_caller.get()
    if caller is None:
        raise LookupError("a request without a caller reached a handler")
    return caller
