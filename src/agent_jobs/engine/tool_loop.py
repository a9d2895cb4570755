"""Run the tool calls of a turn and begin the next turn with their outputs.

Each output is stored before it is used. A process may die at any point: an interrupted call is
repeated only if its tool says that this does no harm. Otherwise the model reads that its outcome is unknown.
"""

import re
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from math import inf
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio

from agent_jobs.clock import Clock
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.engine.owner_limits import find_limits, list_budgets
from agent_jobs.engine.read_again import read_stored_response
from agent_jobs.engine.replies import approve_call
from agent_jobs.engine.run_limits import RunLimits
from agent_jobs.engine.step_result import Done, LostRace, RunAgain
from agent_jobs.errors import AgentJobsError, BudgetError, ConfigError, RequestError
from agent_jobs.jobs import history
from agent_jobs.jobs.job import UNANSWERED, Job
from agent_jobs.jobs.response import (
    Call,
    Failure,
    Usage,
    activity_of,
    count_exact_tokens,
    find_upstream_call_id,
    items_of,
)
from agent_jobs.jobs.status import Status
from agent_jobs.pricing.prices import Prices
from agent_jobs.store.base import Store
from agent_jobs.store.values import Budget

if TYPE_CHECKING:
    from agent_jobs.toolbox.toolbox import Policy, Toolbox

OTHER_TOOLBOX_S = 10.0  # for which a job is left to processes that have its tool servers
AGAIN_S = 1.0  # until a step is tried again while another one runs the same calls
NAME_CHARS = 80  # of an unknown function's name that are repeated to the model
NAMES_MAX = 40  # known functions that are listed to the model: more cost more tokens than they save
UNKNOWN = (
    "The outcome of this call is unknown: the process that made it ended before it was answered. "
    "Check whether it took effect before you repeat it."
)
OVERRAN = Failure(
    "deadline_exceeded",
    "Its time limit passed while it called tools, and the running calls were stopped. part=items shows the others.",
)


