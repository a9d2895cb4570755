"""The fixtures that the tests share: the emulated upstream, and settings that point at it."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cpu_time import measured
from hosts import SPEED
from hypothesis import settings as hypothesis_settings
from installed_browser import NO_BROWSER
from installed_haproxy import NO_HAPROXY
from kept_certificates import keep_certificates
from tool_models import keep_tool_models
from tracing import is_untraced, mark_untraced, traces_emulator, untraced, untraced_portal, untraced_threads

from agent_jobs.emulator import server as emulator_server
from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.engine import job_waiter, on_finish
from agent_jobs.setting_values import SecretStr
from agent_jobs.settings import Settings

# An example may take any time on a busy machine; everybody tries the same ones, so that a failure can be repeated.
hypothesis_settings.register_profile("any machine", deadline=None, derandomize=True)
hypothesis_settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    keep_tool_models()
    keep_certificates()
    config.addinivalue_line("markers", "untraced: others cover what this test runs, so it runs without the tracer")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import the tests without the tracer. The fork servers measure what the import of a module of ours runs."""
    with untraced_threads():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_untraced(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure a test only if `tracing.py` says so; note its CPU where a file for that is named: see `cpu_time.py`."""
    with ExitStack() as stack:
        if is_untraced(item):
            stack.enter_context(untraced())
        if path := os.environ.get("TEST_CPU"):
            stack.enter_context(measured(item.nodeid, path))
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
    """Clocks run faster here, this machine does not: its work after an end is waited for as long as in earnest."""
    for module in (job_waiter, on_finish):
        monkeypatch.setattr(module, "FINALIZE_WAIT_S", module.FINALIZE_WAIT_S * SPEED)


@pytest.fixture(autouse=True)
def emulator_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the emulator only in its own tests."""
    if not traces_emulator(request.node.nodeid):
        start = untraced_portal(emulator_server.start_blocking_portal)
        monkeypatch.setattr(emulator_server, "start_blocking_portal", start)


@pytest.fixture
def upstream() -> Iterator[RunningServer]:
    with run_emulator(time_scale=SPEED) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, upstream: RunningServer) -> Settings:
    return Settings(api_key=SecretStr("sk-secret"), base_url=upstream.base_url, data_dir=tmp_path / "data")


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """A PostgreSQL server for all tests of a process, with the template of a database that has our tables."""
    from postgres_server import running_template

    with running_template() as url:
        yield url
