"""The user's own command, run when a job ended or asks, with the job as JSON on its stdin.

Nothing depends on it, and nothing waits for it. Each end and each question is claimed in the database before the
command starts, by one process: it is told at most once. A claim is lost with a process that dies in the moment between;
telling twice could pay twice, where the command starts another job.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import anyio
from anyio.from_thread import run_sync
from anyio.lowlevel import current_token

from agent_jobs.clock import Clock
from agent_jobs.errors import StoreError
from agent_jobs.jobs.job import Call, Job
from agent_jobs.jobs.queries import OutputFile
from agent_jobs.rendering import answers, questions
from agent_jobs.store.base import Store

logger = logging.getLogger(__name__)

#: How often to look what ended; and how old an end may be when this process comes, to be told still.
LOOK_S, NEWS_S = 1.0, 600.0
#: Files that follow an end are waited for so long; and the host's model may answer a question, unless it is told.
FINALIZE_WAIT_S, ANSWER_WAIT_S = 3.0, 10.0
AT_ONCE = 4
LIMIT_S = 30.0
#: At the end of this process commands get so long, and then go on without it.
LAST_S = 1.0
#: Of the last line of a command's stderr; that is emptied where it grew beyond so much, and looked at so often.
LINE_BYTES, STDERR_BYTES, STDERR_LOOK_S = 400, 1_000_000, 0.1
#: It repeats the job where so many characters in a row are of what the command was given, or a whole line of the
#: job's own texts that is not shorter than this. An id is shorter than the first.
REPEATED_CHARS, REPEATED_LINE_CHARS = 24, 4
#: What is said to models, not to people.
_TO_MODELS = ("next", "user", "whole", "context")


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments, run without a shell.

    Args:
        words: The program first.
        environ: All that it finds in its environment.
        folder: Where it is started.
        limit_s: It is killed then, with what it started.
    """

    words: Sequence[str]
    environ: Mapping[str, str]
    folder: Path
    limit_s: float = LIMIT_S

    def run(self, job_id: str, told: Mapping[str, Any]) -> None:
        """Run it to its end and log how it ended; takes as long as that takes."""
        text = answers.json_line(told)
        try:
            # A pipe would break with this process, and be held open by what the command leaves behind.
            with tempfile.TemporaryFile(buffering=0, dir=self.folder) as stderr:
                how = _waited(self._started(text, stderr), stderr, self.limit_s)
                line = _last_line(stderr)
        except OSError as error:
            return logger.warning("%s: AGENT_JOBS_ON_FINISH cannot be started: %s", job_id, error.strerror)
        if not how:
            return logger.info("%s: AGENT_JOBS_ON_FINISH was run", job_id)
        line = _without(line, text, [str(told.get(name, "")) for name in ("title", "output")])
        return logger.warning("%s: AGENT_JOBS_ON_FINISH %s%s", job_id, how, line and f": {line}")

    def _started(self, text: str, stderr: IO[bytes]) -> "subprocess.Popen[bytes]":
        # A file, which is there to be read whatever becomes of this process.
        with tempfile.TemporaryFile(dir=self.folder) as stdin:
            stdin.write(text.encode("utf-8", "replace"))
            stdin.seek(0)
            return subprocess.Popen(
                self.words,
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=self.environ,
                cwd=self.folder,
                start_new_session=True,  # a host that kills our group, or Ctrl-C, is not meant for it
            )


