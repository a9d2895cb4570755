"""The files that a caller attaches to a job: the boundary that nothing passes but what the user opened.

Files are read only below AGENT_JOBS_FILE_ROOTS. What is named is taken or refused with a sentence. What a glob or a
folder meets is taken unless a `.gitignore` from the root down ignores it, or it is hidden, binary, unreadable, no
regular file, behind a link that leaves the root, or known by its name to keep secrets: that is left out. An ignored
file that is named is taken, as by git and ripgrep. A secret is refused even then: the caller is a model that may have
been talked into it, and the user can copy what is harmless into another file. Limits refuse whatever way a file came,
before it is read.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from agent_jobs.attachments.attachment import (
    DATA_TYPES,
    HEAD_BYTES,
    NEVER_EMPTY,
    Attachment,
    Kind,
    described,
    estimate_tokens,
    is_private_key,
    parts,
    recognised,
    suffix_of,
)
from agent_jobs.attachments.decoding import decode
from agent_jobs.attachments.naming import as_read, choose, names_below, trimmed
from agent_jobs.attachments.roots import (
    Budget,
    Names,
    Root,
    UnfitError,
    refuse_protected,
    secret_error,
    shown,
    unreadable,
)
from agent_jobs.errors import RequestError
from agent_jobs.text import nearest

__all__ = ["Attachment", "described", "estimate_tokens", "gather", "parts"]

#: Text: about a million tokens, which is a whole context window, and well under the 10,485,760 characters that the API
#: takes in one text. Image: what the API documented for one. PDF: as much as fits with the total.
LIMIT_BYTES: dict[Kind, int] = {"text": 4 * 2**20, "image": 20 * 2**20, "pdf": 32 * 2**20, "data": 64 * 2**20}
#: All that is sent in the request: base64 makes 45 MB of it, and the API takes 50 MB of files and was seen to refuse
#: images above that.
INLINE_BYTES = 32 * 2**20
#: All that is uploaded: it is held in memory until then.
UPLOAD_BYTES = 128 * 2**20
MAX_FILES = 500
#: How many patterns one with braces may stand for.
MAX_BRACES = 64
HINT_NAMES, HINT_LOOKS, TOLD_CHARS = 5, 1_000, 200

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def gather(patterns: Sequence[str], roots: Sequence[Path], *, upload: bool = False) -> list[Attachment]:
    """Read the files that the patterns name, each once: in the order of the patterns, and of names within one.

    A pattern is a path, absolute, from `~`, or relative to every root; a folder, which stands for all below it; or a
    glob with `*`, `?`, `[...]`, `**` and `{a,b}`. A path that exists is that file, whatever characters are in it. Else
    it is the one file whose path reads the same: Unicode forms and white space apart, and if there is none, case.
    It blocks: call it in a thread.

    Args:
        patterns: What the caller wrote.
        roots: The folders that may be read, `Settings.file_roots`.
        upload: Whether what the code interpreter works on (tables, archives, any binary file that is named) is taken
            as `data`.

    Raises:
        RequestError: Something named cannot be attached, a pattern matches nothing, or it is too much.
        ConfigError: A root is not there any more.
    """
    if not patterns:
        return []
    if not roots:
        raise RequestError(
            "no file can be attached: ask the user to set AGENT_JOBS_FILE_ROOTS to the folders that may be read."
        )
    opened = [Root.of(folder) for folder in roots]
    tray = _Tray(upload)
    for pattern in patterns:
        _take(pattern, opened, tray)
    return tray.attachments()


class _Tray:
    """What was taken so far, and how much more may be."""

    def __init__(self, upload: bool) -> None:
        self.budget = Budget()
        self.second_budget = Budget()  # to look for names that are almost the same
        self._upload = upload
        self._room = {False: INLINE_BYTES, True: UPLOAD_BYTES}  # whether it is uploaded
        self._taken: dict[Path, tuple[Root, Attachment]] = {}

    def add(self, root: Root, names: Names, *, named: bool) -> None:
        """Read a file, unless it is here already.

        Raises:
            UnfitError: It cannot be attached.
            RequestError: It is too large, or one too many.
        """
        path = root.real.joinpath(*names)
        if path in self._taken:
            return
        try:
            attachment = self._read(root, names, named=named)
        except OSError as error:
            raise unreadable(names, error) from None
        if len(self._taken) == MAX_FILES:
            raise RequestError(f"files are more than {MAX_FILES}, the most that a job takes: name fewer.")
        self._taken[path] = root, attachment

    def attachments(self) -> list[Attachment]:
        """All that was taken, those of the same name under different roots told apart by the root's own name."""
        counts = Counter(attachment.name for _, attachment in self._taken.values())
        named: dict[str, Attachment] = {}
        for root, attachment in self._taken.values():
            folder, name, number = shown((root.real.name,)), attachment.name, 1
            if counts[name] > 1:
                name = f"{folder}/{name}"
            while name in named:  # roots may be of one name too
                number += 1
                name = f"{folder}-{number}/{attachment.name}"
            named[name] = replace(attachment, name=name)
        return list(named.values())

    def _read(self, root: Root, names: Names, *, named: bool) -> Attachment:
        with root.opened(names) as file:
            size = os.fstat(file.fileno()).st_size
            if named:
                # Not a byte is read of what is too large whatever it is.
                _fit(
                    names,
                    size,
                    max(limit for kind, limit in LIMIT_BYTES.items() if self._upload or kind != "data"),
                    "that any file may have",
                )
            head = file.read(HEAD_BYTES)
            kind, media_type = self._recognise(names, head, named=named)
            self._fit(names, size, kind)
            # A file may grow while it is read, and those of /proc have no size at all.
            data = head + file.read(LIMIT_BYTES[kind] + 1 - len(head))
        self._fit(names, len(data), kind)
        if kind == "text" and decode(data) is None:
            kind, media_type = self._binary(names, named=named)
        self._room[kind == "data"] -= len(data)
        return Attachment(shown(names), kind, media_type, data)

    def _fit(self, names: Names, size: int, kind: Kind) -> None:
        _fit(names, size, LIMIT_BYTES[kind], f"that a file of kind {kind} may have")
        _fit(names, size, self._room[kind == "data"], "that the files before it leave")

    def _recognise(self, names: Names, head: bytes, *, named: bool) -> tuple[Kind, str]:
        if is_private_key(head):
            raise secret_error(names)
        suffix = suffix_of(names[-1])
        if not head and (suffix in NEVER_EMPTY or (self._upload and suffix in DATA_TYPES)):
            raise UnfitError(f"{shown(names)} is empty (0 bytes): make or download it again.", "empty")
        found = recognised(names[-1], head, upload=self._upload)
        if suffix == ".pdf" and (found is None or found[0] not in ("pdf", "image")):
            raise UnfitError(
                f"{shown(names)} is no PDF, since it does not begin with %PDF: make or download it again.",
                "PDF by name only",
            )
        return found or self._binary(names, named=named)

    def _binary(self, names: Names, *, named: bool) -> tuple[Kind, str]:
        if named and self._upload:
            return "data", "application/octet-stream"
        raise UnfitError(
            f"{shown(names)} is a binary file that no model can read: "
            "attach text, a PDF, or an image as PNG, JPEG, GIF or WebP.",
            "binary",
        )


