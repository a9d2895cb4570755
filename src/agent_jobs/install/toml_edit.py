"""Set and remove values in the text of a TOML file, and leave comments and layout as they are."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from agent_jobs.errors import ConfigError
from agent_jobs.install.json_edit import Changes, is_object

#: Comments right below a table's last key belong to the table, unless a header follows them without a blank line.
COMMENTS_OF_TABLE = re.compile(r"(?:[ \t]*#.*\n)*(?=[ \t\r]*(?:\n|\Z))")
#: Brackets and quotes, one of which ends a string, an array or an inline table of several lines.
CLOSING = re.compile(r"\"{3}|'{3}|[\]}]")
BLANK_LAST_LINE = re.compile(r"(?<=\n)\r?\n\Z")


class _Table(NamedTuple):
    """A header, as the values that it makes, and the positions of its start and of its last key's end."""

    header: Any
    start: int
    end: int


def edit_table(path: tuple[str, ...], text: str, changes: Changes) -> str:
    """Return the text with the table at `path` changed, added or removed, and every byte around it as it was.

    Raises:
        ConfigError: The table cannot be edited.
    """
    line_end = _find_line_end(text)
    if text and not text.endswith("\n"):
        return edit_table(path, text + line_end, changes).removesuffix(line_end)
    start, end = _find_span(path, text)
    before, after = text[:start], text[end:]
    if changes == {path: None}:
        # The blank line before the table was added with it.
        return BLANK_LAST_LINE.sub("", before) + after
    if before and start == end:
        before += line_end
    return before + _edit_document(text[start:end], changes, line_end) + after


def edit_document(text: str, changes: Changes) -> str:
    """Return the changed text, also if the entry is not one table in one piece.

    tomlkit takes a comment above a header for the comment of the table before, so the comments are compared.

    Raises:
        ConfigError: A comment would be lost or moved, or the text cannot be edited.
    """
    new = _edit_document(text, changes, _find_line_end(text))
    if _count_comments(new) != _count_comments(text):
        raise ConfigError("A comment would be lost or moved.")
    return new


def _find_span(path: tuple[str, ...], text: str) -> tuple[int, int]:
    """Return start and end of our table, or twice the place for a new one.

    A new table goes behind the last one that shares its first key, else to the end.
    """
    end_of_kin = 0
    for depth, group in groupby(_list_tables(text), lambda table: _count_shared_keys(path, table.header)):
        tables = list(group)
        if depth == len(path):
            return tables[0].start, tables[-1].end
        if depth > 0:
            end_of_kin = tables[-1].end
    place = _find_place(text, end_of_kin)
    return place, place


def _find_place(text: str, end_of_kin: int) -> int:
    """Return the position of a new table: behind its kin and their comments, else behind the last line."""
    if end_of_kin:
        comments = COMMENTS_OF_TABLE.match(text, end_of_kin)
        if comments:
            return comments.end()
        return end_of_kin
    length = len(text.rstrip())
    if length == 0:
        return 0
    return text.index("\n", length) + 1


def _count_shared_keys(path: tuple[str, ...], header: Any) -> int:
    """Count the keys of the path that a header names, from the first on."""
    if not path or not is_object(header) or path[0] not in header:
        return 0
    return 1 + _count_shared_keys(path[1:], header[path[0]])


def _list_tables(text: str) -> Iterator[_Table]:
    """Yield each table of a TOML text; the first has no header."""
    header: Any = {}
    at = start = end = 0
    for statement, values in _split_toml_statements(text):
        if statement.lstrip().startswith("["):
            yield _Table(header, start, end)
            header, start = values, at
        at += len(statement)
        if values:
            end = at
    yield _Table(header, start, end)


def _split_toml_statements(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each header, key, comment and blank line of a TOML text, with the values that it holds alone."""
    statement = ""
    for line in StringIO(text):
        is_inside = bool(statement)
        statement += line
        if is_inside and not CLOSING.search(line):
            continue  # not parsed: a string of many lines would be parsed once a line
        try:
            values = tomllib.loads(statement)
        except ValueError:
            continue  # the statement continues in the next line
        yield statement, values
        statement = ""


def _count_comments(text: str) -> Counter[tuple[str, str]]:
    """Count the comment lines of a TOML text, each with the header or comment right below it."""
    lines = [statement.strip() for statement, _ in _split_toml_statements(text)]
    counts: Counter[tuple[str, str]] = Counter()
    for line, below in pairwise([*filter(None, lines), ""]):
        if not line.startswith("#"):
            continue
        if not below.startswith(("[", "#")):
            below = ""
        counts[line, below] += 1
    return counts


def _find_line_end(text: str) -> str:
    is_windows = "\r\n" in text and text.count("\n") == text.count("\r\n")
    if is_windows:
        return "\r\n"
    return "\n"


def _edit_document(text: str, changes: Changes, line_end: str) -> str:
    import tomlkit  # imported late: only a few hosts keep TOML
    from tomlkit.exceptions import TOMLKitError

    try:
        document: Any = tomlkit.parse(text)
        for path, value in changes.items():
            _set_value(document, path, value)
        new = tomlkit.dumps(document)
    except TOMLKitError as error:
        raise ConfigError(str(error)) from None
    if line_end == "\n":
        return new
    return new.replace("\r\n", "\n").replace("\n", line_end)


def _set_value(holder: Any, path: tuple[Any, ...], value: Any) -> None:
    import tomlkit

    *way, name = path
    for key in way:
        if key not in holder:
            holder[key] = tomlkit.table(is_super_table=True)
        holder = holder[key]
    if value is None:
        holder.pop(name, None)
    elif is_object(value):
        holder[name] = _build_table(holder, value, depth=len(way))
    else:
        holder[name] = value


def _build_table(holder: Any, values: dict[str, Any], *, depth: int) -> Any:
    """Return a new table: our entry gets a table of its own, and its nested tables are inline."""
    import tomlkit
    from tomlkit.items import InlineTable

    is_deep = depth > 1 and any(map(is_object, values.values()))
    is_inline = depth == 0 or is_deep or isinstance(holder, InlineTable)
    table: Any = tomlkit.inline_table() if is_inline else tomlkit.table()
    for key, value in values.items():
        _set_value(table, (key,), value)
    return table
