from collections.abc import Generator

import pytest
from emulator_client import Client

from agent_jobs.emulator import RunningServer, running


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def session_server() -> Generator[RunningServer]:
    with running(time_scale=100.0) as server:
        yield server


@pytest.fixture
def server(session_server: RunningServer) -> RunningServer:
    session_server.reset()
    return session_server


@pytest.fixture
def client(server: RunningServer) -> Generator[Client]:
    with Client(server) as client:
        yield client
