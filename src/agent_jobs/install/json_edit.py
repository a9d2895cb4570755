"""Set and remove values in the text of JSON with comments, and leave every other byte as it is.

Comments and commas before a closing bracket are read, because editors allow them in their own files.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

WHITE = " \t\r\n"
SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.S)
STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
WORD = re.compile(r"-?[0-9][0-9.eE+-]*|true|false|null")
INDENT = re.compile(r"\n([ \t]+)[^ \t\r\n]")
BLANK_REST_OF_LINE = re.compile(r"[ \t]*(?=\r?\n)")
DEFAULT_INDENT = "  "  # what most hosts write


@dataclass(frozen=True, slots=True)
class Item:
    """In a path: the element of an array that has this `id`."""

    id: str


Path = tuple[str | Item, ...]
#: The value to set at each path; None removes the value there.
Changes = Mapping[Path, Any]


@dataclass(slots=True)
class Node:
    """A value and its position; `members` are those of an object or array."""

    start: int
    end: int
    value: Any
    members: "list[Member]" = field(default_factory=list["Member"])

    def find_member(self, key: "str | Item") -> "Member | None":
        """Return the last member of that name, which is the one that counts, or None.

        Raises:
            TypeError: This is no object, or for an `Item` no array.
        """
        holder = list if isinstance(key, Item) else dict
        if not isinstance(self.value, holder):
            raise TypeError
        return next((member for member in reversed(self.members) if member.key == key), None)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object, from its name on, or an element of an array."""

    key: "str | Item | None"
    start: int
    node: Node


def edit_json(text: str, changes: Changes) -> str:
    """Return the text with all changes made; a blank text counts as an empty object.

    Raises:
        TypeError: Something on the way is neither object nor array as the path has it.
        ValueError: The text is not JSON.
    """
    if not text.strip():
        text = "{}\n"
    for path, value in changes.items():
        if value is None:
            text = drop_value(text, path)
            continue
        text = put_value(text, path, value)
    return text


def parse_text(text: str) -> Node:
    """Read a text.

    Raises:
        ValueError: It is not JSON, with or without comments; the message names the line.
    """
    reader = _Reader(text)
    try:
        node = reader.read_value(reader.skip_space(0))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if reader.skip_space(node.end) != len(text):
        raise reader.describe_error(node.end)
    return node


def put_value(text: str, path: Path, value: Any) -> str:
    """Return the text with this value at that path; objects and arrays that are missing on the way are added.

    Raises:
        TypeError: Something on the way is neither object nor array as the path has it.
        ValueError: The text is not JSON.
    """
    node = parse_text(text)
    for depth, key in enumerate(path):
        member = node.find_member(key)
        if member is None:
            return _insert_member(text, node, key, _nest_value(path[depth + 1 :], value))
        node = member.node
    indent = None
    if "\n" in text.strip():
        indent = _find_indent(text)
    replacement = _format_value(value, indent, _find_margin(text, node.start), text)
    return text[: node.start] + replacement + text[node.end :]


def drop_value(text: str, path: Path) -> str:
    """Return the text without the value at that path; the same text if there is none. Raises as `put_value` does."""
    node = holder = parse_text(text)
    member = None
    for key in path:
        holder, member = node, node.find_member(key)
        if member is None:
            return text
        node = member.node
    if member is None:
        return text
    return _cut_member(text, holder, member)


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return True if a value that was read is an object, or a table of TOML."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Return True if a value that was read is an array."""
    return isinstance(value, list)


class _Reader:
    """Reads values from a position on; every node knows its own end."""

    def __init__(self, text: str) -> None:
        self.text = text

    def skip_space(self, at: int) -> int:
        return _skip_space(self.text, at)

    def describe_error(self, at: int) -> ValueError:
        line = self.text.count("\n", 0, self.skip_space(at)) + 1
        return ValueError(f"line {line} is not JSON")

    def read_value(self, at: int) -> Node:
        match self.text[at : at + 1]:
            case "{":
                return self.read_object(at)
            case "[":
                return self.read_array(at)
            case '"':
                return self.read_scalar(at, STRING)
            case _:
                return self.read_scalar(at, WORD)

    def read_scalar(self, at: int, pattern: re.Pattern[str]) -> Node:
        found = pattern.match(self.text, at)
        if found is None:
            raise self.describe_error(at)
        try:
            return Node(at, found.end(), json.loads(found[0]))
        except ValueError:
            raise self.describe_error(at) from None

    def read_object(self, start: int) -> Node:
        members, end = self.read_members(start, "}", self.read_member)
        return Node(start, end, {member.key: member.node.value for member in members}, members)

    def read_array(self, start: int) -> Node:
        members, end = self.read_members(start, "]", self.read_element)
        return Node(start, end, [member.node.value for member in members], members)

    def read_members(self, start: int, close: str, read: Callable[[int], Member]) -> tuple[list[Member], int]:
        """Return the members between two brackets, and the position behind the closing one."""
        members: list[Member] = []
        at = self.skip_space(start + 1)
        while not self.text.startswith(close, at):
            members.append(read(at))
            at = self.skip_comma(members[-1].node.end, close)
        return members, at + 1

    def skip_comma(self, at: int, close: str) -> int:
        """Return the position of the next member or of the closing bracket."""
        at = self.skip_space(at)
        if self.text.startswith(",", at):
            return self.skip_space(at + 1)
        if not self.text.startswith(close, at):
            raise self.describe_error(at)
        return at

    def read_member(self, at: int) -> Member:
        name = self.read_value(at)
        colon = self.skip_space(name.end)
        if not isinstance(name.value, str) or not self.text.startswith(":", colon):
            raise self.describe_error(at)
        return Member(name.value, at, self.read_value(self.skip_space(colon + 1)))

    def read_element(self, at: int) -> Member:
        node = self.read_value(at)
        if not is_object(node.value) or not isinstance(node.value.get("id"), str):
            return Member(None, at, node)
        return Member(Item(node.value["id"]), at, node)


