"""JSON as people keep it: one value set or removed in its text, with every other byte left as it is.

Comments and commas before a closing bracket are read, since editors allow them in their own files.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

WHITE = " \t\r\n"
SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.S)
STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
WORD = re.compile(r"-?[0-9][0-9.eE+-]*|true|false|null")


@dataclass(frozen=True, slots=True)
class Item:
    """In a path: the element of an array that has this `id`."""

    id: str


Path = tuple[str | Item, ...]


@dataclass(slots=True)
class Node:
    """A value and where it stands; `members` are those of an object or array."""

    start: int
    end: int
    value: Any
    members: "list[Member]" = field(default_factory=list["Member"])

    def member(self, key: "str | Item") -> "Member | None":
        """The last member of that name, which is the one that counts; None where there is none.

        Raises:
            TypeError: This is no object, or for an `Item` no array.
        """
        if not isinstance(self.value, list if isinstance(key, Item) else dict):
            raise TypeError
        return next((member for member in reversed(self.members) if member.key == key), None)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object, from its name on, or an element of an array."""

    key: "str | Item | None"
    start: int
    node: Node


def parse(text: str) -> Node:
    """Read a text.

    Raises:
        ValueError: It is not JSON, with or without comments; the message names the line.
    """
    reader = _Reader(text)
    try:
        node = reader.value(reader.skip(0))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if reader.skip(node.end) != len(text):
        raise reader.wrong(node.end)
    return node


def put(text: str, path: Path, value: Any) -> str:
    """The text with this value at that path; what is missing on the way there is made.

    Raises:
        TypeError: Something on the way is neither object nor array as the path has it.
        ValueError: The text is not JSON.
    """
    node = parse(text)
    for depth, key in enumerate(path):
        member = node.member(key)
        if member is None:
            for inner in reversed(path[depth + 1 :]):
                value = [value] if isinstance(inner, Item) else {inner: value}
            return _insert(text, node, key, value)
        node = member.node
    written = _written(value, _unit(text) if "\n" in text.strip() else None, _margin(text, node.start), text)
    return text[: node.start] + written + text[node.end :]


def drop(text: str, path: Path) -> str:
    """The text without what stands at that path; the same text where nothing does. Raises as `put` does."""
    node = holder = parse(text)
    found = None
    for key in path:
        holder, found = node, node.member(key)
        if found is None:
            return text
        node = found.node
    return _cut(text, holder, found) if found else text


class _Reader:
    """Reads values from a position on; every node knows its own end."""

    def __init__(self, text: str) -> None:
        self.text = text

    def skip(self, at: int) -> int:
        match = SPACE.match(self.text, at)
        return match.end() if match else at

    def wrong(self, at: int) -> ValueError:
        return ValueError(f"line {self.text.count(chr(10), 0, self.skip(at)) + 1} is not JSON")

    def value(self, at: int) -> Node:
        if self.text.startswith(("{", "["), at):
            return self.container(at)
        match = (STRING if self.text.startswith('"', at) else WORD).match(self.text, at)
        if match is None:
            raise self.wrong(at)
        try:
            return Node(at, match.end(), json.loads(match[0]))
        except ValueError:
            raise self.wrong(at) from None

    def container(self, start: int) -> Node:
        is_object = self.text[start] == "{"
        close = "}" if is_object else "]"
        members: list[Member] = []
        at = self.skip(start + 1)
        while not self.text.startswith(close, at):
            member = self.named(at) if is_object else self.element(at)
            members.append(member)
            at = self.skip(member.node.end)
            if self.text.startswith(",", at):
                at = self.skip(at + 1)
            elif not self.text.startswith(close, at):
                raise self.wrong(at)
        value: Any = {m.key: m.node.value for m in members} if is_object else [m.node.value for m in members]
        return Node(start, at + 1, value, members)

    def named(self, at: int) -> Member:
        name = self.value(at)
        colon = self.skip(name.end)
        if not isinstance(name.value, str) or not self.text.startswith(":", colon):
            raise self.wrong(at)
        return Member(name.value, at, self.value(self.skip(colon + 1)))

    def element(self, at: int) -> Member:
        node = self.value(at)
        named = node.member("id") if isinstance(node.value, dict) else None
        return Member(Item(named.node.value) if named and isinstance(named.node.value, str) else None, at, node)


