"""Finalize a finished job: work out its cost, write its files, delete its uploads at the provider."""

import logging
import re
import unicodedata
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import anyio

from agent_jobs.clock import Clock
from agent_jobs.engine.owner_files import MADE_BYTES, MADE_PATH, create_made_id
from agent_jobs.engine.read_again import with_stored_output
from agent_jobs.errors import AccountError, MissingError, RefusedError, UpstreamError
from agent_jobs.files.atomic_file import replace_file
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import UNSETTLED, OutputFile
from agent_jobs.jobs.response import mapping_of
from agent_jobs.pricing.prices import Prices
from agent_jobs.rendering.markdown import render_markdown
from agent_jobs.rendering.output import list_files, list_files_with_data
from agent_jobs.rendering.redaction import mask_tool_secrets
from agent_jobs.rendering.short_lines import Entry
from agent_jobs.store.base import Store
from agent_jobs.upstream.client import ResponsesClient

logger = logging.getLogger(__name__)

T = TypeVar("T")

NAME_BYTES = 120  # UTF-8 bytes of a file's stem: with date, id and suffix the name stays below 255
SUFFIX_BYTES = 16  # longer ones are no suffixes
FINALIZE_MAX_S = 86_400.0  # retries end after a day: the provider has deleted most files by then


class Finalizer:
    """Finalizes the jobs of one endpoint.

    Args:
        results: Folder into which each result is written as Markdown; None writes none.
        made: Folder for the files that runs made, with one folder per job in it.
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
        """Return a finished job as it is stored: with its cost, without echoed secrets, marked if work is left."""
        if not job.has_ended_turn:
            return job
        if job.output is not None and job.output.response:
            job = replace(job, output=replace(job.output, response=mask_tool_secrets(job.output.response)))
        job = replace(job, needs_finalizing=job.is_terminal and await self._has_work_left(job))
        try:
            return replace(job, cost_usd=await self._calculate_cost_usd(job))
        except Exception:  # a paid result must be stored even if its price is unknown
            logger.exception("%s: its cost cannot be calculated", job.id)
            return replace(job, cost_usd=None)

    async def save_job(self, job: Job, *, held: bool = True) -> Job | None:
        """Store a job that may have finished, with its cost; return it as stored, or None if another write won."""
        return await self._store.save(await self.prepare_end(job), held=held)

    async def fail_job(self, job: Job, code: str, message: str) -> None:
        """End a job with a failure of agent-jobs."""
        logger.info("%s: failed, %s", job.id, code)
        await self.save_job(job.mark_failed(code, message, self._clock.now()))

    async def finalize(self, job: Job, *, delete_uploads: bool = True) -> bool:
        """Do all that is left for a finished job; the failure of one thing does not stop the others.

        Without `delete_uploads`, its uploads stay at the provider until the next process finalizes the job.

        Returns False if something failed or was left, to be done later. Repeating it all changes nothing.
        """
        attempts = _Attempts()
        whole = await with_stored_output(self._store, job)
        made = await self._save_made_files(whole, attempts)
        path = await attempts.run(self._write_result(whole), "")
        uploads = [upload.file_id for upload in await self._store.get_uploads(job.id) if upload.file_id is not None]
        if delete_uploads:
            for file_id in uploads:
                await attempts.run(self._client.delete_file(file_id), None)
        await self._note_failures(job, attempts.failures)
        if self._should_retry(job, attempts.failures):
            return False
        if uploads and not delete_uploads:
            return False
        await self._store.mark_finalized(job.id, path, made)
        return True

    async def _has_work_left(self, job: Job) -> bool:
        """Return True if a finished job has files to write or uploads to delete."""
        if self._results and job.output:
            return True
        if list_files(_read_output(job)):
            return True
        # The unconfirmed run may have been accepted and may still need its files.
        return not job.is_unconfirmed and bool(await self._store.get_uploads(job.id))

    async def _save_made_files(self, job: Job, attempts: "_Attempts") -> list[OutputFile]:
        """Write the files that a run made, each under a name of its own."""
        files = list_files_with_data(_read_output(job))
        names = _choose_file_names([file for file, _ in files])
        saved = [
            await attempts.run(self._save_file(job, name, file, data), None)
            for name, (file, data) in zip(names, files, strict=True)
        ]
        return list(filter(None, saved))

    def _should_retry(self, job: Job, failures: Sequence[Exception]) -> bool:
        """Return True if one of these failures may pass and the job finished less than a day ago."""
        if all(map(_is_permanent, failures)):
            return False
        return self._clock.now() - job.end_time < FINALIZE_MAX_S

    async def _note_failures(self, job: Job, failures: Sequence[Exception]) -> None:
        """Record what could not be done, once for each reason. The result itself is safe in the store."""
        if not failures:
            return
        why = "; ".join(map(str, failures))
        noted = {event.text for event in await self._store.get_events(job.id) if event.kind == UNSETTLED}
        if why not in noted:
            logger.warning("%s: its files cannot all be written or deleted: %s", job.id, why)
            await self._store.record_event(job.id, self._clock.now(), UNSETTLED, why)

    async def _calculate_cost_usd(self, job: Job) -> float | None:
        """Return the cost of all turns; None if that of any turn is unknown."""
        response = job.response
        if not response and job.turn.has_open_calls:
            return job.cost_usd  # it includes this turn since the turn finished
        before_usd = _get_earlier_cost_usd(job)
        if before_usd is None:
            return None
        if job.turn.response_id is None and not job.is_unconfirmed:
            return before_usd  # upstream did not accept this turn
        if not response:
            return None
        price = partial(self._prices.cost_of, response, at=job.created_at, provider_url=job.turn.base_url)
        turn_usd = await anyio.to_thread.run_sync(price)  # loading the price list needs a moment
        if turn_usd is None:
            return None
        return before_usd + turn_usd

    async def _write_result(self, job: Job) -> str:
        if self._results is None or job.output is None:
            return ""
        return await self._write_file(self._results / _name_result_file(job), render_markdown(job).encode())

    async def _save_file(self, job: Job, name: str, file: Entry, data: bytes | None) -> OutputFile | None:
        """Write one file that the run made; return None for one that cannot be fetched from here."""
        path = self._made / job.id / name
        kept = await self._find_kept_file(job, name)
        if kept is not None:
            return kept
        if file["type"] == "sandbox_file" or "container_id" in file:
            data = await self._read_remote_file(file, anyio.Path(path))
        if data is None:
            return None
        if job.owner:
            return await self._store_made_file(job, name, data)
        return OutputFile(name, await self._write_file(path, data), len(data))

    async def _read_remote_file(self, file: Entry, path: anyio.Path) -> bytes | None:
        """Return the content of a file in a container; None if no container has it any more."""
        if await path.is_file():
            # Written by an earlier attempt that failed elsewhere; the container may be gone by now.
            return await path.read_bytes()
        if "container_id" in file:
            return await self._client.download_container_file(file["container_id"], file["file_id"])
        return await self._fetch_linked_file(file)

    async def _find_kept_file(self, job: Job, name: str) -> OutputFile | None:
        """Return a file of a job with an owner that an earlier attempt stored in the database."""
        if not job.owner:
            return None
        files = await self._store.get_output_files(job.id)
        return next((file for file in files if file.name == name), None)

    async def _store_made_file(self, job: Job, name: str, data: bytes) -> OutputFile | None:
        """Store a file of a job with an owner in the database; None if it is too large for that."""
        if len(data) > MADE_BYTES:
            logger.warning("%s: %s has %d bytes, and is not kept", job.id, name, len(data))
            return None
        file_id = create_made_id()
        path = f"{MADE_PATH}{file_id}"
        await self._store.save_made_file(job.id, name, file_id, path, data)
        return OutputFile(name, path, len(data))

    async def _fetch_linked_file(self, file: Entry) -> bytes | None:
        """Return the content of a file that only the text links, from the first container that has it."""
        for container_id in filter(None, file.get("containers", "").split(",")):
            try:
                file_id = await self._client.find_in_container(container_id, file["link"].removeprefix("sandbox:"))
            except (MissingError, RefusedError):
                continue  # the container is gone, or the endpoint serves no containers
            if file_id is not None:
                return await self._client.download_container_file(container_id, file_id)
        return None

    async def _write_file(self, path: Path, data: bytes) -> str:
        return await anyio.to_thread.run_sync(_write_file_in_folder, path, data)


class _Attempts:
    """Runs steps one after another and collects their failures."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []

    async def run(self, step: Awaitable[T], otherwise: T) -> T:
        """Return what the step returns; `otherwise` if it failed."""
        try:
            return await step
        except (UpstreamError, OSError) as error:
            self.failures.append(error)
            return otherwise