class Notifier:
    """Tells the command of every job's end and question on this database that no other process tells of."""

    def __init__(self, store: Store, clock: Clock, command: Command) -> None:
        self._store = store
        self._clock = clock
        self._command = command
        self._since = clock.now() - NEWS_S
        self._running: set[anyio.Event] = set()

    async def run(self) -> None:
        """Look for ever; at the end once more, for what ended with this process."""
        try:
            while True:
                await self._look()
                await self._clock.sleep(LOOK_S)
        finally:
            await self.finish()

    async def finish(self) -> None:
        """Tell what is to be told, without patience, and give the commands a moment to end."""
        with anyio.move_on_after(LAST_S, shield=True):
            await self._look(patience=0.0)
            for ended in list(self._running):
                await ended.wait()
        if self._running:
            logger.warning("%d runs of AGENT_JOBS_ON_FINISH go on without this process", len(self._running))

    async def _look(self, patience: float = 1.0) -> None:
        """Start the command for as many jobs as may be told of at once."""
        try:
            while len(self._running) < AT_ONCE:
                now = self._clock.now()
                news = await self._store.pending_notification(
                    self._since,
                    settled_before=now - FINALIZE_WAIT_S * patience,
                    asked_before=now - ANSWER_WAIT_S * patience,
                )
                if news is None:
                    return
                await self._tell(*news)
        except StoreError as error:
            logger.warning("cannot look for jobs that ended: %s", error)
        except Exception:
            logger.exception("cannot look for jobs that ended")

    async def _tell(self, job_id: str, at: float) -> None:
        # All is read before the claim, after which a kill leaves this untold.
        told = await self._notice(job_id)
        with anyio.CancelScope(shield=True):
            if await self._store.claim_notification(job_id, at) and told is not None:
                self._start(job_id, told)

    async def _notice(self, job_id: str) -> dict[str, Any] | None:
        """What is told of a job; None where that cannot be made out, which must not hold up the others."""
        try:
            job = await self._store.get(job_id)
            if job is None:
                return None  # purged just now
            calls = [] if job.is_terminal else await self._store.get_calls(job_id, job.turn.number)
            return notice(job, calls, await self._store.get_output_files(job_id), self._clock.now())
        except Exception:
            logger.exception("%s: AGENT_JOBS_ON_FINISH is not told of it", job_id)
            return None

    def _start(self, job_id: str, told: Mapping[str, Any]) -> None:
        ended, token = anyio.Event(), current_token()
        self._running.add(ended)

        def forget() -> None:
            self._running.discard(ended)
            ended.set()

        def run() -> None:
            self._command.run(job_id, told)
            with suppress(RuntimeError):  # the loop has ended before it
                run_sync(forget, token=token)

        # One that nobody waits for when the process ends, as for those of a pool.
        threading.Thread(target=run, daemon=True).start()


def notice(job: Job, calls: Sequence[Call], made: Sequence[OutputFile], now: float) -> dict[str, Any]:
    """What the command is told of a job: how it ended with the beginning of its output, or what it asks for."""
    waiting = [call for call in calls if call.state == "open" and call.needs in ("approval", "output")]
    if job.is_terminal:
        shown = answers.render_finished_job(job)
    else:
        shown = questions.render_questions(job, waiting, may_approve=True)
    told = {
        "job_id": job.id,
        "status": job.status,
        "title": job.title,
        "created_at": round(job.created_at),
        "elapsed_s": max(0, round((job.finished_at or now) - job.created_at)),
    }
    more = {"model": job.turn.request.get("model"), "batch": job.batch, "files": [file.path for file in made]}
    told |= {name: value for name, value in more.items() if value}
    return told | {name: value for name, value in shown.items() if name not in _TO_MODELS}


def _waited(process: "subprocess.Popen[bytes]", stderr: IO[bytes], limit_s: float) -> str:
    """How a command ended, where that is not well; what it writes meanwhile does not fill the disk."""
    until = time.monotonic() + limit_s
    while (left_s := until - time.monotonic()) > 0:
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(min(left_s, STDERR_LOOK_S))
            return f"ended with status {status}" if status else ""
        if os.fstat(stderr.fileno()).st_size > STDERR_BYTES:
            # The position in the file is the command's too, which goes on from there.
            stderr.seek(0)
            stderr.truncate()
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":  # pragma: no cover
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f"took longer than {limit_s:g} s and was killed"


def _last_line(stderr: IO[bytes]) -> str:
    """The last line that a command wrote, as it may stand in a log."""
    stderr.seek(max(0, os.fstat(stderr.fileno()).st_size - LINE_BYTES))
    line = stderr.read(LINE_BYTES).decode(errors="replace").strip().rpartition("\n")[2]
    return "".join(c if c.isprintable() else " " for c in line).strip()


def _without(line: str, given: str, texts: Sequence[str]) -> str:
    """The line, unless it repeats some of what the command was given, or of the job's own texts."""
    pieces = {line[at : at + REPEATED_CHARS] for at in range(max(1, len(line) - REPEATED_CHARS + 1))}
    own = [each.strip() for text in texts for each in text.splitlines()]
    if any(piece in given for piece in pieces) or any(each in line for each in own if len(each) >= REPEATED_LINE_CHARS):
        return "(its last words repeat the job)" if line else ""
    return line
