"""Our entry in the text of a host's file: put in, taken out, and the result checked. Pure."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import pairwise
from typing import Any, TypeGuard

from agent_jobs.errors import ConfigError
from agent_jobs.hosts import Entry, Host, Launch, input_of
from agent_jobs.hosts.jsonc import Item, Path, drop, parse, put

#: What has to stand at which path; None: nothing.
Changes = Mapping[Path, Any]


def installed(host: Host, text: str, launch: Launch, environment: Mapping[str, str]) -> str:
    """The text of the host's file with our entry in it; the same text if it is there as it should be.

    Raises:
        ConfigError: The text cannot be read, or is laid out in a way that cannot be changed safely.
    """
    old = entry_in(host, text)
    entry = host.entry(launch, environment, old)
    changes: dict[Path, Any] = dict(_differing(host.path, old, entry))
    for each, asked in ((old, False), (entry, True)):
        if question := input_of(each):
            changes["inputs", Item(question["id"])] = question if asked else None
    return _changed(host, text, changes)


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


def fragment(host: Host, launch: Launch, environment: Mapping[str, str]) -> str:
    """What a file of the host holds that has nothing but our entry."""
    if host.format == "yaml":
        return _yaml({host.path[0]: {host.path[-1]: host.entry(launch, environment)}})
    return installed(host, "", launch, environment)


def entry_in(host: Host, text: str) -> Entry | None:
    """Our entry in a text, None where there is none.

    Raises:
        ConfigError: As `installed`.
    """
    found = _read(host, text)
    for key in host.path:
        if not _is_object(found):
            kind = "table" if host.format == "toml" else "object"
            raise ConfigError(f"What should hold the servers is no {kind}: correct that first, or use --print.")
        if key not in found:
            return None
        found = found[key]
    if not _is_object(found) or not _is_object(found.get(host.env, {})):
        raise ConfigError(f"Its entry {host.path[-1]} is not one that a host could read: remove it, then try again.")
    return found


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


def _read(host: Host, text: str) -> Any:
    """What the text says, as plain values."""
    try:
        if host.format == "toml":
            return tomllib.loads(text)
        return parse(text).value if text.strip() else {}
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(f"This cannot be read as {host.format.upper()} ({reason}): correct it first.") from None


def _changed(host: Host, text: str, changes: Changes) -> str:
    before = _read(host, text)
    try:
        wanted = _applied(before, changes)
        if _same(before, wanted):
            return text
        new = _toml(text, changes) if host.format == "toml" else _json(text, changes)
        done = _same(_settled(host, _read(host, new)), _settled(host, wanted))
    except (TypeError, ConfigError):
        done, new = False, text
    if not done:
        # A layout that nobody thought of, here or in the library: nothing is written that was not meant.
        raise ConfigError("Its layout cannot be changed safely: put the entry that --print shows into it by hand.")
    return new


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


def _toml(text: str, changes: Changes) -> str:
    import tomlkit  # only for hosts that keep TOML
    from tomlkit.exceptions import TOMLKitError

    try:
        document: Any = tomlkit.parse(text)
        for path, value in changes.items():
            _set_toml(document, path, value)
        new = tomlkit.dumps(document)
    except TOMLKitError as error:
        raise ConfigError(str(error)) from None
    only_crlf = "\r\n" in text and text.count("\n") == text.count("\r\n")
    return new.replace("\r\n", "\n").replace("\n", "\r\n") if only_crlf else new


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
        table: Any = tomlkit.table() if way and not isinstance(holder, InlineTable) else tomlkit.inline_table()
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
