"""An order becomes jobs: its request, its files, what it goes on from, and what it may cost. Nothing is sent here."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from secrets import choice
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import anyio

from agent_jobs.attachments.attachment import described, estimate_tokens, parts
from agent_jobs.attachments.gather import Attachment, gather
from agent_jobs.clock import Clock
from agent_jobs.errors import AgentJobsError, RequestError
from agent_jobs.jobs import history
from agent_jobs.jobs.job import JSON, Job, Status, Turn, items_of, upstream_call_id
from agent_jobs.jobs.queries import Estimate
from agent_jobs.pricing.prices import Bound, Prices, day_start
from agent_jobs.request.added_parameters import ASKED
from agent_jobs.request.body import (
    Preset,
    Secret,
    StartRequest,
    asked_by,
    build,
    given_options,
    hash_of,
    options_with,
    title_of,
)
from agent_jobs.request.hosted_tools import resolved
from agent_jobs.request.options import StartOptions
from agent_jobs.store.base import Budget, Store, Upload
from agent_jobs.upstream.client import Endpoint

if TYPE_CHECKING:
    from agent_jobs.toolbox.toolbox import Toolbox

#: No vowels and no look-alikes: ids are read aloud, and should spell nothing.
ID_LETTERS, ID_LENGTH = "0123456789bcdfghjkmnpqrstvwxz", 12
#: What a follow-up keeps of the request before it, unless it says otherwise: upstream carries none of it over.
INHERITED = ("instructions", "reasoning", "text", "tools", "include")
#: Ordinary text has fewer characters a token on average; errs on the side of sending.
MOST_TOKEN_CHARS = 8
#: Every model reads this many tokens, so that the price list is not loaded for a short text.
SMALLEST_CONTEXT = 8_000
#: In text that is no code, so many bytes are a token.
TOKEN_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDefaults:
    """What the user set for new jobs.

    Args:
        prices: What models cost.
        presets: Requests by name.
        model: What to ask for where neither the caller nor a preset names a model; None takes the one in data/.
        secrets: What may stand in a request as `${NAME}`.
        file_roots: The folders below which files may be read.
        budget_usd: What may be spent on the jobs of a day (UTC).
        budget_spent: Whether only what was spent counts to it, and not what jobs may cost.
        toolbox: The user's own tool servers.
    """

    prices: Prices
    presets: Mapping[str, Preset]
    model: str | None = None
    secrets: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    file_roots: Sequence[Path] = ()
    budget_usd: float | None = None
    budget_spent: bool = False
    toolbox: "Toolbox | None" = None


@dataclass(frozen=True, slots=True)
class PlannedStart:
    """The jobs of an order, and what is to be written down with them."""

    jobs: list[Job]
    uploads: list[Upload]
    budget: Budget | None
    allow_duplicate: bool = False  #: also where a job does the same work already


class StartPlanner:
    """Makes jobs for one endpoint by the user's terms."""

    def __init__(self, store: Store, endpoint: Endpoint, clock: Clock, terms: StartDefaults) -> None:
        self._store = store
        self._endpoint = endpoint
        self._clock = clock
        self._terms = terms

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return why no job can be given the user's tools, if that is so."""
        return self._terms.toolbox.warnings if self._terms.toolbox is not None else ()

    async def jobs(self, order: StartRequest) -> PlannedStart:
        """The jobs of an order, not yet written down.

        Raises:
            RequestError: Something cannot be asked for; the sentence says what can.
            ConfigError: A person must change a setting first.
        """
        batch = order.batch or (_new_id("batch") if len(order.prompts) > 1 else "")
        jobs, options, previous, attached = await self._drafted(order, batch)
        if uploads := [one for one in attached if one.kind == "data"]:
            salt = _digest(uploads)
            jobs = [replace(job, request_hash=f"{job.request_hash}/{salt}") for job in jobs]
        bounded = [await self._bounded(job, options, previous) for job in _told_apart(jobs)]
        jobs, parts = [job for job, _ in bounded], max((each for _, each in bounded), key=len, default="")
        budget = self._terms.budget_usd
        return PlannedStart(
            jobs,
            [Upload(one.name, one.data) for one in uploads],
            None if budget is None else Budget(budget, day_start(self._clock.now()), self._terms.budget_spent, parts),
            allow_duplicate=bool(order.options.get("allow_duplicate")),
        )

    async def estimate(self, order: StartRequest) -> Estimate:
        """What the order would send and cost; nothing is written down.

        Raises:
            RequestError, ConfigError: As `jobs`, but for a missing bound or price.
        """
        (job, *others), _, previous, attached = await self._drafted(order, "")
        bound, unbounded, parts = None, "", ""
        try:
            job, first = await self._capped(job, previous)
            parts = first.parts
            bound = self._most_usd(job, first.usd) * (1 + len(others))
        except AgentJobsError as error:
            unbounded = str(error)
        prompt_tokens = max(len(prompt.encode("utf-8", "replace")) for prompt in order.prompts) // TOKEN_BYTES
        return Estimate(
            jobs=1 + len(others),
            model=str(job.turn.request["model"]),
            files=described(attached),
            input_tokens=prompt_tokens + estimate_tokens(attached),
            cost_bound_usd=bound,
            unbounded=unbounded,
            bound_parts=parts,
        )

    async def _check_fits(
        self, order: StartRequest, body: JSON, attached: Sequence[Attachment], history_tokens: int
    ) -> None:
        """Refuse what the model certainly cannot read; a model that is not known is not asked about."""
        parts = {
            "the prompt": max(map(_least_tokens, order.prompts)),
            "files": sum(_least_tokens(one.data.decode("utf-8", "replace")) for one in attached if one.kind == "text"),
            "instructions": _least_tokens(str(body.get("instructions") or "")),
            "the job before": history_tokens,
        }
        least, model = sum(parts.values()), str(body["model"])
        if least <= SMALLEST_CONTEXT:
            return
        known = partial(self._terms.prices.context_tokens, model, at=self._clock.now())
        context = await anyio.to_thread.run_sync(partial(known, provider_url=self._endpoint.base_url))
        if context is None or least <= context:
            return
        if parts["the prompt"] == least:
            raise RequestError(
                f"The prompt has at least {least:,} tokens by estimate, and {model} reads at most {context:,}: "
                "shorten or split it."
            )
        told = ", ".join(f"{name} {tokens:,}" for name, tokens in parts.items() if tokens)
        raise RequestError(
            f"The request has at least {least:,} tokens by estimate ({told}), and {model} reads at most {context:,}: "
            "leave some of it out, or split it."
        )

    async def _drafted(self, order: StartRequest, batch: str) -> "_Draft":
        order.check()
        order = replace(order, options=given_options(order.preset, order.options, self._terms.presets))
        options = StartOptions.parse(options_with(order.preset, order.options, self._terms.presets))
        previous = await self._previous(order.previous_job_id, options.conversation)
        attached = await self._attached(order, options, previous)
        functions = await self._functions(options, previous)
        contents = parts(attached)
        jobs = [self._job(order, prompt, batch, options, previous, contents, functions) for prompt in order.prompts]
        await self._check_fits(order, jobs[0].turn.request, attached, previous.least_tokens)
        return _Draft(jobs, options, previous, attached)

    def _job(
        self,
        order: StartRequest,
        prompt: str,
        batch: str,
        options: StartOptions,
        previous: "_Previous",
        attached: Sequence[JSON],
        functions: Sequence[JSON],
    ) -> Job:
        job_id = _new_id("job")
        body = build(
            prompt,
            job_id=job_id,
            preset=order.preset,
            presets=self._terms.presets,
            model=order.model,
            default_model=previous.request.get("model") or self._terms.model,
            effort=order.effort,
            web_search=order.web_search,
            options=options,
            attachments=attached,
            openai=self._endpoint.openai,
        )
        body = {**_inherited(previous, order.web_search), **body}
        if functions:
            named = {function["name"] for function in functions}
            kept = [tool for tool in items_of(body.get("tools")) if tool.get("name") not in named]
            body = {**body, "tools": [*kept, *functions]}
        link = {"conversation": options.conversation} if options.conversation else previous.link
        body = history.continued(history.with_answers(body, previous.closing), link, previous.exchanges)
        asked = asked_by(order, self._terms.presets)
        before: list[str] = previous.request.get(ASKED, [])
        resolved(body, self._terms.secrets)  # refused now rather than when it is sent
        return Job(
            id=job_id,
            title=title_of(prompt),
            status=Status.PENDING,
            created_at=self._clock.now(),
            request_hash=hash_of(body),
            key=options.key,
            priority=order.priority,
            batch=batch,
            previous_job_id=order.previous_job_id,
            context="rebuilt" if previous.exchanges else "",
            timeout_s=options.timeout_s,
            max_cost_usd=options.max_cost_usd,
            toolbox=previous.toolbox if options.toolbox is None else options.toolbox,
            turn=Turn(
                number=1,
                request={**body, ASKED: [*asked, *(name for name in before if name not in asked)]},
                request_id=str(uuid4()),
                base_url=self._endpoint.base_url,
                fingerprint=self._endpoint.fingerprint,
                rebuilt=bool(previous.exchanges),
            ),
        )

    async def _functions(self, options: StartOptions, previous: "_Previous") -> Sequence[JSON]:
        """The functions of the user's own tool servers that the caller named, else those of the job before."""
        names = options.toolbox
        if not (previous.toolbox if names is None else names):
            return ()
        if self._terms.toolbox is None:
            without = ", or start it with options.toolbox none" if names is None else ""
            raise RequestError(f"There are no tool servers: ask the user to set AGENT_JOBS_TOOLBOX{without}.")
        if names is None:
            self._terms.toolbox.check(previous.toolbox)
            return previous.tools(of_toolbox=True)
        return await self._terms.toolbox.functions(names)

    async def _bounded(self, job: Job, options: StartOptions, previous: "_Previous") -> tuple[Job, str]:
        """Return the job with the most that it may cost, where that is limited, and the parts of that."""
        most = options.max_cost_usd
        if most is None and not self._reserves:
            return job, ""
        job, bound = await self._capped(job, previous)
        if most is not None and bound.usd > most:
            raise RequestError(
                f"This could cost up to {bound.usd:.2f} USD, over options.max_cost_usd: {bound.parts}. Lower "
                "options.max_output_tokens or options.max_tool_calls, or allow more."
            )
        return replace(job, reserved_usd=bound.usd), bound.parts

    @property
    def _reserves(self) -> bool:
        """Return True if what a job may cost is held against a budget."""
        return self._terms.budget_usd is not None and not self._terms.budget_spent

    async def _capped(self, job: Job, previous: "_Previous") -> tuple[Job, Bound]:
        """Return the job with limits where a budget needs them, and its bound; its hash stays that without limits."""
        body, bound = job.turn.request, partial(self._bound, job, previous)
        if self._reserves and self._terms.budget_usd is not None:
            # The price list takes a moment to load.
            capped = partial(self._terms.prices.capped, body, self._terms.budget_usd, bound)
            body = await anyio.to_thread.run_sync(capped)
        job = replace(job, turn=replace(job.turn, request=body))
        return job, await anyio.to_thread.run_sync(bound, body)

    def _most_usd(self, job: Job, first: float) -> float:
        """The most that a job can cost with all its turns.

        Raises:
            RequestError, ConfigError: There is no bound; the sentence says what to set.
        """
        if not any(map(_turns, items_of(job.turn.request.get("tools")))):
            return first
        if job.max_cost_usd is None:
            turn = f"Each turn of a job that calls tools costs, the first up to {first:.2f} USD"
            raise RequestError(f"{turn}: set options.max_cost_usd, which bounds them all.")
        return max(first, job.max_cost_usd)

    def _bound(self, job: Job, previous: "_Previous", body: JSON) -> Bound:
        """Return the most that the job's first turn can cost with this body."""
        url, tokens = self._endpoint.base_url, previous.tokens
        return self._terms.prices.bound(body, at=job.created_at, provider_url=url, history_tokens=tokens)

    async def _attached(self, order: StartRequest, options: StartOptions, previous: "_Previous") -> list[Attachment]:
        if not order.files:
            return []
        tools = items_of(options.upstream.get("tools", previous.request.get("tools")))
        # A container that the caller names is not ours to fill.
        runs_code = any(
            tool.get("type") == "code_interpreter" and not isinstance(tool.get("container"), str) for tool in tools
        )
        gathering = partial(gather, list(order.files), self._terms.file_roots, upload=runs_code)
        return await anyio.to_thread.run_sync(gathering)

    async def _previous(self, job_id: str | None, conversation: bool | str | None) -> "_Previous":
        """What the new jobs, in this conversation, go on from, in the cheapest way that upstream still knows."""
        if job_id is None:
            return _Previous()
        job = await self._ended(job_id)
        tokens = job.usage.exact_tokens if job.usage else None
        before = _Previous(job.turn.request, toolbox=job.toolbox)
        link = self._link(job, conversation)
        if link and job.status is Status.COMPLETED:
            return replace(before, link=link, tokens=tokens, least_tokens=await self._history_tokens(job))
        number, response = await self._last_turn(job)
        calls = await self._store.get_calls(job_id, number)
        cut = job.status is Status.INCOMPLETE
        why = "the response was cut before it ended" if cut else f"the job ended {job.status} before that"
        closing = history.closing_answers(response, calls, why)
        if link and not any(map(_has_made_id, closing)):
            least = await self._history_tokens(job)
            return replace(before, link=link, tokens=tokens, closing=closing, least_tokens=least)
        brought = cut or number > 1 or any(call.state == "done" for call in calls)
        if not history.tells(response, closing if brought else ()):
            asked = ", only with calls that were not made" if closing else ""
            raise RequestError(f"{job_id} ended {job.status} without an output to go on from{asked}: start anew.")
        exchanges = await self._store.get_exchanges(job_id, before_turn=number + 1)
        if not exchanges:
            raise RequestError(
                f"{job_id} goes on from a job that was purged, so upstream cannot be told all of it again: start anew, "
                "with what matters of it in the prompt."
            )
        least = history.said_chars(exchanges) // MOST_TOKEN_CHARS
        return replace(before, exchanges=exchanges, closing=closing, least_tokens=least)

    async def _ended(self, job_id: str) -> Job:
        """Return the job, which must have ended."""
        job = await self._store.get(job_id)
        if job is not None and job.status is Status.INPUT_REQUIRED:
            raise RequestError(
                f"{job_id} waits for answers, which agent_poll shows: agent_reply and let it end, or agent_cancel it, "
                "then go on from it."
            )
        if job is None or not job.is_terminal:
            raise RequestError(f"{job_id} still runs: agent_poll it until it ends, then go on from it.")
        return job

    async def _last_turn(self, job: Job) -> tuple[int, JSON]:
        """Return the number of the last turn that brought anything, and its response."""
        output = await self._store.get_output(job.id) if job.output is not None else None
        response = (output.response if output else None) or {}
        if history.brings(response) or job.turn.number == 1:
            return job.turn.number, response
        # A turn that failed goes on from the calls of the one before it.
        before = await self._store.get_exchanges(job.id, before_turn=job.turn.number)
        return job.turn.number - 1, before[-1][1] if before else {}

    async def _history_tokens(self, job: Job) -> int:
        """Return how many tokens at least a follow-up reads again of what was said up to a job's end."""
        usage, tools = job.usage, items_of(job.turn.request.get("tools"))
        if usage is not None and not usage.partial and not tools:  # with tools its input was counted several times
            return usage.input_tokens + max(0, usage.output_tokens - usage.reasoning_tokens)
        return history.said_chars(await self._store.get_exchanges(job.id)) // MOST_TOKEN_CHARS

    def _link(self, job: Job, conversation: bool | str | None) -> JSON:
        """The parameter by which upstream finds what was said up to a job's end; empty where there is none."""
        here = job.turn.base_url == self._endpoint.base_url and job.turn.fingerprint in ("", self._endpoint.fingerprint)
        if not here or job.turn.mode == "foreground":
            return {}
        if (own := job.turn.request.get("conversation")) is not None:
            # Nothing is added to a conversation but what was completed.
            there = job.status is Status.COMPLETED and conversation in (None, own)
            return {"conversation": own} if there else {}
        kept = job.status in (Status.COMPLETED, Status.INCOMPLETE) and job.turn.response_id is not None
        return {"previous_response_id": job.turn.response_id} if kept and conversation is None else {}


