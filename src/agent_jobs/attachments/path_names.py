"""Print the path of a file below its root safely."""

from unicodedata import category

from agent_jobs.text import valid_unicode

#: The names of a path below its root, one by one.
Names = tuple[str, ...]


def printable_path(names: Names) -> str:
    """Return a path for a person or a model to read: no character in it ends a line or is invisible."""
    text = valid_unicode("/".join(names))
    return "".join(map(_replace_unprintable, text)) or "."


def _replace_unprintable(char: str) -> str:
    if char.isprintable():
        return char
    if category(char) == "Zs":
        return " "
    return "?"
