"""Show a live card of a job in hosts that render apps (`io.modelcontextprotocol/ui`).

The card is one HTML file. In its frame it calls a tool of its own, which costs no turn of the model. Hosts that do not
declare the extension see neither the tool nor the card.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, cast

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp_types import CallToolResult, ClientCapabilities

from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.poll_schedule import next_poll_ms
from agent_jobs.jobs.queries import JobFilter, Reply
from agent_jobs.jobs.response import Call
from agent_jobs.mcp_server.tool_adapter import create_result, describe_error
from agent_jobs.rendering import answers
from agent_jobs.rendering.answers import Answer
from agent_jobs.rendering.last_sentence import find_last_sentence
from agent_jobs.rendering.questions import escape_invisible, list_always_allowed, name_tool

APPS = "io.modelcontextprotocol/ui"
CARD_MIME_TYPE = "text/html;profile=mcp-app"
CARD_URI = "ui://agent-jobs/job"
CARD_TOOL = "job_card"
#: The tool whose result the card shows.
STARTING_TOOL = "agent_start"
CARD_FILE = Path(__file__).with_name("job_card.html")
#: Placeholder in the file for the key that shows that a call is from the card.
KEY_PLACE = "{{ card key }}"
#: Jobs that one card shows.
MAX_CARD_JOBS = 20
#: Characters of a job's text that a card shows; the rest is on the page, or in the model's answer.
TEXT_CHARS = 4_000
#: Characters of a call's arguments that a card shows.
ARGUMENT_CHARS = 4_000

#: The card's own tool, which hosts do not show to their model.
_TOOL: dict[str, Any] = {
    "name": CARD_TOOL,
    "description": "For the job card: the state of jobs, and what the user decides in the card",
    "inputSchema": {
        "type": "object",
        "properties": {
            "job_ids": {"type": "array", "items": {"type": "string"}},
            "batch": {"type": "string"},
            "action": {"enum": ["cancel", "approve", "always", "deny", "ask_again"]},
            "call_id": {"type": "string"},
            "turn": {"type": "integer"},
            "tool": {"type": "string"},
            "key": {"type": "string"},
        },
    },
    "_meta": {"ui": {"resourceUri": CARD_URI, "visibility": ["app"]}},
}
_RESOURCE: dict[str, Any] = {
    "uri": CARD_URI,
    "name": "job card",
    "description": "A live card of a job",
    "mimeType": CARD_MIME_TYPE,
}


def declares_apps(capabilities: ClientCapabilities | None) -> bool:
    """Return True if a client renders cards."""
    extensions = (capabilities and capabilities.extensions) or {}
    mime_types = extensions.get(APPS, {}).get("mimeTypes")
    return isinstance(mime_types, list) and CARD_MIME_TYPE in mime_types


class JobCard:
    """Offers the card, and answers its calls.

    Args:
        engine: As for `build_server`.
        key: Shows that a call comes from the card, whose HTML no model reads; empty makes one.
    """

    def __init__(self, engine: Callable[[], Awaitable[Engine]], key: str) -> None:
        self._engine = engine
        self._key = key or token_urlsafe(18)

    async def offer(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Name the card in the lists that a client gets which renders cards; change nothing for all others."""
        result = await call_next(ctx)
        offer = _OFFERS.get(ctx.method)
        if offer is not None and isinstance(result, dict) and declares_apps(ctx.session.client_capabilities):
            return offer(result)
        return result

    def read_html(self) -> ReadResourceContents:
        """Return the card. It loads nothing, so its host need allow no address."""
        html = CARD_FILE.read_text("utf-8").replace(KEY_PLACE, self._key)
        return ReadResourceContents(html, CARD_MIME_TYPE, {"ui": {"prefersBorder": True}})

    async def answer(self, arguments: dict[str, Any]) -> CallToolResult:
        """Do what the user chose in the card, and return the state of its jobs. No result counts as delivered by it."""
        try:
            engine = await self._engine()
            await self._apply_action(engine, arguments)
            jobs = (await engine.find(_select_card_jobs(arguments), MAX_CARD_JOBS)).jobs
            return create_result({"jobs": [await _render_card_job(engine, job) for job in jobs]}, is_structured=False)
        except AgentJobsError as error:
            result = create_result(answers.render_error(error, describe_error(error)), is_structured=False)
            result.is_error = True
            return result

    async def _apply_action(self, engine: Engine, arguments: dict[str, Any]) -> None:
        action = arguments.get("action")
        if action is None:
            return
        job_ids = _read_job_ids(arguments)
        if len(job_ids) != 1:
            raise RequestError("The call names no job.", "no_selection")
        job_id = job_ids[0]
        match action:
            case "cancel":
                await engine.cancel(JobFilter(job_ids=(job_id,)))
            case "ask_again":
                await engine.ask_again(job_id, str(arguments.get("tool")))
            case "deny":
                await engine.reply(job_id, _parse_decision(arguments))
            case _:
                self._check_card_key(arguments, job_id)
                await engine.reply(job_id, _parse_decision(arguments))

    def _check_card_key(self, arguments: dict[str, Any], job_id: str) -> None:
        """Raise if a call is not from the card, whose HTML no model reads: a model must not approve for the user."""
        if not hmac.compare_digest(str(arguments.get("key")).encode(), self._key.encode()):
            raise RequestError("Only the user may approve.", "approval_at_terminal", job_id=job_id)