def _take(pattern: str, roots: Sequence[Root], tray: _Tray) -> None:
    told, places = _places(pattern, roots)
    there = [(root, real) for root, names in places if _exists(root, real := _real(root, names))]
    left_out: Counter[str] = Counter()
    if there:
        taken = _take_named(there, left_out, tray)
    else:
        globs = [(root, glob) for root, names in places for glob in _braces(told, names)]
        taken = _take_globs(globs, left_out, tray) or _take_alike(told, globs, left_out, tray)
        if not taken and (bare := trimmed(pattern)) not in ("", pattern):
            _take(bare, roots, tray)
            return
    if not taken:
        raise RequestError(_nothing(told, places, left_out))


def _take_named(places: Iterable[tuple[Root, Names]], left_out: Counter[str], tray: _Tray) -> bool:
    """Add the files at these places and below the folders at them; False when there is nothing."""
    taken = False
    for root, names in places:
        if _is_folder(root, names):
            taken |= _take_glob(root, names, ("**",), left_out, tray)
        else:
            tray.add(root, names, named=True)
            taken = True
    return taken


def _take_globs(globs: Iterable[tuple[Root, Names]], left_out: Counter[str], tray: _Tray) -> bool:
    taken = False
    for root, glob in globs:
        start = _literal(glob[:-1])
        taken |= _take_glob(root, _real(root, glob[:start]), glob[start:], left_out, tray)
    return taken


def _take_alike(told: str, globs: Sequence[tuple[Root, Names]], left_out: Counter[str], tray: _Tray) -> bool:
    """Add what is meant where nothing has exactly that name; a path or the folder of a glob must mean one thing only.

    Raises:
        RequestError: It may mean several.
    """
    taken = False
    paths = [(root, glob) for root, glob in globs if _literal(glob) == len(glob) and not _exists(root, glob)]
    for names in dict.fromkeys(names for _, names in paths):
        meant = choose(told, [place for place in paths if place[1] == names], tray.second_budget)
        taken |= meant is not None and _take_named([_checked(*meant)], left_out, tray)
    also_left_out: Counter[str] = Counter()
    for root, glob in globs:
        start, rest = glob[: _literal(glob)], glob[_literal(glob) :]
        if not rest:
            continue
        meant = (root, start) if _exists(root, start) else choose(told, [(root, start)], tray.second_budget)
        if meant:
            taken |= _take_glob(*_checked(*meant), rest, also_left_out, tray, as_read)
    left_out.update(also_left_out if not left_out else {})
    return taken


