"""The database removed, replaced or damaged in mid-run: the server stays up, and nothing that was paid is forgotten."""

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
from agent_jobs.settings import Settings


def folder_of(settings: Settings) -> Path:
    assert settings.data_dir is not None
    return settings.data_dir


def delete(folder: Path) -> None:
    (folder / "jobs.db").unlink()


def delete_all(folder: Path) -> None:
    for file in folder.glob("jobs.db*"):
        file.unlink()


def move_away(folder: Path) -> None:
    for file in folder.glob("jobs.db*"):
        file.rename(folder / f"moved-{file.name}")


def rename_folder(folder: Path) -> None:
    folder.rename(folder.with_name("renamed"))


def empty(folder: Path) -> None:
    (folder / "empty").touch()
    (folder / "empty").replace(folder / "jobs.db")


TAKEN_AWAY: dict[str, Callable[[Path], object]] = {
    "deleted": delete,
    "deleted with its log": delete_all,
    "moved away": move_away,
    "folder removed": shutil.rmtree,
    "folder renamed": rename_folder,
    "replaced by an empty file": empty,
}


@pytest.mark.hasty
@pytest.mark.parametrize("follow", [0, 200], ids=["looked at", "followed"])
@pytest.mark.parametrize("take_away", TAKEN_AWAY.values(), ids=TAKEN_AWAY)
async def test_a_database_that_is_taken_away_in_mid_run_is_written_anew_with_every_job(
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


async def test_a_database_that_is_replaced_by_another_of_ours_has_the_jobs_of_both(
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


@pytest.mark.parametrize("take_away", [delete_all, shutil.rmtree], ids=["deleted", "folder removed"])
async def test_servers_that_share_a_database_go_on_sharing_the_new_one_and_pay_nothing_twice(
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


async def test_a_server_that_starts_where_the_database_was_just_removed_takes_nothing_from_the_one_that_runs(
    settings: Settings, upstream: RunningServer
) -> None:
    async with hosting(settings) as one:
        running = await one.start(emulate={"duration_s": 8, "text": "ran on"})
        delete(folder_of(settings))
        async with hosting(settings) as other:
            new = await other.start(emulate={"duration_s": 1, "text": "new"})
            assert (await one.end(running["job_id"]))["output"] == "ran on"
            assert (await other.end(running["job_id"]))["output"] == "ran on"
            assert (await one.end(new["job_id"]))["output"] == "new"
    assert upstream.emulator.counters()["creates"] == 2


async def test_while_no_database_can_stand_there_nothing_new_is_started_and_what_runs_goes_on(
    settings: Settings, upstream: RunningServer
) -> None:
    folder = folder_of(settings)
    async with hosting(replace(settings, max_concurrent=1)) as host:
        running = await host.start(emulate={"duration_s": 5, "text": "ran on"})
        waiting = await host.start(emulate={"duration_s": 1, "text": "waited"})
        (folder / "junk").write_bytes(b"this is no database" * 100)
        (folder / "junk").replace(folder / "jobs.db")
        told = await host.refused("agent_start", prompt="new")
        assert "was removed or replaced" in told
        assert "Ask the user to move it away" in told
        assert (await host.end(running["job_id"]))["output"] == "ran on"
        assert (await host.call("agent_poll", job_id=waiting["job_id"], wait_s=15))["status"] == "pending"
        assert upstream.emulator.counters()["creates"] == 1, "what cannot be kept is not spent"
        delete(folder)
        assert (await host.end(waiting["job_id"]))["output"] == "waited"
    async with hosting(settings) as after:
        assert (await after.end(running["job_id"]))["output"] == "ran on"


async def test_a_database_that_comes_back_is_gone_on_with(settings: Settings) -> None:
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


def changed(path: Path, *statements: str) -> list[tuple[int, ...]]:
    """Have another program write, so that whoever has the database open reads it anew, from the file alone."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows = [db.execute(statement).fetchall() for statement in statements][-1]
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return rows


def damage(folder: Path) -> None:
    """Overwrite the pages of the database behind the first."""
    path = folder / "jobs.db"
    changed(path, "UPDATE job SET title = title || ' '")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


@pytest.mark.hasty
async def test_a_database_that_is_damaged_in_mid_run_is_told_and_the_id_of_a_paid_run_is_logged_and_kept(
    settings: Settings, upstream: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "kept", "faults": [{"delay_created_s": 15}]})
        await eventually(lambda: upstream.emulator.counters()["creates"] == 1)
        assert (await host.call("agent_poll", job_id=started["job_id"], wait_s=0))["status"] == "starting"
        await to_thread.run_sync(damage, folder_of(settings))
        for tool, arguments in (("agent_poll", {"job_id": started["job_id"]}), ("agent_start", {"prompt": "hi"})):
            assert "Ask the user to move it away" in await host.refused(tool, **arguments)
        await eventually(lambda: any("cannot write down" in record.message for record in caplog.records))
        [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
        logged = [
            record for record in caplog.records if record.levelno >= logging.ERROR and run["id"] in record.message
        ]
        assert started["job_id"] in logged[0].message
        assert "is damaged" in await host.refused("agent_poll", job_id=started["job_id"])
        move_away(folder_of(settings))
        assert await end_once_there(host, started["job_id"]) == "kept"
    async with hosting(settings) as after:
        assert (await after.end(started["job_id"]))["output"] == "kept"
    assert upstream.emulator.counters()["creates"] == 1


async def end_once_there(host: Host, job_id: str) -> str:
    """The job's output, as soon as the database knows the job again."""
    with anyio.fail_after(60):
        while (await host.client.call_tool("agent_poll", {"job_id": job_id, "wait_s": 0})).is_error:  # noqa: ASYNC110
            await anyio.sleep(0.1)
    return (await host.end(job_id))["output"]


async def test_what_a_damaged_database_still_gives_is_carried_over_when_it_is_moved_away(settings: Settings) -> None:
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
    """Damage the pages where outputs stand, and nothing else."""
    path = folder / "jobs.db"
    [(root,)] = changed(
        path, "UPDATE job SET title = title || ' '", "SELECT rootpage FROM sqlite_schema WHERE name = 'output'"
    )
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)


async def test_a_row_that_holds_nonsense_is_told_as_damage(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1})
        await host.end(started["job_id"])
        await to_thread.run_sync(changed, folder_of(settings) / "jobs.db", "UPDATE request SET body = 'no json'")
        assert "Ask the user to move it away" in await host.refused("agent_poll", job_id=started["job_id"])
