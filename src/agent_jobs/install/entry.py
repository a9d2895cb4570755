"""Our entry in the text of a host's file: put in, taken out, and the result checked. Pure."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import partial
from io import StringIO
from itertools import groupby, pairwise
from typing import Any, TypeGuard

from agent_jobs.errors import ConfigError
from agent_jobs.install.hosts import Entry, Host, Launch, input_of, switched_off
from agent_jobs.install.json_edit import Item, Path, drop, parse, put

#: What has to stand at which path; None: nothing.
Changes = Mapping[Path, Any]
#: Comments right below a table's last key are the table's, unless a header follows them without a blank line.
ITS_COMMENTS = re.compile(r"(?:[ \t]*#.*\n)*(?=[ \t\r]*(?:\n|\Z))")
#: What the last line of a text, an array or an inline table of several lines holds.
CLOSING = re.compile(r"\"{3}|'{3}|[\]}]")


def installed(host: Host, text: str, launch: Launch, environment: Mapping[str, str], *, approve: bool = False) -> str:
    """The text of the host's file with our entry in it; the same text if it is there as it should be.

    Raises:
        ConfigError: The text cannot be read, or is laid out in a way that cannot be changed safely.
    """
    old = entry_in(host, text)
    entry = host.entry(launch, environment, old, approve=approve)
    changes: dict[Path, Any] = dict(_differing(host.path, old, entry))
    for each, asked in ((old, False), (entry, True)):
        if question := input_of(each):
            changes["inputs", Item(question["id"])] = question if asked else None
    return _changed(host, text, changes)


def switched_on(host: Host, text: str) -> str:
    """Return the text of the host's file with our entry switched on; the same text where nothing switches it off.

    Raises:
        ConfigError: As `installed`.
    """
    return _changed(
        host, text, {(*host.path, name): not off for name, off in switched_off(entry_in(host, text)).items()}
    )


def uninstalled(host: Host, text: str) -> str:
    """The text of the host's file without our entry, and without the question for the key that only it asked.

    Raises:
        ConfigError: As `installed`.
    """
    entry = entry_in(host, text)
    if entry is None:
        return text
    changes: dict[Path, Any] = {host.path: None}
    if question := input_of(entry):
        changes["inputs", Item(question["id"])] = None
    return _changed(host, text, changes)


def fragment(host: Host, launch: Launch, environment: Mapping[str, str], *, approve: bool = False) -> str:
    """What a file of the host holds that has nothing but our entry."""
    if host.is_listed:
        lines = _yaml({"name": host.path[-1], **host.entry(launch, environment)}, "    ")
        return f"{host.path[0]}:\n  - {lines.lstrip()}"
    if host.format == "yaml":
        return _yaml({host.path[0]: {host.path[-1]: host.entry(launch, environment)}})
    return installed(host, "", launch, environment, approve=approve)


def refuse_comments(host: Host, text: str) -> None:
    """Refuse a text that a host cannot read which takes no comments: nothing that is put there would be seen.

    Raises:
        ConfigError: The text has comments, or commas before a closing bracket.
    """
    if not host.strict or not text.strip():
        return
    read_values(host, text)
    try:
        json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise ConfigError(
            f"Line {line} has a comment or a comma too many, and {host.title} reads plain JSON only: it sees no server "
            "in this file. Take comments and such commas out first."
        ) from None


def entry_in(host: Host, text: str) -> Entry | None:
    """Our entry in a text, None where there is none.

    Raises:
        ConfigError: As `installed`.
    """
    found = read_values(host, text)
    for key in host.path:
        if not _is_object(found):
            kind = "table" if host.format == "toml" else "object"
            raise ConfigError(f"What should hold the servers is no {kind}: correct that first, or use --print.")
        if key not in found:
            return None
        found = found[key]
    return checked_entry(host, found)


def checked_entry(host: Host, entry: Any) -> Entry:
    """Return what stands in the place of our entry.

    Raises:
        ConfigError: It is no entry.
    """
    if not _is_object(entry) or not _is_object(entry.get(host.env, {})):
        raise ConfigError(f"Its entry {host.path[-1]} is not one that a host could read: remove it, then try again.")
    return entry


def _differing(path: tuple[str, ...], old: Any, new: Any) -> Iterator[tuple[Path, Any]]:
    """The smallest changes that make the new from the old, so that comments beside them stay."""
    if not (_is_object(old) and _is_object(new)):
        yield path, new
        return
    for key in sorted(old.keys() - new.keys()):
        yield (*path, key), None
    for key, value in new.items():
        if key not in old or not _same(old[key], value):
            yield from _differing((*path, key), old.get(key), value)


def read_values(host: Host, text: str) -> Any:
    """Return what the text of a host's file says, as plain values.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        if host.format == "toml":
            return tomllib.loads(text)
        return parse(text).value if text.strip() else {}
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(f"This cannot be read as {host.format.upper()} ({reason}): correct it first.") from None


