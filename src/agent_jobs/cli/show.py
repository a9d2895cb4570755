"""`agent-jobs show`: show the prompt of a job, and everything that is stored about it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.job_line import format_run_time
from agent_jobs.cli.display.sections import format_heading, format_pairs, format_table, style, wrap_text
from agent_jobs.cli.display.symbols import choose_icon, echo
from agent_jobs.cli.session import JobId, Session, json_option, run_in_session
from agent_jobs.cli.times import format_clock_time, format_day, format_local_time
from agent_jobs.cli.unwatched_jobs import UnwatchedJobs, retrieve_unwatched
from agent_jobs.cli.wording import describe_failure
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import Event, JobDetails, JobFilter, TurnRecord
from agent_jobs.jobs.response import Usage
from agent_jobs.jobs.response_steps import Step
from agent_jobs.jobs.stored_request import attached_files_of
from agent_jobs.text import human_size

#: Fields of a poll that `show` leaves out.
NOT_SHOWN = ("output", "bytes", "next", "next_poll_ms")
#: Bytes of a part: nothing is cut here, because no model pays for it.
PART_BYTES = 2**40
#: Lines of a prompt on a terminal, after which the rest is left out.
PROMPT_LINES = 30
#: Steps on a terminal, before which the others are left out.
SHOWN_STEPS = 40
_FIGURES = frozenset({"#", "TIME", "TOKENS", "COST", "SIZE"})


@click.command("show")
@click.argument("job_id", metavar="ID", type=JobId())
@json_option
def show_command(job_id: str, as_json: bool) -> None:
    """Show what a job was asked and what is stored about it.

    Prints its prompt, files, status, turns, steps, events and request. The answer itself: agent-jobs result. What
    happened when: agent-jobs logs.
    """
    details, unwatched, now = read_details(job_id)
    if as_json:
        from agent_jobs.rendering import answers

        fields = _collect_fields(details, now)
        return click.echo(answers.format_json_line(fields | dict(unwatched.list_fields(details.result.job, now))))
    return echo("\n".join(_render_sections(details, unwatched, now)))


def read_details(job_id: str) -> tuple[JobDetails, UnwatchedJobs, float]:
    """Return all that is stored of a job, after asking the provider if no process watches it, and the time."""

    async def read(session: Session) -> tuple[JobDetails, UnwatchedJobs, float]:
        full_id = await session.engine.find_full_id(job_id)
        unwatched = await retrieve_unwatched(session, JobFilter(job_ids=(full_id,)))
        return await session.engine.details(full_id), unwatched, session.engine.now()

    return run_in_session(read)


def _collect_fields(details: JobDetails, now: float) -> dict[str, Any]:
    """Return all that `show --json` prints of a job, by name."""
    from agent_jobs.rendering import answers
    from agent_jobs.rendering.details import render_details
    from agent_jobs.rendering.result_parts import render_part

    result = details.result
    answer = answers.render_job(result.job, now)
    fields = {name: value for name, value in answer.items() if name not in NOT_SHOWN}
    fields |= render_details(details)
    fields |= render_part(result, "meta", 0, PART_BYTES)["meta"]
    if result.job.usage:
        fields["usage"] = render_part(result, "usage", 0, PART_BYTES)["usage"]
    return fields


def _render_sections(details: JobDetails, unwatched: UnwatchedJobs, now: float) -> Iterator[str]:
    """Yield the lines of all sections, the prompt first."""
    job = details.result.job
    yield format_heading("Prompt")
    yield from _cut_lines(wrap_text(details.prompt or job.title), PROMPT_LINES)
    yield from _render_section("Files", format_table(_list_files(details), _FIGURES))
    yield from _render_section("Job", _render_status(details, unwatched, now))
    yield from _render_section(
        "Turns", format_table([_render_turn_row(turn, details) for turn in details.turns], _FIGURES)
    )
    yield from _render_section("Steps", _render_steps(details))
    fields = _collect_fields(details, now)
    yield from _render_section("Events", map(_render_event, details.result.events))
    yield from _render_section("Request", format_pairs(_list_request(fields.get("request", {}))))


def _render_section(heading: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield a heading and its lines; nothing if there are none."""
    lines = list(lines)
    if not lines:
        return
    yield ""
    yield format_heading(heading)
    yield from lines


def _render_status(details: JobDetails, unwatched: UnwatchedJobs, now: float) -> Iterator[str]:
    """Yield the line with status, time, tokens and cost, then the other facts."""
    job = details.result.job
    yield f"  {render_status_line(job, now)}"
    facts = (*_list_facts(job), ("note", unwatched.describe_age(job, now)))
    yield from format_pairs([(name, value) for name, value in facts if value])


def render_status_line(job: Job, now: float) -> str:
    """Return a job's status with its time, tokens and cost."""
    status = style(f"{choose_icon(job.status)} {job.status}", colour=terminal.COLOURS.get(job.status, "cyan"))
    facts = [format_run_time(job, now), terminal.describe_tokens(job), terminal.format_usd(job.cost_usd)]
    return "  ".join(filter(None, [status, *facts]))


