from collections.abc import AsyncGenerator, Generator

import pytest
from emulator_client import Client
from openai import AsyncOpenAI

from agent_jobs.emulator.server import RunningServer, run_emulator


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def session_server() -> Generator[RunningServer]:
    with run_emulator(time_scale=100.0) as server:
        yield server


@pytest.fixture
def server(session_server: RunningServer) -> RunningServer:
    session_server.reset()
    return session_server


@pytest.fixture
def client(server: RunningServer) -> Generator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
async def sdk(server: RunningServer) -> AsyncGenerator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0) as sdk:
        yield sdk
