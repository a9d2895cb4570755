"""The signs in front of statuses, and text that the encoding of stdout can show."""

import sys
from collections.abc import Mapping

import click

from agent_jobs.jobs.status import Status

#: One sign for each status: in an encoding that has them, and in ASCII.
_ICONS: Mapping[Status, tuple[str, str]] = {
    Status.PENDING: ("…", "."),
    Status.STARTING: ("…", "."),
    Status.QUEUED: ("…", "."),
    Status.IN_PROGRESS: ("●", ">"),
    Status.INPUT_REQUIRED: ("?", "?"),
    Status.COMPLETED: ("✓", "+"),
    Status.INCOMPLETE: ("!", "!"),
    Status.FAILED: ("✗", "x"),
    Status.CANCELLED: ("-", "-"),
    Status.EXPIRED: ("✗", "x"),
}
_UNREAD = ("•", "*")
_BRANCH = ("└ ", "`-")
_BAR = ("█░", "#-")
_ALL_SIGNS = "…●✓✗•└█░"


def has_signs() -> bool:
    """Return True if stdout's encoding has the signs."""
    try:
        _ALL_SIGNS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def choose_icon(status: Status) -> str:
    """Return the sign of a status, one column wide."""
    return _choose_sign(_ICONS[status])


def choose_unread_mark() -> str:
    """Return the sign of a result that no reader received."""
    return _choose_sign(_UNREAD)


def choose_branch_mark() -> str:
    """Return the sign before the title of a follow-up."""
    return _choose_sign(_BRANCH)


def draw_bar(share: float, width: int) -> str:
    """Return a bar of this width that is filled to a share from 0 to 1."""
    full, empty = _choose_sign(_BAR)
    filled = round(min(1.0, max(0.0, share)) * width)
    return full * filled + empty * (width - filled)


def echo(text: str) -> None:
    """Print a text; a character that stdout's encoding lacks becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, "replace").decode(encoding))


def _choose_sign(signs: tuple[str, str]) -> str:
    if has_signs():
        return signs[0]
    return signs[1]
