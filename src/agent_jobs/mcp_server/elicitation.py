"""Ask the user in a dialog of the host whether a job's calls may be made.

A host of the protocol before 2026-07-28 is sent a question while its call waits. A later host gets the questions as the
answer to its call, and calls again with the user's answers. Nothing is kept between the two calls: an answer names its
turn and its call, and counts if that call is still open.
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
from agent_jobs.mcp_server.tool_adapter import describe_error
from agent_jobs.rendering.questions import word_approval_question

#: A form without fields: to accept it is to approve the call.
NO_FIELDS: Mapping[str, Any] = {"type": "object", "properties": {}}
#: More dialogs in a row annoy the user; the next poll asks for the rest.
MAX_DIALOGS = 8


def can_ask(ctx: Context) -> bool:
    """Return True if the host can ask its user a question."""
    return can_show_form(ctx.client_capabilities) and (_is_modern(ctx) or ctx.session.can_send_request)


def can_show_form(capabilities: ClientCapabilities | None) -> bool:
    """Return True if a client with these capabilities shows a server's questions to its user."""
    if capabilities is None or capabilities.elicitation is None:
        return False
    elicitation = capabilities.elicitation
    return elicitation.form is not None or elicitation.url is None


async def poll_with_dialogs(
    ctx: Context, jobs: Engine, job_id: str, wait_s: float, cap_s: float
) -> tuple[Job, str] | InputRequiredResult:
    """Poll a job as `Engine.poll`, and ask the user once for each open approval.

    With `wait_s` 0 no question is asked. `cap_s` is the limit for the wait and the dialogs together.

    Returns the job with a sentence about answers that came too late, or the questions for the host to ask.
    """
    began = jobs.now()
    if ctx.input_responses is not None:
        note = await apply_answers(jobs, job_id, ctx.input_responses)
        return await jobs.poll(job_id, wait_s=wait_s), note
    job = await jobs.poll(job_id, wait_s=wait_s)
    if wait_s <= 0:
        return job, ""
    calls = [call for call in await jobs.open_calls(job) if call.needs == "approval"][:MAX_DIALOGS]
    if not calls:
        return job, ""
    if _is_modern(ctx):
        return InputRequiredResult(
            input_requests={build_question_key(job, call): create_question(job, call) for call in calls}
        )
    note = await _show_dialogs(ctx, jobs, job, calls, began + cap_s)
    return await jobs.poll(job_id, wait_s=max(0.0, began + wait_s - jobs.now())), note


async def _show_dialogs(ctx: Context, jobs: Engine, job: Job, calls: Sequence[Call], until: float) -> str:
    """Ask one question after the other until one stays open; return a sentence about answers that came too late."""
    notes: list[str] = []
    for call in calls:
        answer = await _show_dialog(ctx, jobs, job, call, until - jobs.now())
        notes.append(await apply_answers(jobs, job.id, {build_question_key(job, call): answer}))
        is_dismissed = answer is not None and answer.action == "cancel"
        if is_dismissed or jobs.now() >= until:
            break
    return " ".join(filter(None, notes))


async def _show_dialog(ctx: Context, jobs: Engine, job: Job, call: Call, wait_s: float) -> ElicitResult | None:
    """Return the user's answer; None if the call was answered elsewhere, time ran out, or the host does not ask."""
    answer: ElicitResult | None = None
    async with anyio.create_task_group() as tasks:

        async def withdraw_when_answered() -> None:
            with suppress(AgentJobsError):
                await jobs.wait_until_answered(job.id, call.id, wait_s=wait_s)
            tasks.cancel_scope.cancel()

        tasks.start_soon(withdraw_when_answered)
        with suppress(MCPError):
            answer = await ctx.session.elicit_form(word_approval_question(job, call), {**NO_FIELDS}, ctx.request_id)
        tasks.cancel_scope.cancel()
    return answer


async def apply_answers(jobs: Engine, job_id: str, answers: Mapping[str, object]) -> str:
    """Reply to a job with the user's answers, by the keys of the questions; dismissed questions stay open.

    Returns a sentence about answers that changed nothing; empty if there are none.
    """
    notes: list[str] = []
    for key, answer in answers.items():
        reply = _read_reply(key, answer)
        if reply is None:
            continue
        try:
            await jobs.reply(job_id, reply)
        except RequestError as error:
            notes.append(f"The user's answer changed nothing: {describe_error(error)}")
    return " ".join(dict.fromkeys(notes))


def _read_reply(key: str, answer: object) -> Reply | None:
    """Return the reply that an answer makes; None if the user dismissed the question."""
    turn, _, call_id = key.partition(":")
    if not turn.isdecimal():
        return None
    match answer:
        case ElicitResult(action="accept"):
            return Reply(approve=(call_id,), turn=int(turn))
        case ElicitResult(action="decline"):
            return Reply(deny=(call_id,), turn=int(turn))
        case _:
            return None


def create_question(job: Job, call: Call) -> ElicitRequest:
    """Return the question for a host to ask: whether a job may make a call."""
    params = ElicitRequestFormParams(message=word_approval_question(job, call), requested_schema={**NO_FIELDS})
    return ElicitRequest(params=params)


def build_question_key(job: Job, call: Call) -> str:
    """Return the key that connects a question with its answer."""
    return f"{job.turn.number}:{call.id}"


def _is_modern(ctx: Context) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
