"""Add our entry to the text of a host's file, remove it, and check the result. Pure."""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import partial
from itertools import pairwise
from typing import Any

from agent_jobs.errors import ConfigError
from agent_jobs.install.hosts import Entry, Host, find_disabling_values, find_input
from agent_jobs.install.json_edit import Changes, Item, Path, edit_json, is_array, is_object, parse_text
from agent_jobs.install.machine import Launch
from agent_jobs.install.toml_edit import edit_document, edit_table

_Edit = Callable[[str, Changes], str]
#: Values that only an entry with the address of a server has.
_ADDRESS_VALUES = frozenset({"type", "url", "headers", "bearer_token_env_var"})
#: What holds the servers in each format.
_HOLDERS = {"json": "an object", "toml": "a table", "yaml": "an object"}


def install_entry(
    host: Host,
    text: str,
    launch: Launch,
    environment: Mapping[str, str],
    *,
    approve: bool = False,
    has_stored_key: bool = False,
) -> str:
    """Return the text of the host's file with our entry in it; the same text if the entry is there as it should be.

    Raises:
        ConfigError: The text cannot be read, or its layout cannot be changed safely.
    """
    old = read_entry(host, text)
    kept = _drop_address(old)
    new = host.entry(launch, environment, kept, approve=approve, has_stored_key=has_stored_key)
    differences = dict(_list_differences(host.path, old, new))
    return _apply_changes(host, text, differences | dict.fromkeys(_locate_input(old)) | _locate_input(new))


def replace_entry(host: Host, text: str, entry: Entry) -> str:
    """Return the text of the host's file with this entry in place of ours; the same text if it is there already.

    Raises:
        ConfigError: As `install_entry`.
    """
    return _apply_changes(host, text, dict(_list_differences(host.path, read_entry(host, text), entry)))


def enable_entry(host: Host, text: str) -> str:
    """Return the text of the host's file with our entry enabled; the same text if nothing disables it.

    Raises:
        ConfigError: As `install_entry`.
    """
    disabling = find_disabling_values(read_entry(host, text))
    return _apply_changes(host, text, {(*host.path, name): not value for name, value in disabling.items()})


def remove_entry(host: Host, text: str) -> str:
    """Return the text of the host's file without our entry and without the question for the key that only it asked.

    Raises:
        ConfigError: As `install_entry`.
    """
    entry = read_entry(host, text)
    if entry is None:
        return text
    return _apply_changes(host, text, {host.path: None, **dict.fromkeys(_locate_input(entry))})


def render_fragment(
    host: Host,
    launch: Launch,
    environment: Mapping[str, str],
    *,
    approve: bool = False,
    has_stored_key: bool = False,
) -> str:
    """Return a file of the host that has nothing but our entry."""
    if host.format != "yaml":
        return install_entry(host, "", launch, environment, approve=approve, has_stored_key=has_stored_key)
    entry = host.entry(launch, environment, has_stored_key=has_stored_key)
    if host.is_listed:
        lines = _format_yaml({"name": host.path[-1], **entry}, "    ")
        return f"{host.path[0]}:\n  - {lines.lstrip()}"
    return _format_yaml({host.path[0]: {host.path[-1]: entry}})


def refuse_comments(host: Host, text: str) -> None:
    """Refuse a text with comments if the host cannot read those: it would not see our entry.

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
            f"Line {line} has a comment or an extra comma. {host.title} reads plain JSON only and sees no server in "
            "this file: remove all comments and extra commas first."
        ) from None


def read_entry(host: Host, text: str) -> Entry | None:
    """Return our entry in a text, or None.

    Raises:
        ConfigError: As `install_entry`.
    """
    found = read_values(host, text)
    for key in host.path:
        if not is_object(found):
            kind = _HOLDERS[host.format]
            raise ConfigError(f"The value that should hold the servers is not {kind}. Fix it, or use --print.")
        if key not in found:
            return None
        found = found[key]
    return check_entry(host, found)


def check_entry(host: Host, entry: Any) -> Entry:
    """Return the value at the place of our entry.

    Raises:
        ConfigError: It is no entry.
    """
    if not is_object(entry) or not is_object(entry.get(host.env, {})):
        raise ConfigError(f"Its entry {host.path[-1]} is not one that a host can read. Remove it, then try again.")
    return entry


def read_values(host: Host, text: str) -> Any:
    """Return the values in the text of a host's file.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        if host.format == "toml":
            return tomllib.loads(text)
        if not text.strip():
            return {}
        return parse_text(text).value
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(f"This is not valid {host.format.upper()} ({reason}). Fix it, then try again.") from None


