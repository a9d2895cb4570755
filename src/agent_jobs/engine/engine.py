"""The verbs that the faces call. Each one is bounded in time and safe to cancel."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from anyio import CancelScope
from anyio.abc import TaskGroup

from agent_jobs.clock import Clock
from agent_jobs.errors import ConfigError, JobNotFoundError, MissingError, RequestError, StoreError, UpstreamError
from agent_jobs.jobs.job import WAITING, Job, Mode
from agent_jobs.jobs.queries import (
    UNSETTLED,
    BatchState,
    Estimate,
    JobFilter,
    JobPage,
    Pruned,
    Reply,
    Result,
    StoreInfo,
    WorkerInfo,
)
from agent_jobs.jobs.response import JSON, Call, mapping_of
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.store.base import Store

if TYPE_CHECKING:  # a terminal that only reads jobs should not wait for what sends them
    from agent_jobs.engine.start import PlannedStart, StartPlanner
    from agent_jobs.engine.worker import Worker
    from agent_jobs.request.body import Preset, StartRequest
    from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

#: A start waits so long for upstream to name an id; the launch itself goes on.
ID_WAIT_S = 5.0
CANCEL_WAIT_S = 10.0
#: A poll counts as watching for so long after it.
WATCHED_S = 60.0
#: What is to be done after an end, like writing files, is waited for so long.
FINALIZE_WAIT_S = 3.0
#: An end that nobody was told of for so long is news no more; agent_list still shows it.
UNTOLD_S = 7 * 86_400.0
#: Jobs that are asked about together at most.
GATHERED_MAX = 1_000
DAY_S = 86_400.0
#: Ids that are named where a beginning of one fits several.
FITTING = 4


def _asks(job: Job) -> bool:
    return job.status is Status.INPUT_REQUIRED


class Upstream(NamedTuple):
    """The endpoint this process works with, and who runs its jobs."""

    client: ResponsesClient
    runner: Worker
    intake: StartPlanner


class Started(NamedTuple):
    """The job that answers for a prompt, and whether it was there before."""

    job: Job
    duplicate: bool


class Engine:
    """Jobs of one user, on one store.

    Args:
        store: Where the jobs are kept.
        upstream: Who works on them; or, as an error, why nothing can be sent from here. Jobs can be read even so.
        clock: The time.
        tasks: Where what no caller need wait for is done.
        presets: Requests by name.
        warnings: What the user should set otherwise, though jobs go on without it.
    """

    def __init__(
        self,
        store: Store,
        upstream: Upstream | ConfigError,
        clock: Clock,
        tasks: TaskGroup,
        presets: Mapping[str, Preset],
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.presets = presets
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._tasks = tasks
        self._warnings = warnings
        self._told: dict[str, int] = {}  #: of jobs that ask, in which revision a caller of this process was told

    def now(self) -> float:
        """The engine's time in epoch seconds, by which answers tell ages."""
        return self._clock.now()

    async def start(
        self,
        order: StartRequest,
        *,
        wait_s: float = 0.0,
        id_wait_s: float = ID_WAIT_S,
        on_submitted: Callable[[list[str]], object] = list,
    ) -> list[Started]:
        """Write the jobs down, have them launched, and wait until upstream named their ids or `wait_s` for their end.

        The ids are waited for `id_wait_s` at most. `on_submitted` gets the jobs' own ids as soon as they are written.

        Work that was asked for before is not started again, while the job that does it goes on, or its result was
        handed to nobody yet, or its start is unconfirmed: that job answers. `options.allow_duplicate` starts another,
        `options.key` makes one job for each key. Of several prompts all are started or none.

        Raises:
            RequestError: Nothing was started; the sentence says what to change.
            ConfigError: Nothing was started; a person must change a setting.
            StoreError: Nothing was started.
        """
        began = self._clock.now()
        submitted = await self.submit(await self.plan(order))
        on_submitted([job.id for job, _ in submitted])
        return [
            Started(await self._launched(job, began, wait_s, id_wait_s), duplicate=duplicate)
            for job, duplicate in submitted
        ]

    async def plan(self, order: StartRequest) -> PlannedStart:
        """Check an order and price it; nothing is written down yet.

        Raises:
            RequestError, ConfigError: As `start`.
        """
        upstream = self._working()
        if (why := upstream.runner.paused) is not None:
            raise ConfigError(f"Upstream refuses this key: {why} Ask the user; try again in 60 s.")
        if order.previous_job_id is not None:
            await self._existing(order.previous_job_id)
        return await upstream.intake.jobs(order)

    async def submit(self, planned: PlannedStart) -> list[Started]:
        """Write the planned jobs down and launch them; return without waiting for upstream.

        A caller that is cancelled meanwhile still gets the ids: what is written down may be sent at any moment.

        Raises:
            StoreError: Nothing was started.
        """
        upstream = self._working()
        answering: list[Job | None] = []
        with CancelScope(shield=True):
            answering = await self._store.add(
                *planned.jobs,
                allow_duplicate=planned.allow_duplicate,
                budget=planned.budget,
                uploads=planned.uploads,
            )
            for job, existing in zip(planned.jobs, answering, strict=True):
                if existing is None:
                    upstream.runner.launch(job.id)
        return [
            Started(existing or job, duplicate=existing is not None)
            for job, existing in zip(planned.jobs, answering, strict=True)
        ]

    async def wait_for_response_id(self, job: Job, *, wait_s: float) -> Job:
        """Return the job once upstream named its response, it ended, or it has to wait; or after `wait_s`."""
        job = await self._until(await self._existing(job.id), _arrived, wait_s)
        return await self._placed(job)

    async def _launched(self, job: Job, began: float, wait_s: float, id_wait_s: float) -> Job:
        """The job with its id, or its end if that comes in time; as last known where the database fails."""
        try:
            job = await self._until(job, _arrived, began + id_wait_s - self._clock.now())
            if wait_s > 0 and not job.is_terminal:
                job = await self._watched(job, began + wait_s - self._clock.now())
            return await self._placed(job)
        except StoreError as error:
            # It is written down and being sent: who does not hear of it would start it again.
            logger.warning("%s was started; how it stands cannot be read: %s", job.id, error)
            return job

    async def estimate(self, order: StartRequest) -> Estimate:
        """What an order would send and may cost; nothing is started.

        Raises:
            RequestError, ConfigError: As `start`.
        """
        if order.previous_job_id is not None:
            await self._existing(order.previous_job_id)
        return await self._working().intake.estimate(order)

    async def poll(self, job_id: str, *, wait_s: float = 0.0, anew: bool = False) -> Job:
        """The job as it stands, once it ended or asks, or after `wait_s`; its output with it when it ended.

        With `anew`, what callers of this process were told that it asks is waited on, until something of it changes.

        Raises:
            JobNotFoundError: There is no such job; the sentence names the newest.
        """
        job = await self._existing(job_id)
        if job.is_terminal:
            return await self._settled(job)
        return await self._settled(await self._watched(job, wait_s, self._asks_anew if anew else _asks))

    async def wait_for_any(self, group: JobFilter, *, wait_s: float = 0.0) -> BatchState:
        """How the jobs of a group stand, once one ended or asks that nobody was told of, or after `wait_s`.

        Raises:
            JobNotFoundError: One of the jobs or the batch does not exist.
        """
        for job_id in group.job_ids:
            await self._existing(job_id)
        if group.active:
            group = replace(group, since=self._clock.now() - UNTOLD_S)
        gathered = await self._gathered(group)
        if group.batch and not (gathered.done or gathered.is_running or gathered.delivered):
            raise JobNotFoundError(f"There is no batch {group.batch[:40]!r}: agent_list shows what there is.")
        if wait_s > 0:
            now = self._clock.now()
            for job in [*gathered.running, *gathered.asking]:
                await self._store.mark_watched(job.id, now, now + wait_s + WATCHED_S)
            self._wake()
        with self._clock.limit(wait_s):
            while gathered.is_running and not gathered.done:
                mark = await self._store.change_mark()
                gathered = await self._gathered(group)
                if gathered.is_running and not gathered.done:
                    settling = any(job.is_terminal for job in gathered.running)
                    with self._clock.limit(FINALIZE_WAIT_S if settling else inf):
                        await self._store.wait_for_any_change(mark)
        return gathered

    async def find_open(self, group: JobFilter) -> list[Job]:
        """Return the jobs of a group that have not ended, as they are stored; upstream is not asked."""
        if group.active:
            group = replace(group, since=self._clock.now() - UNTOLD_S)
        return [await self._placed(job) for job in await self._found(group) if not job.is_terminal]

    async def result(self, job_id: str) -> Result:
        """All that is kept of a job.

        Raises:
            JobNotFoundError: There is no such job.
        """
        job = await self._settled(await self._existing(job_id))
        whole = replace(job, output=await self._store.get_output(job_id) or job.output)
        return Result(
            whole,
            await self._store.get_events(job_id),
            await self._store.get_output_files(job_id),
            await self._store.get_calls(job_id),
        )

    async def find(self, group: JobFilter, limit: int) -> JobPage:
        """The newest jobs of a group, how many there are in each status, and what today's jobs cost so far."""
        now = self._clock.now()
        warnings = self._warnings
        if isinstance(self._upstream, Upstream):
            warnings += self._upstream.intake.warnings
        return replace(await self._store.list_jobs(group, limit, now - now % DAY_S), warnings=warnings)

    async def find_unobserved(self, group: JobFilter) -> list[Job]:
        """Return the newest jobs of a group that go on by themselves and that no living process observes."""
        return await self._store.find_unobserved(group, GATHERED_MAX)

    async def identify(self, text: str) -> str:
        """The id of the job that a person means: the whole id or the beginning of one, with or without `job_`.

        Raises:
            JobNotFoundError: No id begins so.
            RequestError: Several do; the sentence names some.
        """
        prefixes = (text, f"job_{text.removeprefix('job_')}") if text else ()  # a shell's empty variable means none
        for prefix in dict.fromkeys(prefixes):
            ids = await self._store.find_ids(prefix, FITTING)
            if len(ids) == 1 or prefix in ids:
                return prefix if prefix in ids else ids[0]
            if ids:
                raise RequestError(f"{text!r} fits several jobs: write more of {', '.join(ids)}.")
        return (await self._existing(text)).id

    async def store_info(self) -> StoreInfo:
        """Where the jobs are kept, and which other processes work on them."""
        return await self._store.store_info()

    @property
    def base_url(self) -> str | None:
        """The endpoint that this process works with; None where it can send nothing."""
        return self._upstream.client.endpoint.base_url if isinstance(self._upstream, Upstream) else None

    async def other_workers(self) -> list[WorkerInfo]:
        """The other living processes that work on the jobs of this endpoint."""
        base_url = self._working().client.endpoint.base_url
        return [one for one in (await self._store.store_info()).watchers if one.base_url == base_url]

    async def describe_model(self, name: str) -> JSON:
        """What upstream says of a model, asked with the key.

        Raises:
            ConfigError: Nothing can be asked from here.
            UpstreamError: It cannot be asked, refuses the key, or does not know the model.
        """
        return await self._working().client.describe_model(name)

    async def list_models(self) -> dict[str, JSON]:
        """What upstream says of each model that it lists, by name, asked with the key.

        Raises:
            ConfigError: Nothing can be asked from here.
            UpstreamError: It refuses the key, or has no list.
        """
        from agent_jobs.request.body import listed_models  # only `doctor` asks

        return listed_models(await self._working().client.model_pages())

    def is_deciding(self, job_id: str) -> bool:
        """Return True while it is not known yet whether the job's run goes on without this process."""
        return isinstance(self._upstream, Upstream) and self._working().runner.is_deciding(job_id)

    async def learned_mode(self, model: str) -> Mode | None:
        """How jobs of a model have to be sent, where the endpoint taught it in the last day."""
        base_url = self._working().client.endpoint.base_url
        return await self._store.learned_mode(base_url, model, self._clock.now() - DAY_S)

    async def prune(self, older_than_s: float, *, upstream: bool = False, unread: bool = False) -> Pruned:
        """Delete the jobs that ended that long ago, and keep those whose results no reader received.

        Args:
            older_than_s: Seconds since their end.
            upstream: Delete their responses at the provider, too.
            unread: Delete undelivered results as well.

        Raises:
            ConfigError: `upstream` is set, and nothing can be asked of upstream from here.
        """
        from agent_jobs.engine.worker import prune  # brings along what sends jobs

        client = self._working().client if upstream else None
        return await prune(self._store, self._clock.now() - older_than_s, client, unread=unread)

    def mark_delivered_later(self, *jobs: Job) -> None:
        """Have it noted, once the caller is done, that the ends of these jobs were handed to a host.

        What jobs ask is noted for this process alone: every host's model should hear of it.
        """
        self._told |= {job.id: job.revision for job in jobs if _asks(job)}
        if any(_news(job) for job in jobs):
            self._tasks.start_soon(self.mark_delivered, *jobs)

    async def mark_delivered(self, *jobs: Job) -> None:
        """Note that the ends of these jobs were handed to whoever asked for them."""
        try:
            await self._store.mark_delivered([job.id for job in jobs if _news(job)], self._clock.now())
        except StoreError as error:
            logger.warning("cannot note that results were handed out: %s", error)

    async def cancel(self, group: JobFilter) -> list[Job]:
        """Have upstream stop the jobs of a group, and wait a moment for it to say so.

        Returns the jobs as upstream left them; where one is not terminal, its cancel is delivered later.
        """
        for job_id in group.job_ids:
            await self._existing(job_id)
        jobs = await self._found(group)
        for job in jobs:
            await self._cancel(job)
        began = self._clock.now()
        return [await self._stopped(job, began + CANCEL_WAIT_S - self._clock.now()) for job in jobs]

    async def open_calls(self, job: Job) -> list[Call]:
        """What a job that waits asks for."""
        if not _asks(job):
            return []
        calls = await self._store.get_calls(job.id, job.turn.number)
        return [call for call in calls if call.state == "open" and call.needs in ("approval", "output")]

    async def reply(self, job_id: str, reply: Reply) -> Job:
        """Answer what a waiting job asks for; it goes on once all is answered.

        Raises:
            RequestError: The job does not wait, or an answer fits nothing that it asks for; nothing was changed.
        """
        job = await self._existing(job_id)
        asked = {call.id: call for call in await self.open_calls(job)}
        if not asked:
            raise RequestError(f"{job_id} is {job.status} and asks for nothing: agent_poll it.")
        current = reply.turn in (None, job.turn.number)
        if not current or not await self._store.record_reply(job, _answers(asked, reply), self._clock.now()):
            raise RequestError(f"{job_id} was answered by somebody else meanwhile: agent_poll it.")
        self._wake()
        return await self._existing(job_id)

    async def wait_until_answered(self, job_id: str, call_id: str, *, wait_s: float) -> None:
        """Return once the job does not ask for this call any more, or after `wait_s`.

        Raises:
            JobNotFoundError: There is no such job.
        """
        with self._clock.limit(wait_s):
            job = await self._existing(job_id)
            while any(call.id == call_id for call in await self.open_calls(job)):
                await self._store.wait_for_change(job.id, job.revision)
                job = await self._existing(job_id)

    async def adopt(self, job_id: str, response_id: str) -> Job:
        """Give a job the response id that was found elsewhere, so that its result is collected after all.

        Raises:
            JobNotFoundError: There is no such job.
            RequestError: It has another response, or upstream's response of this id is not there or is another job's.
        """
        job = await self._existing(job_id)
        if job.turn.response_id is None:
            await self._may_have(job, response_id)
        elif job.turn.response_id != response_id:
            raise RequestError(f"{job_id} already has the response {job.turn.response_id}.")
        await self._store.record_response_id(job_id, job.turn.number, response_id, self._clock.now())
        self._working().runner.wake()
        return await self._existing(job_id)

    async def _may_have(self, job: Job, response_id: str) -> None:
        """Raise RequestError where upstream says that this is not the job's response: it could not be taken back."""
        unknown = RequestError(
            f"Upstream knows no response {response_id[:80]!r}: copy its id again, whole; one that was created within "
            "the last minute may not be found yet, then repeat this."
        )
        client = self._working().client
        if not response_id:
            raise unknown
        if client.endpoint.base_url != job.turn.base_url:
            return  # another process asks there
        try:
            look = await client.retrieve(response_id)
        except MissingError:
            raise unknown from None
        except UpstreamError as error:
            logger.info("cannot look for %s: %s", response_id, error)
            return
        named = mapping_of(look.response.get("metadata")).get("job_id", job.id)  # not all servers keep metadata
        if named != job.id:
            raise RequestError(f"{response_id[:80]!r} is the response of {str(named)[:40]!r}: copy this job's id.")

    async def _existing(self, job_id: str) -> Job:
        job = await self._store.get(job_id)
        if job is not None:
            return job
        purged = await self._store.get_tombstone(job_id)
        if purged is not None:
            days = round((self._clock.now() - purged.finished_at) / DAY_S)
            raise JobNotFoundError(f"{job_id} ended {purged.status} {days} days ago and was purged; start it again.")
        newest = [f"{job.id} ({job.title[:30]})" for job in await self._store.find(JobFilter(), 3)]
        hint = f"The newest are {', '.join(newest)}." if newest else "There are no jobs yet; agent_start makes one."
        raise JobNotFoundError(f"There is no job {job_id[:40]!r}. {hint}")

    async def _found(self, group: JobFilter) -> list[Job]:
        """The newest jobs of a group, and, where these are not all, those that are open and that nobody was told of."""
        jobs = await self._store.find(group, GATHERED_MAX)
        if len(jobs) == GATHERED_MAX:
            for sought in (replace(group, statuses=ACTIVE), replace(group, active=True)):
                jobs += await self._store.find(sought, GATHERED_MAX)
        return list({job.id: job for job in jobs}.values())

    async def _gathered(self, group: JobFilter) -> BatchState:
        jobs = await self._found(group)
        now = self._clock.now()
        settling = [job for job in jobs if job.needs_finalizing and now - (job.finished_at or now) < FINALIZE_WAIT_S]
        open_jobs = [job for job in jobs if not job.is_terminal or job in settling]
        for job in jobs:
            if not _asks(job):
                self._told.pop(job.id, None)
        anew = [job for job in open_jobs if self._asks_anew(job)]
        ended = [job for job in jobs if job.is_terminal and job not in settling]
        fresh = sorted((job for job in ended if job.delivered_at is None), key=lambda job: job.finished_at or 0.0)
        return BatchState(
            [*fresh, *anew],
            [job for job in open_jobs if not _asks(job)],
            [job for job in open_jobs if _asks(job) and job not in anew],
            len(ended) - len(fresh),
        )

    def _asks_anew(self, job: Job) -> bool:
        return _asks(job) and self._told.get(job.id) != job.revision

    async def _watched(self, job: Job, wait_s: float, arrived: Callable[[Job], bool] = _asks) -> Job:
        """Wait for the job's end with upstream looked at often; a wait that runs out is no error."""
        now = self._clock.now()
        await self._store.mark_watched(job.id, now, now + max(0.0, wait_s) + WATCHED_S)
        self._wake()
        return await self._placed(await self._until(job, arrived, wait_s))

    async def _settled(self, job: Job) -> Job:
        """The job; where something follows its end, once that is done or was waited for long enough."""
        if not (job.is_terminal and job.needs_finalizing and isinstance(self._upstream, Upstream)):
            return job
        if any(event.kind == UNSETTLED for event in await self._store.get_events(job.id)):
            return job  # it failed before and may fail for hours
        with self._clock.limit(FINALIZE_WAIT_S):
            while job.needs_finalizing:
                await self._store.wait_for_change(job.id, job.revision)
                job = await self._store.get(job.id) or job
        return job

    async def _cancel(self, job: Job) -> None:
        if job.is_terminal:
            return
        upstream = self._working()
        job = await self._store.request_cancel(job.id, self._clock.now()) or job
        if (
            not job.is_terminal
            and job.turn.response_id is not None
            and job.turn.base_url == upstream.client.endpoint.base_url
        ):
            upstream.runner.cancel(job)

    async def _stopped(self, job: Job, wait_s: float) -> Job:
        job = await self._store.get(job.id) or job
        return job if job.is_terminal else await self._watched(job, wait_s)

    async def _placed(self, job: Job) -> Job:
        """The job; where it waits for a slot, with how many go before it."""
        if job.status is not Status.PENDING or job.activity != WAITING:
            return job
        return replace(job, activity=f"{WAITING}, {await self._store.count_ahead(job)} ahead")

    async def _until(self, job: Job, arrived: Callable[[Job], bool], wait_s: float) -> Job:
        """The job once it has ended or arrived somewhere, or as it stands after `wait_s`."""
        with self._clock.limit(wait_s):
            while not (job.is_terminal or arrived(job)):
                await self._store.wait_for_change(job.id, job.revision)
                job = await self._store.get(job.id) or job
        return job

    def _wake(self) -> None:
        if isinstance(self._upstream, Upstream):
            self._upstream.runner.wake()

    def _working(self) -> Upstream:
        if isinstance(self._upstream, ConfigError):
            raise self._upstream
        return self._upstream


