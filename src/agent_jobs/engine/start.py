"""Plan new jobs from a start request: check it, read its files, build its bodies and bound its cost."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from math import ceil
from secrets import choice
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import anyio

from agent_jobs.attachments.attachment import Attachment, build_content_parts, describe_attachments, estimate_tokens
from agent_jobs.attachments.gather import gather_attachments
from agent_jobs.attachments.uploads import attach_uploads
from agent_jobs.clock import Clock
from agent_jobs.engine.callback_check import check_callback
from agent_jobs.engine.context_check import check_context_size
from agent_jobs.engine.follow_up import PreviousFinder, PreviousJob
from agent_jobs.engine.forecast import RESEARCH_PRESET, forecast_cost
from agent_jobs.engine.owner_files import OwnerFiles
from agent_jobs.engine.owner_limits import find_limits, list_budgets
from agent_jobs.engine.retry_job import read_repeated, repeat_job
from agent_jobs.engine.shared_key_check import check_shared_ids
from agent_jobs.engine.start_defaults import PlannedStart as PlannedStart
from agent_jobs.engine.start_defaults import StartDefaults as StartDefaults
from agent_jobs.engine.trace_parent import read_trace_parent
from agent_jobs.errors import AgentJobsError, Argument, ConfigError, RequestError
from agent_jobs.jobs import history
from agent_jobs.jobs.job import Job, Turn
from agent_jobs.jobs.owners import OwnerLimits
from agent_jobs.jobs.queries import Estimate
from agent_jobs.jobs.response import JSON, items_of
from agent_jobs.jobs.status import Status
from agent_jobs.jobs.stored_request import effort_of, model_of
from agent_jobs.pricing.prices import Bound
from agent_jobs.request.added_parameters import ASKED
from agent_jobs.request.body import (
    build_body,
    hash_of,
    list_requested_names,
    merge_preset_options,
    select_given_options,
    title_of,
)
from agent_jobs.request.hosted_tools import fill_in_secrets
from agent_jobs.request.options import StartOptions
from agent_jobs.request.start_request import StartRequest
from agent_jobs.store.base import Store
from agent_jobs.store.values import Budget, Upload
from agent_jobs.text import encode_text
from agent_jobs.upstream.endpoint import Endpoint

if TYPE_CHECKING:
    from agent_jobs.toolbox.toolbox import Toolbox

ID_LETTERS = "0123456789bcdfghjkmnpqrstvwxz"  # ids are read aloud and spell nothing: no vowels, no look-alikes
ID_LENGTH = 12  # characters: enough that two databases never have the same id
TOKEN_BYTES = 4  # of ordinary text make one token


class _Draft(NamedTuple):
    """The jobs of a request without their bounds, and what they were made of."""

    jobs: list[Job]
    previous: PreviousJob
    attached: list[Attachment]
    uploads: list[Attachment]  #: those of them that the provider stores


class _Shared(NamedTuple):
    """The parts that all jobs of a request share."""

    request: StartRequest
    options: StartOptions
    batch: str
    previous: PreviousJob
    contents: Sequence[JSON]  #: the attached files as parts of the input
    functions: Sequence[JSON]  #: of the user's own tool servers


class StartPlanner:
    """Plans jobs for one endpoint by the user's settings. Sends nothing."""

    def __init__(self, store: Store, endpoint: Endpoint, clock: Clock, defaults: StartDefaults) -> None:
        self._store = store
        self._finder = PreviousFinder(store, endpoint)
        self._endpoint = endpoint
        self._clock = clock
        self._defaults = defaults
        self._owner = ""
        self._shares_key = True

    def for_owner(self, store: Store, owner: str) -> "StartPlanner":
        """Return the same for the jobs of one owner, with the owner's store."""
        bound = copy(self)
        bound._store = store
        bound._finder = PreviousFinder(store, self._endpoint)
        bound._owner = owner
        return bound

    def with_own_key(self, endpoint: Endpoint) -> "StartPlanner":
        """Return the same for an owner who has a key of the owner's own at the endpoint."""
        bound = copy(self)
        bound._endpoint = endpoint
        bound._finder = PreviousFinder(self._store, endpoint)
        bound._shares_key = False
        return bound

    @property
    def _lent_toolbox(self) -> "Toolbox | None":
        """Return the tool servers that are lent to the owner."""
        if self._owner and self._owner not in self._defaults.toolbox_owners:
            return None
        return self._defaults.toolbox

    @property
    def warnings(self) -> tuple[ConfigError, ...]:
        """Return why no job can be given the user's tools, if that is so."""
        if self._lent_toolbox is None:
            return ()
        return self._lent_toolbox.warnings

    async def find_budget(self) -> Budget | None:
        """Return the budget of today: of an owner the owner's own, which is all that an owner may know of."""
        budgets = self._create_budgets(await self._find_limits(), "")
        own = [budget for budget in budgets if not self._owner or budget.owner == self._owner]
        return next(iter(own), None)

    async def plan(self, request: StartRequest) -> PlannedStart:
        """Return the jobs of a request, not yet stored.

        Raises:
            RequestError: Part of the request cannot be done; the sentence says what can.
            ConfigError: The user must change a setting first.
        """
        if request.repeats_job_id is not None:
            return await self._plan_repeat(request.repeats_job_id, request.client)
        batch = request.batch
        if not batch and len(request.prompts) > 1:
            batch = _create_id("batch")
        limits = await self._find_limits()
        draft = await self._draft_jobs(request, batch)
        bound_parts = ""
        bounded: list[Job] = []
        for job in _number_equal_prompts(draft.jobs):
            job, parts_of_bound = await self._check_cost(job, draft.previous, limits)
            bounded.append(job)
            bound_parts = max(bound_parts, parts_of_bound, key=len)
        return PlannedStart(
            bounded,
            [Upload(file.name, file.data) for file in draft.uploads],
            self._create_budgets(limits, bound_parts),
            allow_duplicate=bool(request.options.get("allow_duplicate")),
            starts_per_minute=limits.starts_per_minute,
        )

    async def _plan_repeat(self, job_id: str, client: str) -> PlannedStart:
        """Return a job that sends the first request of an earlier job again."""
        repeated = await self._store.get(job_id)
        if repeated is None:
            raise RequestError("There is no job {job_id!r} to repeat.", "nothing_to_repeat", job_id=job_id)
        request, uploads = await read_repeated(self._store, repeated)
        fill_in_secrets(request, self._defaults.secrets)
        job = repeat_job(
            repeated,
            request,
            await self._store.get_prompt(job_id),
            job_id=_create_id("job"),
            client=client,
            owner=self._owner,
            endpoint=self._endpoint,
            now=self._clock.now(),
        )
        previous = PreviousJob()
        if not job.turn.rebuilt:
            previous = await self._finder.find(repeated.previous_job_id, None)
        limits = await self._find_limits()
        job, bound_parts = await self._check_cost(job, previous, limits)
        budgets = self._create_budgets(limits, bound_parts)
        starts = limits.starts_per_minute
        return PlannedStart([job], uploads, budgets, allow_duplicate=True, starts_per_minute=starts)

    async def estimate(self, request: StartRequest) -> Estimate:
        """Return what the request would send and cost; nothing is stored.

        Raises:
            RequestError, ConfigError: As `plan`, but not for a missing bound or price.
        """
        (job, *others), previous, attached, _ = await self._draft_jobs(request, "")
        bound_usd, bound_parts = None, ""
        unbounded: AgentJobsError | None = None
        try:
            job, first_turn = await self._limit_cost(job, previous, await self._find_limits())
            bound_parts = first_turn.parts
            bound_usd = self._bound_all_turns_usd(job, first_turn.usd) * (1 + len(others))
        except AgentJobsError as error:
            unbounded = error
        prompt_tokens = ceil(max(map(len, map(encode_text, request.prompts))) / TOKEN_BYTES)
        estimate = Estimate(
            jobs=1 + len(others),
            model=str(job.turn.request["model"]),
            files=describe_attachments(attached),
            input_tokens=prompt_tokens + estimate_tokens(attached),
            cost_bound_usd=bound_usd,
            unbounded=unbounded,
            bound_parts=bound_parts,
        )
        return await self._add_forecast(estimate, job, is_research=request.preset == RESEARCH_PRESET)

    async def _add_forecast(self, estimate: Estimate, job: Job, *, is_research: bool) -> Estimate:
        """Return an estimate with what the job will probably cost, and what identifies it."""
        body = job.turn.request
        forecast = await anyio.to_thread.run_sync(
            partial(
                forecast_cost,
                self._defaults.prices,
                body,
                estimate.input_tokens,
                is_research=is_research,
                at=job.created_at,
                provider_url=self._endpoint.base_url,
            )
        )
        if forecast is not None:
            estimate = estimate._replace(
                expected_usd=forecast.usd * estimate.jobs,
                expected_tokens=forecast.written_tokens,
                expected_searches=forecast.searches,
            )
        return estimate._replace(
            effort=effort_of(body),
            tools=tuple(str(tool.get("name") or tool.get("type")) for tool in items_of(body.get("tools"))),
            request_hash=job.request_hash if estimate.jobs == 1 else "",
        )

    async def _draft_jobs(self, request: StartRequest, batch: str) -> _Draft:
        request.check()
        presets = self._defaults.presets
        request = replace(request, options=select_given_options(request.preset, request.options, presets))
        options = StartOptions.parse(merge_preset_options(request.preset, request.options, presets))
        check_callback(options.callback_url, self._defaults.callback_hosts)
        if self._owner and self._shares_key:
            await check_shared_ids(self._store, options, merge_preset_options(request.preset, {}, presets))
        previous = await self._finder.find(request.previous_job_id, options.conversation)
        attached = await self._attach_files(request, options, previous)
        functions = await self._list_functions(options, previous)
        shared = _Shared(request, options, batch, previous, build_content_parts(attached), functions)
        jobs = [self._draft_job(prompt, shared) for prompt in request.prompts]
        await check_context_size(
            request, jobs[0].turn.request, attached, previous.least_tokens, self._find_context_tokens
        )
        uploads = [file for file in attached if file.kind == "data"]
        return _Draft(_add_to_hashes(jobs, uploads), previous, attached, uploads)

    def _draft_job(self, prompt: str, shared: _Shared) -> Job:
        job_id = _create_id("job")
        body = self._build_body(prompt, job_id, shared)
        fill_in_secrets(body, self._defaults.secrets)  # a missing secret is refused now rather than when it is sent
        options, previous = shared.options, shared.previous
        toolbox = options.toolbox
        return Job(
            id=job_id,
            owner=self._owner,
            title=title_of(prompt),
            prompt=prompt,
            model=model_of(body),
            effort=effort_of(body),
            preset=shared.request.preset or "",
            client=shared.request.client,
            callback_url=options.callback_url or "",
            trace_parent=read_trace_parent(),
            status=Status.PENDING,
            created_at=self._clock.now(),
            request_hash=hash_of(body),
            key=options.key,
            priority=shared.request.priority,
            batch=shared.batch,
            previous_job_id=shared.request.previous_job_id,
            context="rebuilt" if previous.exchanges else "",
            timeout_s=options.timeout_s,
            max_cost_usd=options.max_cost_usd,
            toolbox=previous.toolbox if toolbox is None else toolbox,
            turn=Turn(
                number=1,
                request={**body, ASKED: self._list_asked(shared)},
                request_id=str(uuid4()),
                base_url=self._endpoint.base_url,
                fingerprint=self._endpoint.fingerprint,
                rebuilt=bool(previous.exchanges),
            ),
        )

    def _build_body(self, prompt: str, job_id: str, shared: _Shared) -> JSON:
        """Return the body of a job's first POST, with its history."""
        request, previous = shared.request, shared.previous
        body = build_body(
            prompt,
            job_id=job_id,
            preset=request.preset,
            presets=self._defaults.presets,
            model=request.model,
            default_model=previous.request.get("model") or self._defaults.model,
            effort=request.effort,
            web_search=request.web_search,
            options=shared.options,
            attachments=shared.contents,
            openai=self._endpoint.openai,
        )
        body = {**previous.list_inherited_fields(request.web_search), **body}
        if shared.functions:
            names = {function["name"] for function in shared.functions}
            kept = [tool for tool in items_of(body.get("tools")) if tool.get("name") not in names]
            body = {**body, "tools": [*kept, *shared.functions]}
        conversation = shared.options.conversation
        link = {"conversation": conversation} if conversation else previous.link
        return history.continue_request(history.with_answers(body, previous.closing), link, previous.exchanges)

    def _list_asked(self, shared: _Shared) -> list[str]:
        """Return the names of the parameters that callers asked for, in this request or the ones before it."""
        asked = list_requested_names(shared.request, self._defaults.presets)
        before: list[str] = shared.previous.request.get(ASKED, [])
        return [*asked, *(name for name in before if name not in asked)]

    def _find_context_tokens(self, model: str) -> int | None:
        """Return how many tokens a model reads; None if it is not known."""
        url = self._endpoint.base_url
        return self._defaults.prices.context_tokens(model, at=self._clock.now(), provider_url=url)

    async def _list_functions(self, options: StartOptions, previous: PreviousJob) -> Sequence[JSON]:
        """Return the functions of the tool servers that the caller named, else those of the job before."""
        names = options.toolbox
        if names is None:
            return self._inherit_functions(previous)
        if not names:
            return ()
        if self._lent_toolbox is None:
            raise RequestError("There are no tool servers.", "no_tool_servers")
        return await self._lent_toolbox.list_functions(names)

    def _inherit_functions(self, previous: PreviousJob) -> Sequence[JSON]:
        """Return the functions of tool servers that the job before had."""
        if not previous.toolbox:
            return ()
        if self._lent_toolbox is None:
            raise RequestError("There are no tool servers for the tools of the previous job.", "tool_servers_gone")
        self._lent_toolbox.check_names(previous.toolbox)
        return previous.list_tools(of_toolbox=True)

    async def _attach_files(
        self, request: StartRequest, options: StartOptions, previous: PreviousJob
    ) -> list[Attachment]:
        if not request.files:
            return []
        tools = items_of(options.upstream.get("tools", previous.request.get("tools")))
        upload = any(map(_has_own_container, tools))
        gathering = partial(gather_attachments, list(request.files), self._defaults.file_roots, upload=upload)
        if self._owner:  # paths of this machine are not the owner's
            files = await OwnerFiles(self._store, self._clock).find_uploads(request.files)
            gathering = partial(attach_uploads, files, upload=upload)
        return await anyio.to_thread.run_sync(gathering)

    async def _find_limits(self) -> OwnerLimits:
        """Return the limits of the owner."""
        return await find_limits(self._store, self._owner, self._defaults.owner_limits)

    def _create_budgets(self, limits: OwnerLimits, bound_parts: str) -> Sequence[Budget]:
        """Return the day's budgets that the store checks."""
        defaults = self._defaults
        return list_budgets(
            defaults.budget_usd,
            limits,
            self._owner,
            self._clock.now(),
            spent=defaults.budget_spent,
            parts=bound_parts,
        )

    async def _check_cost(self, job: Job, previous: PreviousJob, limits: OwnerLimits) -> tuple[Job, str]:
        """Return the job with the most that it may cost, if that is limited, and the parts of that bound."""
        if job.max_cost_usd is None and not self._list_reserved(limits):
            return job, ""
        job, bound = await self._limit_cost(job, previous, limits)
        if bound.usd > job.cost_limit_usd:
            raise RequestError(
                "This could cost up to {usd:.2f} USD, over {name}: {parts}.",
                "over_max_cost",
                usd=bound.usd,
                name=Argument("options.max_cost_usd"),
                parts=bound.parts,
            )
        return replace(job, reserved_usd=bound.usd), bound.parts

    def _list_reserved(self, limits: OwnerLimits) -> list[float]:
        """Return the budgets in USD that limit the highest cost of a job."""
        if self._defaults.budget_spent:
            return []
        return [usd for usd in (self._defaults.budget_usd, limits.daily_budget_usd) if usd is not None]

    async def _limit_cost(self, job: Job, previous: PreviousJob, limits: OwnerLimits) -> tuple[Job, Bound]:
        """Return the job with the limits that a budget needs, and its bound; its hash stays that without limits."""
        body, bound = job.turn.request, partial(self._bound_first_turn, job, previous)
        if budgets_usd := self._list_reserved(limits):
            # In a thread: loading the price list needs a moment.
            add_limits = partial(self._defaults.prices.cap_request, body, min(budgets_usd), bound)
            body = await anyio.to_thread.run_sync(add_limits)
        job = replace(job, turn=replace(job.turn, request=body))
        return job, await anyio.to_thread.run_sync(bound, body)

    def _bound_first_turn(self, job: Job, previous: PreviousJob, body: JSON) -> Bound:
        """Return the most that the job's first turn can cost with this body."""
        url, tokens = self._endpoint.base_url, previous.tokens
        return self._defaults.prices.bound(body, at=job.created_at, provider_url=url, history_tokens=tokens)

    def _bound_all_turns_usd(self, job: Job, first_usd: float) -> float:
        """Return the most that a job can cost with all its turns.

        Raises:
            RequestError, ConfigError: There is no bound; the sentence says what to set.
        """
        if not any(map(_leads_to_next_turn, items_of(job.turn.request.get("tools")))):
            return first_usd
        if job.max_cost_usd is None:
            raise RequestError(
                "Each turn of a job that calls tools costs, the first up to {usd:.2f} USD.",
                "unbounded_turns",
                usd=first_usd,
            )
        return max(first_usd, job.max_cost_usd)


