"""The agent loop, one step: what a turn asks for is answered, by the user's tools or by whoever replies, and the job
goes on with another turn.

Each output is written down before anything follows from it. A process may die anywhere in here: a call that was under
way is repeated only where its tool says that this does no harm; else the model is told that its outcome is unknown.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from math import inf
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio

from agent_jobs.clock import Clock
from agent_jobs.engine.finalize import Finalizer
from agent_jobs.engine.step_result import Done, RunAgain
from agent_jobs.errors import AgentJobsError, BudgetError, ConfigError, RequestError
from agent_jobs.jobs import history
from agent_jobs.jobs.job import UNANSWERED, Job
from agent_jobs.jobs.response import Call, Usage, activity_of, items_of, upstream_call_id
from agent_jobs.jobs.status import Status
from agent_jobs.pricing.prices import Prices, day_start
from agent_jobs.store.base import Budget, Store

if TYPE_CHECKING:
    from agent_jobs.toolbox.toolbox import Toolbox

#: A job whose tool servers this process lacks is left to others for so long.
LET_GO_S = 10.0
AGAIN_S = 1.0
UNKNOWN = (
    "The outcome of this call is unknown: the process that made it ended before it was answered. "
    "Look whether it took effect before you repeat it."
)
DENIED = "The user denied this call."
#: How much of a name that does not exist is repeated, and how many of those that do are listed.
NAME_CHARS, NAMED = 80, 40
OVERRAN = (
    "Its time limit passed while it called tools, and calls under way were stopped; part=items tells of the others."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLimits:
    """How long a job may go on by itself.

    Args:
        turns: Upstream runs of one job.
        job_timeout_s: How long all its turns may take, their calls included, but not what somebody is waited for.
        input_timeout_s: How long an answer is waited for.
        budget_usd: What may be spent on the jobs of a day (UTC); a job counts to the day on which it was started.
        budget_spent: Whether only what was spent counts to it, and not what jobs may cost.
    """

    turns: int = 20
    job_timeout_s: float = 10_800.0
    input_timeout_s: float = 7 * 86_400.0
    budget_usd: float | None = None
    budget_spent: bool = False


class ToolLoop:
    """Acts for the jobs whose turn asked for calls.

    Args:
        toolbox: The user's tool servers; None where there are none.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settler: Finalizer,
        prices: Prices,
        toolbox: "Toolbox | None",
        bounds: ToolLimits,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settler = settler
        self._prices = prices
        self._toolbox = toolbox
        self._bounds = bounds
        self._acting: set[str] = set()

    async def run_tools(self, job: Job) -> Done | RunAgain:
        """Run what can be run here, ask for what cannot, and begin the next turn once all is answered."""
        if job.id in self._acting:
            return RunAgain(AGAIN_S)  # a reply came meanwhile: a call that is under way here was not left by the dead
        self._acting.add(job.id)
        try:
            return await self._act(job)
        finally:
            self._acting.discard(job.id)

    async def _act(self, job: Job) -> Done | RunAgain:
        now = self._clock.now()
        if job.cancel_requested_at is not None:
            return await self._end(job.mark_cancelled(now))
        asked_at = job.turn.asked_at if job.status is Status.INPUT_REQUIRED else None
        if asked_at is not None and now - asked_at >= self._bounds.input_timeout_s:
            return await self._end(job.mark_failed(UNANSWERED.code, UNANSWERED.message, now))
        if self._left_s(job) <= 0:
            return await self._end(job.mark_failed("deadline_exceeded", OVERRAN, now))
        if not self._has_servers_of(job):
            await self._store.release_claim(job.id, now + LET_GO_S)
            return Done()
        calls = await self._known(job)
        why = self._beyond(job, await self._store.get_calls(job.id)) or await self._unpaid(job)
        if why:
            return await self._end(job.mark_failed(*why, now))
        if not await self._run(job, [call for call in calls if _runnable(call)]):
            return RunAgain(0)  # to be ended
        calls = await self._store.get_calls(job.id, job.turn.number)
        if all(call.state == "done" for call in calls):
            return await self._go_on(job, calls)
        # Answers may come at any time, so whether somebody is still waited for is asked of the store.
        return Done() if await self._store.wait_for_input(job, now, self._bounds.input_timeout_s) else RunAgain(0)

    def _has_servers_of(self, job: Job) -> bool:
        """Whether the servers that the job was given are this process's too."""
        if not job.toolbox:
            return True
        try:
            if self._toolbox is not None:
                self._toolbox.check(job.toolbox)
        except (RequestError, ConfigError):
            return False
        return self._toolbox is not None

    async def _known(self, job: Job) -> list[Call]:
        """The turn's calls, each with what it needs, those that a dead process left under way dealt with."""
        calls: list[Call] = []
        for call in await self._store.get_calls(job.id, job.turn.number):
            known = await self._found_out(job, call)
            if known != call:
                await self._store.save_call(job, known, call.state)
            calls.append(known)
        return calls

    async def _found_out(self, job: Job, call: Call) -> Call:
        if call.state == "done" or (call.needs and call.state != "running"):
            return call
        declared = _declared_functions(job)
        if call.name not in declared:
            return _done(call, _no_such_function(call.name, declared))
        if self._toolbox is None or not self._toolbox.knows(call.name, job.toolbox):
            return replace(call, needs="output")
        left = call.state == "running"
        try:
            policy = await self._toolbox.policy(call.name, job.toolbox)
        except AgentJobsError as error:
            return _done(call, UNKNOWN if left else str(error))
        if left:
            harmless = policy is not None and (policy.read_only or policy.idempotent)
            return replace(call, state="approved") if harmless else _done(call, UNKNOWN)
        if policy is None:
            return _done(call, _no_such_function(call.name, [name for name in declared if name != call.name]))
        return replace(call, needs="approval" if policy.asks else "run")

    def _left_s(self, job: Job) -> float:
        """How long the job's calls may still take; while somebody is waited for, its time stands still."""
        asks = job.status is Status.INPUT_REQUIRED
        return inf if asks else -job.overdue_s(self._clock.now(), self._bounds.job_timeout_s)

    def _beyond(self, job: Job, calls: Sequence[Call]) -> tuple[str, str] | None:
        """The code and the sentence where the job may not go on."""
        if job.turn.number >= self._bounds.turns:
            return "max_turns", f"It asked for calls in each of {job.turn.number} turns, as many as it may have."
        most = job.turn.request.get("max_tool_calls")
        if isinstance(most, int) and len(calls) > most:
            return "max_tool_calls", f"It asked for {len(calls)} calls, and options.max_tool_calls allows {most}."
        return None

    async def _unpaid(self, job: Job) -> tuple[str, str] | None:
        """The code and the sentence where no answer could be read any more, however short: its call is not made."""
        try:
            await self._priced(await self._next(job, []))
        except (RequestError, ConfigError) as error:
            return _not_begun(job, error)
        return None

    async def _run(self, job: Job, calls: Sequence[Call]) -> bool:
        """Run calls side by side; False when a cancel or the time limit stopped them."""
        if not calls:
            return True
        await self._store.save(replace(job, activity="; ".join(filter(None, [_told(calls), await self._found(job)]))))
        stopped = False
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                nonlocal stopped
                await self._over(job)
                stopped = True
                running.cancel_scope.cancel()

            tasks.start_soon(stop)
            async with anyio.create_task_group() as running:
                for call in calls:
                    running.start_soon(self._call, job, call)
            tasks.cancel_scope.cancel()
        return not stopped

    async def _found(self, job: Job) -> str:
        """What upstream's own tools did in the turn, in a few words."""
        turn = await self._store.get_output(job.id)
        items = items_of(turn.response.get("output")) if turn and turn.response else []
        own = ("function_call", "message", "reasoning")
        return activity_of([item for item in items if item.get("type") not in own])

    async def _call(self, job: Job, call: Call) -> None:
        assert self._toolbox is not None
        under_way = replace(call, state="running")

        async def before_calling() -> None:
            if not await self._store.save_call(job, under_way, "open", "approved"):
                raise _TakenError

        try:
            called = await self._toolbox.call(call.name, call.arguments, job.toolbox, before_calling)
        except _TakenError:
            return
        # What was called is not forgotten, even by who is to stop.
        with anyio.CancelScope(shield=True):
            await self._store.save_call(job, _done(under_way, called.output), "open", "approved", "running")
            await self._store.record_event(job.id, self._clock.now(), "call", f"{call.name}{' failed' * called.failed}")

    async def _over(self, job: Job) -> None:
        """Return once somebody wants the job to be cancelled, or its time is over."""
        row: Job | None = job
        while row is not None and row.cancel_requested_at is None and (left_s := self._left_s(row)) > 0:
            with self._clock.limit(left_s):
                await self._store.wait_for_change(job.id, row.revision)
            row = await self._store.get(job.id)

    async def _go_on(self, job: Job, calls: Sequence[Call]) -> Done | RunAgain:
        """Begin the next turn with the answers, with what it may cost set aside."""
        usd = self._bounds.budget_usd
        # A job belongs to the day on which it was started, and so do its later turns.
        budget = None if usd is None else Budget(usd, day_start(job.created_at), self._bounds.budget_spent)
        try:
            going_on = await self._priced(await self._next(job, calls))
            await self._store.begin_next_turn(going_on, budget)  # or a cancel came first, which the next step sees
        except (RequestError, ConfigError) as error:
            return await self._end(job.mark_failed(*_not_begun(job, error), self._clock.now()))
        return RunAgain(0)

    async def _next(self, job: Job, calls: Sequence[Call]) -> Job:
        """Return the job with its next turn, which has the answers to these calls as its input."""
        body = {**job.turn.request, "input": [history.answer_item(call) for call in calls]}
        if self._is_told_again(job, calls) and (exchanges := await self._store.get_exchanges(job.id)):
            return job.with_next_turn(dict(history.continue_request(body, {}, exchanges)), str(uuid4()), rebuilt=True)
        # Upstream goes by the ids that it gave itself.
        body["input"] = [history.answer_item(replace(call, id=upstream_call_id(call.id))) for call in calls]
        if "conversation" not in body:
            body = {**body, "previous_response_id": job.turn.response_id}
        return job.with_next_turn(body, str(uuid4()))

    @staticmethod
    def _is_told_again(job: Job, calls: Sequence[Call]) -> bool:
        """Return True if upstream cannot go on by an id: it keeps nothing, or it cannot tell the calls apart."""
        # Where a later turn had to be rebuilt, upstream did not even keep the response before it.
        if job.turn.mode == "foreground" or (job.turn.rebuilt and job.turn.number > 1):
            return True
        return "conversation" not in job.turn.request and any(upstream_call_id(call.id) != call.id for call in calls)

    async def _priced(self, job: Job) -> Job:
        """A job with its next turn, and the most that it may have cost after it, where anybody limits that.

        Raises:
            BudgetError: That is over options.max_cost_usd.
            RequestError, ConfigError: It has no bound.
        """
        if job.max_cost_usd is None and (self._bounds.budget_usd is None or self._bounds.budget_spent):
            return job
        so_far = job.reserved_usd if job.cost_before_usd is None else job.cost_before_usd
        if so_far is None:
            raise RequestError("What it cost so far is not known.")
        before = await self._store.get_output(job.id)
        used = Usage.of(before.response.get("usage")) if before and before.response else None
        bound_usd = partial(
            self._prices.bound_usd,
            job.turn.request,
            at=self._clock.now(),
            provider_url=job.turn.base_url,
            history_tokens=used.exact_tokens if used else None,
        )
        most = so_far + await anyio.to_thread.run_sync(bound_usd)  # the price list takes a moment to load
        if job.max_cost_usd is not None and most > job.max_cost_usd:
            raise BudgetError(
                f"It cost {so_far:.2f} USD so far and could cost {most:.2f} USD after it, over options.max_cost_usd."
            )
        return replace(job, reserved_usd=most)

    async def _end(self, job: Job) -> Done:
        await self._store.save(await self._settler.prepare_end(job))
        return Done()