def _nest_value(path: Path, value: Any) -> Any:
    """Return the value inside the objects and arrays of a path."""
    for key in reversed(path):
        value = {key: value} if isinstance(key, str) else [value]
    return value


def _insert_member(text: str, node: Node, key: "str | Item", value: Any) -> str:
    """Return the text with a new last member, laid out as the others are."""
    name = ""
    if isinstance(key, str):
        name = f"{json.dumps(key, ensure_ascii=False)}: "
    if not _is_spread(text, node):
        return _insert_in_line(text, node, name + _format_value(value, None, "", text))
    if node.members:
        margin = _find_margin(text, node.members[-1].start)
    else:
        margin = _find_margin(text, node.start) + _find_indent(text)
    return _insert_line(text, node, margin, name + _format_value(value, _find_indent(text), margin, text))


def _insert_in_line(text: str, node: Node, member: str) -> str:
    if not node.members:
        at = node.start + 1
        return text[:at] + member + text[at:]
    last = node.members[-1].node.end
    comma = _find_comma(text, last)
    if comma is None:
        return f"{text[:last]}, {member}{text[last:]}"
    return f"{text[: comma + 1]} {member},{text[comma + 1 :]}"


def _insert_line(text: str, node: Node, margin: str, member: str) -> str:
    close = node.end - 1
    line = _find_newline(text) + margin + member
    # Comments behind the last member stay with it.
    tail = len(text[:close].rstrip(WHITE))
    if not node.members:
        if "\n" in text[tail:close]:
            return text[:tail] + line + text[tail:]
        return text[:tail] + line + _find_newline(text) + _find_margin(text, node.start) + text[close:]
    last = node.members[-1].node.end
    if _find_comma(text, last) is not None:
        return f"{text[:tail]}{line},{text[tail:]}"
    return f"{text[:last]},{text[last:tail]}{line}{text[tail:]}"


def _is_spread(text: str, node: Node) -> bool:
    """Return True if the members have lines of their own; for an empty object, if the text has several lines."""
    if node.members:
        return "\n" in text[node.start : node.members[0].start]
    return "\n" in text.strip() or not text[: node.start].strip()


def _cut_member(text: str, holder: Node, member: Member) -> str:
    """Return the text without a member and one comma and, if it stood alone on its lines, without those lines."""
    start, end = member.start, member.node.end
    index = holder.members.index(member)
    comma_after = _find_comma(text, end)
    comma_before = None
    if comma_after is not None:
        end = comma_after + 1
    elif index > 0:
        comma_before = _find_comma(text, holder.members[index - 1].node.end)
    others = text[holder.start + 1 : start] + text[end : holder.end - 1]
    if not others.strip():
        return text[: holder.start + 1] + text[holder.end - 1 :]
    start, end = _widen_cut(text, start, end, comma_before, is_first=index == 0)
    if comma_before is None:
        return text[:start] + text[end:]
    return text[:comma_before] + text[comma_before + 1 : start] + text[end:]


def _widen_cut(text: str, start: int, end: int, comma_before: int | None, *, is_first: bool) -> tuple[int, int]:
    """Return the span of a member with the white space that goes with it."""
    line = text.rfind("\n", 0, start)
    rest = BLANK_REST_OF_LINE.match(text, end)
    if line >= 0 and rest and not text[line:start].strip():
        if text[line - 1] == "\r":
            line -= 1
        return line, rest.end()
    if is_first:
        return start, len(text) - len(text[end:].lstrip(" \t"))
    if comma_before is None or "/" in text[comma_before:start]:
        # A comment to the end of its line would swallow what follows, so the line break stays.
        return len(text[:start].rstrip(" \t")), end
    return len(text[:start].rstrip(WHITE)), end


def _skip_space(text: str, at: int) -> int:
    """Return the first position from here on that is neither white space nor comment."""
    space = SPACE.match(text, at)
    assert space is not None, "the pattern also matches an empty text"
    return space.end()


def _find_comma(text: str, at: int) -> int | None:
    """Return the position of the comma behind a member, or None."""
    comma = _skip_space(text, at)
    if text.startswith(",", comma):
        return comma
    return None


def _find_margin(text: str, at: int) -> str:
    """Return the white space that the line of a position begins with."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _find_indent(text: str) -> str:
    """Return one step of indentation, as the first indented line has it."""
    match = INDENT.search(text)
    if match:
        return match[1]
    return DEFAULT_INDENT


def _find_newline(text: str) -> str:
    if "\r\n" in text:
        return "\r\n"
    return "\n"


def _format_value(value: Any, indent: str | None, margin: str, text: str) -> str:
    formatted = json.dumps(value, indent=indent, ensure_ascii=False)
    if any("\ud800" <= char <= "\udfff" for char in formatted):
        formatted = json.dumps(value, indent=indent)  # half of a surrogate pair cannot be encoded
    return formatted.replace("\n", _find_newline(text) + margin)