class _JobEnd(Exception):
    """The job ends although not all its calls were answered."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job  #: as ended

    @classmethod
    def by_failure(cls, job: Job, failure: Failure, now: float) -> "_JobEnd":
        """Return the end of a job as failed."""
        return cls(job.mark_failed(failure.code, failure.message, now))


class ToolLoop:
    """Runs the tool calls of jobs.

    Args:
        toolbox: The user's tool servers; None if there are none.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        finalizer: Finalizer,
        prices: Prices,
        toolbox: "Toolbox | None",
        limits: RunLimits,
    ) -> None:
        self._store = store
        self._clock = clock
        self._finalizer = finalizer
        self._prices = prices
        self._toolbox = toolbox
        self._limits = limits
        self._busy_jobs: set[str] = set()

    async def run_tools(self, job: Job) -> Done | RunAgain:
        """Run the calls that can run here, ask for the others, and begin the next turn once all are answered."""
        if job.id in self._busy_jobs:
            return RunAgain(AGAIN_S)  # a reply woke the job while another step runs its calls
        self._busy_jobs.add(job.id)
        try:
            return await self._answer_calls(job)
        except _JobEnd as end:
            await self._finalizer.save_job(end.job)
            return Done()
        finally:
            self._busy_jobs.discard(job.id)

    async def _answer_calls(self, job: Job) -> Done | RunAgain:
        """Answer what can be answered here.

        Raises:
            _JobEnd: The job must not continue.
        """
        self._check_time(job)
        if not self._has_servers_of(job):
            await self._store.release_claim(job.id, self._clock.now() + OTHER_TOOLBOX_S)
            return Done()
        now = self._clock.now()
        calls = await self._classify_calls(job)
        await self._check_next_turn(job)
        if not await self._run_calls(job, list(filter(_is_runnable, calls))):
            return RunAgain(0)  # the next step ends the job
        calls = await self._store.get_calls(job.id, job.turn.number)
        if all(call.state == "done" for call in calls):
            return await self._begin_next_turn(job, calls)
        return await self._wait_for_input(job, now)

    async def _wait_for_input(self, job: Job, now: float) -> Done | RunAgain:
        # A reply may come at any time, so only the store knows whether the job still has to wait.
        if await self._store.wait_for_input(job, now, self._limits.input_timeout_s):
            return Done()
        return RunAgain(0)

    def _check_time(self, job: Job) -> None:
        """Raise _JobEnd if the job was cancelled, was not answered or ran too long."""
        now = self._clock.now()
        if job.cancel_requested_at is not None:
            raise _JobEnd(job.mark_cancelled(now))
        failure, overdue_s = OVERRAN, job.overdue_s(now, self._limits.job_timeout_s)
        if job.status is Status.INPUT_REQUIRED:
            asked_at = job.turn.asked_at or now
            failure, overdue_s = UNANSWERED, now - asked_at - self._limits.input_timeout_s
        if overdue_s >= 0:
            raise _JobEnd.by_failure(job, failure, now)

    def _has_servers_of(self, job: Job) -> bool:
        """Return True if this process has the tool servers that the job was given."""
        if self._toolbox is None:
            return not job.toolbox
        try:
            self._toolbox.check_names(job.toolbox)
        except (RequestError, ConfigError):
            return False
        return True

    async def _classify_calls(self, job: Job) -> list[Call]:
        """Return the turn's calls, each with what it needs, after repairing those that a dead process left running."""
        calls: list[Call] = []
        for call in await self._store.get_calls(job.id, job.turn.number):
            classified = _apply_standing_approval(job, await self._classify_call(job, call))
            if classified != call:
                await self._store.save_call(job, classified, call.state)
            calls.append(classified)
        return calls

    async def _classify_call(self, job: Job, call: Call) -> Call:
        if _is_classified(call):
            return call
        declared = _list_declared_functions(job)
        if call.name not in declared:
            return _finish_call(call, _explain_unknown_function(call.name, declared))
        if self._toolbox is None or not self._toolbox.has_function(call.name, job.toolbox):
            return replace(call, needs="output")
        try:
            policy = await self._toolbox.find_policy(call.name, job.toolbox)
        except AgentJobsError as error:
            return _abandon_call(call, str(error))
        if policy is None:  # its server no longer has the tool
            return _abandon_call(call, _explain_unknown_function(call.name, declared))
        return _apply_policy(call, policy)

    def _seconds_left(self, job: Job) -> float:
        """Return the seconds left for the job's calls; the time in `input_required` does not count."""
        if job.status is Status.INPUT_REQUIRED:
            return inf
        return -job.overdue_s(self._clock.now(), self._limits.job_timeout_s)

    async def _check_next_turn(self, job: Job) -> None:
        """Raise _JobEnd if the job has used up its turns or calls, or cannot afford the cheapest next turn."""
        turns, now = job.turn.number, self._clock.now()
        if turns >= self._limits.turns:
            message = f"It made calls in each of {turns} turns, the most that a job may have."
            raise _JobEnd.by_failure(job, Failure("max_turns", message), now)
        calls = await self._store.get_calls(job.id)
        most = job.turn.request.get("max_tool_calls")
        if isinstance(most, int) and len(calls) > most:
            message = f"It asked for {len(calls)} calls, and its max_tool_calls allows {most}."
            raise _JobEnd.by_failure(job, Failure("max_tool_calls", message), now)
        with self._end_without_budget(job):
            await self._reserve_cost(await self._add_next_turn(job, []), await self._list_budgets(job))

    @contextmanager
    def _end_without_budget(self, job: Job) -> Generator[None]:
        """Raise _JobEnd if the job's next turn is not covered."""
        try:
            yield
        except (RequestError, ConfigError) as error:
            failure = Failure("budget_exceeded", f"Turn {job.turn.number + 1} was not begun. {error}")
            raise _JobEnd.by_failure(job, failure, self._clock.now()) from error

    async def _run_calls(self, job: Job, calls: Sequence[Call]) -> bool:
        """Run calls side by side; return False if a cancel or the time limit stopped them."""
        if not calls:
            return True
        activity = "; ".join(filter(None, [_describe_calls(calls), await self._describe_hosted_calls(job)]))
        await self._store.save(replace(job, activity=activity))
        is_stopped = False
        async with anyio.create_task_group() as tasks:

            async def stop_when_over() -> None:
                nonlocal is_stopped
                await self._wait_until_over(job)
                is_stopped = True
                running.cancel_scope.cancel()

            tasks.start_soon(stop_when_over)
            async with anyio.create_task_group() as running:
                for call in calls:
                    running.start_soon(self._run_call, job, call)
            tasks.cancel_scope.cancel()
        return not is_stopped

    async def _describe_hosted_calls(self, job: Job) -> str:
        """Return in a few words what upstream's own tools did in the turn."""
        excluded = ("function_call", "message", "reasoning")
        response = await read_stored_response(self._store, job.id)
        items = items_of(response.get("output"))
        return activity_of([item for item in items if item.get("type") not in excluded])

    async def _run_call(self, job: Job, call: Call) -> None:
        assert self._toolbox is not None
        running = replace(call, state="running", started_at=self._clock.now())

        async def before_calling() -> None:
            if not await self._store.save_call(job, running, "open", "approved"):
                raise LostRace

        try:
            called = await self._toolbox.call(call.name, call.arguments, job.toolbox, before_calling)
        except LostRace:
            return
        # Shielded: the tool already ran, so its result must be stored.
        with anyio.CancelScope(shield=True):
            finished = replace(_finish_call(running, called.output), finished_at=self._clock.now())
            await self._store.save_call(job, finished, "open", "approved", "running")
            text = f"{call.name} failed" if called.failed else call.name
            await self._store.record_event(job.id, self._clock.now(), "call", text)

    async def _wait_until_over(self, job: Job) -> None:
        """Return once a cancel was requested or the job's time is over."""
        row: Job | None = job
        while row is not None and row.cancel_requested_at is None:
            left_s = self._seconds_left(row)
            if left_s <= 0:
                return
            with self._clock.limit(left_s):
                await self._store.wait_for_change(job.id, row.revision)
            row = await self._store.get(job.id)

    async def _begin_next_turn(self, job: Job, calls: Sequence[Call]) -> RunAgain:
        """Begin the next turn with the answers, and reserve its highest cost."""
        budgets = await self._list_budgets(job)
        with self._end_without_budget(job):
            next_turn = await self._reserve_cost(await self._add_next_turn(job, calls), budgets)
            await self._store.begin_next_turn(next_turn, budgets)  # a cancel may be first; the next step sees it
        return RunAgain(0)

    async def _list_budgets(self, job: Job) -> list[Budget]:
        """Return the budgets that a job counts to."""
        limits = self._limits
        own = await find_limits(self._store, job.owner, limits.owner)
        return list_budgets(limits.budget_usd, own, job.owner, job.created_at, spent=limits.budget_spent)

    async def _add_next_turn(self, job: Job, calls: Sequence[Call]) -> Job:
        """Return the job with its next turn, which has the answers to these calls as its input."""
        body = {**job.turn.request, "input": list(map(history.build_answer_item, calls))}
        if _must_repeat_history(job, calls) and (exchanges := await self._store.get_exchanges(job.id)):
            return job.with_next_turn(dict(history.continue_request(body, {}, exchanges)), str(uuid4()), rebuilt=True)
        # Upstream knows calls by the ids that it gave them.
        body["input"] = [history.build_answer_item(replace(call, id=find_upstream_call_id(call.id))) for call in calls]
        if "conversation" not in body:
            body = {**body, "previous_response_id": job.turn.response_id}
        return job.with_next_turn(body, str(uuid4()))

    async def _reserve_cost(self, job: Job, budgets: Sequence[Budget]) -> Job:
        """Return a job with its next turn and the most that it may have cost after it, if that is limited.

        Raises:
            BudgetError: That is over its max_cost_usd.
            RequestError, ConfigError: It has no bound.
        """
        is_reserving = bool(budgets) and not self._limits.budget_spent
        if job.max_cost_usd is None and not is_reserving:
            return job
        so_far_usd = job.reserved_usd if job.cost_before_usd is None else job.cost_before_usd
        if so_far_usd is None:
            raise RequestError("Its cost so far is not known.", "unbounded_history")
        most_usd = so_far_usd + await self._bound_turn_usd(job)
        if most_usd > job.cost_limit_usd:
            raise BudgetError(
                "It cost {so_far_usd:.2f} USD so far, and the turn could raise that to {usd:.2f} USD, "
                "over its max_cost_usd.",
                "over_max_cost",
                so_far_usd=so_far_usd,
                usd=most_usd,
            )
        return replace(job, reserved_usd=most_usd)

    async def _bound_turn_usd(self, job: Job) -> float:
        """Return the most that the job's current turn can cost."""
        before = await read_stored_response(self._store, job.id)
        bound_usd = partial(
            self._prices.bound_usd,
            job.turn.request,
            at=self._clock.now(),
            provider_url=job.turn.base_url,
            history_tokens=count_exact_tokens(Usage.of(before.get("usage"))),
        )
        return await anyio.to_thread.run_sync(bound_usd)  # loading the price list needs a moment


