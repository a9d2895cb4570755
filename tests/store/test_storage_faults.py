"""Remove, replace or damage the database during a run: the server stays up, and no paid result is lost."""

import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from hosts import Host, eventually, hosting

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings


def folder_of(settings: Settings) -> Path:
    assert settings.data_dir is not None
    return settings.data_dir


def delete_database_file(folder: Path) -> None:
    (folder / "jobs.db").unlink()


def delete_database_files(folder: Path) -> None:
    for file in folder.glob("jobs.db*"):
        file.unlink()


def move_away(folder: Path) -> None:
    for file in folder.glob("jobs.db*"):
        file.rename(folder / f"moved-{file.name}")


def rename_folder(folder: Path) -> None:
    folder.rename(folder.with_name("renamed"))


def replace_with_empty_file(folder: Path) -> None:
    (folder / "empty").touch()
    (folder / "empty").replace(folder / "jobs.db")


TAKEN_AWAY: dict[str, Callable[[Path], object]] = {
    "deleted": delete_database_file,
    "deleted with its log": delete_database_files,
    "moved away": move_away,
    "folder removed": shutil.rmtree,
    "folder renamed": rename_folder,
    "replaced by an replace_with_empty_file file": replace_with_empty_file,
}


@pytest.mark.parametrize("follow", [0, 200], ids=["looked at", "followed"])
@pytest.mark.parametrize("take_away", TAKEN_AWAY.values(), ids=TAKEN_AWAY)
async def test_removed_database_is_restored_with_every_job_while_a_job_runs(
    settings: Settings, upstream: RunningServer, take_away: Callable[[Path], object], follow: int
) -> None:
    async with hosting(replace(settings, follow=follow)) as host:
        done = await host.end((await host.start(emulate={"duration_s": 1, "text": "done"}))["job_id"])
        running = await host.start(emulate={"duration_s": 12, "text": "ran on"})
        born = await host.start(emulate={"duration_s": 2, "text": "named later", "faults": [{"delay_created_s": 30}]})
        with anyio.fail_after(60):
            while born["status"] == "pending":
                born = await host.call("agent_poll", job_id=born["job_id"], wait_s=0)
        assert born["status"] == "starting"
        take_away(folder_of(settings))
        new = await host.start(emulate={"duration_s": 1, "text": "new"})
        for started, text in ((running, "ran on"), (born, "named later"), (new, "new")):
            assert (await host.end(started["job_id"]))["output"] == text
    async with hosting(settings) as after:
        assert await after.end(done["job_id"]) == done
        for started, text in ((running, "ran on"), (born, "named later"), (new, "new")):
            assert (await after.end(started["job_id"]))["output"] == text
    assert upstream.emulator.counters()["creates"] == 4
    with closing(sqlite3.connect(folder_of(settings) / "jobs.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_database_replaced_by_another_job_database_has_the_jobs_of_both(
    settings: Settings, tmp_path: Path
) -> None:
    async with hosting(replace(settings, data_dir=tmp_path / "other")) as host:
        theirs = await host.start(emulate={"duration_s": 1, "text": "theirs"}, options={"key": "monday"})
        await host.end(theirs["job_id"])
    async with hosting(settings) as host:
        ours = await host.start(emulate={"duration_s": 5, "text": "ours"}, options={"key": "monday"})
        (tmp_path / "other" / "jobs.db").replace(folder_of(settings) / "jobs.db")
        assert (await host.end(ours["job_id"]))["output"] == "ours"
        assert (await host.end(theirs["job_id"]))["output"] == "theirs"
    async with hosting(settings) as after:
        assert (await after.end(ours["job_id"]))["output"] == "ours"
        assert (await after.end(theirs["job_id"]))["output"] == "theirs"


@pytest.mark.parametrize("take_away", [delete_database_files, shutil.rmtree], ids=["deleted", "folder removed"])
async def test_servers_share_the_restored_database_and_pay_nothing_twice(
    settings: Settings, upstream: RunningServer, take_away: Callable[[Path], object]
) -> None:
    limited = replace(settings, max_concurrent=4)
    async with hosting(limited) as one, hosting(limited) as other:
        started = [
            await host.start(emulate={"duration_s": 6, "text": f"text {n}"}) for n in range(5) for host in (one, other)
        ]
        take_away(folder_of(settings))
        for number, each in enumerate(started):
            answer = await (one, other)[number % 2].end(each["job_id"])
            assert answer["output"] == f"text {number // 2}"
            assert await (other, one)[number % 2].end(each["job_id"]) == answer
    posts = upstream.emulator.counters()["creates_by_request_id"]
    assert (len(posts), set(posts.values())) == (10, {1})


async def wait_until_known(host: Host, job_id: str) -> None:
    """Wait until this process finds the job, which the other one may have yet to carry over into the new file."""
    with anyio.fail_after(60):
        while (await host.client.call_tool("agent_poll", {"job_id": job_id, "wait_s": 0})).is_error:  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def test_server_started_after_the_database_was_removed_loses_no_job_of_the_running_one(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as one:
        running = await one.start(emulate={"duration_s": 8, "text": "ran on"})
        delete_database_file(folder_of(settings))
        async with hosting(settings) as other:
            new = await other.start(emulate={"duration_s": 1, "text": "new"})
            assert (await one.end(running["job_id"]))["output"] == "ran on"
            await wait_until_known(other, running["job_id"])
            assert (await other.end(running["job_id"]))["output"] == "ran on"
            await wait_until_known(one, new["job_id"])
            assert (await one.end(new["job_id"]))["output"] == "new"
    assert upstream.emulator.counters()["creates"] == 2


async def test_blocked_database_path_refuses_starts_and_lets_running_jobs_finish(
    settings: Settings, upstream: RunningServer
) -> None:
    folder = folder_of(settings)
    async with hosting(replace(settings, max_concurrent=1)) as host:
        running = await host.start(emulate={"duration_s": 5, "text": "ran on"})
        waiting = await host.start(emulate={"duration_s": 1, "text": "waited"})
        (folder / "junk").write_bytes(b"this is no database" * 100)
        (folder / "junk").replace(folder / "jobs.db")
        refusal = await host.refused("agent_start", prompt="new")
        assert "was removed or replaced" in refusal
        assert "Ask the user to move it away" in refusal
        assert (await host.end(running["job_id"]))["output"] == "ran on"
        assert (await host.call("agent_poll", job_id=waiting["job_id"], wait_s=15))["status"] == "pending"
        assert upstream.emulator.counters()["creates"] == 1, "what cannot be kept is not spent"
        delete_database_file(folder)
        assert (await host.end(waiting["job_id"]))["output"] == "waited"
    async with hosting(settings) as after:
        assert (await after.end(running["job_id"]))["output"] == "ran on"


async def test_database_moved_back_is_used_again(settings: Settings) -> None:
    folder = folder_of(settings)
    async with hosting(settings) as host:
        running = await host.start(emulate={"duration_s": 5, "text": "ran on"})
        (folder / "jobs.db").rename(folder / "kept")
        (folder / "jobs.db").write_bytes(b"this is no database" * 100)
        assert "was removed or replaced" in await host.refused("agent_start", prompt="new")
        (folder / "kept").replace(folder / "jobs.db")
        assert (await host.start(emulate={"duration_s": 1}))["status"] == "queued"
        assert (await host.end(running["job_id"]))["output"] == "ran on"
    async with hosting(settings) as after:
        assert (await after.end(running["job_id"]))["output"] == "ran on"


# Damage.


def write_from_another_program(path: Path, *statements: str) -> list[tuple[int, ...]]:
    """Write like another program, so that each open connection reads the file again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows = [db.execute(statement).fetchall() for statement in statements][-1]
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return rows


def damage_database(folder: Path) -> None:
    """Overwrite all pages of the database but the first."""
    path = folder / "jobs.db"
    write_from_another_program(path, "UPDATE job SET title = title || ' '")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


async def test_damaged_database_is_reported_and_the_id_of_a_paid_run_is_logged_and_kept(
    settings: Settings, upstream: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "kept", "faults": [{"delay_created_s": 15}]})
        await eventually(lambda: upstream.emulator.counters()["creates"] == 1)
        assert (await host.call("agent_poll", job_id=started["job_id"], wait_s=0))["status"] == "starting"
        await to_thread.run_sync(damage_database, folder_of(settings))
        for tool, arguments in (("agent_poll", {"job_id": started["job_id"]}), ("agent_start", {"prompt": "hi"})):
            assert "Ask the user to move it away" in await host.refused(tool, **arguments)
        await eventually(lambda: any("cannot store its response id" in record.message for record in caplog.records))
        [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
        logged = [
            record for record in caplog.records if record.levelno >= logging.ERROR and run["id"] in record.message
        ]
        assert started["job_id"] in logged[0].message
        assert "is damaged" in await host.refused("agent_poll", job_id=started["job_id"])
        move_away(folder_of(settings))
        assert await read_output_once_known(host, started["job_id"]) == "kept"
    async with hosting(settings) as after:
        assert (await after.end(started["job_id"]))["output"] == "kept"
    assert upstream.emulator.counters()["creates"] == 1


async def read_output_once_known(host: Host, job_id: str) -> str:
    """Return the job's output as soon as the database has the job again."""
    with anyio.fail_after(60):
        while (await host.client.call_tool("agent_poll", {"job_id": job_id, "wait_s": 0})).is_error:  # noqa: ASYNC110
            await anyio.sleep(0.1)
    return (await host.end(job_id))["output"]


async def test_readable_rows_of_a_damaged_database_are_carried_over_after_it_is_moved(settings: Settings) -> None:
    folder = folder_of(settings)
    async with hosting(settings) as host:
        for _ in range(3):
            await host.end((await host.start(emulate={"duration_s": 1, "length": 60_000}))["job_id"])
        running = await host.start(emulate={"duration_s": 8, "text": "ran on"})
        await to_thread.run_sync(damage_outputs, folder)
        move_away(folder)
        assert (await host.end(running["job_id"]))["output"] == "ran on"
    async with hosting(settings) as after:
        assert (await after.end(running["job_id"]))["output"] == "ran on"


def damage_outputs(folder: Path) -> None:
    """Damage only the pages that hold outputs."""
    path = folder / "jobs.db"
    [(root,)] = write_from_another_program(
        path, "UPDATE job SET title = title || ' '", "SELECT rootpage FROM sqlite_schema WHERE name = 'output'"
    )
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)


async def test_unreadable_row_is_reported_as_damage(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1})
        await host.end(started["job_id"])
        await to_thread.run_sync(
            write_from_another_program, folder_of(settings) / "jobs.db", "UPDATE request SET body = 'no json'"
        )
        assert "Ask the user to move it away" in await host.refused("agent_poll", job_id=started["job_id"])
