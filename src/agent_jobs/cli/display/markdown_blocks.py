"""Render Markdown for a terminal, block by block. Import this module late: it imports rich."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.color import ColorSystem
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from agent_jobs.cli.display import terminal
from agent_jobs.rendering.citations import Citation, insert_numbers

#: Styles that can be read on a light and on a dark background.
STYLES = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold dim",
        "markdown.code": "cyan",
        "markdown.code_block": "cyan",
        "markdown.block_quote": "dim",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
        "markdown.hr": "dim",
        "markdown.link": "bold",
        "markdown.link_url": "underline",
    }
)
#: Blocks that are written unchanged, so that they can be copied.
CODE_TYPES = ("fence", "code_block")
TAB_COLUMNS = 4


class Block(NamedTuple):
    """A block of a text, such as a paragraph, a list or a table, with its place."""

    begin: int
    end: int
    is_code: bool
    content: str  #: of a code block


class _LeftHeading(Heading):
    """A heading where the text begins."""

    LEVEL_ALIGN: ClassVar = {}


class _InnerCode(CodeBlock):
    """A code block in a list or a quotation, which has to be indented."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(str(self.text).rstrip().expandtabs(TAB_COLUMNS), style="markdown.code_block", overflow="fold")


class _Blocks(Markdown):
    """Parsed Markdown, without colours of programming languages."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _LeftHeading,
        "fence": _InnerCode,
        "code_block": _InnerCode,
    }

    def __init__(self, tokens: Sequence[Token]) -> None:
        super().__init__("", hyperlinks=False)  # a link shows where it leads
        self.parsed = list(tokens)


class MarkdownBlocks:
    """Renders blocks of one text for a terminal.

    Args:
        width: Columns of the terminal.
        has_colours: True to use colours and bold letters.
    """

    def __init__(self, width: int, *, has_colours: bool) -> None:
        self.width = width
        self._colours = ColorSystem.STANDARD if has_colours else None
        self._console = Console(
            file=io.StringIO(), width=width, force_terminal=True, legacy_windows=False, theme=STYLES, highlight=False,
            emoji=False, markup=False,
        )  # fmt: skip
        self._parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
        self._definitions: dict[str, object] = {}  #: of links, which later blocks use

    def split(self, text: str) -> list[Block]:
        """Return the blocks of a text in their order."""
        text = text.replace("\r\n", " \n").replace("\r", "\n")  # every character keeps its place
        tokens = [
            token for token in self._parser.parse(text, self._definitions) if token.level == 0 and token.nesting >= 0
        ]
        starts = [0, *(found.end() for found in re.finditer("\n", text))]
        begins = [starts[token.map[0]] for token in tokens if token.map]
        ends = [*begins, len(text)][1:]
        return [
            Block(begin, end, token.type in CODE_TYPES, token.content)
            for begin, end, token in zip(begins, ends, tokens, strict=True)
        ]

    def render(self, text: str, block: Block, citations: Iterable[Citation] = (), begin: int = 0) -> list[str]:
        """Return the lines of a block; those of code are as long as they are.

        Args:
            text: The text that was split.
            block: One of its blocks.
            citations: Places of the whole text that get the numbers of their sources.
            begin: Where `text` begins in the whole text.
        """
        if block.is_code:
            code = terminal.strip_control_characters(block.content).removesuffix("\n")
            style = self._console.get_style("markdown.code_block")
            return [self._style_text(line, style) for line in code.split("\n")]
        source = insert_numbers(text[block.begin : block.end], citations, begin=begin + block.begin)
        tokens = self._parser.parse(terminal.strip_control_characters(source), self._definitions)
        return self._render_tokens([*_clean_tokens(tokens)])

    def render_growing(self, text: str) -> list[str]:
        """Return the lines of a text that is not finished, each of them as wide as the terminal at most."""
        lines: list[str] = []
        for block in self.split(text):
            if block.is_code:
                shown = terminal.strip_control_characters(block.content).removesuffix("\n")
                code = Text(shown.expandtabs(TAB_COLUMNS), "markdown.code_block", overflow="crop", no_wrap=True)
                lines += map(self._join_line, self._console.render_lines(code, pad=False))
            else:
                lines += self.render(text, block)
            lines.append("")
        return lines[:-1]

    def _render_tokens(self, tokens: Sequence[Token]) -> list[str]:
        lines = map(self._join_line, self._console.render_lines(_Blocks(tokens), pad=False))
        text = "\n".join(lines).strip("\n")  # lists, tables and quotations begin with an empty line
        if not text:
            return []
        return text.split("\n")

    def _join_line(self, segments: Sequence[Segment]) -> str:
        """Return a line as text with its colours, without blanks at its end."""
        parts = [(each.text, each.style) for each in segments if not each.control]
        while parts and not parts[-1][0].strip():
            parts.pop()
        if parts:
            parts[-1] = (parts[-1][0].rstrip(), parts[-1][1])
        return "".join(self._style_text(text, style) for text, style in parts)

    def _style_text(self, text: str, style: Style | None) -> str:
        if style is None:
            return text
        return style.render(text, color_system=self._colours)


def _clean_tokens(tokens: Iterable[Token]) -> Iterable[Token]:
    """Yield tokens without the control characters that entities wrote, and with images and links as text."""
    for token in tokens:
        token.content = terminal.strip_control_characters(token.content)
        token.attrs = {
            name: terminal.strip_control_characters(value) if isinstance(value, str) else value
            for name, value in token.attrs.items()
        }
        if token.type == "image":
            yield _write_out_image(token)
            continue
        if token.children:
            token.children = _unwrap_links([*_clean_tokens(token.children)])
        yield token


def _write_out_image(token: Token) -> Token:
    words = " ".join(filter(None, (token.content, f"({token.attrs.get('src', '')})")))
    return Token("text", "", 0, content=words)


def _unwrap_links(tokens: Sequence[Token]) -> list[Token]:
    """Return tokens without the links whose text is their address, which would be shown twice."""
    kept: list[Token] = []
    at = 0
    while at < len(tokens):
        link = tokens[at : at + 3]
        if [each.type for each in link] == ["link_open", "text", "link_close"] and _is_address(link[1], link[0]):
            kept.append(link[1])
            at += 3
        else:
            kept.append(tokens[at])
            at += 1
    return kept


def _is_address(text: Token, link: Token) -> bool:
    address = str(link.attrs.get("href", ""))
    return text.content in (address, address.removeprefix("mailto:"), address.partition("://")[2])
