"""Show a job that a command waits for: its answer as it is written, and below it a line with what the job does."""

import logging
import sys
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

import anyio
import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.answer_writer import (
    AnswerWriter,
    PlainWriter,
    SilentWriter,
    TerminalWriter,
    can_lead_to_next_turn,
    choose_final_text,
    is_stdout_pipe,
)
from agent_jobs.cli.display.job_line import render_status
from agent_jobs.cli.display.live_area import LiveArea
from agent_jobs.cli.display.outage import OutageClock, describe_outage
from agent_jobs.cli.display.progress import Lines, render_tail, wrap_tail
from agent_jobs.engine.engine import LiveText
from agent_jobs.errors import ungroup
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.status import Status
from agent_jobs.text import encode_text

logger = logging.getLogger(__name__)

#: Seconds between two updates of the text: a reader sees no difference below that.
TICK_S = 0.08
#: Lines of reasoning, or of a text whose beginning is not known.
TAIL_LINES = 6
#: Lines of the terminal that a growing block leaves to the line below it and to the prompt.
SPARE_LINES = 4


class AnswerDisplay:
    """Shows one job: `show` takes its state, and `run` its text in between.

    Args:
        live: The text of the job, in memory.
        job: The job with its request.
        writes_answer: True to print the answer on stdout; otherwise only the progress is shown.
        is_streaming: True to print it while it is written.
    """

    def __init__(self, live: LiveText, job: Job, *, writes_answer: bool, is_streaming: bool) -> None:
        self._live = live
        self._can_overwrite = terminal.can_overwrite(sys.stderr)
        self._has_colours = terminal.has_colours(sys.stderr)
        self._area = LiveArea(sys.stderr)
        self._lines = Lines(sys.stderr)
        self._writes_answer = writes_answer
        self._writer = self._open_writer(job, is_streaming=is_streaming)
        self._job = job
        self._is_hidden = True
        self._outage = OutageClock()
        self._clock_offset = 0.0  #: from the clock of the process to that of the jobs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None or not self._writes_answer:  # otherwise `finish` prints the answer in its place
            self._area.erase()

    def hide(self) -> None:
        """Make room for a question to the user, until the next `show`."""
        self._is_hidden = True
        self._area.erase()

    def show(self, jobs: Sequence[Job], now: float) -> None:
        """Show the state of the job."""
        [self._job] = jobs
        self._is_hidden = False
        self._clock_offset = now - time.monotonic()
        self._live.observe(self._job)
        self._report_outage(self._job, now)
        self._update_answer(self._job)
        if not (self._can_overwrite or self._job.is_terminal or self._outage.is_running or self._has_begun_beside()):
            self._lines.show(jobs, now)

    def _report_outage(self, job: Job, now: float) -> None:
        """Say once that the job cannot be sent or polled, what becomes of it, and how to leave."""
        if self._outage.update(job, now):
            self._area.erase()
            click.echo(describe_outage(job), err=True)

    async def run(self) -> None:
        """Show the text and the time as they grow, until this is cancelled."""
        await anyio.to_thread.run_sync(self._import_renderer, abandon_on_cancel=True)
        while True:
            if not self._is_hidden:
                self._update_answer(self._job)
            await anyio.sleep(TICK_S)

    def finish(self, job: Job, output: object) -> None:
        """Print the rest of the answer of a finished job.

        Args:
            job: The job with its output.
            output: The `output` of its response, for its sources.
        """
        self._area.erase()
        with _log_defects("%s: its answer cannot be rendered, so it follows as text", job.id):
            self._writer.finish(job, output)
            return
        text = choose_final_text(job, written="")
        click.echo(encode_text(terminal.strip_control_characters(text)))

    def _open_writer(self, job: Job, *, is_streaming: bool) -> AnswerWriter:
        if not self._writes_answer:
            return SilentWriter()
        if sys.stdout.isatty():
            return TerminalWriter(self._area.erase, is_streaming=is_streaming)
        # Into a pipe goes the answer alone: the text of a turn that calls tools is none.
        is_certain = is_stdout_pipe() and not can_lead_to_next_turn(job.turn.request)
        return PlainWriter(self._area.erase, is_streaming=is_streaming and is_certain)

    def _import_renderer(self) -> None:
        """Import what renders an answer, while the provider works."""
        if isinstance(self._writer, TerminalWriter):
            import agent_jobs.cli.display.markdown_blocks  # noqa: F401  # pyright: ignore[reportUnusedImport]

    def _update_answer(self, job: Job) -> None:
        self._writer.update(self._live, job.turn.number)
        if self._can_overwrite and not job.is_terminal and not self._is_shared_with_reader():
            self._draw_progress(job)

    def _has_begun_beside(self) -> bool:
        """Return True if a part of the answer is printed on the same terminal, where a line would interrupt it."""
        return self._writer.has_begun and sys.stderr.isatty()

    def _is_shared_with_reader(self) -> bool:
        """Return True if another program may print the answer on the same terminal by now."""
        return isinstance(self._writer, PlainWriter) and self._writer.has_begun

    def _draw_progress(self, job: Job) -> None:
        width, height = self._area.size
        now = time.monotonic() + self._clock_offset
        lines = self._list_growing(job, width)[-max(1, height - SPARE_LINES) :]
        if lines or self._writer.has_begun:
            lines.append("")
        outage = self._outage.describe(job, now)
        if not outage:
            job = self._add_news(job)
        status = render_status(job, now, width, has_colours=self._has_colours, outage=outage)
        self._area.draw([*lines, status])

    def _add_news(self, job: Job) -> Job:
        """Return the job with what its stream showed since it was last stored."""
        if job.status not in (Status.QUEUED, Status.IN_PROGRESS) or job.turn.has_open_calls or not self._live.activity:
            return job
        return replace(job, status=Status.IN_PROGRESS, activity=self._live.activity)

    def _list_growing(self, job: Job, width: int) -> list[str]:
        """Return the lines above the status: the end of the text, or of the reasoning before it."""
        if self._live.is_cut:
            return wrap_tail(self._live.tail, width, TAIL_LINES, has_colours=self._has_colours)
        if self._writes_answer and self._live.text:
            return self._writer.draw_growing(width)
        return render_tail(job, width, TAIL_LINES, has_colours=self._has_colours)


@contextmanager
def _log_defects(message: str, *facts: str) -> Generator[None]:
    """Log a defect here or in a library instead of raising it: it must not hide a paid answer."""
    try:
        yield
    except OSError:  # the output is gone
        raise
    except Exception:
        logger.exception(message, *facts)


@asynccontextmanager
async def run_display(display: AnswerDisplay) -> AsyncGenerator[None]:
    """Have a display show its text while the body runs; raise an error of either as it is, not in a group."""

    async def run_guarded() -> None:
        with _log_defects("the display failed; the answer follows at the end"):
            await display.run()

    with ungroup():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_guarded)
            yield
            tasks.cancel_scope.cancel()