def _arrived(job: Job) -> bool:
    """Upstream named an id, or there is something to tell instead."""
    return job.turn.response_id is not None or bool(job.activity)


def _news(job: Job) -> bool:
    """Whether the job ended and nobody was handed its end."""
    return job.is_terminal and job.delivered_at is None


def _answers(asked: Mapping[str, Call], reply: Reply) -> list[Call]:
    """The calls as they stand once answered.

    Raises:
        RequestError: An answer fits no call.
    """
    from agent_jobs.engine.tool_loop import DENIED  # brings along what sends jobs

    given = [*reply.outputs, *reply.approve, *reply.deny]
    for call_id in given:
        if call_id not in asked:
            raise RequestError(f"The job does not ask for {call_id[:60]!r}: it asks for {', '.join(asked)}.")
        if given.count(call_id) > 1:
            raise RequestError(f"{call_id[:60]!r} is answered twice: answer each call once.")
    answers: list[Call] = []
    for call in asked.values():
        if call.id in reply.outputs:
            if call.needs != "output":
                raise RequestError(f"{call.id} waits for approve or deny, not for an output.")
            answers.append(replace(call, state="done", output=_text(reply.outputs[call.id])))
        elif call.id in reply.approve:
            if call.needs != "approval":
                raise RequestError(f"{call.id} waits for an output, not for an approval.")
            approved = call.kind == "approval"
            answers.append(replace(call, state="done" if approved else "approved", output=True if approved else None))
        elif call.id in reply.deny:
            answers.append(_denied(call, DENIED))
        elif reply.message:
            answers.append(_denied(call, f"Not done. The user says: {reply.message}"))
    if not answers:
        raise RequestError(f"Answer with outputs, approve, deny or message; it asks for {', '.join(asked)}.")
    return answers


def _denied(call: Call, why: str) -> Call:
    return replace(call, state="done", output=why)


def _text(output: object) -> str:
    """An output as upstream takes it: text as it is, anything else as JSON."""
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
