"""`agent-jobs doctor`: check the installation, the hosts, the provider and the jobs."""

import os
import platform
import shutil
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click

from agent_jobs import __version__
from agent_jobs.cli.checks.endpoint_check import check_endpoint
from agent_jobs.cli.checks.finding import Finding, State, describe_outcome, print_finding, report_error
from agent_jobs.cli.checks.host_checks import check_hosts, check_key_files, check_settings_file
from agent_jobs.cli.checks.server_checks import check_server
from agent_jobs.cli.checks.start_times import check_start_times, starts_uvx
from agent_jobs.cli.config import find_toolbox_mistakes, try_open
from agent_jobs.cli.display import terminal
from agent_jobs.cli.display.wrapping import print_sentences
from agent_jobs.cli.install import find_machine
from agent_jobs.cli.key_origin import (
    add_key_end,
    find_env_file,
    find_env_file_variables,
    find_key_of_settings,
    find_other_key,
)
from agent_jobs.cli.notify import check_targets
from agent_jobs.cli.session import Exit, Refusal, Session, json_option, run_in_session
from agent_jobs.cli.wording import describe_error, name_workers
from agent_jobs.engine.engine import Engine
from agent_jobs.errors import AgentJobsError, ConfigError
from agent_jobs.install.command import build_desktop_path
from agent_jobs.install.hosts import HOSTS, Machine
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import GATHERED_MAX, JobFilter, StoreInfo, WorkerInfo
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.settings.config_folder import find_config_file, find_key_folder
from agent_jobs.settings.configuration import load_usable_settings
from agent_jobs.settings.missing_key import missing_key_error
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.settings_file import may_lack_address, read_settings_file
from agent_jobs.settings.stored_keys import list_key_files
from agent_jobs.text import human_size

#: Seconds without a retrieval after which a job is stuck: workers poll every 60 s, and every 290 s beside a stream.
STUCK_S = 600.0
STUCK_FIX = "end the process that holds them, which the database line names; then another process continues"
UNCONFIRMED_FIX = (
    "find the responses with their job_id as metadata in the provider's dashboard, then run agent-jobs adopt JOB "
    "RESPONSE_ID"
)
#: Jobs that one finding names.
NAMED_JOBS = 3
#: The permissions of a database that only its owner can read.
PRIVATE_MODE = "600"


@click.command("doctor")
@click.option("--upstream", "upstream_only", is_flag=True, hidden=True, help="Check only the provider.")
@json_option
def doctor_command(upstream_only: bool, as_json: bool) -> None:
    """Check the setup and report problems.

    Asks the provider for the model, or for its list of models, and starts no job.

    Exit status: 0 no problems, 1 at least one problem; warnings do not count.
    """
    findings: list[Finding] = []
    for finding in _check_provider() if upstream_only else _check_everything():
        findings.append(finding)
        if not as_json:
            print_finding(finding)
    if as_json:
        _write_as_json(findings)
    elif sys.stdout.isatty():
        print_sentences(f"\n{describe_outcome(findings)}")
    has_problem = any(finding.state == "problem" for finding in findings)
    raise SystemExit(Exit.REFUSED if has_problem else Exit.DONE)


def _write_as_json(findings: Sequence[Finding]) -> None:
    from agent_jobs.rendering import answers

    rows = [finding.as_json() for finding in findings]
    click.echo(answers.format_json_line({"version": __version__, "findings": rows}))


def _check_everything() -> Iterator[Finding]:
    yield Finding("version", "ok", f"agent-jobs {__version__}")
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield _check_uvx(find_machine())
    settings, refused = load_usable_settings(os.environ)
    asks_provider = _may_ask_provider(settings, refused)
    quiet = replace(settings, log_level="error")
    error = try_open(quiet)
    if isinstance(error, ConfigError):
        refused.append(describe_error(error))
    yield from _check_settings(settings, refused)
    yield from check_settings_file(find_config_file(os.environ))
    yield from _check_key(settings)
    yield from check_key_files(find_machine(), _find_own_key_files(settings))
    yield from check_targets(settings)
    yield from check_hosts(find_machine(), settings)
    yield from check_start_times(find_machine(), HOSTS.values())
    yield from _check_engine(quiet, error, asks_provider=asks_provider)
    yield from _test_own_server()


