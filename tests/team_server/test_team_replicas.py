"""Two replicas on one PostgreSQL database behind haproxy: no call fails when one is killed or restarted."""

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import anyio
import pytest
from hosts import SPEED, eventually
from installed_haproxy import NEEDS_HAPROXY, NO_HAPROXY, find_haproxy
from postgres_server import new_database
from replicas import Cluster, ReplicaHost, running_cluster

from agent_jobs.emulator.server import RunningServer, run_emulator

pytestmark = pytest.mark.skipif(find_haproxy() is None and NEEDS_HAPROXY not in os.environ, reason=NO_HAPROXY)

POLLS = 6  # polls that wait at the same time, in each era


@pytest.fixture(scope="module")
def cluster_upstream() -> Iterator[RunningServer]:
    with run_emulator(time_scale=SPEED) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def cluster_database_url(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        yield url


@pytest.fixture(scope="module")
async def cluster(
    cluster_database_url: str,
    cluster_upstream: RunningServer,
    tmp_path_factory: pytest.TempPathFactory,
    anyio_backend: str,
) -> AsyncGenerator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    async with running_cluster(cluster_database_url, cluster_upstream.base_url, folder) as cluster:
        yield cluster


class Polls:
    """Polls of both eras that wait behind the balancer."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []

    async def run(self, cluster: Cluster, era: str, job_id: str) -> None:
        async with cluster.host(era) as host, anyio.create_task_group() as tasks:
            for _ in range(POLLS):
                tasks.start_soon(self._poll_once, host, job_id)

    async def _poll_once(self, host: ReplicaHost, job_id: str) -> None:
        self.answers.append(await host.call("agent_poll", job_id=job_id, wait_s=24))


async def test_job_is_started_on_one_replica_and_polled_on_the_other(cluster: Cluster):
    prompt = 'together [emulate {"duration_s": 10}]'
    async with cluster.host("modern", cluster.url(0)) as one, cluster.host("legacy", cluster.url(1)) as two:
        started = await one.call("agent_start", prompt=prompt, wait_s=0)
        answer = await two.call("agent_poll", job_id=started["job_id"], wait_s=20)
        assert answer["status"] == "completed"


async def test_no_poll_fails_when_a_replica_is_killed(cluster: Cluster):
    polls = Polls()
    async with cluster.host("modern", cluster.url(1)) as survivor, anyio.create_task_group() as tasks:
        started = await survivor.call("agent_start", prompt='killed [emulate {"end": "never"}]', wait_s=0)
        for era in ("legacy", "modern"):
            tasks.start_soon(polls.run, cluster, era, started["job_id"])
        await eventually(lambda: cluster.count_requests() >= 2 * POLLS)
        assert await cluster.stop(0, signal.SIGKILL) != 0
        await survivor.call("agent_cancel", job_id=started["job_id"])
    assert [answer["status"] for answer in polls.answers] == ["cancelled"] * 2 * POLLS
    await cluster.start(0)


async def test_no_poll_fails_in_a_rolling_restart(cluster: Cluster):
    polls = Polls()
    async with cluster.host("modern") as host, anyio.create_task_group() as tasks:
        started = await host.call("agent_start", prompt='rolling [emulate {"end": "never"}]', wait_s=0)
        for era in ("legacy", "modern"):
            tasks.start_soon(polls.run, cluster, era, started["job_id"])
        await eventually(lambda: cluster.count_requests() >= 2 * POLLS)
        for number in (0, 1):
            assert await cluster.stop(number, signal.SIGTERM) == 0
            await cluster.start(number)
        await host.call("agent_cancel", job_id=started["job_id"])
    statuses = [answer["status"] for answer in polls.answers]
    assert len(statuses) == 2 * POLLS
    assert {*statuses} <= {"queued", "in_progress", "cancelled"}


async def test_log_of_a_replica_has_no_secrets(cluster: Cluster):
    logs = "".join(path.read_text() for path in cluster.folder.glob("replica-*.log"))
    assert logs.count("Serving MCP at http://127.0.0.1:") >= 2
    assert logs.count("The page is at http://127.0.0.1:") >= 2
    assert "draining with" in logs
    assert not [secret for secret in (cluster.token, "sk-secret", "rolling", "emulate") if secret in logs]
    assert "Traceback" not in logs