def _parse_decision(arguments: dict[str, Any]) -> Reply:
    """Return the answer to one call.

    Raises:
        RequestError: There is no such action.
    """
    action, call = arguments.get("action"), (str(arguments.get("call_id")),)
    turn = arguments.get("turn")
    if not isinstance(turn, int):
        turn = None
    match action:
        case "approve":
            return Reply(approve=call, turn=turn)
        case "always":
            return Reply(always=call, turn=turn)
        case "deny":
            return Reply(deny=call, turn=turn)
        case _:
            raise RequestError("The card has no such action.", "wrong_value")


def _offer_tool(result: dict[str, Any]) -> dict[str, Any]:
    tools = [_bind_to_card(tool) for tool in result["tools"]]
    return {**result, "tools": [*tools, _TOOL]}


def _bind_to_card(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["name"] != STARTING_TOOL:
        return tool
    return {**tool, "_meta": {**tool.get("_meta", {}), "ui": {"resourceUri": CARD_URI}}}


def _offer_resource(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "resources": [*result["resources"], _RESOURCE]}


def _offer_extension(result: dict[str, Any]) -> dict[str, Any]:
    capabilities: dict[str, Any] = result["capabilities"]
    extensions: dict[str, Any] = {**capabilities.get("extensions", {}), APPS: {}}
    return {**result, "capabilities": {**capabilities, "extensions": extensions}}


_OFFERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "tools/list": _offer_tool,
    "resources/list": _offer_resource,
    "server/discover": _offer_extension,
}


def _select_card_jobs(arguments: dict[str, Any]) -> JobFilter:
    """Return the filter for the jobs of a card.

    Raises:
        RequestError: The call names no job.
    """
    job_ids, batch = _read_job_ids(arguments), arguments.get("batch")
    if job_ids:
        return JobFilter(job_ids=tuple(job_ids))
    if isinstance(batch, str) and batch:
        return JobFilter(batch=batch)
    raise RequestError("The call names no job.", "no_selection")


def _read_job_ids(arguments: dict[str, Any]) -> Sequence[str]:
    job_ids = arguments.get("job_ids")
    if not isinstance(job_ids, list):
        return []
    return [str(each) for each in cast("list[object]", job_ids)]


async def _render_card_job(engine: Engine, job: Job) -> Answer:
    """Return the facts of a job for a card."""
    now = engine.now()
    calls = await engine.open_calls(job)
    answer: Answer = {
        "job_id": job.id,
        "title": escape_invisible(job.title),
        "status": job.status,
        "model": job.model,
        "elapsed_s": max(0, round((job.finished_at or now) - (job.running_since or job.created_at))),
        "cost_usd": answers.round_usd(job.cost_usd),
        "max_cost_usd": job.max_cost_usd,
        "turn": job.turn.number,
        "view": await engine.find_view(f"/jobs/{job.id}"),
    }
    answer["always_allowed"] = list_always_allowed(job) or None
    if calls:
        answer["needs"] = [_render_card_call(call) for call in calls]
    if job.is_terminal:
        stored = await engine.poll(job.id)  # with its text
        text = answers.read_output_text(stored)
        answer |= {"text": text[:TEXT_CHARS], "cut": len(text) > TEXT_CHARS or None}
        answer["error"] = job.error and str(job.error)
    else:
        answer["activity"] = escape_invisible(find_last_sentence(job.turn.partial) or job.activity)
        answer["next_poll_ms"] = next_poll_ms(job, now)
    return answers.drop_missing(answer)


def _render_card_call(call: Call) -> Answer:
    return {
        "call_id": call.id,
        "needs": call.needs,
        "name": escape_invisible(_name_call(call)),
        "arguments": call.arguments[:ARGUMENT_CHARS],
    }


def _name_call(call: Call) -> str:
    if call.needs == "approval":
        return name_tool(call.name)
    return call.name
