"""The balancer of the compose file before replicas, on ports of this machine: for the tests and the bench."""

import socket
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx2
from installed_haproxy import NO_HAPROXY, find_haproxy

#: Of packaging/team/compose.yaml.
CONFIG = Path(__file__).parents[2] / "packaging/team/haproxy.cfg"
STATS_SOCKET = "haproxy.sock"
READY_LIMIT_S = 60


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def running_balancer(port: int, replica_ports: Sequence[int], folder: Path, **more: str) -> Generator[None]:
    """Have haproxy send requests to the replicas that are ready, with more variables of its configuration."""
    path = find_haproxy()
    if path is None:
        raise FileNotFoundError(NO_HAPROXY)
    first, second = (f"127.0.0.1:{each}" for each in replica_ports)
    environment = {
        "BIND": f"127.0.0.1:{port}",
        "REPLICA_1": first,
        "REPLICA_2": second,
        "STATS_SOCKET": str(folder / STATS_SOCKET),
        **more,
    }
    with subprocess.Popen(
        [path, "-f", str(CONFIG), "-db"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as one:
        try:
            yield
        finally:
            one.kill()


async def wait_until_ready(url: str) -> None:
    """Wait until a replica, or the balancer before them, takes requests."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        with anyio.fail_after(READY_LIMIT_S):
            while True:
                try:
                    if (await http.get(f"{url}/readyz")).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await anyio.sleep(0.05)
