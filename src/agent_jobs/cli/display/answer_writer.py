"""Print an answer while it is written: as Markdown on a terminal, unchanged into a pipe."""

import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.sections import format_heading
from agent_jobs.engine.engine import LiveText
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import JSON, items_of
from agent_jobs.jobs.status import Status
from agent_jobs.rendering.citations import Citation, Citations, cite_output
from agent_jobs.text import encode_text

if TYPE_CHECKING:  # imports rich
    from agent_jobs.cli.display.markdown_blocks import MarkdownBlocks

#: What precedes the next attempt at an answer.
NEXT_TURN = "The job continues after its tool calls. The text above is not its final answer."
SENT_AGAIN = "The provider began the answer again. The text above is not part of it."
DIFFERENT = "The final answer differs from the text above. It follows in full."
#: Characters of a growing block that are rendered again for each new word; longer ones are shown as they are.
MAX_GROWING_CHARS = 10_000
#: Characters of an unfinished line that show what it is: a marker of a list, for one, has fewer.
CLEAR_LINE_CHARS = 12
#: The first half of a character of two UTF-16 units whose second half has not arrived yet.
HALF_CHARACTERS = ("\ud800", "\udbff")


class AnswerWriter(Protocol):
    """Prints an answer on stdout."""

    @property
    def has_begun(self) -> bool:
        """Return True once a part of it is printed."""
        ...

    def update(self, live: LiveText, turn: int) -> None:
        """Print the part of the answer that can no longer change."""
        ...

    def draw_growing(self, width: int) -> list[str]:
        """Return the lines of the unfinished text, for a terminal that can overwrite them."""
        ...

    def finish(self, job: Job, output: object) -> None:
        """Print the rest of a finished job's answer, with its sources."""
        ...


def is_stdout_pipe() -> bool:
    """Return True if another program reads stdout; a file is written at the end, when the answer is certain."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_IFMT(mode) in (stat.S_IFIFO, stat.S_IFSOCK)


class SilentWriter:
    """Prints no answer, for a command that shows only the progress."""

    has_begun = False

    def update(self, live: LiveText, turn: int) -> None:
        """Print nothing."""

    def draw_growing(self, width: int) -> list[str]:
        """Return nothing."""
        return []

    def finish(self, job: Job, output: object) -> None:
        """Print nothing."""


class PlainWriter:
    """Writes an answer unchanged."""

    def __init__(self, hide: Callable[[], None] = lambda: None, *, is_streaming: bool) -> None:
        self._hide = hide
        self._is_streaming = is_streaming
        self._written = ""
        self._turn = 1
        self._has_begun = False

    @property
    def has_begun(self) -> bool:
        """Return True once a part of the answer is printed."""
        return self._has_begun

    def update(self, live: LiveText, turn: int) -> None:
        """Write the words that are new."""
        if not self._is_streaming:
            return
        text = _cut_half_character(live.text)
        if not text.startswith(self._written):
            self._restart_answer(_explain_restart(self._turn, turn))
        self._turn = turn
        self._write_text(text[len(self._written) :])

    def draw_growing(self, width: int) -> list[str]:
        """Return nothing: all is written."""
        return []

    def finish(self, job: Job, output: object) -> None:
        """Write the rest of the answer."""
        final = choose_final_text(job, self._written)
        rest = find_unwritten_text(self._written, final)
        if rest is None:
            self._hide()
            click.echo(f"\n{DIFFERENT}", err=True)
            self._end_last_line()
            rest = final
        self._write_text(rest)
        self._end_last_line()

    def _restart_answer(self, why: str) -> None:
        self._end_last_line()
        click.echo(why, err=True)
        self._written = ""

    def _end_last_line(self) -> None:
        if self._written and not self._written.endswith("\n"):
            self._write_text("\n")

    def _write_text(self, text: str) -> None:
        if not text:
            return
        self._hide()
        self._has_begun = True
        self._written += text
        click.echo(encode_text(text), nl=False)


class TerminalWriter:
    """Prints an answer as Markdown: each block once it is finished."""

    def __init__(self, hide: Callable[[], None] = lambda: None, *, is_streaming: bool) -> None:
        self._hide = hide
        self._is_streaming = is_streaming
        self._blocks: MarkdownBlocks | None = None
        self._text = ""  #: so far
        self._printed = 0  #: characters of it that are printed
        self._turn = 1
        self._gap: list[str] = []  #: the empty line above a block; the first one has none
        self._citations = Citations()
        self._places: list[Citation] = []
        self._notes_read = 0

    @property
    def has_begun(self) -> bool:
        """Return True once a block is printed."""
        return bool(self._gap)

    def update(self, live: LiveText, turn: int) -> None:
        """Print the blocks that are finished."""
        if not self._is_streaming:
            return
        text = live.text
        if not text.startswith(self._text):
            self._restart_answer(_explain_restart(self._turn, turn))
        self._turn = turn
        self._read_notes(live)
        if text == self._text:
            return
        self._text = text
        begin = self._printed
        lines = _cut_unclear_line(text[begin:])
        for block, following in pairwise(self._block_renderer.split(lines)):
            self._print_lines(self._block_renderer.render(lines, block, self._places, begin))
            self._printed = begin + following.begin

    def draw_growing(self, width: int) -> list[str]:
        """Return the lines of the block that is being written."""
        growing = self._text[self._printed :]
        if not growing.strip():
            return []
        if len(growing) > MAX_GROWING_CHARS:
            from agent_jobs.cli.display.progress import wrap_tail

            return wrap_tail(growing[-MAX_GROWING_CHARS:], width, MAX_GROWING_CHARS, has_colours=False)
        return [*self._gap, *self._block_renderer.render_growing(growing)]

    def finish(self, job: Job, output: object) -> None:
        """Print the blocks that are left, and the sources."""
        final = choose_final_text(job, self._text)
        places, sources = cite_output(output)
        rest = find_unwritten_text(self._text[: self._printed], final)
        if rest is None:
            self._restart_answer(DIFFERENT)
        else:
            self._printed = len(final) - len(rest)
        self._text = final
        self._print_rest(places)
        if sources:
            self._print_lines(render_sources(sources))

    def print_text(self, text: str) -> None:
        """Print a text without sources."""
        self._text, self._printed = text, 0
        self._print_rest(())

    @property
    def _block_renderer(self) -> "MarkdownBlocks":
        width = shutil.get_terminal_size().columns
        if self._blocks is None or self._blocks.width != width:  # the user may resize the terminal
            from agent_jobs.cli.display.markdown_blocks import MarkdownBlocks

            self._blocks = MarkdownBlocks(width, has_colours=terminal.has_colours(sys.stdout))
        return self._blocks

    def _read_notes(self, live: LiveText) -> None:
        """Number the sources that arrived since the last time."""
        offsets = live.list_offsets()
        for index, note in live.notes[self._notes_read :]:
            place = self._citations.cite(note, offsets.get(index, 0))
            if place is not None and index in offsets and place.start >= 0:
                self._places.append(place)
        self._notes_read = len(live.notes)

    def _restart_answer(self, why: str) -> None:
        """Print the rest of the text and the reason why it is not the answer, and discard it."""
        self._print_rest(self._places)
        if self.has_begun:
            self._hide()
            click.echo()
            click.echo(why, err=True)
        self._text, self._printed, self._notes_read = "", 0, 0
        self._citations = Citations()
        self._places = []

    def _print_rest(self, places: Sequence[Citation]) -> None:
        rest = self._text[self._printed :]
        if not rest.strip():
            return
        for block in self._block_renderer.split(rest):
            self._print_lines(self._block_renderer.render(rest, block, places, self._printed))
        self._printed = len(self._text)

    def _print_lines(self, lines: Sequence[str]) -> None:
        """Print a block below an empty line, unless it is the first one."""
        self._hide()
        click.echo(encode_text("\n".join([*self._gap, *lines])))
        self._gap = [""]


def choose_final_text(job: Job, written: str) -> str:
    """Return a finished job's answer; of one that did not complete, what its stream brought if that is more."""
    from agent_jobs.rendering.answers import read_output_text

    final = read_output_text(job)
    is_cut = job.status is not Status.COMPLETED or not final
    if is_cut and written.endswith(final):
        return written
    return final


