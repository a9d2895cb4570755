"""What follows a job's end: what it cost, its files on disk, and nothing of it left at the provider."""

import logging
import os
import re
import unicodedata
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import anyio

from agent_jobs.clock import Clock
from agent_jobs.errors import AccountError, MissingError, RefusedError, UpstreamError
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import UNSETTLED
from agent_jobs.pricing.prices import Prices
from agent_jobs.rendering.lines import Entry
from agent_jobs.rendering.markdown import render_markdown
from agent_jobs.rendering.output import list_files, list_files_with_data
from agent_jobs.rendering.redaction import mask_tool_secrets
from agent_jobs.store.base import OutputFile, Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Of a name in UTF-8, so that with what stands around it any file system takes it (255 bytes).
NAME_BYTES, SUFFIX_BYTES = 120, 16
#: What failed is tried again so long.
FINALIZE_MAX_S = 86_400.0


class Finalizer:
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

    async def prepare_end(self, job: Job) -> Job:
        """An ended job as it is kept: with its cost, without echoed secrets, marked where something is left to do."""
        if not (job.is_terminal or job.turn.acting):
            return job
        if job.output is not None and job.output.response:
            job = replace(job, output=replace(job.output, response=mask_tool_secrets(job.output.response)))
        # A run that may go on unknown to us may still need its files.
        uploaded = not job.is_unconfirmed and bool(await self._store.get_uploads(job.id))
        left = uploaded or bool(self._results and job.output) or bool(list_files(_output(job)))
        job = replace(job, unsettled=left and job.is_terminal)
        try:
            return replace(job, cost_usd=await self._cost_usd(job))
        except Exception:  # a paid result must not wait for what is only told about it
            logger.exception("%s: its cost could not be worked out", job.id)
            return replace(job, cost_usd=None)

    async def finalize(self, job: Job, *, delete_uploads: bool = True) -> bool:
        """Do what is left to do for an ended job, each thing whatever becomes of the others.

        Without `delete_uploads`, what it uploaded stays at the provider until the next process settles it.

        Returns False where something failed or was left and is to be done later; doing it all twice changes nothing.
        """
        failures: list[Exception] = []

        async def tried(step: Awaitable[T]) -> T | None:
            try:
                return await step
            except (UpstreamError, OSError) as error:
                failures.append(error)
                return None

        whole = replace(job, output=await self._store.get_output(job.id) or job.output)
        files = list_files_with_data(_output(whole))
        named = zip(_named([file for file, _ in files]), files, strict=True)
        made = [await tried(self._save(whole, name, file, data)) for (name, file), (_, data) in named]
        path = await tried(self._write_result(whole))
        uploaded = [each.file_id for each in await self._store.get_uploads(job.id) if each.file_id is not None]
        for file_id in uploaded if delete_uploads else ():
            await tried(self._client.delete_file(file_id))
        if failures:
            await self._tell(job, "; ".join(map(str, failures)))
        if not all(map(_lost, failures)) and self._clock.now() - (job.finished_at or 0.0) < FINALIZE_MAX_S:
            return False
        if uploaded and not delete_uploads:
            return False
        await self._store.mark_finalized(job.id, path or "", [each for each in made if each is not None])
        return True

    async def _tell(self, job: Job, why: str) -> None:
        """Note for people what cannot be done, once for each reason. The result itself is safe in the store."""
        told = {event.text for event in await self._store.get_events(job.id) if event.kind == UNSETTLED}
        if why not in told:
            logger.warning("%s: not all of its files can be dealt with: %s", job.id, why)
            await self._store.record_event(job.id, self._clock.now(), UNSETTLED, why)

    async def _cost_usd(self, job: Job) -> float | None:
        """What all turns cost; unknown if one's is."""
        response = job.output.response if job.output else job.counted
        if not response and job.turn.acting:
            return job.cost_usd  # this turn's is in it since it ended
        if (job.turn.number > 1 or job.usage_before is not None) and job.cost_before_usd is None:
            return None
        before = job.cost_before_usd or 0.0
        if job.turn.response_id is None and not job.is_unconfirmed:
            return before  # nothing of this turn was accepted
        if not response:
            return None
        price = partial(self._prices.cost_of, response, at=job.created_at, provider_url=job.turn.base_url)
        cost = await anyio.to_thread.run_sync(price)  # the price list takes a moment to load
        return None if cost is None else before + cost

    async def _write_result(self, job: Job) -> str:
        if self._results is None or job.output is None:
            return ""
        return await self._write(self._results / _name(job), render_markdown(job).encode())

    async def _save(self, job: Job, name: str, file: Entry, data: bytes | None) -> OutputFile | None:
        """Write one file that the run made; None for one that is not ours to fetch."""
        path = self._made / job.id / name
        if file["type"] == "sandbox_file":
            there = await anyio.Path(path).is_file()
            data = await (anyio.Path(path).read_bytes() if there else self._linked(file))
        if "container_id" in file:
            # Another thing failed before: what is here is not fetched again, and its container may be gone by now.
            there = await anyio.Path(path).is_file()
            data = await (
                anyio.Path(path).read_bytes()
                if there
                else self._client.container_file(file["container_id"], file["file_id"])
            )
        return None if data is None else OutputFile(name, await self._write(path, data), len(data))

    async def _linked(self, file: Entry) -> bytes | None:
        """Return what a file holds that only the text links, from the first container that has it."""
        for container_id in filter(None, file.get("containers", "").split(",")):
            try:
                file_id = await self._client.find_in_container(container_id, file["link"].removeprefix("sandbox:"))
            except (MissingError, RefusedError):
                continue  # it is gone, or no endpoint for it is served here
            if file_id is not None:
                return await self._client.container_file(container_id, file_id)
        return None

    async def _write(self, path: Path, data: bytes) -> str:
        return await anyio.to_thread.run_sync(_replace, path, data)


