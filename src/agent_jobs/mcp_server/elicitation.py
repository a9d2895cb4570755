"""Asks the user directly, in a dialog of the host where it has them, whether a job's calls may be made.

Hosts of the protocol before 2026-07-28 are sent a question while their call waits; those of it get the questions as
the answer to their call, and call again with what the user said. Nothing is kept between the two: an answer names its
turn and its call, and counts if that call is still asked for.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import ClientCapabilities, ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import Reply
from agent_jobs.jobs.response import Call
from agent_jobs.rendering import answers

#: Nothing is to be filled in: to accept is to approve.
NO_FIELDS: Mapping[str, Any] = {"type": "object", "properties": {}}
#: Dialogs of one call at most; the next poll asks on.
ASKED = 8


def can_ask(ctx: Context) -> bool:
    """Whether the host can put a question to its user."""
    return can_show_form(ctx.client_capabilities) and (_modern(ctx) or ctx.session.can_send_request)


def can_show_form(capabilities: ClientCapabilities | None) -> bool:
    """Return True if a client with these capabilities shows its user what a server asks."""
    able = capabilities.elicitation if capabilities else None
    return able is not None and (able.form is not None or able.url is None)


async def polled(
    ctx: Context, jobs: Engine, job_id: str, wait_s: float, cap_s: float
) -> tuple[Job, str] | InputRequiredResult:
    """Wait for a job's end as `Engine.poll`, and have the user asked once for the approvals that it waits for.

    With `wait_s` 0 nobody is asked; `cap_s` is how long the wait and the dialogs may take together.

    Returns the job, and a sentence where an answer of the user came too late; or what the host is to ask.
    """
    began = jobs.now()
    if ctx.input_responses is not None:
        note = await decide(jobs, job_id, ctx.input_responses)
        return await jobs.poll(job_id, wait_s=wait_s), note
    job = await jobs.poll(job_id, wait_s=wait_s)
    calls = [call for call in await jobs.open_calls(job) if call.needs == "approval"][:ASKED]
    if not calls or wait_s <= 0:
        return job, ""
    if _modern(ctx):
        return InputRequiredResult(input_requests={key_of(job, call): request_for(job, call) for call in calls})
    note = await _asked(ctx, jobs, job, calls, began + cap_s)
    return await jobs.poll(job_id, wait_s=max(0.0, began + wait_s - jobs.now())), note


async def _asked(ctx: Context, jobs: Engine, job: Job, calls: Sequence[Call], until: float) -> str:
    """Put one question after the other until one stays open; returns what became of answers that came too late."""
    notes: list[str] = []
    for call in calls:
        answer = await _answer(ctx, jobs, job, call, until - jobs.now())
        if answer is not None:
            notes.append(await decide(jobs, job.id, {key_of(job, call): answer}))
        if jobs.now() >= until or (answer is not None and answer.action == "cancel"):
            break
    return " ".join(filter(None, notes))


async def _answer(ctx: Context, jobs: Engine, job: Job, call: Call, wait_s: float) -> ElicitResult | None:
    """What the user says; None where somebody else was first, the time ran out, or the host does not ask after all."""
    answer: ElicitResult | None = None
    async with anyio.create_task_group() as tasks:

        async def withdraw() -> None:
            with suppress(AgentJobsError):
                await jobs.wait_until_answered(job.id, call.id, wait_s=wait_s)
            tasks.cancel_scope.cancel()

        tasks.start_soon(withdraw)
        with suppress(MCPError):
            answer = await ctx.session.elicit_form(answers.question(job, call), {**NO_FIELDS}, ctx.request_id)
        tasks.cancel_scope.cancel()
    return answer


async def decide(jobs: Engine, job_id: str, answers: Mapping[str, object]) -> str:
    """Reply as the user said, call by call; what they dismissed stays open."""
    notes: list[str] = []
    for key, answer in answers.items():
        turn, _, call_id = key.partition(":")
        action = answer.action if isinstance(answer, ElicitResult) else "cancel"
        if action == "cancel" or not turn.isdecimal():
            continue
        one = (call_id,)
        accepted = action == "accept"
        reply = Reply(approve=one if accepted else (), deny=() if accepted else one, turn=int(turn))
        try:
            await jobs.reply(job_id, reply)
        except RequestError as error:
            notes.append(f"The user's answer changed nothing: {error}")
    return " ".join(dict.fromkeys(notes))


def request_for(job: Job, call: Call) -> ElicitRequest:
    """Return the question whether a job may make a call, as a host is sent it."""
    params = ElicitRequestFormParams(message=answers.question(job, call), requested_schema={**NO_FIELDS})
    return ElicitRequest(params=params)


def key_of(job: Job, call: Call) -> str:
    """Return the key of a question, by which its answer is known."""
    return f"{job.turn.number}:{call.id}"


def _modern(ctx: Context) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
