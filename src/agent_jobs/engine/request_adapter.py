"""Adapt requests to what an endpoint refused before: its delivery mode and the parameters that we add."""

import re
from collections.abc import Mapping
from dataclasses import replace

from agent_jobs.clock import Clock
from agent_jobs.engine.run_limits import RunLimits
from agent_jobs.errors import RefusedError
from agent_jobs.jobs.job import Job, Mode, Turn
from agent_jobs.jobs.response import JSON
from agent_jobs.request.added_parameters import (
    ASKED,
    OF_A_MODEL,
    THIS_SCHEMA,
    find_refused_additions,
    relax_schemas,
    remove_refused,
)
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

LESSON_KEPT_S = 86_400.0  # after a day the endpoint is tried in the best way again: it may have been updated
#: The delivery mode to try if an endpoint refuses one.
FALLBACK_MODE: Mapping[Mode, Mode] = {"background_stream": "background", "background": "foreground"}
MODE_WORDS = re.compile(r"\b(background|stream|streaming|store)\b")


class RequestAdapter:
    """Remembers the delivery modes and parameters that the endpoint refused."""

    def __init__(self, store: Store, client: ResponsesClient, clock: Clock, limits: RunLimits) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._forced_mode: Mode | None = limits.mode

    async def choose_mode(self, job: Job) -> Mode:
        """Return the delivery mode of a turn: the user's, else the one the endpoint accepts, else the best."""
        if self._forced_mode is not None:
            return self._forced_mode
        since = self._clock.now() - LESSON_KEPT_S
        learned = await self._store.learned_mode(job.turn.base_url, str(job.turn.request.get("model")), since)
        if learned is not None:
            return learned
        if self._client.endpoint.azure:
            return "background"
        return "background_stream"

    async def remove_refused(self, body: JSON, turn: Turn) -> JSON:
        """Return the body without the parameters that only we added and the endpoint refuses."""
        refused = await self._store.refused_parameters(turn.base_url, self._clock.now() - LESSON_KEPT_S)
        of_model = f"@{body.get('model')}"
        asked = {name: turn.request[name] for name in (ASKED,) if name in turn.request}
        return remove_refused({**body, **asked}, {name.removesuffix(of_model) for name in refused})

    async def learn_from(self, job: Job, error: RefusedError) -> bool:
        """If the request can be sent in another way, remember that and return True."""
        return await self._drop_parameters(job, error) or await self._fall_back_mode(job, error)

    async def _drop_parameters(self, job: Job, error: RefusedError) -> bool:
        """If upstream refused what only we added, remember to leave it out and return True, once for each."""
        body, now = job.turn.request, self._clock.now()
        known = await self._store.refused_parameters(job.turn.base_url, now - LESSON_KEPT_S)
        refused = find_refused_additions(error.code, error.param, str(error), body)
        dropped = [name for name in refused if _choose_stored_name(name, body) not in known and self._can_drop(name)]
        if not dropped:
            return False
        for name in dropped:
            await self._remember_parameter(job, name, str(error), now)
        if await self._store.save(job.mark_not_sent("")) is None:
            return False
        if THIS_SCHEMA in dropped:
            return await self._store.rewrite_request(replace(job, turn=replace(job.turn, request=relax_schemas(body))))
        return True

    async def _remember_parameter(self, job: Job, name: str, answer: str, now: float) -> None:
        body, base_url = job.turn.request, job.turn.base_url
        if name == "store":  # a response that is not stored does not run in the background
            await self._store.learn_mode(base_url, str(body.get("model")), "foreground", now, answer)
        if name != THIS_SCHEMA:
            await self._store.learn_refused_parameter(base_url, _choose_stored_name(name, body), now, answer)
        await self._store.record_event(job.id, now, "dropped", f"{name}: {answer}")

    def _can_drop(self, name: str) -> bool:
        return name != "store" or self._forced_mode in (None, "foreground")

    async def _fall_back_mode(self, job: Job, error: RefusedError) -> bool:
        """If upstream refused the delivery mode and there is a simpler one, remember that one and return True."""
        fallback = FALLBACK_MODE.get(await self.choose_mode(job))
        if self._forced_mode is not None or fallback is None:
            return False
        if not MODE_WORDS.search(f"{error.param} {error}".lower()):
            return False
        model, now = str(job.turn.request.get("model")), self._clock.now()
        await self._store.learn_mode(job.turn.base_url, model, fallback, now, str(error))
        await self._store.record_event(job.id, now, fallback, str(error))
        return await self._store.save(job.mark_not_sent("")) is not None


def _choose_stored_name(name: str, body: JSON) -> str:
    """Return the name under which a refused parameter is remembered: for the endpoint, or for a model of it."""
    if name in OF_A_MODEL:
        return f"{name}@{body.get('model')}"
    return name
