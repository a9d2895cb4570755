"""Find the files below a folder of a root that a glob matches, as shells and git do."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from agent_jobs.attachments.gitignore import IgnoreRules
from agent_jobs.attachments.path_names import Names
from agent_jobs.attachments.protected_files import RefusedFileError, refuse_protected, unreadable_error
from agent_jobs.attachments.roots import Root, WalkLimits, require_regular_file

IGNORED = "ignored by .gitignore"


def walk_files(
    root: Root,
    start: Names,
    glob: Names,
    left_out: Counter[str],
    limits: WalkLimits,
    fold: Callable[[str], str] = str,
) -> Iterator[Names]:
    """Yield the files below a folder of the root that a glob matches, under their real names, in no order.

    Only a pattern that writes the dot matches a hidden entry, and no link to a folder is followed. Ignored, protected
    and special files are counted in `left_out`. Glob and names are compared as `fold` returns them.

    Raises:
        RequestError: There are too many entries.
    """
    glob = tuple(map(fold, glob))
    ignored = IgnoreRules(root, start)
    folders = [(start, _skip_double_stars(glob, {0}))]
    while folders:
        folder, places = folders.pop()
        for entry in _scan_folder(root, folder, left_out):
            limits.count_entries(start)
            next_places = _skip_double_stars(glob, _advance_places(glob, places, fold(entry.name)))
            if not next_places:
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and len(glob) not in next_places:
                continue
            resolved = _resolve_entry(root, (*folder, entry.name), ignored, left_out, is_folder=is_folder)
            if resolved and is_folder:
                folders.append((resolved, next_places))
            elif resolved:
                yield resolved


def _resolve_entry(
    root: Root, names: Names, ignored: IgnoreRules, left_out: Counter[str], *, is_folder: bool
) -> Names | None:
    """Return the real names of an entry, None for one that is left out."""
    try:
        if is_folder:
            _require_not_ignored(ignored.ignores(names, folder=True))
            refuse_protected(names)
            return names
        return _resolve_file(root, names, ignored)
    except RefusedFileError as unfit:
        left_out[unfit.reason] += 1
    except OSError as error:
        left_out[unreadable_error(names, error).reason] += 1
    return None


def _resolve_file(root: Root, names: Names, ignored: IgnoreRules) -> Names:
    _require_not_ignored(ignored.ignores(names, folder=False))
    real = root.resolve(names)
    refuse_protected(real)
    if real != names:
        _require_not_ignored(ignored.covers(real, folder=False))
    require_regular_file(names, os.lstat(root.real.joinpath(*real)))
    return real


def _require_not_ignored(is_ignored: bool) -> None:
    if is_ignored:
        raise RefusedFileError("It is ignored.", "nothing_attachable", reason=IGNORED)


def _scan_folder(root: Root, folder: Names, left_out: Counter[str]) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(root.real.joinpath(*folder)) as entries:
            return list(entries)
    except OSError as error:
        left_out[unreadable_error(folder, error).reason] += 1
        return []


def _advance_places(glob: Names, places: set[int], name: str) -> set[int]:
    """Return the places of a glob that one more name reaches; `**` stays at its place."""
    reached: set[int] = set()
    for place in places - {len(glob)}:
        if name.startswith(".") and not glob[place].startswith("."):
            continue
        if glob[place] == "**":
            reached.add(place)
        elif fnmatchcase(name, glob[place]):
            reached.add(place + 1)
    return reached


def _skip_double_stars(glob: Names, places: set[int]) -> set[int]:
    """Return the places, and the places behind each `**` at them, because `**` may match nothing."""
    reached = set(places)
    for place, part in enumerate(glob):
        if place in reached and part == "**":
            reached.add(place + 1)
    return reached