def _check_provider() -> Iterator[Finding]:
    """Check only the provider, with the environment of this process."""
    settings, refused = load_usable_settings(os.environ)

    async def check(session: Session) -> list[Finding]:
        return await check_endpoint(session.engine, settings)

    if _may_ask_provider(settings, refused):
        yield from run_in_session(check, role="acts", settings=replace(settings, log_level="error"))


def _may_ask_provider(settings: Settings, refused: Sequence[str]) -> bool:
    """Return True if there is a key, and its address is certain."""
    return settings.has_key and not may_lack_address(refused)


def _check_uvx(machine: Machine) -> Finding:
    """Check that uvx exists and that apps started from a desktop find it, if an entry of a host starts it."""
    found = shutil.which("uvx")
    if not starts_uvx(machine, HOSTS.values()):
        text = "uvx is not on the PATH, and no host starts it"
        if found is not None:
            text = str(Path(found).absolute())
        return Finding("uvx", "ok", text)
    if found is None:
        fix = "install uv (https://docs.astral.sh/uv/), or start agent-jobs by its own path in your host's entry"
        return Finding("uvx", "warning", "uvx is not on the PATH", fix)
    path = str(Path(found).absolute())
    if shutil.which("uvx", path=build_desktop_path(machine)):
        return Finding("uvx", "ok", f"{path}, also found by apps started from a desktop")
    fix = f'write "command": "{path}" into the host\'s entry'
    return Finding("uvx", "warning", f"{path}, not found by apps started from a desktop", fix)


def _check_settings(settings: Settings, refused: Sequence[str]) -> list[Finding]:
    """Return a finding for each setting that is invalid or has no effect, or one that all are valid."""
    broken, odd = find_toolbox_mistakes(settings)
    findings = [Finding("settings", "problem", sentence) for sentence in (*refused, *broken)]
    warnings = (*map(describe_error, settings.warnings), *odd)
    findings += [Finding("settings", "warning", sentence) for sentence in warnings]
    return findings or [_report_valid_settings()]


def _report_valid_settings() -> Finding:
    path = find_config_file(os.environ)
    place, shown = "Settings are valid", "valid; agent-jobs config shows them"
    if read_settings_file(path).variables:
        place = f"Settings are valid, with those of {path}"
        shown = f"valid, with those of {path}"
    return Finding("settings", "ok", f"{place} (see `agent-jobs config`).", shown=shown)


def _check_key(settings: Settings) -> Iterator[Finding]:
    """Yield the key with its origin, and the stored key if another one takes precedence."""
    try:
        used = find_key_of_settings(settings)
        other = find_other_key(settings.base_url, used)
    except ConfigError as error:
        yield report_error("key", error)
        return
    if used is None:
        yield report_error("key", missing_key_error(settings))
        return
    text = f"{add_key_end('a key is set', used.secret)}, from {used.where}"
    yield Finding("key", "ok", text, shown=text.replace("a key is set, ...", "...", 1))
    if other is not None:
        text = f"{add_key_end('another key is stored', other.secret)}, and not used here: {used.where} takes precedence"
        yield Finding("key", "warning", text, "remove one of them: unset OPENAI_API_KEY, or run agent-jobs key delete")


def _find_own_key_files(settings: Settings) -> Iterator[Path]:
    """Yield the files from which this process read a key, and those of all stored keys."""
    if settings.api_key_file is not None:
        yield settings.api_key_file
    path = find_env_file()
    if path is not None and find_env_file_variables().get("OPENAI_API_KEY"):
        yield path
    yield from list_key_files(find_key_folder(os.environ))


def _check_engine(settings: Settings, error: AgentJobsError | None, *, asks_provider: bool) -> Iterator[Finding]:
    """Check the provider, the database and the jobs with an open engine, unless it could not be opened."""
    if error is None:
        try:
            yield from run_in_session(
                _build_engine_check(settings, asks_provider=asks_provider), role="acts", settings=settings
            )
        except Refusal as refusal:  # only a query finds some kinds of damage
            error = refusal.error
    if not isinstance(error, ConfigError | None):
        yield report_error("database", error)


def _build_engine_check(
    settings: Settings, *, asks_provider: bool
) -> Callable[[Session], Awaitable[list[Finding]]]:  # fmt: skip
    """Return the check of the provider, if it may be asked, and of the database and its jobs."""

    async def check(session: Session) -> list[Finding]:
        engine = session.engine
        findings: list[Finding] = []
        if asks_provider:
            findings += await check_endpoint(engine, settings)
        store = await engine.store_info()
        findings += [_check_database(store), *check_server(await engine.server_info())]
        return [*findings, *await _check_jobs(engine, store.watchers)]

    return check


