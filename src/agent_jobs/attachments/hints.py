"""Explain why a pattern attaches nothing, with the nearest name that exists."""

import os
from collections import Counter
from collections.abc import Iterable

from agent_jobs.attachments.path_names import Names, printable_path
from agent_jobs.attachments.patterns import Place
from agent_jobs.attachments.protected_files import RefusedFileError, refuse_protected
from agent_jobs.attachments.roots import Root
from agent_jobs.errors import RequestError
from agent_jobs.text import nearest

HINT_NAMES = 5  # names of a folder that an answer shows
HINT_ENTRIES = 1_000  # entries of a folder that are compared with a name: a hint must not take seconds


def explain_no_match(shown: str, places: Iterable[Place], left_out: Counter[str]) -> RequestError:
    """Return the refusal of a pattern that attaches nothing.

    Args:
        shown: The pattern, printable.
        places: Its places below the roots.
        left_out: The reasons why files that match it were left out, counted.
    """
    if left_out:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.most_common())
        return RequestError(
            "Nothing that {given!r} matches can be attached ({reasons}).",
            "nothing_attachable",
            given=shown,
            reasons=reasons,
        )
    missed: Names = ()
    content = ""
    for root, names in places:
        folder, missing = _find_missing_name(root, names)
        visible = _list_visible(root, folder)
        if missing in visible:
            return RequestError("{given!r} holds nothing that can be attached.", "nothing_attachable", given=shown)
        if match := nearest(missing, visible):
            near = printable_path((*folder, match))
            return RequestError("Nothing matches {given!r}.", "misspelt", given=shown, near=near)
        missed, content = folder or (str(root.written),), _describe_content(visible)
    return RequestError(
        "Nothing matches {given!r}: {folder} holds {content}.",
        "no_match",
        given=shown,
        folder=printable_path(missed),
        content=content,
    )


def _describe_content(visible: list[str]) -> str:
    names = [printable_path((name,)) for name in visible[:HINT_NAMES]] or ["nothing that can be attached"]
    if len(visible) > HINT_NAMES:
        names.append("...")
    return ", ".join(names)


def _find_missing_name(root: Root, names: Names) -> tuple[Names, str]:
    """Return the deepest existing folder on the way to the names, and the name that it lacks."""
    folder: Names = ()
    if not names:
        return folder, ""
    for name in names[:-1]:
        deeper = root.resolve((*folder, name))
        if not os.path.isdir(root.real.joinpath(*deeper)):
            return folder, name
        folder = deeper
    return folder, names[-1]


def _list_visible(root: Root, folder: Names) -> list[str]:
    try:
        entries = sorted(os.listdir(root.real.joinpath(*folder)))
    except OSError:
        return []
    return [name for name in entries[:HINT_ENTRIES] if not name.startswith(".") and _may_show(root, (*folder, name))]


def _may_show(root: Root, names: Names) -> bool:
    try:
        refuse_protected(root.resolve(names))
    except RefusedFileError:
        return False
    return True