def _has_own_container(tool: JSON) -> bool:
    """Return True if the tool runs code in a new container: files are not put into a container of the caller."""
    return tool.get("type") == "code_interpreter" and not isinstance(tool.get("container"), str)


def _leads_to_next_turn(tool: JSON) -> bool:
    """Return True if a call of this tool leads to another turn."""
    return tool["type"] == "function" or (tool["type"] == "mcp" and tool.get("require_approval") != "never")


def _number_equal_prompts(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs with distinct hashes: a prompt given ten times is ten jobs, and the same call again the same ten."""
    seen = Counter[str]()
    separate: list[Job] = []
    for job in jobs:
        repeats = seen[job.request_hash]
        seen[job.request_hash] += 1
        if repeats:
            job = replace(job, request_hash=f"{job.request_hash}+{repeats}")
        separate.append(job)
    return separate


def _add_to_hashes(jobs: list[Job], uploads: Sequence[Attachment]) -> list[Job]:
    """Return the jobs with the uploaded files in their hashes, if there are any."""
    if not uploads:
        return jobs
    digest = hashlib.sha256()
    for file in uploads:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.data).digest())
    salt = digest.hexdigest()
    return [replace(job, request_hash=f"{job.request_hash}/{salt}") for job in jobs]


def _create_id(kind: str) -> str:
    return f"{kind}_" + "".join(choice(ID_LETTERS) for _ in range(ID_LENGTH))
