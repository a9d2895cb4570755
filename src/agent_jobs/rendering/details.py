"""Render all that is stored of a job, for `show --json` and `export`. Pure."""

from typing import Any

from agent_jobs.jobs.queries import JobDetails, OutputFile, TurnRecord
from agent_jobs.jobs.response_steps import Step
from agent_jobs.jobs.stored_request import AttachedFile, attached_files_of
from agent_jobs.rendering.answers import (
    Answer,
    drop_falsy,
    drop_missing,
    list_token_counts,
    read_output_text,
    read_response,
    round_known,
    round_usd,
)
from agent_jobs.rendering.output import find_sources
from agent_jobs.rendering.questions import list_always_allowed
from agent_jobs.rendering.timeline import Moment


def render_details(details: JobDetails) -> Answer:
    """Return the prompt, its files, and the steps of each turn."""
    job = details.result.job
    files = {
        "files": list(map(AttachedFile._asdict, attached_files_of(details.request))),
        "written": list(map(OutputFile._asdict, details.result.made)),
    }
    facts: Answer = {
        "prompt": details.prompt,
        "model": job.model,
        "effort": job.effort,
        "preset": job.preset,
        "client": job.client,
        **drop_falsy(files),
        "turns": list(map(_render_turn, details.turns)),
        **drop_falsy({"always_allowed": list_always_allowed(job)}),
        "steps": list(map(_render_step, details.steps)),
        "read_at": round_known(job.read_at),
    }
    return drop_missing(facts)


def render_export(details: JobDetails) -> Answer:
    """Return a job as `export` writes it: its prompt, its answer, its sources and its cost."""
    job = details.result.job
    sources = find_sources(read_response(job).get("output"))
    facts: Answer = {
        "job_id": job.id,
        "title": job.title,
        "status": job.status,
        "created_at": round(job.created_at),
        "finished_at": round_known(job.finished_at),
        "batch": job.batch,
        "previous_job_id": job.previous_job_id,
        "cost_usd": round_usd(job.cost_usd),
        "usage": list_token_counts(job.usage),
        **render_details(details),
        "error": job.error and {"code": job.error.code, "message": job.error.message},
        "output": read_output_text(job),
    }
    return drop_missing(facts) | drop_falsy({"sources": sources})


def render_moment(moment: Moment) -> Answer:
    """Return a moment of a timeline."""
    facts: dict[str, Any] = {
        "at": round(moment.at, 3),
        "kind": moment.kind,
        "what": moment.what,
        "detail": moment.detail,
        "turn": moment.turn or None,
        "took_s": round_known(moment.took_s, 3),
        "running": moment.is_running or None,
    }
    return drop_missing(facts)


def _render_turn(turn: TurnRecord) -> Answer:
    return drop_missing(
        {
            "number": turn.number,
            "mode": turn.mode,
            "sent_at": round_known(turn.sent_at),
            "response_id": turn.response_id,
            "usage": list_token_counts(turn.usage),
            "cost_usd": round_usd(turn.cost_usd),
        }
    )


def _render_step(step: Step) -> Answer:
    return drop_missing(
        {
            "turn": step.turn,
            "position": step.position,
            "kind": step.kind,
            "name": step.name,
            "detail": step.detail,
            "error": step.error,
            "seen_at": round(step.seen_at, 3),
            "took_s": round_known(step.took_s, 3),
        }
    )