def _changed(host: Host, text: str, changes: Changes) -> str:
    before = read_values(host, text)
    toml: tuple[Callable[[str, Changes], str], ...] = (partial(_toml_table, host.path), _toml_document)
    for way in toml if host.format == "toml" else (_json,):
        with suppress(TypeError, ConfigError):
            wanted = _applied(before, changes)
            if _same(before, wanted):
                return text
            new = way(text, changes)
            if _same(_settled(host, read_values(host, new)), _settled(host, wanted)):
                return new
    # A layout that nobody thought of, here or in the library: nothing is written that was not meant.
    raise ConfigError("Its layout cannot be changed safely: put the entry that --print shows into it by hand.")


def _settled(host: Host, values: dict[str, Any]) -> dict[str, Any]:
    """The values without the table of all servers if it is empty: TOML has no way to keep it."""
    name = host.keys[0]
    return values if values.get(name, True) else {key: value for key, value in values.items() if key != name}


def _applied(values: Any, changes: Changes) -> Any:
    """A copy of the values with the changes made; TypeError where they do not fit."""
    values = deepcopy(values)
    for path, leaf in changes.items():
        holder = values
        for key, inner in pairwise(path):
            if not (_is_object(holder) and isinstance(key, str)):
                raise TypeError
            holder = holder.setdefault(key, [] if isinstance(inner, Item) else {})
        name = path[-1]
        if isinstance(name, Item):
            _apply_item(holder, name, leaf)
        elif not _is_object(holder):
            raise TypeError
        elif leaf is not None:
            holder[name] = leaf
        else:
            holder.pop(name, None)
    return values


def _apply_item(holder: Any, name: Item, leaf: Any) -> None:
    if not _is_array(holder):
        raise TypeError
    found = [at for at, each in enumerate(holder) if _is_object(each) and each.get("id") == name.id]
    at = found[-1] if found else len(holder)
    holder[at : at + 1] = [] if leaf is None else [leaf]


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, type by type: 1 is not true here, and nan is nan."""
    if _is_object(one) and _is_object(other):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if _is_array(one) and _is_array(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def _json(text: str, changes: Changes) -> str:
    text = text if text.strip() else "{}\n"
    for path, value in changes.items():
        text = drop(text, path) if value is None else put(text, path, value)
    return text


def _toml_table(path: tuple[str, ...], text: str, changes: Changes) -> str:
    """Our table changed, put in or cut out, and every byte around it as it was."""
    line_end = _line_end(text)
    if text and not text.endswith("\n"):
        return _toml_table(path, text + line_end, changes).removesuffix(line_end)
    start, end = _span(path, text)
    before, after = text[:start], text[end:]
    if changes == {path: None}:
        # The blank line goes that came with it.
        return re.sub(r"(?<=\n)\r?\n\Z", "", before) + after
    if before and start == end:
        before += line_end
    return before + _edited(text[start:end], changes, line_end) + after


def _toml_document(text: str, changes: Changes) -> str:
    """For an entry that is no table in one piece. The library takes comments above a header for the table's before."""
    new = _edited(text, changes, _line_end(text))
    if _comments(new) != _comments(text):
        raise ConfigError("A comment would be lost or moved.")
    return new


