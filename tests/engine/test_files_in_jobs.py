"""Files attached to a job and files that it makes, through the tools, with real files."""

import base64
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from hosts import SPEED, Host, eventually, hosting
from processes import serving

from agent_jobs.emulator.server import RunningServer, run_emulator
from agent_jobs.settings.settings import Settings
from agent_jobs.text import compact_json

CODE: dict[str, Any] = {"tools": [{"type": "code_interpreter"}]}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + (7).to_bytes(4, "big") * 2 + bytes(9)
PDF = b"%PDF-1.7\n1 0 obj << /Type /Page >> endobj\n"
CSV = b"year,sum\n2025,1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(settings: Settings, root: Path) -> Settings:
    return replace(settings, file_roots=(root,))


def count_uploads(upstream: RunningServer) -> tuple[int, int, int]:
    """Return the numbers of uploads, of deletes, and of files left at the provider."""
    counters = upstream.emulator.counters()
    return counters["uploads"], counters["file_deletes"], counters["files_left"]


def list_operations(upstream: RunningServer) -> list[str]:
    return [entry["operation"] for entry in upstream.emulator.log() if entry["entry"] == "request"]


def read_sent_parts(settings: Settings, started: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the content parts that upstream stored for a response, in their order."""
    address = f"{settings.base_url}/responses/{started['response_id']}/input_items"
    [item] = httpx2.get(address, headers={"Authorization": "Bearer test"}).json()["data"]
    return item["content"]


async def wait_until_nothing_left(upstream: RunningServer) -> None:
    await eventually(lambda: count_uploads(upstream)[2] == 0)


# Attachments.


async def test_text_image_and_pdf_reach_upstream_as_parts_of_the_message(settings: Settings, root: Path) -> None:
    (root / "notes.md").write_text("# Überschrift\n")
    (root / "plot.png").write_bytes(PNG)
    (root / "paper.pdf").write_bytes(PDF)
    (root / "src").mkdir()
    (root / "src/a.py").write_text("a = 1\n")
    (root / "src/b.py").write_text("b = 2\n")
    (root / "src/b.bin").write_bytes(b"\0\1")
    async with hosting(settings) as host:
        started = await host.start(files=["notes.md", str(root / "plot.png"), "paper.pdf", "**/*.py"])
        prompt, notes, named, image, pdf, *sources = read_sent_parts(settings, started)
    assert prompt["type"] == "input_text"
    assert notes["text"] == '<file name="notes.md">\n# Überschrift\n</file>'
    assert named["text"] == '<image name="plot.png"/>'
    assert base64.b64decode(image["image_url"].removeprefix("data:image/png;base64,")) == PNG
    assert pdf["filename"] == "paper.pdf"
    assert base64.b64decode(pdf["file_data"].removeprefix("data:application/pdf;base64,")) == PDF
    assert [part["text"].splitlines()[:2] for part in sources] == [
        ['<file name="src/a.py">', "a = 1"],
        ['<file name="src/b.py">', "b = 2"],
    ]


def outside(root: Path) -> str:
    (root.parent / "secret.txt").write_text("no")
    return str(root.parent / "secret.txt")


def make_link(root: Path) -> str:
    (root / "link").symlink_to(outside(root))
    return "link"


def fifo(root: Path) -> str:
    os.mkfifo(root / "pipe")
    return "pipe"


def gigabyte(root: Path) -> str:
    with (root / "huge.txt").open("wb") as file:
        file.truncate(2**30)
    return "huge.txt"


def folder_not_to_be_entered(root: Path) -> str:
    (root / "loop").symlink_to(root / "loop")
    return "loop"


def upwards(root: Path) -> str:
    outside(root)
    return "../secret.txt"


def nothing(root: Path) -> str:
    return "nothing-*.txt"


def key(root: Path) -> str:
    (root / ".env").write_text("OPENAI_API_KEY=sk-1")
    return ".env"


@pytest.mark.parametrize(
    ("make_file", "why"),
    [
        (outside, "is outside of the folders that may be read"),
        (make_link, "leaves"),
        (fifo, "pipe"),
        (gigabyte, "1.0 GiB"),
        (folder_not_to_be_entered, "loop"),
        (upwards, "without '..'"),
        (key, ".env"),
        (nothing, "Nothing matches"),
    ],
)
async def test_forbidden_file_is_refused_in_one_sentence_and_no_job_starts(
    settings: Settings, upstream: RunningServer, root: Path, make_file: Any, why: str
) -> None:
    pattern = make_file(root)
    async with hosting(settings) as host:
        message = await host.refused("agent_start", prompt="read it", files=[pattern])
        listed = await host.call("agent_list")
    assert why in message
    assert message.endswith(".")
    assert "\n" not in message
    assert listed["jobs"] == []
    assert list_operations(upstream) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_unreadable_file_is_refused(settings: Settings, root: Path) -> None:
    (root / "locked.txt").write_text("no")
    (root / "locked.txt").chmod(0)
    async with hosting(settings) as host:
        assert "locked.txt" in await host.refused("agent_start", prompt="read it", files=["locked.txt"])


async def test_no_file_is_attached_without_roots(settings: Settings, upstream: RunningServer, root: Path) -> None:
    (root / "a.txt").write_text("a")
    async with hosting(replace(settings, file_roots=())) as host:
        message = await host.refused("agent_start", prompt="read it", files=[str(root / "a.txt")])
    assert "AGENT_JOBS_FILE_ROOTS" in message
    assert list_operations(upstream) == []


async def test_identical_start_is_the_same_job_until_a_file_changes(settings: Settings, root: Path) -> None:
    async with hosting(settings) as host:
        ids: list[str] = []
        for content in ("one", "one", "two"):
            (root / "a.txt").write_text(content)
            ids.append((await host.start("sum up", emulate={"end": "never"}, files=["a.txt"]))["job_id"])
        for content in (b"1,2\n", b"1,2\n", b"1,3\n"):
            (root / "a.csv").write_bytes(content)
            again = await host.start("count", emulate={"end": "never"}, files=["a.csv"], options=CODE)
            ids.append(again["job_id"])
    assert ids[0] == ids[1] != ids[2]
    assert ids[3] == ids[4] != ids[5]


async def test_dry_run_lists_as_many_files_as_fit_and_sends_none(
    settings: Settings, upstream: RunningServer, root: Path
) -> None:
    for number in range(200):
        (root / f"{number:03}.csv").write_text(f"{number}\n")
    async with hosting(settings) as host:
        answer = await host.call("agent_start", prompt="x", files=["*.csv"], options={**CODE, "dry_run": True})
    assert len(compact_json(answer).encode()) <= 4_500
    assert len(answer["files"]) + answer["more_files"] == 200
    assert answer["files"][0] == {"name": "000.csv", "bytes": 2, "kind": "data"}
    assert list_operations(upstream) == []


# Uploads for the code interpreter.


async def test_data_files_are_uploaded_before_the_start_and_removed_after_the_end(
    settings: Settings, upstream: RunningServer, root: Path
) -> None:
    (root / "sums.csv").write_bytes(CSV)
    (root / "more.tsv").write_bytes(b"a\tb\n")
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 2, "text": "2"}, files=["*.?sv"], options=CODE)
        assert count_uploads(upstream) == (2, 0, 2)
        assert len(read_sent_parts(settings, started)) == 1, "only the prompt"
        answer = await host.end(started["job_id"])
        await wait_until_nothing_left(upstream)
    assert count_uploads(upstream) == (2, 2, 0)
    assert answer["output"] == "2"
    assert list_operations(upstream)[:3] == ["upload", "upload", "create"]
    files = [entry for entry in upstream.emulator.log() if entry["entry"] == "file"]
    assert sorted(file["filename"] for file in files) == ["more.tsv", "sums.csv"]


@pytest.mark.parametrize("end", ["failed", "incomplete", "refusal"])
async def test_uploads_are_removed_after_every_kind_of_end(
    settings: Settings, upstream: RunningServer, root: Path, end: str
) -> None:
    (root / "sums.csv").write_bytes(CSV)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "end": end}, files=["sums.csv"], options=CODE)
        await host.end(started["job_id"])
        await wait_until_nothing_left(upstream)
    assert count_uploads(upstream) == (1, 1, 0)


async def test_uploads_of_a_cancelled_run_are_removed(settings: Settings, upstream: RunningServer, root: Path) -> None:
    (root / "sums.csv").write_bytes(CSV)
    async with hosting(settings) as host:
        started = await host.start(emulate={"end": "never"}, files=["sums.csv"], options=CODE)
        answer = await host.call("agent_cancel", job_id=started["job_id"])
        assert answer["status"] == "cancelled"
        await wait_until_nothing_left(upstream)


@pytest.mark.parametrize(
    ("on", "status"), [("create", 400), ("create", 401), ("upload", 400), ("upload", 401)], ids=str
)
async def test_uploads_of_a_job_that_upstream_refuses_are_removed(
    settings: Settings, upstream: RunningServer, root: Path, on: str, status: int
) -> None:
    (root / "a.csv").write_bytes(CSV)
    (root / "b.csv").write_bytes(CSV)
    upstream.queue_fault(on=on, status=status, skip=1 if on == "upload" else 0)
    async with hosting(settings) as host:
        answer = await host.start(files=["a.csv", "b.csv"], options=CODE, wait_s=5)
        assert answer["status"] == "failed"
        await wait_until_nothing_left(upstream)
    assert count_uploads(upstream)[0] == 2
    assert list_operations(upstream).count("create") == (on == "create")


async def test_job_cancelled_during_its_uploads_leaves_none_of_them(
    settings: Settings, upstream: RunningServer, root: Path
) -> None:
    (root / "a.csv").write_bytes(CSV)
    (root / "b.csv").write_bytes(CSV)
    upstream.queue_fault(on="upload", skip=1, delay_s=10 * SPEED)  # taken at once, answered late
    async with hosting(settings, speed=1) as host:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.client.call_tool, "agent_start", {"prompt": "x", "files": ["*.csv"], "options": CODE})
            await eventually(lambda: count_uploads(upstream)[0] == 2)
            [row] = (await host.call("agent_list"))["jobs"]
            assert (await host.call("agent_cancel", job_id=row["job_id"]))["status"] == "cancelled"
        await eventually(lambda: count_uploads(upstream)[2] == 0)
    assert "create" not in list_operations(upstream)


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 500}, {"drop": "before_headers"}, {"status": 429}], ids=str
)
async def test_failed_upload_is_repeated_before_anything_is_sent(
    settings: Settings, upstream: RunningServer, root: Path, fault: dict[str, Any]
) -> None:
    (root / "sums.csv").write_bytes(CSV)
    upstream.queue_fault(on="upload", times=2, **fault)
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "2"}, files=["sums.csv"], options=CODE)
        assert started["status"] == "pending"
        assert "trying again" in started.get("activity", "trying again")  # a busy machine answers before that is known
        assert "create" not in list_operations(upstream)
        assert (await host.end(started["job_id"]))["output"] == "2"
        await wait_until_nothing_left(upstream)
    assert list_operations(upstream)[:4] == ["upload", "upload", "upload", "create"]


async def test_unconfirmed_start_keeps_its_files_until_it_is_adopted_and_ends(
    settings: Settings, upstream: RunningServer, root: Path
) -> None:
    (root / "sums.csv").write_bytes(CSV)
    upstream.queue_fault(on="create", drop="after_accept")
    async with hosting(settings) as host:
        started = await host.start(
            emulate={"duration_s": 5, "text": "paid for"}, files=["sums.csv"], options=CODE, wait_s=5
        )
        assert started["error"]["code"] == "start_unconfirmed"
        await host.call("agent_poll", job_id=started["job_id"])  # which waits for what follows an end
        assert count_uploads(upstream) == (1, 0, 1)
        [run] = [entry for entry in upstream.emulator.log() if entry["entry"] == "response"]
        await (await host.app.engine()).adopt(started["job_id"], run["id"])
        assert (await host.end(started["job_id"]))["output"] == "paid for"
        await wait_until_nothing_left(upstream)


async def test_follow_up_has_the_tools_without_the_removed_files(
    settings: Settings, upstream: RunningServer, root: Path
) -> None:
    (root / "sums.csv").write_bytes(CSV)
    async with hosting(settings) as host:
        first = await host.start(emulate={"duration_s": 1}, files=["sums.csv"], options=CODE)
        await host.end(first["job_id"])
        second = await host.start(emulate={"duration_s": 1, "text": "on"}, previous_job_id=first["job_id"])
        assert (await host.end(second["job_id"]))["output"] == "on"
        third = await host.start(
            emulate={"duration_s": 1, "text": "and on"}, previous_job_id=first["job_id"], files=["sums.csv"]
        )
        assert (await host.end(third["job_id"]))["output"] == "and on"
    assert count_uploads(upstream) == (2, 2, 0), "the inherited code interpreter gets the new file"


async def test_files_of_the_same_name_under_roots_of_the_same_name_are_all_uploaded(
    settings: Settings, upstream: RunningServer, tmp_path: Path
) -> None:
    roots = [tmp_path / each / "data" for each in ("x", "y", "z")]
    for number, folder in enumerate(roots):
        folder.mkdir(parents=True)
        (folder / "sums.csv").write_text(f"{number}\n")
    async with hosting(replace(settings, file_roots=tuple(roots))) as host:
        started = await host.start(emulate={"duration_s": 1}, files=["sums.csv"], options=CODE)
        await host.end(started["job_id"])
    files = [entry for entry in upstream.emulator.log() if entry["entry"] == "file"]
    assert len({file["sha256"] for file in files}) == 3
    assert len({file["filename"] for file in files}) == 3


def test_uploads_of_a_killed_server_are_removed_by_the_next(tmp_path: Path, root: Path) -> None:
    (root / "sums.csv").write_bytes(CSV)
    with run_emulator(time_scale=SPEED) as upstream:
        with serving(tmp_path / "data", upstream.base_url, AGENT_JOBS_FILE_ROOTS=str(root)) as server:
            server.initialize()
            prompt = 'work [emulate {"duration_s": 20, "text": "2"}]'
            started = server.call("agent_start", prompt=prompt, files=["sums.csv"], options=CODE, wait_s=0)
            server.process.kill()
        assert count_uploads(upstream) == (1, 0, 1)
        with serving(tmp_path / "data", upstream.base_url) as server:
            server.initialize()
            assert server.call("agent_poll", job_id=started["job_id"])["output"] == "2"
            assert count_uploads(upstream) == (1, 1, 0)


def test_upload_of_a_killed_server_is_used_by_the_next_one(tmp_path: Path, root: Path) -> None:
    (root / "a.csv").write_bytes(CSV)
    (root / "b.csv").write_bytes(CSV)
    with run_emulator(time_scale=SPEED) as upstream:
        upstream.queue_fault(on="upload", skip=1, status=503, times=1)
        with serving(tmp_path / "data", upstream.base_url, AGENT_JOBS_FILE_ROOTS=str(root)) as server:
            server.initialize()
            prompt = 'work [emulate {"duration_s": 1, "text": "2"}]'
            started = server.call("agent_start", prompt=prompt, files=["*.csv"], options=CODE, wait_s=0)
            assert started["status"] == "pending"
            server.process.kill()
        assert count_uploads(upstream) == (2, 0, 1)
        with serving(tmp_path / "data", upstream.base_url) as server:
            server.initialize()
            assert server.call("agent_poll", job_id=started["job_id"])["output"] == "2"
            assert count_uploads(upstream) == (3, 2, 0), "the first file went up once"


# Files that a run makes.


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the content of the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def list_beside(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def read_only(folder: Path) -> Generator[None]:
    """Put a file in the folder's place, so that no process can write to it, not even root's."""
    folder.write_text("in the way")
    yield
    folder.unlink()


async def run_file_job(host: Host, **emulate: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a finished job that wrote files, and its list of files."""
    started = await host.start(emulate={"duration_s": 1, "text": "see the files", **emulate}, options=CODE)
    return await host.end(started["job_id"]), await wait_for_files(host, started["job_id"])


async def wait_for_files(host: Host, job_id: str) -> list[dict[str, Any]]:
    """Return the files of a job once all of them are on disk."""
    with anyio.fail_after(60):
        while True:
            answer = await host.call("agent_result", job_id=job_id, part="files", max_bytes=100_000)
            if all("path" in file for file in answer["files"]):
                return answer["files"]


@pytest.mark.parametrize("with_folder", [True, False], ids=["result folder", "data folder"])
async def test_images_and_files_of_a_run_are_written_and_listed(
    settings: Settings, tmp_path: Path, with_folder: bool
) -> None:
    settings = replace(settings, result_dir=tmp_path / "results" if with_folder else None)
    async with hosting(settings) as host:
        answer, files = await run_file_job(
            host, images=2, image_px=20, container_files=[{"filename": "table.csv", "text": "a,b\n"}]
        )
    below = tmp_path / "results" if with_folder else tmp_path / "data" / "made"
    assert len(files) == 3
    contents = read_folder(below / answer["job_id"])
    assert contents.keys() == {file["name"] for file in files} == {Path(file["path"]).name for file in files}
    assert {Path(file["path"]).parent for file in files} == {below / answer["job_id"]}
    assert all(len(contents[file["name"]]) == file["bytes"] for file in files)
    assert contents.pop("table.csv") == b"a,b\n"
    assert all(image.startswith(b"\x89PNG") for image in contents.values())


#: The first bytes of each kind of image, and the suffix that its file must get.
PICTURES = {
    ".jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    ".webp": b"RIFF\x24\0\0\0WEBPVP8 ",
    ".gif": b"GIF89a\x01\0\x01\0",
    ".svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    ".avif": b"\0\0\0\x20ftypavif",
    ".png": b"\x89PNG\r\n\x1a\n\0",
}


@pytest.mark.parametrize("suffix", PICTURES)
async def test_picture_gets_the_suffix_of_its_real_format(settings: Settings, suffix: str) -> None:
    async with hosting(settings) as host:
        picture = base64.b64encode(PICTURES[suffix] * 9).decode()
        _, [file] = await run_file_job(host, images=1, image_base64=picture)
    path = Path(file["path"])
    assert (path.suffix, read_folder(path.parent)) == (suffix, {path.name: PICTURES[suffix] * 9})


async def test_file_linked_only_in_the_text_is_fetched(settings: Settings) -> None:
    given = [{"filename": "my table.csv", "text": "a,b\n"}, {"filename": "other.txt", "text": "not linked"}]
    text = "See [the table](sandbox:/mnt/data/my%20table.csv) and [this](sandbox:/mnt/data/none.txt)."
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": text, "container_files": given}, options=CODE)
        answer = await host.end(started["job_id"])
        assert "agent_result part=files" in answer["warning"]
        with anyio.fail_after(60):
            while True:
                files = (await host.call("agent_result", job_id=started["job_id"], part="files"))["files"]
                if "path" in files[0]:
                    break
    [saved, lost] = files
    assert read_folder(Path(saved["path"]).parent) == {"my-table.csv": b"a,b\n"}
    assert (lost["type"], lost["link"]) == ("sandbox_file", "sandbox:/mnt/data/none.txt")


async def test_names_that_upstream_gives_stay_in_the_jobs_folder_and_apart(settings: Settings, tmp_path: Path) -> None:
    names = [
        "../../x", "/etc/passwd", "", "..", ".", "a" * 300 + ".csv", "a" * 300 + ".csv", "nul\0name.csv", "A.txt",
        "a.txt", "..\\..\\w.txt", "😀.txt", "𝔘" * 200 + ".txt", "a b.txt",
        "a/b.txt", "a/c/b.txt",
    ]  # fmt: skip
    given = [{"filename": name, "text": f"content {number}"} for number, name in enumerate(names)]
    async with hosting(replace(settings, result_dir=tmp_path / "results")) as host:
        answer, files = await run_file_job(host, container_files=given)
    folder = tmp_path / "results" / answer["job_id"]
    assert sorted(read_folder(folder).values()) == sorted(file["text"].encode() for file in given)
    assert {Path(file["path"]).parent for file in files} == {folder}
    assert len({file["name"].casefold() for file in files}) == len(names)
    assert sum(file["name"].endswith(".csv") for file in files) == 3
    assert list_beside(tmp_path) == {"results", "data", "root"}


async def test_list_of_many_files_is_read_in_pages(settings: Settings) -> None:
    given = [{"filename": f"part-{number}.csv", "text": str(number)} for number in range(30)]
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "container_files": given})
        await host.end(started["job_id"])
        await wait_for_files(host, started["job_id"])
        files: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"job_id": started["job_id"], "part": "files", "max_bytes": 700}
        while True:
            page = await host.call("agent_result", **asked)
            files += page["files"]
            if "next" not in page:
                break
            asked["offset"] = int(page["next"].rpartition("offset=")[2])
            assert len(page["files"]) < 30
    assert len({file["path"] for file in files}) == 30