@dataclass(frozen=True, slots=True)
class _Previous:
    """What a job goes on from."""

    request: JSON = field(default_factory=dict[str, Any])
    link: JSON = field(default_factory=dict[str, Any])  #: the parameter by which upstream finds it
    exchanges: Sequence[tuple[JSON, JSON]] = ()  #: or all that was said, where upstream does not know it
    closing: Sequence[JSON] = ()  #: answers to the calls that it left open
    tokens: int | None = None  #: how much was read and written for it
    toolbox: Sequence[str] = ()
    least_tokens: int = 0  #: how much of it is certainly read again

    def tools(self, *, of_toolbox: bool) -> list[JSON]:
        """The tools of its request: the functions of the user's own tool servers, or the others."""
        tools = items_of(self.request.get("tools"))
        if not self.toolbox:
            return [] if of_toolbox else tools
        from agent_jobs.toolbox.toolbox import Toolbox  # brings the MCP client along

        return [tool for tool in tools if Toolbox.knows(str(tool.get("name")), self.toolbox) is of_toolbox]


class _Draft(NamedTuple):
    """The jobs of an order without their bounds, and what they were made of."""

    jobs: list[Job]
    options: StartOptions
    previous: _Previous
    attached: list[Attachment]


def _inherited(before: _Previous, web_search: bool | None) -> JSON:
    """What holds of the request before this one until it says otherwise, without what its toolbox brought."""
    kept = {name: before.request[name] for name in INHERITED if name in before.request}
    if "tools" in kept:
        tools = before.tools(of_toolbox=False)
        searches = [tool for tool in tools if str(tool["type"]).startswith("web_search")]
        kept["tools"] = [tool for tool in tools if tool not in searches] if web_search is False else tools
    return kept