def find_unwritten_text(written: str, final: str) -> str | None:
    """Return what of the final text is not written yet; None if it begins with something else.

    White space does not count: only the final text has blank lines between messages.
    """
    if final.startswith(written):
        return final[len(written) :]
    known = "".join(written.split())
    if not "".join(final.split()).startswith(known):
        return None
    ends = [0, *(at for at, character in enumerate(final, 1) if not character.isspace())]
    return final[ends[len(known)] :]


def render_sources(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the numbered list of sources; each address is on one line, so that it can be opened."""
    lines = [format_heading("Sources")]
    width = len(f"[{len(sources)}]") + 1
    for number, source in enumerate(sources, 1):
        names = [source.get("title"), source.get("filename"), source.get("url"), source.get("file_id")]
        first, *more = dict.fromkeys(terminal.join_lines(str(name)) for name in names if name)
        lines.append(f"{f'[{number}]':<{width}}{first}")
        if "url" in source:
            lines += [" " * width + each for each in more[:1]]
    return lines


def can_lead_to_next_turn(request: JSON) -> bool:
    """Return True if the request has tools whose calls lead to another turn."""
    tools = items_of(request.get("tools"))
    return any(
        tool.get("type") in ("function", "custom")
        or (tool.get("type") == "mcp" and tool.get("require_approval") != "never")
        for tool in tools
    )


def _cut_unclear_line(text: str) -> str:
    """Return a text without its last line if that is too short to decide which block it belongs to."""
    begin = text.rfind("\n") + 1
    if len(text[begin:].strip()) < CLEAR_LINE_CHARS:
        return text[:begin]
    return text


def _explain_restart(turn: int, next_turn: int) -> str:
    if next_turn > turn:
        return NEXT_TURN
    return SENT_AGAIN


def _cut_half_character(text: str) -> str:
    first, last = HALF_CHARACTERS
    if first <= text[-1:] <= last:
        return text[:-1]
    return text