def _apply_policy(call: Call, policy: "Policy") -> Call:
    """Return the call with what its tool's policy asks for."""
    if call.state != "running":
        return replace(call, needs="approval" if policy.asks else "run")
    # The process that ran it is dead.
    if policy.read_only or policy.idempotent:
        return replace(call, state="approved")
    return _finish_call(call, UNKNOWN)


def _abandon_call(call: Call, why: str) -> Call:
    """Return a call that cannot be made as finished; what became of it is unknown if a dead process ran it."""
    if call.state == "running":
        return _finish_call(call, UNKNOWN)
    return _finish_call(call, why)


def _apply_standing_approval(job: Job, call: Call) -> Call:
    """Return the call as approved if the user always allows its tool in this job."""
    is_waiting = call.state == "open" and call.needs == "approval"
    if is_waiting and call.name in job.always_allowed:
        return approve_call(call)
    return call


def _must_repeat_history(job: Job, calls: Sequence[Call]) -> bool:
    """Return True if upstream cannot continue by an id: it stores nothing, or its call ids are ambiguous."""
    # If a later turn had to be rebuilt, upstream did not even store the response before it.
    if job.turn.mode == "foreground" or (job.turn.rebuilt and job.turn.number > 1):
        return True
    return "conversation" not in job.turn.request and any(find_upstream_call_id(call.id) != call.id for call in calls)