def _replace(path: Path, data: bytes) -> str:
    """Write a file whole or not at all; returns where it is."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)
    return str(path.absolute())


def _output(job: Job) -> object:
    return job.output.response.get("output") if job.output and job.output.response else None


def _lost(error: Exception) -> bool:
    """Whether trying again is of no use."""
    return isinstance(error, RefusedError) and not isinstance(error, AccountError)


def _name(job: Job) -> str:
    """The name of a result's file: its day, some words of its title, its id."""
    day = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d")
    return "-".join(part for part in (day, _safe(job.title.lower(), NAME_BYTES), job.id) if part) + ".md"


def _named(files: list[Entry]) -> list[tuple[str, Entry]]:
    """The files with names of their own within one folder, whatever upstream calls them."""
    named: dict[str, tuple[str, Entry]] = {}
    for number, file in enumerate(files, 1):
        # What upstream calls a file must not name another folder.
        written = PurePosixPath(file.get("filename", "")).name
        suffix = _safe(PurePosixPath(written).suffix, SUFFIX_BYTES) or _safe(
            str(file.get("media_type", "")).partition("/")[2].partition("+")[0], SUFFIX_BYTES
        )
        stem = _safe(PurePosixPath(written).stem, NAME_BYTES) or f"{file['type']}-{number}"
        end = f".{suffix}" if suffix else ""
        # Some file systems do not tell A from a.
        name = stem + end if (stem + end).casefold() not in named else f"{stem}-{number}{end}"
        while name.casefold() in named:
            name = f"_{name}"
        named[name.casefold()] = (name, file)
    return list(named.values())


def _safe(name: str, limit_bytes: int) -> str:
    """A name that every file system takes: letters, digits, dots and dashes."""
    plain = re.sub(r"[^\w.]+", "-", unicodedata.normalize("NFC", name)).strip("-._")
    return plain.encode()[:limit_bytes].decode(errors="ignore").strip("-._")