def _take_glob(
    root: Root,
    start: Names,
    glob: Names,
    left_out: Counter[str],
    tray: _Tray,
    fold: Callable[[str], str] | None = None,
) -> bool:
    """Add what a glob matches below a folder, comparing folded names with `fold`; False when there is nothing."""
    taken = False
    budget = tray.second_budget if fold else tray.budget
    for names in sorted(root.walk(start, glob, left_out, budget, fold)) if _is_folder(root, start) else ():
        try:
            tray.add(root, names, named=False)
        except UnfitError as unfit:
            left_out[unfit.reason] += 1
        else:
            taken = True
    return taken


def _places(pattern: str, roots: Sequence[Root]) -> tuple[str, list[tuple[Root, Names]]]:
    """A pattern as it may be shown, and the names that it has below each root that it can lie in."""
    told = shown((pattern[:TOLD_CHARS],))
    if not pattern.strip() or "\0" in pattern:
        raise RequestError("files takes paths and globs: one of them is empty or holds a NUL character.")
    try:
        path = Path(pattern).expanduser()
        os.fsencode(path)
    except (RuntimeError, ValueError):
        raise RequestError(f"files cannot take {told!r}: write a path that can exist.") from None
    _refuse_upwards(told, path.parts)
    places = [(root, names) for root in roots if (names := root.names(path)) is not None]
    if not places and path.is_absolute():
        places = [(root, names) for root in roots if (names := names_below(root, path)) is not None]
    if not places:
        folders = ", ".join(shown((str(root.written),)) for root in roots)
        raise RequestError(f"{told!r} lies outside of what may be read: name files below {folders}.")
    return told, places


def _refuse_upwards(told: str, names: Names) -> None:
    # Where links are, `a/..` is not where it is written to be.
    if ".." in names:
        raise RequestError(f"files cannot take {told!r}: write the path without '..'.")


def _real(root: Root, names: Names) -> Names:
    real = root.real_names(names)
    refuse_protected(real)
    return real


def _exists(root: Root, names: Names) -> bool:
    return os.path.lexists(root.real.joinpath(*names))


def _is_folder(root: Root, names: Names) -> bool:
    return os.path.isdir(root.real.joinpath(*names))


def _is_glob(name: str) -> bool:
    return any(char in name for char in "*?[")


def _literal(names: Names) -> int:
    """Return how many names stand before the first that is a glob."""
    return next((at for at, name in enumerate(names) if _is_glob(name)), len(names))


def _checked(root: Root, names: Names) -> tuple[Root, Names]:
    return root, _real(root, names)


def _braces(told: str, names: Names) -> list[Names]:
    """The patterns that one with `{a,b}` stands for, the innermost braces first."""
    patterns = ["/".join(names)]
    while any(braces := [_BRACES.search(pattern) for pattern in patterns]):
        if sum(found[1].count(",") + 1 if found else 1 for found in braces) > MAX_BRACES:
            raise RequestError(f"{told!r} stands for more than {MAX_BRACES} patterns: write fewer braces.")
        patterns = [
            pattern[: found.start()] + choice + pattern[found.end() :] if found else pattern
            for pattern, found in zip(patterns, braces, strict=True)
            for choice in (found[1].split(",") if found else ("",))
        ]
    expanded = [tuple(name for name in pattern.split("/") if name not in ("", ".")) for pattern in patterns]
    for glob in expanded:
        _refuse_upwards(told, glob)
    return [glob for glob in dict.fromkeys(expanded) if glob]


def _nothing(told: str, places: Iterable[tuple[Root, Names]], left_out: Counter[str]) -> str:
    """Why a pattern brings nothing, with the nearest name that there is."""
    if left_out:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.most_common())
        return f"nothing that {told!r} matches can be attached ({reasons}): name other files."
    others = ""
    for root, names in places:
        folder, missing = _reached(root, names)
        near = _visible(root, folder)
        if missing in near:
            return f"{told!r} holds nothing that can be attached: name other files."
        if match := nearest(missing, near):
            return f"nothing matches {told!r}: did you mean {shown((*folder, match))!r}?"
        held = ", ".join(shown((name,)) for name in near[:HINT_NAMES]) or "nothing that can be attached"
        others = f"{shown(folder or (str(root.written),))} holds {held}{', ...' if len(near) > HINT_NAMES else ''}."
    return f"nothing matches {told!r}: {others}"


def _reached(root: Root, names: Names) -> tuple[Names, str]:
    """The deepest folder on the way to the names that exists, and the name that it does not hold."""
    folder: Names = ()
    for name in names[:-1]:
        deeper = root.real_names((*folder, name))
        if not _is_folder(root, deeper):
            return folder, name
        folder = deeper
    return folder, names[-1] if names else ""


def _visible(root: Root, folder: Names) -> list[str]:
    try:
        found = sorted(os.listdir(root.real.joinpath(*folder)))
    except OSError:
        return []
    visible: list[str] = []
    for name in found[:HINT_LOOKS]:
        try:
            _real(root, (*folder, name))
        except UnfitError:
            continue
        if not name.startswith("."):
            visible.append(name)
    return visible


def _fit(names: Names, size: int, limit: int, what: str) -> None:
    if size > limit:
        raise RequestError(
            f"{shown(names)} has {_size(size)}, which is more than the {_size(limit)} {what}: attach a part of it."
        )


def _size(size_bytes: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
