"""Find the file for a name that no file has exactly, comparing names as a reader sees them."""

import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from agent_jobs.attachments.path_names import Names
from agent_jobs.attachments.protected_files import RefusedFileError, is_protected
from agent_jobs.attachments.roots import Root, WalkLimits
from agent_jobs.errors import RequestError

MAX_NAMED = 5  # names in a refusal; more cost more tokens than they help

Fold = Callable[[str], str]


def fold_appearance(name: str) -> str:
    """Return a name as a reader sees it: NFC, any white space as one space, nothing invisible.

    macOS writes screenshots with U+202F and accents in two characters; a model writes neither.
    """
    visible = "".join(char for char in name if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFC", " ".join(visible.split()))


def fold_appearance_and_case(name: str) -> str:
    """Return a name as `fold_appearance` does, without a difference between large and small letters."""
    return unicodedata.normalize("NFC", fold_appearance(name).casefold())


def trim_pattern(pattern: str) -> str:
    """Return a pattern without the white space and invisible characters around it."""
    visible = [at for at, char in enumerate(pattern) if fold_appearance(char)]
    return pattern[min(visible, default=0) : max(visible, default=-1) + 1]


def find_names_below(root: Root, path: Path) -> Names | None:
    """Return the names of an absolute path below a root, even if it writes the root a little differently; else None."""
    for base in (root.written, root.real):
        depth = len(base.parts)
        start = path.parts[:depth]
        if list(map(fold_appearance_and_case, start)) != list(map(fold_appearance_and_case, base.parts)):
            continue
        if _may_be_root(Path(*start), root):
            return path.parts[depth:]
    return None


def _may_be_root(written: Path, root: Root) -> bool:
    """Return True unless something else than the root exists under this name, so that a path below it lies outside."""
    with suppress(OSError):
        return written.samefile(root.real)
    return not os.path.lexists(written)


def find_matching(places: Sequence[tuple[Root, Names]], limits: WalkLimits, fold: Fold) -> list[tuple[Root, Names]]:
    """Return the real places at these places when every name is compared folded, each once.

    Raises:
        RequestError: There are too many entries.
    """
    found: dict[Path, tuple[Root, Names]] = {}
    for root, names in places:
        for real in _matching_below(root, names, fold, limits):
            found.setdefault(root.real.joinpath(*real), (root, real))
    unprotected = [place for place in found.values() if not is_protected(place[1])]
    return unprotected or list(found.values())


def choose_place(shown: str, places: Sequence[tuple[Root, Names]], limits: WalkLimits) -> tuple[Root, Names] | None:
    """Return the only place with almost this name, None if there is none.

    Raises:
        RequestError: There are several.
    """
    for fold in (fold_appearance, fold_appearance_and_case):
        match find_matching(places, limits, fold):
            case []:
                continue
            case [place]:
                return place
            case several:
                raise RequestError(
                    "No file is named exactly {given!r}, and several names are similar.",
                    "ambiguous_file",
                    given=shown,
                    paths=_list_similar_paths(several),
                )
    return None


def _matching_below(root: Root, names: Names, fold: Fold, limits: WalkLimits) -> list[Names]:
    """Return the real places below a root that these names lead to."""
    reached: list[Names] = [()]
    for name in names:
        reached = _matching_in_folders(root, reached, name, fold, limits)
    return reached


def _matching_in_folders(root: Root, folders: list[Names], name: str, fold: Fold, limits: WalkLimits) -> list[Names]:
    folded = fold(name)
    found: dict[Names, None] = {}
    for folder in folders:
        for entry in _list_folder(root, folder, limits):
            if folded and fold(entry) == folded:
                with suppress(RefusedFileError):
                    found[root.resolve((*folder, entry))] = None
    return list(found)


def _list_folder(root: Root, folder: Names, limits: WalkLimits) -> list[str]:
    """Return the names in a folder; none for a file, and for a folder that cannot be read."""
    try:
        entries = os.listdir(root.real.joinpath(*folder))
    except OSError:
        return []
    limits.count_entries(folder, len(entries))
    return entries


def _list_similar_paths(found: Sequence[tuple[Root, Names]]) -> str:
    """Return the files that an ambiguous name may mean, escaped as in JSON, since they may look the same."""
    paths = ["/".join(names) for _, names in found]
    if len({root.real for root, _ in found}) > 1:
        paths = [str(root.written.joinpath(*names)) for root, names in found]
    listed = ", ".join(map(json.dumps, sorted(paths)[:MAX_NAMED]))
    if len(paths) > MAX_NAMED:
        listed += f" and {len(paths) - MAX_NAMED} more"
    return listed