def _insert(text: str, node: Node, key: "str | Item", value: Any) -> str:
    """Write a new last member, laid out as the others are."""
    name = "" if isinstance(key, Item) else f"{json.dumps(key, ensure_ascii=False)}: "
    close, margin, newline = node.end - 1, _margin(text, node.start), _newline(text)
    last = node.members[-1].node.end if node.members else node.start + 1
    comma = _comma(text, last) if node.members else None
    missing, trailing = ("," if node.members else "", "") if comma is None else ("", ",")
    if not _spread(text, node):
        at = last if comma is None else comma + 1
        space = " " if node.members else ""
        return f"{text[:at]}{missing}{space}{name}{_written(value, None, '', text)}{trailing}{text[at:]}"
    inner = _margin(text, node.members[-1].start) if node.members else margin + _unit(text)
    tail = max(len(text[:close].rstrip(WHITE)), last)  # comments behind the last member stay with it
    rest = text[tail:close] if node.members or "\n" in text[tail:close] else newline + margin
    member = f"{newline}{inner}{name}{_written(value, _unit(text), inner, text)}{trailing}"
    return f"{text[:last]}{missing}{text[last:tail]}{member}{rest}{text[close:]}"


def _spread(text: str, node: Node) -> bool:
    """Whether the members stand on lines of their own; an empty object has them so where the text has lines."""
    if node.members:
        return "\n" in text[node.start : node.members[0].start]
    return "\n" in text.strip() or not text[: node.start].strip()


def _cut(text: str, holder: Node, member: Member) -> str:
    """Take a member out with one comma and, where it stood alone on its lines, with those lines."""
    start, end = member.start, member.node.end
    index = holder.members.index(member)
    before = _comma(text, holder.members[index - 1].node.end) if index else None
    after = _comma(text, end)
    if after is not None:
        end, before = after + 1, None
    if not (text[holder.start + 1 : start] + text[end : holder.end - 1]).strip():
        return text[: holder.start + 1] + text[holder.end - 1 :]
    line = text.rfind("\n", 0, start)
    rest = re.compile(r"[ \t]*(?=\r?\n)").match(text, end)
    if line >= 0 and rest and not text[line:start].strip():
        start, end = line - (text[line - 1] == "\r"), rest.end()
    elif index:
        alone = before is not None and "/" not in text[before:start]  # a comment would swallow what follows
        start = len(text[:start].rstrip(WHITE if alone else " \t"))
    else:
        end = len(text) - len(text[end:].lstrip(" \t"))
    kept = text[:start] if before is None else text[:before] + text[before + 1 : start]
    return kept + text[end:]


def _comma(text: str, at: int) -> int | None:
    """Where the comma behind a member stands, if there is one."""
    match = SPACE.match(text, at)
    comma = match.end() if match else at
    return comma if text.startswith(",", comma) else None


def _margin(text: str, at: int) -> str:
    """The white space that the line of a position begins with."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    """One step of indentation, as the first indented line has it."""
    match = re.search(r"\n([ \t]+)[^ \t\r\n]", text)
    return match[1] if match else "  "


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _written(value: Any, unit: str | None, margin: str, text: str) -> str:
    written = json.dumps(value, indent=unit, ensure_ascii=False)
    if any("\ud800" <= char <= "\udfff" for char in written):
        written = json.dumps(value, indent=unit)  # half of a surrogate pair cannot be encoded
    return written.replace("\n", _newline(text) + margin)
