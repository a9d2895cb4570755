"""An order becomes jobs: its request, what it goes on from, its files, and what it may cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from secrets import choice
from typing import Any
from uuid import uuid4

from agent_jobs import request, thread
from agent_jobs.clock import Clock
from agent_jobs.errors import RequestError
from agent_jobs.job import JSON, Job, Status, Turn
from agent_jobs.responses import Endpoint
from agent_jobs.store import Store

#: Jobs that one call starts at most.
BATCH_MAX = 20
BATCH_CHARS = 60
#: No vowels and no look-alikes: ids are read aloud, and should spell nothing.
ID_LETTERS, ID_LENGTH = "0123456789bcdfghjkmnpqrstvwxz", 12
#: What a follow-up keeps of the request before it, unless it says otherwise: upstream carries none of it over.
INHERITED = ("instructions", "reasoning", "text", "tools", "include")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a caller asks for: the same for each prompt, a job for each."""

    prompts: Sequence[str]
    model: str | None = None
    effort: str | None = None
    web_search: bool | None = None
    previous_job_id: str | None = None
    batch: str = ""
    priority: int = 0
    options: JSON = field(default_factory=dict[str, Any])


class Intake:
    """Makes jobs for one endpoint; nothing is written down here.

    Args:
        model: What to ask for where the caller names no model; None takes the one in data/.
    """

    def __init__(self, store: Store, endpoint: Endpoint, clock: Clock, model: str | None) -> None:
        self._store = store
        self._endpoint = endpoint
        self._clock = clock
        self._model = model

    async def jobs(self, order: Order) -> list[Job]:
        """A job for each prompt, not yet written down.

        Raises:
            RequestError: Something cannot be asked for; the sentence says what can.
        """
        if not 0 < len(order.prompts) <= BATCH_MAX:
            raise RequestError(f"prompts takes 1 to {BATCH_MAX} texts: start the others in another call.")
        if len(order.batch) > BATCH_CHARS:
            raise RequestError(f"batch takes a name of at most {BATCH_CHARS} characters.")
        if len(order.prompts) > 1 and order.options.get("key") is not None:
            raise RequestError("options.key names one job: start jobs with keys one by one.")
        previous = await self._previous(order.previous_job_id)
        batch = order.batch or (_new_id("batch") if len(order.prompts) > 1 else "")
        seen = Counter[str]()
        jobs: list[Job] = []
        for prompt in order.prompts:
            job = self._job(order, prompt, batch, previous)
            # The same prompt ten times in one call is ten jobs; the same call again is the same ten.
            again = seen[job.request_hash]
            seen[job.request_hash] += 1
            jobs.append(replace(job, request_hash=f"{job.request_hash}+{again}") if again else job)
        return jobs

    def _job(self, order: Order, prompt: str, batch: str, previous: "_Previous") -> Job:
        job_id = _new_id("job")
        model = order.model or previous.request.get("model") or self._model
        body = request.build(
            prompt,
            job_id=job_id,
            model=model,
            effort=order.effort,
            web_search=bool(order.web_search),
            options=order.options,
        )
        body = {**{name: previous.request[name] for name in INHERITED if name in previous.request}, **body}
        body = thread.continued(body, previous.link, previous.exchanges)
        return Job(
            id=job_id,
            title=request.title_of(prompt),
            status=Status.PENDING,
            created_at=self._clock.now(),
            request_hash=request.hash_of(body),
            key=request.key_of(order.options),
            priority=order.priority,
            batch=batch,
            previous_job_id=order.previous_job_id,
            context="rebuilt" if previous.exchanges else "",
            turn=Turn(
                number=1,
                request=body,
                request_id=str(uuid4()),
                base_url=self._endpoint.base_url,
                fingerprint=self._endpoint.fingerprint,
            ),
        )

    async def _previous(self, job_id: str | None) -> "_Previous":
        """What the new jobs go on from, in the cheapest way that upstream still knows."""
        if job_id is None:
            return _Previous()
        job = await self._store.get(job_id)
        if job is None or not job.terminal:
            raise RequestError(f"{job_id} is still running: agent_poll it until it ends, then go on from it.")
        conversation = job.turn.request.get("conversation")
        here = job.turn.base_url == self._endpoint.base_url and job.turn.fingerprint in ("", self._endpoint.fingerprint)
        if here and isinstance(conversation, str):
            return _Previous(job.turn.request, {"conversation": conversation})
        kept = job.turn.mode != "foreground" and job.status in (Status.COMPLETED, Status.INCOMPLETE)
        if here and kept and job.turn.response_id is not None:
            return _Previous(job.turn.request, {"previous_response_id": job.turn.response_id})
        if job.output is None:
            raise RequestError(f"{job_id} ended {job.status} without an output to go on from: start anew.")
        return _Previous(job.turn.request, exchanges=await self._store.thread(job_id))


@dataclass(frozen=True, slots=True)
class _Previous:
    """What a job goes on from."""

    request: JSON = field(default_factory=dict[str, Any])
    link: JSON = field(default_factory=dict[str, Any])  #: the parameter by which upstream finds it
    exchanges: Sequence[tuple[JSON, JSON]] = ()  #: or all that was said, where upstream does not know it


def _new_id(kind: str) -> str:
    return f"{kind}_" + "".join(choice(ID_LETTERS) for _ in range(ID_LENGTH))
