"""`agent-jobs doctor`: everything that has to be right, looked at; what is wrong comes with its remedy."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from agent_jobs import __version__
from agent_jobs.app import NO_KEY
from agent_jobs.cli import terminal
from agent_jobs.cli.config import masked, opening, toolbox_mistakes
from agent_jobs.cli.endpoint_check import upstream_findings
from agent_jobs.cli.finding import Finding, tell
from agent_jobs.cli.host_checks import host_findings, key_file_findings
from agent_jobs.cli.install import here
from agent_jobs.cli.session import Exit, Refusal, Session, call, json_option
from agent_jobs.cli.start_times import start_findings
from agent_jobs.engine.engine import GATHERED_MAX, Engine
from agent_jobs.errors import ConfigError
from agent_jobs.install.command import desktop_path
from agent_jobs.install.hosts import HOSTS
from agent_jobs.jobs.job import Job
from agent_jobs.jobs.queries import JobFilter, WorkerInfo
from agent_jobs.jobs.status import ACTIVE, Status
from agent_jobs.settings import Settings, with_env_file

#: A running job that nobody looked at for so long is stuck: an unwatched one is looked at every 60 s, a followed one
#: every 290 s.
STUCK_S = 600.0
NAMED = 3


@click.command("doctor")
@click.option("--upstream", "upstream_only", is_flag=True, hidden=True, help="Only ask upstream.")
@json_option
def doctor_command(upstream_only: bool, as_json: bool) -> None:
    """Look at what has to be right, and tell what is not.

    Asks upstream what it says of the model, or which models it has, and starts no job. Exit status: 0 nothing is wrong,
    1 there is a problem; warnings change nothing.
    """
    findings: list[Finding] = []
    for finding in _asked_upstream() if upstream_only else _findings():
        findings.append(finding)
        if not as_json:
            tell(finding)
    if as_json:
        from agent_jobs.rendering import answers

        rows = [{name: text for name, text in vars(finding).items() if text} for finding in findings]
        click.echo(answers.json_line({"version": __version__, "findings": rows}))
    raise SystemExit(Exit.REFUSED if any(finding.state == "problem" for finding in findings) else Exit.DONE)


def _findings() -> Iterator[Finding]:
    yield Finding("version", "ok", f"agent-jobs {__version__}")
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield _uvx()
    settings, refused = Settings.forgiving(os.environ)
    # A key that is meant for another address must not go to OpenAI's.
    elsewhere = any("OPENAI_BASE_URL" in sentence for sentence in refused)
    quiet = replace(settings, log_level="error")
    closed = opening(quiet)
    if isinstance(closed, ConfigError):
        refused.append(str(closed))
    broken, odd = toolbox_mistakes(settings)
    refused += broken
    for sentence in refused:
        yield Finding("settings", "problem", sentence)
    for sentence in (*settings.warnings, *odd):
        yield Finding("settings", "warning", sentence)
    if not refused and not settings.warnings and not odd:
        yield Finding("settings", "ok", "what is set can be used; agent-jobs config shows it")
    yield _key(settings)
    yield from key_file_findings(here(), _our_key_files(settings))
    yield from host_findings(here(), settings)
    yield from start_findings(here(), HOSTS.values())
    if closed is None:
        try:
            asks = settings.api_key is not None and not elsewhere
            yield from call(_engine_findings(settings, asks=asks), role="acts", settings=quiet)
        except Refusal as refusal:  # damage that only a look finds
            closed = refusal.error
    if closed is not None and not isinstance(closed, ConfigError):
        yield Finding("database", "problem", str(closed))
    yield from _self_test()


def _asked_upstream() -> Iterator[Finding]:
    """Only what upstream says, in the environment of this process."""
    settings, _ = Settings.forgiving(os.environ)

    async def ask(session: Session) -> list[Finding]:
        return await upstream_findings(session.engine, settings)

    if settings.api_key is not None:
        yield from call(ask, role="acts", settings=replace(settings, log_level="error"))


def _uvx() -> Finding:
    found = shutil.which("uvx")
    if found is None:
        fix = "install uv (https://docs.astral.sh/uv/), or start agent-jobs by its own path in your host's entry"
        return Finding("uvx", "warning", "uvx is not on the PATH", fix)
    found = str(Path(found).absolute())
    if shutil.which("uvx", path=desktop_path(here())):
        return Finding("uvx", "ok", f"{found}, which apps started from a desktop find too")
    return Finding(
        "uvx", "warning", f"{found}, which apps started from a desktop do not find",
        f'write "command": "{found}" into the host\'s entry',
    )  # fmt: skip


def _key(settings: Settings) -> Finding:
    if settings.api_key is None:
        return Finding("key", "problem", NO_KEY)
    return Finding("key", "ok", f"a key is set, {masked(settings.api_key)}")


def _our_key_files(settings: Settings) -> Iterator[Path]:
    """Return the files that this process has a key from."""
    if settings.api_key_file is not None:
        yield settings.api_key_file
    env_file = click.get_current_context().find_root().params.get("env_file")
    if env_file and with_env_file({}, env_file).get("OPENAI_API_KEY"):
        yield Path(env_file).absolute()


def _engine_findings(settings: Settings, *, asks: bool) -> Any:
    """The work that looks at upstream, if it may ask there, at database and jobs."""

    async def look(session: Session) -> list[Finding]:
        engine = session.engine
        findings: list[Finding] = []
        if asks:
            findings += await upstream_findings(engine, settings)
        database = await engine.store_info()
        mode = oct(os.stat(database.path).st_mode & 0o777)[2:]
        others = ", ".join(f"agent-jobs {one.what} (pid {one.pid})" for one in database.watchers)
        text = (
            f"{database.path}, {terminal.size(database.bytes)}, schema {database.schema}, {database.journal}, mode "
            f"{mode}; worked on by {others or 'nobody just now'}"
        )
        safe = mode == "600" or sys.platform == "win32"
        fix = "" if safe else f"others can read it: chmod 600 {database.path}"
        findings.append(Finding("database", "ok" if safe else "warning", text, fix))
        return [*findings, *await _jobs(engine, database.watchers)]

    return look


async def _jobs(engine: Engine, watchers: tuple[WorkerInfo, ...]) -> list[Finding]:
    """What goes on, and what of it does not go on as it should."""
    now = engine.now()
    running = await engine.find(JobFilter(statuses=ACTIVE), GATHERED_MAX)
    counts = (await engine.find(JobFilter(), 1)).counts
    total = f"{sum(counts.values())} jobs, {sum(running.counts.values())} of them open"
    findings: list[Finding] = []
    places = {one.base_url for one in watchers}
    alone = [job for job in running.jobs if job.turn.base_url not in places]
    for base_url in dict.fromkeys(job.turn.base_url for job in alone):
        fix = f"start a host with agent-jobs, or agent-jobs watch --all, with OPENAI_BASE_URL={base_url}"
        theirs = [job for job in alone if job.turn.base_url == base_url]
        findings.append(Finding("jobs", "warning", f"nobody works on {_few(theirs)}", fix))
    stuck = [job for job in running.jobs if job not in alone and _stuck(job, now)]
    if stuck:
        fix = "end the process that holds them, and another goes on: the database line names it"
        findings.append(Finding("jobs", "warning", f"nobody has looked for 10 minutes at {_few(stuck)}", fix))
    failed = await engine.find(JobFilter(statuses=frozenset({Status.FAILED})), GATHERED_MAX)
    if unconfirmed := [job for job in failed.jobs if job.is_unconfirmed]:
        fix = "look for their metadata job_id in the provider's dashboard, then agent-jobs adopt JOB RESPONSE_ID"
        text = f"nobody knows whether upstream accepted {_few(unconfirmed)}; they may be billed"
        findings.append(Finding("jobs", "warning", text, fix))
    return findings or [Finding("jobs", "ok", total)]


def _stuck(job: Job, now: float) -> bool:
    """Whether a job that upstream has was not looked at for longer than looks are ever apart."""
    seen = max(job.turn.polled_at or 0.0, job.turn.sent_at or 0.0)
    return job.status in (Status.STARTING, Status.QUEUED, Status.IN_PROGRESS) and now - seen > STUCK_S


def _few(jobs: list[Job]) -> str:
    more = f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else ""
    return ", ".join(job.id for job in jobs[:NAMED]) + more


def _self_test() -> Iterator[Finding]:
    """Two servers of our own, asked as old and as new hosts ask."""
    from agent_jobs.cli.selftest import MODERN, OLD, SelfTestError, start_own

    for version in (OLD, MODERN):
        try:
            started = start_own(version)
        except SelfTestError as error:
            fix = "run agent-jobs serve < /dev/null and see what it says"
            yield Finding("self-test", "problem", f"protocol {version}: {error}", fix)
        else:
            listed = f"the server lists {len(started.tools)} tools over stdio"
            text = f"protocol {version}: {listed}, {started.listed_s:.1f} s after a direct start"
            yield Finding("self-test", "ok", text)