def _list_declared_functions(job: Job) -> list[str]:
    """Return the names of the functions that the turn's request offers."""
    tools = items_of(job.turn.request.get("tools"))
    return [str(tool.get("name")) for tool in tools if tool.get("type") == "function"]


def _explain_unknown_function(name: str, declared: Sequence[str]) -> str:
    """Return the output that the model reads for a call to a function that the request does not offer."""
    sentence = f"There is no function {name[:NAME_CHARS]!r}, so nothing was called."
    others = [each for each in declared if each != name]
    if not others:
        return f"{sentence} There are no functions at all: answer without them."
    near = _find_nearest_function(name, others)
    if near is not None:
        sentence += f" Did you mean {near!r}?"
    listed = ", ".join(others[:NAMES_MAX])
    if len(others) > NAMES_MAX:
        listed += f" and {len(others) - NAMES_MAX} more"
    return f"{sentence} The functions are {listed}."


def _find_nearest_function(name: str, declared: Sequence[str]) -> str | None:
    """Return the function that a wrong name most likely means: without case and server, else by its letters."""
    bare = _strip_server(name)
    same = [each for each in declared if _strip_server(each) == bare]
    if same:
        return get_close_matches(name, same, n=1, cutoff=0)[0]
    folded = {each.casefold(): each for each in declared}
    near = get_close_matches(name[:NAME_CHARS].casefold(), folded, n=1)
    if near:
        return folded[near[0]]
    return None


def _strip_server(name: str) -> str:
    """Return a function's name without the server that models put before it in several ways."""
    return re.split(r"__|[./:]", name.casefold())[-1]


def _is_classified(call: Call) -> bool:
    """Return True if nothing has to be found out about the call; one that was running may be interrupted."""
    if call.state == "running":
        return False
    return call.state == "done" or bool(call.needs)


def _is_runnable(call: Call) -> bool:
    return call.state == "approved" or (call.state == "open" and call.needs == "run")


def _finish_call(call: Call, output: object) -> Call:
    return replace(call, state="done", output=output)


def _describe_calls(calls: Sequence[Call]) -> str:
    """Return the running calls in a few words: `read_file x4; git_log`."""
    counted = Counter(call.name.rpartition("__")[2] for call in calls)
    return "; ".join(f"{name} x{count}" if count > 1 else name for name, count in counted.items())
