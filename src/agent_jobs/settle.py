"""What follows a job's end: what it cost, its files on disk, and nothing of it left at the provider."""

import logging
import os
import re
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

import anyio

from agent_jobs import content
from agent_jobs.clock import Clock
from agent_jobs.job import Job, items_of
from agent_jobs.pricing import Prices
from agent_jobs.responses import ResponsesClient
from agent_jobs.store import Made, Store

logger = logging.getLogger(__name__)

NAME_CHARS = 60


class Settler:
    """Settles the jobs of one endpoint.

    Args:
        results: Where every finished result is written as Markdown; None writes none.
        made: Where the files that a run made are written, below a folder of the job's id.
    """

    def __init__(
        self, store: Store, client: ResponsesClient, clock: Clock, prices: Prices, *, results: Path | None, made: Path
    ) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._prices = prices
        self._results = results
        self._made = made

    async def closed(self, job: Job) -> Job:
        """An ended job with its cost, and marked where something is left to do for it."""
        if not (job.terminal or job.turn.acting):
            return job
        try:
            # A run that may go on unknown to us may still need its files.
            uploaded = not job.unconfirmed and bool(await self._store.uploads(job.id))
            left = uploaded or bool(self._results and job.output) or bool(content.files(_output(job)))
            return replace(job, cost_usd=await self._cost_usd(job), unsettled=left and job.terminal)
        except Exception:  # a paid result must not wait for what is only told about it
            logger.exception("%s: its cost could not be worked out", job.id)
            return job

    async def settle(self, job: Job) -> None:
        """Do what is left to do for an ended job. Doing it twice changes nothing.

        Raises:
            UpstreamError: What lies upstream cannot be read or removed just now.
            OSError: A file cannot be written.
        """
        output = await self._store.output(job.id)
        whole = replace(job, output=output or job.output)
        made = [await self._save(whole, number, file) for number, file in enumerate(content.files(_output(whole)), 1)]
        path = ""
        if self._results is not None and whole.output is not None:
            path = await self._write(self._results / _name(whole), content.markdown(whole).encode())
        for upload in await self._store.uploads(job.id):
            # A run that may go on unknown to us may still need them.
            if upload.file_id is not None and not job.unconfirmed:
                await self._client.delete_file(upload.file_id)
        await self._store.settle(job.id, path, [each for each in made if each is not None])

    async def give_up(self, job: Job, why: str) -> None:
        """Stop trying: the result itself is safe in the store."""
        logger.warning("%s: its files could not be dealt with: %s", job.id, why)
        await self._store.record(job.id, self._clock.now(), "unsettled", why)
        await self._store.settle(job.id)

    async def _cost_usd(self, job: Job) -> float | None:
        """What all turns cost; unknown if one's is."""
        if job.turn.number > 1 and job.cost_before_usd is None:
            return None
        before = job.cost_before_usd or 0.0
        if job.turn.response_id is None and not job.unconfirmed:
            return before  # nothing of this turn was accepted
        response = job.output.response if job.output else job.counted
        if not response:
            return None
        price = partial(self._prices.cost_of, response, at=job.created_at, provider_url=job.turn.base_url)
        cost = await anyio.to_thread.run_sync(price)  # the price list takes a moment to load
        return None if cost is None else before + cost

    async def _save(self, job: Job, number: int, file: content.Entry) -> Made | None:
        """Write one file that the run made; None for one that is not ours to fetch."""
        if "container_id" in file:
            data = await self._client.container_file(file["container_id"], file["file_id"])
        else:
            data = _image(job, file.get("id"))
        if data is None:
            return None
        suffix = "." + str(file.get("media_type", "image/png")).partition("/")[2]
        # What upstream calls a file must not name another folder.
        name = _safe(PurePosixPath(file.get("filename", "")).name) or f"{file['type']}-{number}{suffix}"
        return Made(name, await self._write(self._made / job.id / name, data), len(data))

    async def _write(self, path: Path, data: bytes) -> str:
        await anyio.to_thread.run_sync(_replace, path, data)
        return str(path)


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)


def _output(job: Job) -> object:
    return job.output.response.get("output") if job.output and job.output.response else None


def _image(job: Job, image_id: object) -> bytes | None:
    return next((content.image_data(item) for item in items_of(_output(job)) if item.get("id") == image_id), None)


def _name(job: Job) -> str:
    """The name of a result's file: its day, some words of its title, its id."""
    day = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d")
    return "-".join(part for part in (day, _safe(job.title).lower(), job.id) if part) + ".md"


def _safe(name: str) -> str:
    """A name that every file system takes: letters, digits, dots and dashes."""
    plain = unicodedata.normalize("NFC", name)
    return re.sub(r"[^\w.]+", "-", plain)[:NAME_CHARS].strip("-._")
