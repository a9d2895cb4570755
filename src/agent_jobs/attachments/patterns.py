"""Read what a caller wrote as a file: a path or a glob below the roots that it can lie in."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

from agent_jobs.attachments.naming import find_names_below
from agent_jobs.attachments.path_names import Names, printable_path
from agent_jobs.attachments.roots import Root
from agent_jobs.errors import Argument, RequestError

#: A place below a root, whether a file is there or not.
Place = tuple[Root, Names]

FILES = Argument("files")
MAX_BRACES = 64  # patterns from one with braces: each may search a whole folder
SHOWN_CHARS = 200  # a longer pattern would fill the tool answer that refuses it

_GLOB = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def find_places(pattern: str, roots: Sequence[Root]) -> tuple[str, list[Place]]:
    """Return a pattern as an answer may show it, and its names below each root that it can lie in.

    Raises:
        RequestError: It lies outside of every root, or cannot be a path.
    """
    shown = printable_path((pattern[:SHOWN_CHARS],))
    path = _parse_path(pattern, shown)
    _refuse_upwards(shown, path.parts)
    places = _list_places(roots, lambda root: root.find_names_below(path))
    if not places:
        places = _list_places(roots, lambda root: find_names_below(root, path))
    if not places:
        folders = ", ".join(printable_path((str(root.written),)) for root in roots)
        raise RequestError(
            "{given!r} is outside of the folders that may be read.", "outside_roots", given=shown, folders=folders
        )
    return shown, places


def expand_braces(shown: str, names: Names) -> list[Names]:
    """Return the expansions of a pattern with `{a,b}`, the innermost braces first.

    Raises:
        RequestError: They are too many, or one of them leads upwards.
    """
    patterns = ["/".join(names)]
    while any(map(_BRACES.search, patterns)):
        expanded = chain.from_iterable(map(_expand_first_braces, patterns))
        patterns = list(islice(expanded, MAX_BRACES + 1))  # a long list of choices would fill the memory
        if len(patterns) > MAX_BRACES:
            raise RequestError(
                "{given!r} stands for more than {most} patterns.", "too_many_braces", given=shown, most=MAX_BRACES
            )
    globs = dict.fromkeys(map(_split_names, patterns))
    for glob in globs:
        _refuse_upwards(shown, glob)
    return list(filter(None, globs))


def count_literal_names(names: Names) -> int:
    """Return the number of names before the first glob."""
    return next((at for at, name in enumerate(names) if _GLOB.search(name)), len(names))


def _parse_path(pattern: str, shown: str) -> Path:
    if not pattern.strip() or "\0" in pattern:
        raise RequestError("One of {name} is empty or contains a NUL character.", "empty_path", name=FILES)
    try:
        path = Path(pattern).expanduser()
        os.fsencode(path)
    except (RuntimeError, ValueError):
        raise RequestError("{name} does not accept {given!r}.", "impossible_path", name=FILES, given=shown) from None
    return path


def _list_places(roots: Sequence[Root], find_names: Callable[[Root], Names | None]) -> list[Place]:
    return [(root, names) for root in roots if (names := find_names(root)) is not None]


def _refuse_upwards(shown: str, names: Names) -> None:
    # Where links are, `a/..` is another folder than it seems.
    if ".." in names:
        raise RequestError("{name} does not accept {given!r}.", "upward_path", name=FILES, given=shown)


def _expand_first_braces(pattern: str) -> Iterable[str]:
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return (before + choice + after for choice in found[1].split(","))


def _split_names(pattern: str) -> Names:
    return tuple(name for name in pattern.split("/") if name not in ("", "."))
