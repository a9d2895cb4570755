"""`agent-jobs search`: find jobs by words of their prompts and answers."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from agent_jobs.cli.choice import NamedChoice, refuse_both
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.sections import style, wrap_line
from agent_jobs.cli.display.symbols import choose_icon, echo
from agent_jobs.cli.job_list import STATUS_NAMES, find_statuses
from agent_jobs.cli.session import Session, json_option, print_ids, quiet_option, run_in_session
from agent_jobs.cli.times import format_day
from agent_jobs.jobs.queries import MATCH_BEGIN, MATCH_END, SearchHit
from agent_jobs.jobs.status import Status

#: From this many jobs on, indexing takes long enough for a message to the user.
MANY_JOBS = 1_000
INDENT = "  "
_MARK = re.compile(f"[{MATCH_BEGIN}{MATCH_END}]")
_UNMARKED = re.compile(f"[^{MATCH_BEGIN}{MATCH_END}]+")
_M = f"[{MATCH_BEGIN}{MATCH_END}]*"
#: The signs of Markdown in a passage, around which a match may begin or end, and what stays of them.
_MARKDOWN = (
    (re.compile(r"!?\[([^\]\n]*)\]\([^()\s]*\)"), r"\1"),  # a link, whose text stays
    (re.compile(rf"^(\s*…?{_M})(?:#+|>+|[-*+])(?=\s)\s*", re.M), r"\1"),  # a heading, a quotation, an item
    (re.compile(r"^\s*(?:```+|~~~+)\w*\s*$|^[\s|:-]*-{3,}[\s|:-]*$", re.M), ""),  # a fence, a rule
    (re.compile(r"\*\*|__|~~|`"), ""),
    (re.compile(rf"(?<!\w)[*_](?={_M}\w)|(?<=[\w.,{MATCH_BEGIN}{MATCH_END}])[*_](?!\w)"), ""),  # emphasis
    (re.compile(r"\s*\|\s*"), "  "),  # cells of a table
)


@click.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--status", type=NamedChoice(STATUS_NAMES), help="Only jobs with this status; open means unfinished.")
@click.option("-n", "--limit", type=click.IntRange(1, 1_000), default=10, show_default=True, help="Jobs at most.")
@quiet_option
@json_option
def search_command(words: tuple[str, ...], status: str | None, limit: int, ids_only: bool, as_json: bool) -> None:
    """Find jobs by words of their titles, prompts and answers, newest first.

    A job must have all words. A word may be the beginning of one, in any case. To find words that stand together, quote
    them twice: agent-jobs search '"write-ahead log"'.

    Of a job that has not finished, only the prompt is searched.
    """
    text = " ".join(words)
    if not re.search(r"\w", text):
        raise click.UsageError("Give at least one word with a letter or a digit.")
    refuse_both({"--quiet": ids_only, "--json": as_json})

    async def search(session: Session) -> list[SearchHit]:
        if (count := await session.engine.count_unindexed()) >= MANY_JOBS:
            click.echo(f"Indexing {count:,} jobs, once ...", err=True)
        return await session.engine.search(text, limit, find_statuses(status))

    hits = run_in_session(search)
    if as_json:
        return click.echo(_render_hits_as_json(hits))
    if ids_only:
        return print_ids([hit.job for hit in hits])
    if not hits:
        return echo(_describe_no_hits(text, status))
    return echo("\n".join(_render_hits(hits, limit)))


def _describe_no_hits(text: str, status: str | None) -> str:
    """Return that nothing was found, and what to do."""
    among = ""
    if status:
        among = f" among the jobs with status {status}"
    return f"Nothing found for {terminal.join_lines(text)!r}{among}. Try fewer words, or: agent-jobs list"


def _render_hits(hits: Sequence[SearchHit], limit: int) -> Iterator[str]:
    for hit in hits:
        yield from _render_hit(hit)
    if len(hits) == limit:
        yield f"The newest {limit}; more: -n {limit * 10}"


def _render_hit(hit: SearchHit) -> Iterator[str]:
    """Yield a line for the job, and below it the passage; into a pipe both on one line."""
    job, width = hit.job, terminal.find_width()
    lead = f"{job.id}  {format_day(job.created_at)}  "
    title = terminal.join_lines(job.title)
    if width == terminal.UNLIMITED:
        yield f"{lead}{job.status}  {title}  {_MARK.sub('', _clean_passage(hit.passage))}"
        return
    icon = style(choose_icon(job.status), colour=_colour_of(job.status))
    room = max(terminal.MIN_WRAP_COLUMNS, width - len(lead) - 2)
    yield f"{lead}{icon} {terminal.cut_columns(title, room)}"
    yield from _highlight_lines(wrap_line(_clean_passage(hit.passage), width - len(INDENT)))


def _highlight_lines(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines with their matches in bold; a match may continue on the next line."""
    is_match = False
    for line in lines:
        shown = ""
        for piece in re.split(f"([{MATCH_BEGIN}{MATCH_END}])", line):
            if piece in (MATCH_BEGIN, MATCH_END):
                is_match = piece == MATCH_BEGIN
            elif piece:
                shown += style(piece, bold=is_match)
        yield INDENT + shown


def _clean_passage(passage: str) -> str:
    """Return a passage as one line without signs of Markdown, but with the marks around its matches."""
    from agent_jobs.rendering.citations import remove_marks

    passage = remove_marks(passage)
    for pattern, kept_part in _MARKDOWN:
        passage = pattern.sub(kept_part, passage)
    shown = _UNMARKED.sub(lambda found: terminal.strip_control_characters(found[0]), passage)
    return " ".join(shown.split())


def _colour_of(status: Status) -> str | int:
    return terminal.COLOURS.get(status, "cyan")


def _render_hits_as_json(hits: Sequence[SearchHit]) -> str:
    from agent_jobs.rendering import answers

    return answers.format_json_line({"jobs": [_render_hit_fields(hit) for hit in hits]})


def _render_hit_fields(hit: SearchHit) -> dict[str, Any]:
    """Return a hit with its passage, and the places of the matches in it."""
    text, matches, begin = "", list[list[int]](), 0
    for piece in re.split(f"([{MATCH_BEGIN}{MATCH_END}])", hit.passage):
        if piece == MATCH_BEGIN:
            begin = len(text)
        elif piece == MATCH_END:
            matches.append([begin, len(text)])
        else:
            text += piece
    job = hit.job
    return {
        "job_id": job.id,
        "status": job.status,
        "created_at": round(job.created_at),
        "title": job.title,
        "passage": text,
        "matches": matches,
    }