async def test_unwritable_folder_delays_no_result_and_gets_its_files_later(
    settings: Settings, upstream: RunningServer, root: Path, tmp_path: Path
) -> None:
    (root / "sums.csv").write_bytes(CSV)
    results = tmp_path / "results"
    given = [{"filename": "table.csv", "text": "a,b\n"}]
    with read_only(results):
        async with hosting(replace(settings, result_dir=results)) as host:
            started = await host.start(
                emulate={"duration_s": 1, "text": "here", "container_files": given}, files=["sums.csv"], options=CODE
            )
            assert (await host.end(started["job_id"]))["output"] == "here"
            await wait_until_nothing_left(upstream)
            again = await host.start(emulate={"duration_s": 1, "text": "here too"}, batch="b")
            with anyio.fail_after(60):
                while "done" not in (poll_answer := await host.call("agent_poll", batch="b")):
                    pass
            assert poll_answer["done"][0]["output"] == "here too"
            results.unlink()
            await eventually(lambda: len([*results.glob("*.md")]) == 2)
            files = await wait_for_files(host, started["job_id"])
            later = await host.end(again["job_id"])
        results.rename(tmp_path / "kept")
        results.touch()
    assert [file["name"] for file in files] == ["table.csv"]
    assert later["result_path"].endswith(".md")