def _write_file_in_folder(path: Path, data: bytes) -> str:
    """Write a file in full or not at all, with its folder; return its path."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, data)
    return str(path.absolute())


def _get_earlier_cost_usd(job: Job) -> float | None:
    """Return the cost of the turns before the current one; None if it is unknown."""
    if job.has_no_earlier_response:
        return job.cost_before_usd or 0.0
    return job.cost_before_usd


def _read_output(job: Job) -> object:
    """Return the output of the stored response; None if there is none."""
    if job.output is None:
        return None
    return mapping_of(job.output.response).get("output")


def _is_permanent(error: Exception) -> bool:
    """Return True if a retry would fail in the same way."""
    return isinstance(error, RefusedError) and not isinstance(error, AccountError)


def _name_result_file(job: Job) -> str:
    """Return the name of a result's file: its day, words of its title, its id."""
    day = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d")
    return "-".join(filter(None, (day, _clean_name(job.title.lower(), NAME_BYTES), job.id))) + ".md"


def _choose_file_names(files: Sequence[Entry]) -> list[str]:
    """Return distinct names within one folder for files with any upstream names."""
    names: list[str] = []
    used: set[str] = set()
    for number, file in enumerate(files, 1):
        # Only the last part: upstream's name must not point to another folder.
        given = PurePosixPath(file.get("filename", "")).name
        stem = _clean_name(PurePosixPath(given).stem, NAME_BYTES) or f"{file['type']}-{number}"
        end = _choose_suffix(given, str(file.get("media_type", "")))
        # Case-insensitive, because A and a are the same name on some file systems.
        name = f"{stem}{end}"
        if name.casefold() in used:
            name = f"{stem}-{number}{end}"
        while name.casefold() in used:
            name = f"_{name}"
        used.add(name.casefold())
        names.append(name)
    return names


def _choose_suffix(given_name: str, media_type: str) -> str:
    """Return a file's suffix with its dot, from its name or else from its media type; empty if there is none."""
    suffix = _clean_name(PurePosixPath(given_name).suffix, SUFFIX_BYTES)
    if not suffix:
        subtype = media_type.partition("/")[2].partition("+")[0]
        suffix = _clean_name(subtype, SUFFIX_BYTES)
    if suffix:
        return f".{suffix}"
    return ""


def _clean_name(name: str, limit_bytes: int) -> str:
    """Return a name that every file system accepts: letters, digits, dots and dashes."""
    plain = re.sub(r"[^\w.]+", "-", unicodedata.normalize("NFC", name)).strip("-._")
    return plain.encode()[:limit_bytes].decode(errors="ignore").strip("-._")
