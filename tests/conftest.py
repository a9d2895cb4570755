"""The fixtures that the tests share: the emulated upstream, and settings that point at it."""

import measuring

measuring.measure()  # before anything imports a module of ours
import scheduled_time

scheduled_time.install()

import gc

gc.disable()  # until all tests are collected: hardly any of what that makes is garbage

import os
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from cpu_time import measured
from hosts import SPEED
from hypothesis import settings as hypothesis_settings
from installed_browser import NO_BROWSER
from installed_haproxy import NO_HAPROXY
from kept_certificates import keep_certificates
from tool_models import keep_tool_models

from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.engine import job_waiter, on_finish, on_finish_command
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

# An example may take any time on a busy machine; everybody tries the same ones, so that a failure can be repeated.
hypothesis_settings.register_profile("any machine", deadline=None, derandomize=True)
hypothesis_settings.load_profile("any machine")


def pytest_configure() -> None:
    keep_tool_models()
    keep_certificates()


def pytest_collection_finish() -> None:
    """Keep nine thousand tests and all modules out of later garbage collections, each of which would take 0.3 s."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note the CPU of a test where a file for that is named: see `cpu_time.py`."""
    path = os.environ.get("TEST_CPU")
    with measured(item.nodeid, path) if path else nullcontext():
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run because this machine has no browser or no haproxy."""
    skipped: list[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    for kind, reason in (("browser", NO_BROWSER), ("balancer", NO_HAPROXY)):
        missed = sum(reason in str(report.longrepr) for report in skipped)
        if missed:
            terminalreporter.write_line(f"{missed} {kind} tests did not run: {reason}.", yellow=True)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks run faster here, this machine does not: its own work is waited for as long as in earnest."""
    for module in (job_waiter, on_finish):
        monkeypatch.setattr(module, "FINALIZE_WAIT_S", module.FINALIZE_WAIT_S * SPEED)
    monkeypatch.setattr(on_finish_command, "LIMIT_S", on_finish_command.LIMIT_S * SPEED)


@pytest.fixture
def upstream() -> Iterator[RunningServer]:
    with run_emulator(time_scale=SPEED) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, upstream: RunningServer) -> Settings:
    return Settings(api_key=SecretStr("sk-secret"), base_url=upstream.base_url, data_dir=tmp_path / "data")


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """Run a PostgreSQL server for all tests of a process, with a template database that has our tables."""
    from postgres_server import running_template

    with running_template() as url:
        yield url