def _has_made_id(answer: JSON) -> bool:
    """Return True if an answer names a call by an id that is not upstream's."""
    call_id = str(answer.get("call_id") or answer.get("approval_request_id"))
    return upstream_call_id(call_id) != call_id


def _least_tokens(text: str) -> int:
    return len(" ".join(text.split())) // MOST_TOKEN_CHARS  # runs of blanks are single tokens


def _turns(tool: JSON) -> bool:
    """Whether a call of this tool leads to another turn."""
    return tool["type"] == "function" or (tool["type"] == "mcp" and tool.get("require_approval") != "never")


def _told_apart(jobs: Sequence[Job]) -> list[Job]:
    """The same prompt ten times in one call is ten jobs; the same call again is the same ten."""
    seen = Counter[str]()
    apart: list[Job] = []
    for job in jobs:
        again = seen[job.request_hash]
        seen[job.request_hash] += 1
        apart.append(replace(job, request_hash=f"{job.request_hash}+{again}") if again else job)
    return apart


def _digest(uploads: Sequence[Attachment]) -> str:
    digest = hashlib.sha256()
    for one in uploads:
        digest.update(one.name.encode() + b"\0" + hashlib.sha256(one.data).digest())
    return digest.hexdigest()


def _new_id(kind: str) -> str:
    return f"{kind}_" + "".join(choice(ID_LETTERS) for _ in range(ID_LENGTH))