class _TakenError(Exception):
    """The call is not ours to make: another process holds the job by now."""


def _declared_functions(job: Job) -> list[str]:
    """Return the names of the functions that the turn's request offers."""
    tools = items_of(job.turn.request.get("tools"))
    return [str(tool.get("name")) for tool in tools if tool.get("type") == "function"]


def _no_such_function(name: str, declared: Sequence[str]) -> str:
    """Return what the model reads of a call to a function that the request does not offer."""
    sentence = f"There is no function {name[:NAME_CHARS]!r}, so nothing was called."
    if not declared:
        return f"{sentence} There are no functions at all: answer without them."
    near = _nearest_function(name, declared)
    hint = f" Did you mean {near!r}?" if near else ""
    more = f" and {len(declared) - NAMED} more" if len(declared) > NAMED else ""
    return f"{sentence}{hint} The functions are {', '.join(declared[:NAMED])}{more}."


def _nearest_function(name: str, declared: Sequence[str]) -> str | None:
    """Return the function that a wrong name most likely means: without case and server, else by its letters."""
    bare = _bare_name(name)
    same = [each for each in declared if _bare_name(each) == bare]
    if same:
        return get_close_matches(name, same, n=1, cutoff=0)[0]
    folded = {each.casefold(): each for each in declared}
    near = get_close_matches(name[:NAME_CHARS].casefold(), folded, n=1)
    return folded[near[0]] if near else None


def _bare_name(name: str) -> str:
    """Return a function's name without the server that models put before it in several ways."""
    return re.split(r"__|[./:]", name.casefold())[-1]


def _runnable(call: Call) -> bool:
    return call.state == "approved" or (call.state == "open" and call.needs == "run")


def _done(call: Call, output: object) -> Call:
    return replace(call, state="done", output=output)


def _not_begun(job: Job, error: AgentJobsError) -> tuple[str, str]:
    """The code and the sentence of a job whose next turn nothing covers."""
    return "budget_exceeded", f"Turn {job.turn.number + 1} was not begun. {error}"


def _told(calls: Sequence[Call]) -> str:
    """What is under way: `read_file x4; git_log`."""
    counted = Counter(call.name.rpartition("__")[2] for call in calls)
    return "; ".join(f"{name} x{count}" if count > 1 else name for name, count in counted.items())