def _locate_input(entry: Entry | None) -> dict[Path, Any]:
    """Return the question for the key that an entry has asked, by its place; an empty mapping without one."""
    question = find_input(entry)
    if question is None:
        return {}
    return {("inputs", Item(question["id"])): question}


def _drop_address(entry: Entry | None) -> Entry | None:
    """Return the entry without the address of a server, which a host would prefer to the command."""
    if entry is None or "url" not in entry:
        return entry
    return {name: value for name, value in entry.items() if name not in _ADDRESS_VALUES}


def _list_differences(path: tuple[str, ...], old: Any, new: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the smallest changes that turn the old value into the new one, so that comments beside them stay."""
    if not (is_object(old) and is_object(new)):
        yield path, new
        return
    for key in sorted(old.keys() - new.keys()):
        yield (*path, key), None
    for key, value in new.items():
        if key not in old or not _is_same(old[key], value):
            yield from _list_differences((*path, key), old.get(key), value)


def _apply_changes(host: Host, text: str, changes: Changes) -> str:
    """Return the changed text, from the first way of editing that changes the values as it should."""
    before = read_values(host, text)
    edits: tuple[_Edit, ...] = (edit_json,)
    if host.format == "toml":
        edits = (partial(edit_table, host.path), edit_document)
    for edit in edits:
        with suppress(TypeError, ConfigError):
            expected = _change_values(before, changes)
            if _is_same(before, expected):
                return text
            new = edit(text, changes)
            if _is_same(_drop_empty_table(host, read_values(host, new)), _drop_empty_table(host, expected)):
                return new
    # The layout is one that neither this module nor tomlkit handles, so nothing is written.
    raise ConfigError("Its layout cannot be changed safely. Put the entry that --print shows into the file by hand.")


def _drop_empty_table(host: Host, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values without the table of all servers if it is empty: TOML cannot keep it."""
    name = host.keys[0]
    if values.get(name, True):
        return values
    return {key: value for key, value in values.items() if key != name}


def _change_values(values: Any, changes: Changes) -> Any:
    """Return a copy of the values with the changes made; TypeError if they do not fit."""
    values = deepcopy(values)
    for path, leaf in changes.items():
        holder = _find_holder(values, path)
        name = path[-1]
        if isinstance(name, Item):
            _change_item(holder, name, leaf)
        elif not is_object(holder):
            raise TypeError
        elif leaf is None:
            holder.pop(name, None)
        else:
            holder[name] = leaf
    return values


def _find_holder(values: Any, path: Path) -> Any:
    """Return the object or array that the last key of a path belongs to; missing ones on the way are added."""
    holder = values
    for key, inner in pairwise(path):
        if not (is_object(holder) and isinstance(key, str)):
            raise TypeError
        empty: Any = [] if isinstance(inner, Item) else {}
        holder = holder.setdefault(key, empty)
    return holder


def _change_item(holder: Any, name: Item, leaf: Any) -> None:
    """Replace, add or remove the last element of an array that has this id."""
    if not is_array(holder):
        raise TypeError
    positions = [at for at, each in enumerate(holder) if is_object(each) and each.get("id") == name.id]
    last = max(positions, default=len(holder))
    if leaf is None:
        del holder[last : last + 1]
    else:
        holder[last : last + 1] = [leaf]


def _is_same(one: Any, other: Any) -> bool:
    """Return True if two values are equal, type by type: 1 is not true here, and nan is nan."""
    if is_object(one) and is_object(other):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    if is_array(one) and is_array(other):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def _format_yaml(values: Mapping[str, Any], margin: str = "") -> str:
    """Return mappings as YAML blocks; scalars and lists as JSON, which YAML reads too."""
    lines: list[str] = []
    for key, value in values.items():
        if is_object(value):
            lines += [f"{margin}{key}:\n", _format_yaml(value, margin + "  ")]
        else:
            lines.append(f"{margin}{key}: {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)
