"""Press Ctrl-C at random moments of `run` and `start`: each id is shown, no accepted response is lost.

`scripts/chaos --interrupts 200 --seed 1`. Each prompt works again afterwards. The provider's own log is the judge.
"""

import json
import random
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from terminals import COMMAND, Terminal

from agent_jobs.emulator.server import RunningServer, run_emulator

SPEED = 10.0
#: Seconds from the start of a command in which Ctrl-C is pressed: imports and opening, on a busy machine.
STARTING_S = 3.0
#: Seconds from the moment its job is stored: the POST, the wait for the response, and the end.
STARTED_S = 1.5
#: Per cent of the commands that are interrupted after their job is stored.
STARTED_PERCENT = 70
#: Seconds in which a command ends after Ctrl-C.
LIMIT_S = 60.0
JOB_ID = re.compile(r"job_[0-9a-z]{12}")
#: Python's report of a Ctrl-C that meets a lock of its own imports; it then continues. `main` is not running yet.
IGNORED_BY_PYTHON = re.compile(
    r"Exception ignored in: <function _get_module_lock.*\nTraceback .*\n"
    r"  File \"<frozen importlib.*\nKeyboardInterrupt: *\n"
)


@dataclass
class Interrupts:
    """The figures of a run of interrupted commands. Mutable: they are counted during the run."""

    pressed: int = 0
    before_us: int = 0  #: of these, before our code ran
    jobs: int = 0
    unconfirmed: int = 0
    repeated: int = 0
    violations: list[str] = field(default_factory=list[str])


def press(folder: Path, *, count: int, seed: int) -> Interrupts:
    """Press Ctrl-C in `count` commands, then repeat each prompt, and compare all of it with the provider's log."""
    pick, found = random.Random(seed), Interrupts()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job of a shell would inherit that it is ignored
    with run_emulator(time_scale=SPEED) as upstream:
        terminal = Terminal(upstream.base_url, folder / "data")
        shown: dict[str, str] = {}
        while found.pressed < count:
            number = len(shown)
            faults = [{"on": "create", "delay_s": round(pick.uniform(0, 10), 2)}] if pick.random() < 0.7 else []
            script = {"duration_s": round(pick.uniform(0.5, 8), 2), "text": f"Answer {number}.", "faults": faults}
            prompt = f"Question {number} [emulate {json.dumps(script)}]"
            title = f"Question {number} "
            shown[prompt] = _interrupt(terminal, pick.choice(("run", "start")), prompt, title, pick, found)
            _check_ids(terminal, shown[prompt], title, found)
        for prompt, text in shown.items():
            _repeat(terminal, prompt, found)
            if "Traceback" in IGNORED_BY_PYTHON.sub("", text):
                found.violations.append(f"{prompt}: {text[-600:]}")
        _check_accepted(terminal, upstream, found)
    return found


def _interrupt(
    terminal: Terminal, command: str, prompt: str, title: str, pick: random.Random, found: Interrupts
) -> str:
    """Run a command, press Ctrl-C once or twice, and return all that it wrote."""
    is_started = pick.random() * 100 < STARTED_PERCENT
    within_s = STARTED_S if is_started else STARTING_S
    moments = sorted(pick.uniform(0, within_s) for _ in range(pick.choice((1, 1, 2))))
    with subprocess.Popen(
        [*COMMAND, command, prompt], env=terminal.environment(), cwd=terminal.folder.parent, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        if is_started:
            _wait_for_row(terminal, process, title)
        began, pressed = time.monotonic(), False
        for moment in moments:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, began + moment - time.monotonic()))
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                pressed = True
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            found.violations.append(f"{prompt}: did not end after Ctrl-C")
    found.pressed += pressed
    if pressed and _is_before_main(process.returncode, stdout, stderr):
        found.before_us += 1
        return ""
    ended = process.returncode, stderr.count("Interrupted.")
    if ended not in ([(0, 0), (130, 1)] if pressed else [(0, 0)]):
        found.violations.append(f"{prompt}: exit status {process.returncode}: {stderr[-300:]}")
    return stdout + stderr


def _wait_for_row(terminal: Terminal, process: "subprocess.Popen[str]", title: str) -> None:
    limit = time.monotonic() + LIMIT_S
    while process.poll() is None and not _find_job_ids(terminal, title) and time.monotonic() < limit:
        time.sleep(0.005)


def _find_job_ids(terminal: Terminal, title: str) -> list[str]:
    return [job_id for (job_id,) in _read_rows(terminal, "SELECT id FROM job WHERE title LIKE ? || '%'", title)]


def _is_before_main(status: int, stdout: str, stderr: str) -> bool:
    """Return True if Python was interrupted in its own start, before `main` could take Ctrl-C over.

    The signal kills it, or its start ends with status 1 or -2 and a traceback of `site` or `runpy`.
    """
    if status not in (-signal.SIGINT, 1) or stdout:
        return False
    return not stderr or ("KeyboardInterrupt" in stderr and not re.search(r"__main__\.py.*, in \w", stderr))


def _read_rows(terminal: Terminal, sql: str, *values: str) -> list[tuple[str, ...]]:
    path = terminal.folder / "jobs.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as db, suppress(sqlite3.OperationalError):  # before there is a table
        return db.execute(sql, values).fetchall()
    return []


def _check_ids(terminal: Terminal, text: str, title: str, found: Interrupts) -> None:
    for job_id in _find_job_ids(terminal, title):
        found.jobs += 1
        if job_id not in text:
            found.violations.append(f"{job_id} ({title.strip()}) was stored and not shown: {text[-300:]!r}")


def _repeat(terminal: Terminal, prompt: str, found: Interrupts) -> None:
    """Run the prompt again: it works, or the error names the flag that starts another job."""
    again = terminal.pipe("run", prompt)
    found.repeated += 1
    if again.returncode != 0 and "--new" not in again.stderr:
        found.violations.append(f"{prompt}: again ends {again.returncode}: {again.stderr[-300:]}")


def _check_accepted(terminal: Terminal, upstream: RunningServer, found: Interrupts) -> None:
    """Check that each job has its one response, or says that its start is unconfirmed and can adopt it."""
    sql = "SELECT job.id, response_id, error_code FROM job JOIN turn ON job_id = job.id"
    jobs = {job_id: (response_id, code) for job_id, response_id, code in _read_rows(terminal, sql)}
    seen: set[str] = set()
    for run in upstream.emulator.log():
        if run["entry"] != "response":
            continue
        job_id = run["metadata"]["job_id"]
        response_id, code = jobs.get(job_id, (None, None))
        if job_id in seen:
            found.violations.append(f"{job_id} was accepted twice")
        seen.add(job_id)
        if response_id == run["id"]:
            continue
        if code != "start_unconfirmed":
            found.violations.append(f"{run['id']} of {job_id} is lost: {response_id} {code}")
            continue
        found.unconfirmed += 1
        if terminal.pipe("adopt", job_id, run["id"]).returncode != 0:
            found.violations.append(f"{job_id}: {run['id']} cannot be adopted")


def summarize(found: Interrupts, seed: int) -> str:
    """Return the figures of a run in one line."""
    return (
        f"seed {seed}: {found.pressed} interrupted ({found.before_us} before our code), {found.jobs} jobs, "
        f"{found.unconfirmed} starts unconfirmed and adopted, {found.repeated} prompts repeated, "
        f"{len(found.violations)} violations"
    )
