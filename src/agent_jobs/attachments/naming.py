"""A name that no file has exactly: what may be meant by it, when names are compared as a reader sees them."""

import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from agent_jobs.attachments.roots import Budget, Names, Root, UnfitError, refuse_protected
from agent_jobs.errors import RequestError

__all__ = ["as_read", "as_read_in_any_case", "choose", "matching", "names_below", "trimmed"]

MAX_NAMED = 5  # names in a refusal; more cost more tokens than they help

Fold = Callable[[str], str]


def as_read(name: str) -> str:
    """Return a name as a reader sees it: NFC, any white space as one space, nothing invisible.

    macOS writes screenshots with U+202F and accents in two characters; a model writes neither.
    """
    visible = "".join(char for char in name if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFC", " ".join(visible.split()))


def as_read_in_any_case(name: str) -> str:
    """Return a name as `as_read`, without a difference between large and small letters."""
    return unicodedata.normalize("NFC", as_read(name).casefold())


def trimmed(pattern: str) -> str:
    """Return a pattern without the white space and invisible characters around it."""
    start, end = 0, len(pattern)
    while start < end and not as_read(pattern[start]):
        start += 1
    while start < end and not as_read(pattern[end - 1]):
        end -= 1
    return pattern[start:end]


def names_below(root: Root, path: Path) -> Names | None:
    """Return the names of an absolute path below a root that is written a little differently, else None."""
    for base in (root.written, root.real):
        depth = len(base.parts)
        start = path.parts[:depth]
        if list(map(as_read_in_any_case, start)) != list(map(as_read_in_any_case, base.parts)):
            continue
        written = Path(*start)
        # What exists under this name and is not the root is another folder, and outside.
        if not os.path.lexists(written) or (written.exists() and written.samefile(root.real)):
            return path.parts[depth:]
    return None


def matching(places: Sequence[tuple[Root, Names]], budget: Budget, *, any_case: bool) -> list[tuple[Root, Names]]:
    """Return what lies at these places when every component is compared folded; each real path once.

    Raises:
        RequestError: There is too much to look at.
    """
    fold = as_read_in_any_case if any_case else as_read
    found: dict[Path, tuple[Root, Names]] = {}
    for root, names in places:
        for real in _matching_below(root, names, fold, budget):
            found.setdefault(root.real.joinpath(*real), (root, real))
    open_to_all = {path: place for path, place in found.items() if not _is_protected(place[1])}
    return list((open_to_all or found).values())


def choose(told: str, places: Sequence[tuple[Root, Names]], budget: Budget) -> tuple[Root, Names] | None:
    """Return the one place that a name can mean; None where nothing is like it.

    Raises:
        RequestError: Several names are like it.
    """
    for any_case in (False, True):
        found = matching(places, budget, any_case=any_case)
        if len(found) == 1:
            return found[0]
        if found:
            raise RequestError(_several(told, found))
    return None


def _matching_below(root: Root, names: Names, fold: Fold, budget: Budget) -> list[Names]:
    reached: list[Names] = [()]
    for depth, name in enumerate(names, 1):
        wanted = fold(name)
        entries = [(folder, entry) for folder in reached for entry in _entries(root, folder, budget)]
        alike = [_real(root, (*folder, entry)) for folder, entry in entries if wanted and fold(entry) == wanted]
        reached = [
            real
            for real in dict.fromkeys(alike)
            if real is not None and (depth == len(names) or os.path.isdir(root.real.joinpath(*real)))
        ]
    return reached


def _entries(root: Root, folder: Names, budget: Budget) -> list[str]:
    try:
        entries = os.listdir(root.real.joinpath(*folder))
    except OSError:
        return []
    for _ in entries:
        budget.spend(folder)
    return entries


def _real(root: Root, names: Names) -> Names | None:
    try:
        return root.real_names(names)
    except UnfitError:
        return None


def _is_protected(names: Names) -> bool:
    try:
        refuse_protected(names)
    except UnfitError:
        return True
    return False


def _several(told: str, found: Sequence[tuple[Root, Names]]) -> str:
    """Return the refusal; names are escaped as in JSON, for they may look alike."""
    several_roots = len({root.real for root, _ in found}) > 1
    paths = ["/".join(names) if not several_roots else str(root.written.joinpath(*names)) for root, names in found]
    listed = ", ".join(json.dumps(path) for path in sorted(paths)[:MAX_NAMED])
    more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
    return f"no file is named exactly {told!r}, and several are like it: name one of {listed}{more}."
