"""Turn the Markdown of a model into HTML that can do nothing: one library renders it, another one cleans it."""

import html
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType]
from pygments.util import ClassNotFound

#: Characters that are rendered as Markdown: more would take seconds.
RENDERED_CHARS = 300_000
#: Lines and marks of Markdown in a text that is rendered: a text made of them takes minutes, in which no page answers.
RENDERED_MARKS = 20_000
#: Levels of quotes and lists that are rendered. The parser drops what is nested deeper.
RENDERED_LEVELS = 60
#: Characters of a code block that are coloured.
COLOURED_CHARS = 50_000
#: Tags that a text may have. There is no img: an image from elsewhere would report that it was looked at.
_TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
    "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {"a": {"href", "title"}, "span": {"class"}, "ol": {"start"}, "th": {"align"}, "td": {"align"}}
#: Characters that reorder the text around them, so that `exe.png` can look like something else. Marks for single
#: words in right-to-left scripts stay.
_REORDERING = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
#: Their escapes, for a text that is shown as it was written.
_REORDERING_ESCAPES = {code: f"\\u{code:04x}" for code in _REORDERING}
#: The style of an aligned cell, which the page forbids; in a text its quotes are escaped.
_ALIGNMENT = re.compile(r'style="text-align:(left|right|center)"')
#: Characters with a meaning in Markdown.
_MARKS = "\n[]*_~`|&<>!#\\"
#: A line with more levels than are rendered: quotes and lists in one another, or a list that is indented so far.
_TOO_DEEP = re.compile(
    r"^(?:[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t]))){25}|^[ \t]{50}[ \t]*(?:>|[-+*]|\d)", re.MULTILINE
)
_URL_SCHEMES = {"http", "https", "mailto"}
#: A tag, or the text between two tags. Cleaned HTML quotes each attribute, and has no other `<`.
_TAG_OR_TEXT = re.compile(r"""(<(?:[^>"]|"[^"]*")*>)|([^<]+)""")
_OPENED, _CLOSED = re.compile(r"<(?:a|code|pre)\b"), re.compile(r"</(?:a|code|pre)>")
_CITATION = re.compile(r"\[(\d{1,3})\]")


def render_markdown(text: str) -> str:
    """Return safe HTML of a Markdown text; one that is very long, or deeply nested, stays plain."""
    text = text.translate(_REORDERING)
    if len(text) > RENDERED_CHARS or _count_marks(text) > RENDERED_MARKS or _TOO_DEEP.search(text):
        return f"<pre>{html.escape(text)}</pre>"
    return nh3.clean(
        _ALIGNMENT.sub(r'align="\1"', _create_renderer().render(text)),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_URL_SCHEMES,
        attribute_filter=_keep_attribute,
        link_rel="noopener noreferrer nofollow",
    )


def _count_marks(text: str) -> int:
    return sum(map(text.count, _MARKS))


def escape_reordering(text: str) -> str:
    """Return a text with escapes for the characters that reorder the text around them."""
    return text.translate(_REORDERING_ESCAPES)


def link_citations(safe_html: str, sources: int) -> str:
    """Return HTML that was cleaned with links from the numbers of its sources, such as [1], to the list of sources."""
    pieces: list[str] = []
    inside = 0  # elements in which a number is no citation
    for tag, text in _TAG_OR_TEXT.findall(safe_html):
        if _CLOSED.match(tag):
            inside -= 1
        elif _OPENED.match(tag):
            inside += 1
        if text and not inside:
            text = _CITATION.sub(partial(_link_citation, sources), text)
        pieces.append(tag or text)
    return "".join(pieces)


def _link_citation(sources: int, match: re.Match[str]) -> str:
    number = int(match[1])
    if not 1 <= number <= sources:
        return match[0]
    return f'<sup><a href="#source-{number}">[{number}]</a></sup>'


def _keep_attribute(tag: str, name: str, value: str) -> str | None:
    """Return the value of an attribute; None for a relative link, which would lead into the page itself."""
    if (tag, name) == ("a", "href") and not value.startswith(("http://", "https://", "mailto:")):
        return None
    return value


def _create_renderer() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "highlight": _colour_code, "maxNesting": RENDERED_LEVELS})
    markdown.enable(["table", "strikethrough"])
    markdown.add_render_rule("image", _render_image_as_link)
    return markdown


def _colour_code(code: str, language: str, _: str) -> str:
    """Return a code block as HTML with classes for its colours; empty if the language is not known."""
    if not language or len(code) > COLOURED_CHARS:
        return ""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return ""
    return highlight(code, lexer, HtmlFormatter[str](nowrap=True))


def _render_image_as_link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    source: Any = tokens[index].attrGet("src")
    return f'<a href="{html.escape(str(source))}">{html.escape(tokens[index].content or str(source))}</a>'