def _check_database(store: StoreInfo) -> Finding:
    """Check who can read the database, and name the processes that work on its jobs."""
    about = f"{human_size(store.bytes)}, schema {store.schema}, {store.journal}"
    workers = f"workers: {name_workers(store.watchers) or 'none running'}"
    if not os.path.isabs(store.path):  # it is no file
        return _report_database("ok", store.path, about, workers)
    mode = oct(os.stat(store.path).st_mode & 0o777)[2:]
    about = f"{about}, mode {mode}"
    if mode == PRIVATE_MODE or sys.platform == "win32":
        return _report_database("ok", store.path, about, workers)
    fix = f"other users can read it: chmod {PRIVATE_MODE} {store.path}"
    return _report_database("warning", store.path, about, workers, fix)


def _report_database(state: State, path: str, about: str, workers: str, fix: str = "") -> Finding:
    text = f"{path}, {about}; {workers}"
    return Finding("database", state, text, fix, shown=f"{path}\n{about}\n{workers}")


async def _check_jobs(engine: Engine, workers: tuple[WorkerInfo, ...]) -> list[Finding]:
    """Return the findings for active jobs that make no progress and for unconfirmed starts."""
    active = await engine.find(JobFilter(statuses=ACTIVE), GATHERED_MAX)
    worked_on = {worker.base_url for worker in workers}
    now = engine.now()
    alone: defaultdict[str, list[Job]] = defaultdict(list)
    stuck: list[Job] = []
    for job in active.jobs:
        if job.turn.base_url not in worked_on:
            alone[job.turn.base_url].append(job)
        elif _is_stuck(job, now):
            stuck.append(job)
    failed = await engine.find(JobFilter(statuses=frozenset({Status.FAILED})), GATHERED_MAX)
    unconfirmed = [job for job in failed.jobs if job.is_unconfirmed]
    findings = [
        *_report_alone(alone),
        *_warn_of_jobs(stuck, "no process has polled {jobs} for 10 minutes", STUCK_FIX),
        *_warn_of_jobs(
            unconfirmed, "the provider has not confirmed the start of {jobs}; they may be billed", UNCONFIRMED_FIX
        ),
    ]
    if findings:
        return findings
    counts = (await engine.find(JobFilter(), 1)).counts
    text = f"{sum(counts.values())} stored, {sum(active.counts.values())} of them active"
    return [Finding("jobs", "ok", text)]


def _report_alone(jobs: Mapping[str, Sequence[Job]]) -> Iterator[Finding]:
    """Yield a warning for each address with jobs on which no process is working."""
    for base_url, unwatched in jobs.items():
        fix = f"start a host with agent-jobs, or run agent-jobs watch --all, with OPENAI_BASE_URL={base_url}"
        yield from _warn_of_jobs(unwatched, "no process is watching {jobs}", fix)


def _warn_of_jobs(jobs: Sequence[Job], text: str, fix: str) -> Iterator[Finding]:
    """Yield a warning about these jobs unless there are none; their names replace `{jobs}` in the text."""
    if jobs:
        names = terminal.join_first([job.id for job in jobs], NAMED_JOBS)
        yield Finding("jobs", "warning", text.format(jobs=names), fix)


def _is_stuck(job: Job, now: float) -> bool:
    """Return True if a running job has not been retrieved for longer than workers ever wait."""
    seen = max(filter(None, (job.turn.polled_at, job.turn.sent_at)), default=0.0)
    return job.status in (Status.STARTING, Status.QUEUED, Status.IN_PROGRESS) and now - seen > STUCK_S


def _test_own_server() -> Iterator[Finding]:
    """Start two servers of this installation, and ask them as old and as new hosts do."""
    from agent_jobs.cli.checks.selftest import MODERN, OLD, SelfTestError, start_this_installation

    for version in (OLD, MODERN):
        try:
            started = start_this_installation(version)
        except SelfTestError as error:
            fix = "run agent-jobs serve < /dev/null to see its error"
            yield Finding("self-test", "problem", f"protocol {version}: {error}", fix)
        else:
            listed = f"the server lists {len(started.tools)} tools over stdio"
            text = f"protocol {version}: {listed}, {started.listed_s:.1f} s after a direct start"
            shown = f"{len(started.tools)} tools after {started.listed_s:.1f} s (protocol {version})"
            yield Finding("self-test", "ok", text, shown=shown)
