"""Check the PostgreSQL server that processes of several machines share, and these processes."""

from collections.abc import Iterator, Sequence

from agent_jobs.cli.checks.finding import Finding
from agent_jobs.cli.display import terminal
from agent_jobs.jobs.queries import ReplicaInfo, ServerInfo

OLDEST_VERSION = 15
LATE_S = 10.0  # a step that is due for longer finds no process: they look every second
SLOW_MESSAGE_S = 0.5  # on one network a message takes milliseconds
RECENT_S = 3600.0  # a process that died earlier is no longer needed, or was started again
FULL_PERCENT = 90  # of a server's connections: the next process may be refused


def check_server(server: ServerInfo | None) -> Iterator[Finding]:
    """Yield findings about a server, if the jobs are on one."""
    if server is None:
        return
    if server.version < OLDEST_VERSION:
        text = f"the server is PostgreSQL {server.version}, and agent-jobs needs {OLDEST_VERSION} or newer"
        yield Finding("server", "warning", text, "upgrade the server")
    yield _check_replicas(server.replicas)
    yield _check_queue(server)
    yield _check_messages(server.message_s)
    yield _check_connections(server)


def _check_replicas(replicas: Sequence[ReplicaInfo]) -> Finding:
    """Name the other processes, with the time of their last sign of life."""
    dead = [replica for replica in replicas if replica.is_dead and replica.silent_s < RECENT_S]
    living = [replica for replica in replicas if not replica.is_dead]
    listed = ", ".join(map(_describe_replica, living)) or "no other process has the database open"
    if not dead:
        return Finding("replicas", "ok", listed)
    text = f"{listed}; dead: {', '.join(map(_describe_replica, dead))}"
    fix = "start it again, or check its network; the others take its jobs over"
    return Finding("replicas", "warning", text, fix)


def _describe_replica(replica: ReplicaInfo) -> str:
    """Return what a process does, its id and the time of its last sign of life."""
    pid = replica.name.partition("-")[0]
    what = f"agent-jobs {replica.what}" if replica.what else "a process without jobs"
    return f"{what} (pid {pid}, seen {max(0.0, replica.silent_s):.0f} s ago)"


def _check_queue(server: ServerInfo) -> Finding:
    """Say how many jobs are due, and warn if no process takes them."""
    text = f"{server.due} due, {server.waiting} waiting for a slot"
    if server.oldest_due_s < LATE_S:
        return Finding("queue", "ok", text)
    text = f"{text}; the oldest has been due for {terminal.format_elapsed(server.oldest_due_s)}"
    return Finding("queue", "warning", text, "start agent-jobs work with the OPENAI_BASE_URL of these jobs")


def _check_messages(message_s: float | None) -> Finding:
    """Say how long a change takes to other processes."""
    if message_s is None:
        fix = "set AGENT_JOBS_DATABASE_LISTEN_URL to the database without a pooler"
        return Finding("messages", "warning", "none arrives, so changes are seen within a second", fix)
    text = f"a change is seen by other processes after {message_s * 1000:.0f} ms"
    if message_s < SLOW_MESSAGE_S:
        return Finding("messages", "ok", text)
    return Finding("messages", "warning", text, "check the load of the server and the network to it")


def _check_connections(server: ServerInfo) -> Finding:
    """Say how many connections are in use, and warn if the server has few left."""
    (used, most), (server_used, server_most) = server.pool, server.connections
    text = f"{used} of at most {most} in the pool of this process, {server_used} of {server_most} on the server"
    if server_used * 100 < server_most * FULL_PERCENT:
        return Finding("pool", "ok", text)
    return Finding("pool", "warning", text, "raise max_connections of the server, or lower AGENT_JOBS_POOL")