def _span(path: tuple[str, ...], text: str) -> tuple[int, int]:
    """From where to where our table stands; without one, where it goes: behind the last of its kind, or at the end."""
    kin = 0
    for shared, run in groupby(_tables(text), lambda table: _shared(path, table[0])):
        tables = list(run)
        if shared == len(path):
            return tables[0][1], tables[-1][2]
        if shared:
            kin = tables[-1][2]
    if kin:
        commented = ITS_COMMENTS.match(text, kin)
        place = commented.end() if commented else kin
    else:
        written = len(text.rstrip())
        place = text.index("\n", written) + 1 if written else 0
    return place, place


def _shared(path: tuple[str, ...], header: Any) -> int:
    """How many keys of the path a header names, from the first on."""
    if not path or not _is_object(header) or path[0] not in header:
        return 0
    return 1 + _shared(path[1:], header[path[0]])


def _tables(text: str) -> Iterator[tuple[Any, int, int]]:
    """Each header of a TOML text, as the values that it makes, where it begins, and where its last key ends."""
    header: Any = {}
    at = start = end = 0
    for statement, says in _statements(text):
        if statement.lstrip().startswith("["):
            yield header, start, end
            header, start = says, at
        at += len(statement)
        if says:
            end = at
    yield header, start, end


def _statements(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each header, key, comment and blank line of a TOML text, with what it says alone."""
    statement = ""
    for line in StringIO(text):
        inside, statement = bool(statement), statement + line
        if inside and not CLOSING.search(line):
            continue  # without a look at it: a text of many lines would be read as often
        try:
            says = tomllib.loads(statement)
        except ValueError:
            continue  # it goes on in the next line
        yield statement, says
        statement = ""


def _comments(text: str) -> Counter[tuple[str, str]]:
    """The comment lines of a TOML text, each with the header or comment that it stands above."""
    lines = [line for statement, _ in _statements(text) if (line := statement.strip())]
    return Counter(
        (line, below if below.startswith(("[", "#")) else "")
        for line, below in pairwise([*lines, ""])
        if line.startswith("#")
    )


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text and text.count("\n") == text.count("\r\n") else "\n"


def _edited(text: str, changes: Changes, line_end: str) -> str:
    import tomlkit  # only for hosts that keep TOML
    from tomlkit.exceptions import TOMLKitError

    try:
        document: Any = tomlkit.parse(text)
        for path, value in changes.items():
            _set_toml(document, path, value)
        new = tomlkit.dumps(document)
    except TOMLKitError as error:
        raise ConfigError(str(error)) from None
    return new.replace("\r\n", "\n").replace("\n", line_end) if line_end == "\r\n" else new


def _set_toml(holder: Any, path: tuple[Any, ...], value: Any) -> None:
    import tomlkit
    from tomlkit.items import InlineTable

    *way, name = path
    for key in way:
        if key not in holder:
            holder[key] = tomlkit.table(is_super_table=True)
        holder = holder[key]
    if value is None:
        holder.pop(name, None)
    elif _is_object(value):
        # Our entry is a table of its own; what is nested in it stands on one line.
        is_deep = len(way) > 1 and any(map(_is_object, value.values()))
        is_inline = not way or is_deep or isinstance(holder, InlineTable)
        table: Any = tomlkit.inline_table() if is_inline else tomlkit.table()
        for key, each in value.items():
            _set_toml(table, (key,), each)
        holder[name] = table
    else:
        holder[name] = value


def _yaml(values: Mapping[str, Any], margin: str = "") -> str:
    """Mappings as YAML blocks; scalars and lists as JSON, which YAML reads too."""
    return "".join(
        f"{margin}{key}:\n{_yaml(each, margin + '  ')}"
        if _is_object(each)
        else f"{margin}{key}: {json.dumps(each, ensure_ascii=False)}\n"
        for key, each in values.items()
    )


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_array(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