def _list_facts(job: Job) -> Iterator[tuple[str, str | None]]:
    from agent_jobs.rendering.questions import list_always_allowed

    yield "id", job.id
    yield "response", job.turn.response_id
    yield "model", ", ".join(filter(None, (job.model, job.effort and f"effort {job.effort}")))
    yield "preset", job.preset
    yield "owner", terminal.join_lines(job.owner)
    yield "started by", job.client
    yield "batch", job.batch
    yield "continues", job.previous_job_id
    yield "context", job.context and "the conversation before it was sent again"
    yield "created", format_local_time(job.created_at)
    if job.finished_at is not None:
        yield "finished", format_local_time(job.finished_at)
    yield "always allowed", ", ".join(list_always_allowed(job))
    yield "activity", terminal.join_lines(job.activity)
    if job.error is not None:
        yield "error", f"{job.error.code}: {describe_failure(job.error)}"
    yield "next", terminal.suggest_next_step(job)
    yield "written to", job.result_path


def _list_files(details: JobDetails) -> list[dict[str, str]]:
    """Return the rows of the files that came with the prompt, and of those that the run wrote."""
    rows = [
        {"SIZE": f"{file.chars} chars", "KIND": file.kind, "NAME": terminal.join_lines(file.name)}
        for file in attached_files_of(details.request)
    ]
    written = [{"SIZE": human_size(file.bytes), "KIND": "written", "NAME": file.path} for file in details.result.made]
    return rows + written


def _render_turn_row(turn: TurnRecord, details: JobDetails) -> dict[str, str]:
    sent = "not yet"
    if turn.sent_at is not None:
        sent = format_clock_time(turn.sent_at)
    return {
        "#": str(turn.number),
        "SENT": sent,
        "TIME": _format_turn_time(turn, details),
        "TOKENS": _format_turn_tokens(turn.usage),
        "COST": terminal.format_usd(turn.cost_usd),
        "RESPONSE": turn.response_id or "",
    }


def _format_turn_time(turn: TurnRecord, details: JobDetails) -> str:
    """Return how long a turn took: until its last step finished, or the job did."""
    ends = [step.finished_at for step in details.steps if step.turn == turn.number]
    if turn.number == details.turns[-1].number:
        ends.append(details.result.job.finished_at)
    known_ends = [end for end in ends if end is not None]
    if turn.sent_at is None or not known_ends:
        return ""
    return terminal.format_elapsed(max(known_ends) - turn.sent_at)


def _format_turn_tokens(usage: Usage | None) -> str:
    """Return the tokens that a turn read and wrote; ? if they were not all counted."""
    if usage is None:
        return ""
    if usage.partial:
        return "?"
    return f"{usage.input_tokens} in, {usage.output_tokens} out"


def _render_steps(details: JobDetails) -> Iterator[str]:
    """Yield the table of the newest steps."""
    from agent_jobs.rendering.timeline import name_step

    steps = details.steps
    if terminal.is_width_limited() and len(steps) > SHOWN_STEPS:
        yield f"  {len(steps) - SHOWN_STEPS} earlier steps: agent-jobs logs {details.result.job.id}"
        steps = steps[-SHOWN_STEPS:]
    yield from format_table([_render_step_row(step, name_step(step), details.result.job) for step in steps], _FIGURES)


def _render_step_row(step: Step, name: str, job: Job) -> dict[str, str]:
    turn, detail = "", step.detail
    if job.turn.number > 1:
        turn = str(step.turn)
    if step.error:
        detail = f"failed: {step.error}"
    return {
        "TURN": turn,
        "AT": format_clock_time(step.seen_at),
        "TIME": format_took(step.took_s),
        "STEP": terminal.join_lines(name),
        "": terminal.join_lines(detail),
    }


def format_took(seconds: float | None) -> str:
    """Return how long something took, such as 0.4 s or 2:05; empty if that is not known."""
    if seconds is None:
        return ""
    if seconds >= 60:
        return terminal.format_elapsed(seconds)
    return f"{max(0.0, seconds):.1f} s"


def _render_event(event: Event) -> str:
    from agent_jobs.rendering.timeline import name_event

    text = " ".join(filter(None, [name_event(event), terminal.join_lines(event.text)]))
    return wrap_text(f"{format_day(event.at)} {format_clock_time(event.at)}  {text}")[0]


def _list_request(request: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the fields of a request, with its secrets masked, each as text."""
    from agent_jobs.text import compact_json

    pairs: list[tuple[str, str]] = []
    for name, value in request.items():
        text = value
        if not isinstance(value, str):
            text = compact_json(value)
        pairs.append((name, text))
    return pairs


def _cut_lines(lines: list[str], most: int) -> list[str]:
    """Return the first lines on a terminal, and how many more there are; into a pipe all."""
    if len(lines) <= most or not terminal.is_width_limited():
        return lines
    return [*lines[:most], style(f"  {len(lines) - most} more lines: agent-jobs show ID | less", dim=True)]
