"""Read the files that a caller attaches to a job, and only files that the user released.

Files are read only below AGENT_JOBS_FILE_ROOTS. A file that the caller names is attached, or refused with a sentence.
Of the files that a glob or a folder matches, these are left out: files that a `.gitignore` from the root down ignores,
and files that are hidden, binary, unreadable, special, behind a link that leaves the root, or secret by their name.
An ignored file that the caller names is attached, as in git and ripgrep. A secret is refused even then: the caller is
a model that a text may have misled, and the user can copy harmless parts into another file. Limits hold for all files,
and are checked before a file is read.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from agent_jobs.attachments.attachment import Attachment, build_content_parts, describe_attachments, estimate_tokens
from agent_jobs.attachments.file_reader import FileReader
from agent_jobs.attachments.hints import explain_no_match
from agent_jobs.attachments.naming import choose_place, fold_appearance, trim_pattern
from agent_jobs.attachments.path_names import Names
from agent_jobs.attachments.patterns import Place, count_literal_names, expand_braces, find_places
from agent_jobs.attachments.protected_files import RefusedFileError, refuse_protected
from agent_jobs.attachments.roots import Root, WalkLimits
from agent_jobs.attachments.walk import walk_files
from agent_jobs.errors import RequestError

__all__ = ["Attachment", "build_content_parts", "describe_attachments", "estimate_tokens", "gather_attachments"]


def gather_attachments(patterns: Sequence[str], roots: Sequence[Path], *, upload: bool = False) -> list[Attachment]:
    """Read the files that the patterns name, each once: in the order of the patterns, and of names within one.

    A pattern is one of these: a path, absolute, from `~`, or relative to every root; a folder, which means all
    files below it; or a glob with `*`, `?`, `[...]`, `**` and `{a,b}`. A path that exists is that file, whatever
    characters it has. Else it is the one file whose path looks the same: Unicode forms and white space are ignored,
    and if there is none, case. It blocks: call it in a thread.

    Args:
        patterns: The patterns as the caller wrote them.
        roots: The folders that may be read, `Settings.file_roots`.
        upload: Whether files for the code interpreter (tables, archives, any binary file that is named) are attached
            as `data`.

    Raises:
        RequestError: A named file cannot be attached, a pattern matches nothing, or the files are too much.
        ConfigError: A root does not exist any more.
    """
    if not patterns:
        return []
    if not roots:
        raise RequestError("No file can be attached, since no folder may be read.", "no_file_roots")
    opened = list(map(Root.of, roots))
    reader = FileReader(upload=upload)
    for pattern in patterns:
        _Search(opened, reader).add_matches(pattern)
    return reader.list_attachments()


class _Search:
    """The search for the files of one pattern, which counts the files that it leaves out."""

    def __init__(self, roots: Sequence[Root], reader: FileReader) -> None:
        self._roots = roots
        self._reader = reader
        self._left_out: Counter[str] = Counter()

    def add_matches(self, pattern: str) -> None:
        """Add the files of a pattern.

        Raises:
            RequestError: It matches nothing, or a file that it names cannot be attached.
        """
        shown, places = find_places(pattern, self._roots)
        existing = _list_existing(places)
        if existing:
            is_added = self._add_named(existing)
        else:
            globs = [(root, glob) for root, names in places for glob in expand_braces(shown, names)]
            is_added = self._add_globs(globs) or self._add_alike(shown, globs)
            trimmed = trim_pattern(pattern)
            if not is_added and trimmed not in ("", pattern):
                _Search(self._roots, self._reader).add_matches(trimmed)
                return
        if not is_added:
            raise explain_no_match(shown, places, self._left_out)

    def _add_named(self, places: Iterable[Place]) -> bool:
        """Add the files at these places and below the folders at them; return False if there are none."""
        is_added = False
        for root, names in places:
            if _is_folder(root, names):
                is_added |= self._add_glob(root, names, ("**",), self._reader.limits)
            else:
                self._reader.add(root, names, named=True)
                is_added = True
        return is_added

    def _add_globs(self, globs: Iterable[Place]) -> bool:
        is_added = False
        for root, glob in globs:
            start = count_literal_names(glob[:-1])
            folder = _resolve_unprotected(root, glob[:start])
            is_added |= self._add_glob(root, folder, glob[start:], self._reader.limits)
        return is_added

    def _add_alike(self, shown: str, globs: Sequence[Place]) -> bool:
        """Add the files with almost these names; a path or the folder of a glob must mean one place only.

        Raises:
            RequestError: It may mean several.
        """
        is_added = self._add_alike_paths(shown, globs)
        before = self._left_out
        self._left_out = Counter()
        is_added |= self._add_alike_globs(shown, globs)
        if before:
            self._left_out = before
        return is_added

    def _add_alike_paths(self, shown: str, globs: Sequence[Place]) -> bool:
        is_added = False
        paths: dict[Names, list[Place]] = {}
        for root, glob in globs:
            if _is_literal(glob) and not _path_exists(root, glob):
                paths.setdefault(glob, []).append((root, glob))
        for same in paths.values():
            place = choose_place(shown, same, self._reader.second_limits)
            if place is not None:
                is_added |= self._add_named([_resolve_place(place)])
        return is_added

    def _add_alike_globs(self, shown: str, globs: Sequence[Place]) -> bool:
        is_added = False
        limits = self._reader.second_limits
        for root, glob in globs:
            start = count_literal_names(glob)
            if start == len(glob):
                continue
            folder: Place | None = (root, glob[:start])
            if not _path_exists(root, glob[:start]):
                folder = choose_place(shown, [(root, glob[:start])], limits)
            if folder is not None:
                is_added |= self._add_glob(*_resolve_place(folder), glob[start:], limits, fold_appearance)
        return is_added

    def _add_glob(
        self, root: Root, start: Names, glob: Names, limits: WalkLimits, fold: Callable[[str], str] = str
    ) -> bool:
        """Add the files that a glob matches below a folder, with names compared as `fold` returns them."""
        if not _is_folder(root, start):
            return False
        is_added = False
        for names in sorted(walk_files(root, start, glob, self._left_out, limits, fold)):
            try:
                self._reader.add(root, names, named=False)
            except RefusedFileError as unfit:
                self._left_out[unfit.reason] += 1
            else:
                is_added = True
        return is_added


def _list_existing(places: Iterable[Place]) -> list[Place]:
    return [place for place in map(_resolve_place, places) if _path_exists(*place)]


def _resolve_place(place: Place) -> Place:
    root, names = place
    return root, _resolve_unprotected(root, names)


def _resolve_unprotected(root: Root, names: Names) -> Names:
    real = root.resolve(names)
    refuse_protected(real)
    return real


def _path_exists(root: Root, names: Names) -> bool:
    return os.path.lexists(root.real.joinpath(*names))


def _is_folder(root: Root, names: Names) -> bool:
    return os.path.isdir(root.real.joinpath(*names))


def _is_literal(names: Names) -> bool:
    return count_literal_names(names) == len(names)
