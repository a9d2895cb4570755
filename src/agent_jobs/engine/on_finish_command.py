"""Run the program that the user set in AGENT_JOBS_ON_FINISH, and log how it ended."""

import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent_jobs.process_group import signal_group
from agent_jobs.rendering import answers
from agent_jobs.text import encode_text

logger = logging.getLogger(__name__)

LIMIT_S = 30.0  # then the command is killed: it only reports, and a hanging one would delay the others
LAST_S = 1.0  # for running commands at the end of this process; then they continue without it
LINE_BYTES = 400  # of the last line of its stderr that are logged
STDERR_BYTES = 1_000_000  # its stderr is emptied beyond this, so that it does not fill the disk
STDERR_CHECK_S = 0.1  # between checks of that size
#: A line of stderr with this many characters in a row of the command's input repeats the job. Job ids are shorter.
REPEATED_CHARS = 24
REPEATED_LINE_CHARS = 4  # a line of the job's own texts of this length repeats the job as well


@dataclass(frozen=True, slots=True)
class OnFinishCommand:
    """A program and its arguments, run without a shell.

    Args:
        words: The program, then its arguments.
        environ: Its whole environment.
        folder: Its working directory.
        limit_s: Seconds after which it is killed with all that it started.
    """

    words: Sequence[str]
    environ: Mapping[str, str]
    folder: Path
    limit_s: float = LIMIT_S
    last_s: float = LAST_S
    unfinished: str = "runs of AGENT_JOBS_ON_FINISH continue without this process"

    def run(self, job_id: str, notice: Mapping[str, Any]) -> None:
        """Run it to its end with the notice on its stdin, and log how it ended. Blocks until then."""
        text = answers.format_json_line(notice)
        try:
            # A pipe would break when this process exits, and stay open in the children of the command.
            with tempfile.TemporaryFile(buffering=0, dir=self.folder) as stderr:
                failure = _wait_for_exit(self._start_process(text, stderr), stderr, self.limit_s)
                line = _read_last_line(stderr)
        except OSError as error:
            return logger.warning("%s: AGENT_JOBS_ON_FINISH cannot be started: %s", job_id, error.strerror)
        if not failure:
            return logger.info("%s: AGENT_JOBS_ON_FINISH was run", job_id)
        if _repeats_job(line, text, [str(notice.get(name, "")) for name in ("title", "output")]):
            line = "(its last words repeat the job)"
        return logger.warning("%s: AGENT_JOBS_ON_FINISH %s%s", job_id, failure, line and f": {line}")

    def _start_process(self, text: str, stderr: IO[bytes]) -> "subprocess.Popen[bytes]":
        # A file: the command can read it even if this process ends.
        with tempfile.TemporaryFile(dir=self.folder) as stdin:
            stdin.write(encode_text(text))
            stdin.seek(0)
            return subprocess.Popen(
                self.words,
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=self.environ,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C and a host that kills our group must not kill it
            )


def _wait_for_exit(process: "subprocess.Popen[bytes]", stderr: IO[bytes], limit_s: float) -> str:
    """Return the failure of a command, empty if there is none; keep its stderr small while it runs."""
    until = time.monotonic() + limit_s
    while (left_s := until - time.monotonic()) > 0:
        with suppress(subprocess.TimeoutExpired):
            return _describe_status(process.wait(min(left_s, STDERR_CHECK_S)))
        if os.fstat(stderr.fileno()).st_size > STDERR_BYTES:
            # The command shares the position in the file, and writes on from there.
            stderr.seek(0)
            stderr.truncate()
    signal_group(process)
    process.wait()
    return f"took longer than {limit_s:g} s and was killed"


def _describe_status(status: int) -> str:
    if status:
        return f"ended with status {status}"
    return ""


def _read_last_line(stderr: IO[bytes]) -> str:
    """Return the last line that a command wrote, with printable characters only."""
    stderr.seek(max(0, os.fstat(stderr.fileno()).st_size - LINE_BYTES))
    line = stderr.read(LINE_BYTES).decode(errors="replace").strip().rpartition("\n")[2]
    return "".join(c if c.isprintable() else " " for c in line).strip()


def _repeats_job(line: str, given: str, texts: Sequence[str]) -> bool:
    """Return True if a line has some of the command's input, or of the job's own texts."""
    if not line:
        return False
    if any(piece in given for piece in _cut_pieces(line)):
        return True
    own = map(str.strip, "\n".join(texts).splitlines())
    return any(each in line for each in own if len(each) >= REPEATED_LINE_CHARS)


def _cut_pieces(line: str) -> Iterator[str]:
    """Yield every run of `REPEATED_CHARS` characters of a line; a shorter line as a whole."""
    for start in range(max(1, len(line) - REPEATED_CHARS + 1)):
        yield line[start : start + REPEATED_CHARS]
