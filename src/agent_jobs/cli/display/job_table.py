"""A table of jobs for a terminal or a pipe."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.job_line import format_run_time
from agent_jobs.cli.display.sections import measure_columns, style, wrap_sentence
from agent_jobs.cli.display.symbols import choose_branch_mark, choose_icon, choose_unread_mark
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobPage
from agent_jobs.jobs.status import Status

#: Columns of a title that the other columns leave at least, if they can.
MIN_TITLE_COLUMNS = 24
#: Columns of a title on a terminal that is too narrow for anything.
FEWEST_TITLE_COLUMNS = 8
#: A longer model name is cut.
MODEL_COLUMNS = 18
#: A longer name of an owner is cut.
OWNER_COLUMNS = 18
#: Columns of the sign before a title.
MARK_COLUMNS = 2
#: Before the branch mark of a follow-up, once for each job above the one that it continues.
INDENT = "  "
#: Columns between two columns of the table.
GAP = "  "
#: Columns of words; all others are figures, which are aligned on the right.
WORD_COLUMNS = ("ID", "STATUS", "OWNER", "MODEL")
#: Columns that a narrow terminal leaves out, in this order. The sign of the status stays.
DROPPED = ("MODEL", "TOKENS", "TIME", "COST", "AGE", "OWNER", "STATUS")
#: The column of the sign, without a heading.
SIGN = ""


def render_table(page: JobPage, now: float, *, is_tree: bool) -> Iterator[str]:
    """Yield the lines of the table and its summary; with `is_tree`, follow-ups are below the continued jobs."""
    tree = [(job, "") for job in page.jobs]
    if is_tree:
        tree = list(_arrange_as_tree(page.jobs))
    rows = [_build_row(job, now) for job, _ in tree]
    has_unread = any(job.is_undelivered for job in page.jobs)
    room = terminal.find_width()
    widths = _choose_columns(rows, room - MARK_COLUMNS * has_unread)
    title_width = max(FEWEST_TITLE_COLUMNS, room - _sum_widths(widths))
    yield GAP.join([*(_align_cell(name, name, width) for name, width in widths.items()), "TITLE"])
    for (job, lead), row in zip(tree, rows, strict=True):
        title = f"{lead}{terminal.join_lines(job.title)}"
        if has_unread:
            title = f"{_choose_mark(job)}{title}"
        title, below = _place_reason(title, describe_pending(job, now), widths["ID"] + len(GAP))
        title = style(terminal.cut_columns(title, title_width).rstrip(), bold=job.is_undelivered)
        yield GAP.join([*_render_cells(job, row, widths), title])
        yield from below
    yield ""
    yield from wrap_sentence(_summarize_page(page))


def _place_reason(title: str, reason: str, margin: int) -> tuple[str, list[str]]:
    """Return a title and what stands below it: the reason of a pending job, which into a pipe follows the title."""
    if not reason:
        return title, []
    if not terminal.is_width_limited():
        return f"{title} ({reason})", []
    line = terminal.cut_columns(" " * margin + reason, terminal.find_width())
    return title, [style(line, dim=True)]


def describe_pending(job: Job, now: float) -> str:
    """Return why a job was not sent yet; empty if that is not known, or it was sent."""
    if job.status is not Status.PENDING or not job.activity:
        return ""
    reason = terminal.join_lines(job.activity)
    if job.due_at is not None and job.due_at > now + 1 and not job.activity.startswith("waiting"):
        return f"{reason} in {terminal.format_duration(job.due_at - now)}"
    return reason


def _build_row(job: Job, now: float) -> dict[str, str]:
    """Return a job's cells by the names of their columns."""
    return {
        "ID": job.id,
        "STATUS": f"{choose_icon(job.status)} {job.status}",
        "AGE": terminal.format_age(now - job.created_at),
        "TIME": format_run_time(job, now),
        "OWNER": terminal.cut_columns(terminal.join_lines(job.owner), OWNER_COLUMNS),
        "MODEL": terminal.cut_columns(job.model, MODEL_COLUMNS),
        "TOKENS": terminal.format_tokens(job),
        "COST": terminal.format_usd(job.cost_usd),
    }


def _choose_columns(rows: Sequence[Mapping[str, str]], room: int) -> dict[str, int]:
    """Return the widths of the columns that are shown; an empty column gives the title more room."""
    widths = measure_columns(rows)
    for name in DROPPED:
        if room - _sum_widths(widths) >= MIN_TITLE_COLUMNS:
            break
        if name == "STATUS":
            widths = {"ID": widths["ID"], SIGN: 1} | widths
        widths.pop(name, None)
    return widths


def _sum_widths(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * len(widths)


def _render_cells(job: Job, row: Mapping[str, str], widths: Mapping[str, int]) -> Iterator[str]:
    """Yield the aligned cells of a row, with the status in its colour on a terminal."""
    for name, width in widths.items():
        cell = _align_cell(name, row.get(name, choose_icon(job.status)), width)
        if name in ("STATUS", SIGN):
            cell = style(cell, colour=terminal.COLOURS.get(job.status, "cyan"))
        yield cell


def _align_cell(name: str, text: str, width: int) -> str:
    if name in WORD_COLUMNS:
        return text.ljust(width)
    return text.rjust(width)


def _choose_mark(job: Job) -> str:
    """Return what stands before the title in a table with unread results: their sign, or blanks."""
    if job.is_undelivered:
        return choose_unread_mark().ljust(MARK_COLUMNS)
    return " " * MARK_COLUMNS


def _summarize_page(page: JobPage) -> str:
    """Return how many jobs have each status, how many are unread or not shown, and what today cost."""
    summary = ", ".join(f"{count} {status}" for status, count in page.counts.items())
    if unread := sum(job.is_undelivered for job in page.jobs):
        summary += f"; {unread} unread ({choose_unread_mark()})"
    if page.today_usd:
        summary += f"; today {terminal.format_usd(page.today_usd)}"
    total = sum(page.counts.values())
    if total > len(page.jobs):
        summary += f". Showing {len(page.jobs)} of {total} (-n {total} for all)"
    return summary


def _arrange_as_tree(jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
    """Yield each follow-up below the job that it continues, if that job is among them, with the lead of its title."""
    known = {job.id for job in jobs}
    children: defaultdict[str | None, list[Job]] = defaultdict(list)
    for job in jobs:
        children[job.previous_job_id].append(job)
    mark = choose_branch_mark()
    stack = [(job, "", "") for job in reversed(jobs) if job.previous_job_id not in known]
    while stack:
        job, lead, margin = stack.pop()
        yield job, lead
        stack += [(child, margin + mark, margin + INDENT) for child in children[job.id]]