async def test_missing_container_costs_no_other_file(
    settings: Settings, upstream: RunningServer, root: Path, tmp_path: Path
) -> None:
    (root / "sums.csv").write_bytes(CSV)
    upstream.queue_fault(on="download", status=404, times=-1)
    given = [{"filename": "table.csv", "text": "a,b\n"}]
    async with hosting(replace(settings, result_dir=tmp_path / "results")) as host:
        started = await host.start(
            emulate={"duration_s": 1, "images": 1, "container_files": given}, files=["sums.csv"], options=CODE
        )
        answer = await host.end(started["job_id"])
        files = (await host.call("agent_result", job_id=started["job_id"], part="files"))["files"]
        meta = (await host.call("agent_result", job_id=started["job_id"], part="meta"))["meta"]
    assert Path(answer["result_path"]).name in read_folder(tmp_path / "results")
    assert [Path(file["path"]).suffix for file in files] == [".png"]
    assert any(" unsettled " in event for event in meta["events"])
    assert count_uploads(upstream) == (1, 1, 0)


def test_files_are_fetched_by_the_next_process_after_a_kill(tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    files = '"container_files": [{"filename": "table.csv", "text": "a,b"}]'
    with run_emulator(time_scale=SPEED) as upstream:
        upstream.queue_fault(on="download", hang=True)
        with serving(data, upstream.base_url, AGENT_JOBS_RESULT_DIR=str(results)) as server:
            server.initialize()
            prompt = f'work [emulate {{"duration_s": 1, "text": "2", {files}}}]'
            started = server.call("agent_start", prompt=prompt, wait_s=0)
            answer = server.call("agent_poll", job_id=started["job_id"])
            assert answer["output"] == "2"
            assert "result_path" not in answer
            server.process.kill()
        assert not results.exists()
        with serving(data, upstream.base_url, AGENT_JOBS_RESULT_DIR=str(results)) as server:
            server.initialize()
            while "result_path" not in (answer := server.call("agent_poll", job_id=started["job_id"], wait_s=1)):
                pass
            [file] = server.call("agent_result", job_id=started["job_id"], part="files")["files"]
    assert Path(answer["result_path"]).parent == results
    assert Path(file["path"]).read_text() == "a,b"
