"""Every bad input is answered with the next step, and costs nothing."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from hosts import SPEED, eventually, hosting

from agent_jobs.emulator.server import RunningServer
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "misspelt argument": ("agent_start", {"promt": "hi"}, "Did you mean 'prompt'?"),
    "argument of another tool": (
        "agent_poll",
        {"job_id": "x", "model": "y"},
        "Use one of job_id, job_ids, batch, wait_s",
    ),
    "missing argument": ("agent_result", {}, "job_id: field required"),
    "nothing to do": ("agent_start", {}, "Give either prompt, or prompts"),
    "two ways to say what to do": ("agent_start", {"prompt": "a", "prompts": ["b"]}, "Give either prompt, or prompts"),
    "no prompts": ("agent_start", {"prompts": []}, "Give either prompt, or prompts"),
    "too many prompts": ("agent_start", {"prompts": ["x"] * 21}, "1 to 20 strings"),
    "an empty one of several prompts": ("agent_start", {"prompts": ["x", ""]}, "prompt is empty"),
    "a key for several jobs": ("agent_start", {"prompts": ["a", "b"], "options": {"key": "k"}}, "one by one"),
    "a long batch name": ("agent_start", {"prompt": "a", "batch": "b" * 61}, "at most 60 characters"),
    "two ways to say which jobs": (
        "agent_poll",
        {"job_id": "a", "batch": "b"},
        "Give one of job_id, job_ids and batch",
    ),
    "unknown batch": ("agent_poll", {"batch": "b"}, "There is no batch 'b'"),
    "cancel of nothing in particular": ("agent_cancel", {}, "Give job_id, job_ids or batch."),
    "unknown status": ("agent_list", {"status": "runing"}, "status does not accept 'runing'"),
    "unknown previous job": ("agent_start", {"prompt": "a", "previous_job_id": "job_x"}, "There is no job 'job_x'"),
    "wrong type": ("agent_start", {"prompt": 3}, "prompt: input should be a valid string"),
    "negative wait": ("agent_poll", {"job_id": "x", "wait_s": -1}, "wait_s: input should be greater than"),
    "empty prompt": ("agent_start", {"prompt": " \n"}, "prompt is empty"),
    "unknown effort": ("agent_start", {"prompt": "hi", "effort": "hihg"}, "Did you mean 'high'?"),
    "unknown option": ("agent_start", {"prompt": "hi", "options": {"instruction": ""}}, "Did you mean 'instructions'?"),
    "custom tool": (
        "agent_start",
        {"prompt": "hi", "options": {"tools": [{"type": "custom"}]}},
        "custom tools yet",
    ),
    "no tool": ("agent_start", {"prompt": "hi", "options": {"tools": "web"}}, "list of hosted tools"),
    "few tokens": ("agent_start", {"prompt": "hi", "options": {"max_output_tokens": 3}}, "at least 16"),
    "metadata": ("agent_start", {"prompt": "hi", "options": {"metadata": {"job_id": "mine"}}}, "job_id is ours"),
    "verbosity": ("agent_start", {"prompt": "hi", "options": {"verbosity": "loud"}}, "Use one of low, medium, high"),
    "no instructions": ("agent_start", {"prompt": "hi", "options": {"instructions": 3}}, "accepts a non-empty string"),
    "unknown job": ("agent_poll", {"job_id": "job_none"}, "There are no jobs yet; agent_start makes one."),
    "cancel of an unknown job": ("agent_cancel", {"job_id": "job_none"}, "There is no job 'job_none'"),
    "result of an unknown job": ("agent_result", {"job_id": "job_none"}, "There is no job 'job_none'"),
}


@pytest.mark.parametrize(("tool", "arguments", "expected"), REFUSED.values(), ids=REFUSED)
async def test_bad_argument_is_refused_in_a_sentence_and_starts_nothing(
    settings: Settings, upstream: RunningServer, tool: str, arguments: dict[str, Any], expected: str
) -> None:
    async with hosting(settings) as host:
        sentence = await host.refused(tool, **arguments)
    assert expected in sentence
    assert len(sentence) <= 300
    assert "pydantic" not in sentence
    assert upstream.emulator.counters()["creates"] == 0


async def test_unknown_job_is_answered_with_the_three_newest(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = [await host.start(f"task {n}", emulate={"duration_s": 1}) for n in range(4)]
        sentence = await host.refused("agent_poll", job_id="job_none")
    newest = [answer["job_id"] for answer in started[:0:-1]]
    assert [word for word in sentence.split() if word.startswith("job_")] == newest
    assert "task 3" in sentence


ENDED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "wrong key": ({"api_key": SecretStr("invalid")}, {}, "invalid_api_key", "OPENAI_API_KEY"),
    "unknown model": ({}, {"model": "gpt-none"}, "model_not_found", "another model"),
    "no API there": ({"base_url": "/elsewhere"}, {}, "no_such_endpoint", "OPENAI_BASE_URL"),
}


@pytest.mark.parametrize(("changed", "arguments", "code", "expected"), ENDED.values(), ids=ENDED)
async def test_refusal_by_upstream_fails_the_job_with_a_next_step(
    settings: Settings,
    upstream: RunningServer,
    changed: dict[str, Any],
    arguments: dict[str, Any],
    code: str,
    expected: str,
) -> None:
    if "base_url" in changed:
        changed = {"base_url": upstream.url + changed["base_url"]}
    async with hosting(replace(settings, **changed)) as host:
        answer = await host.start(**arguments, wait_s=5)
    assert answer["status"] == "failed"
    assert answer["error"]["code"] == code
    assert "retryable" not in answer["error"]
    assert expected in answer["next"]


async def test_exhausted_quota_is_not_waited_out(settings: Settings, upstream: RunningServer) -> None:
    body = {
        "error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "You exceeded your quota."}
    }
    upstream.queue_fault(on="create", status=429, body=body)
    async with hosting(settings) as host:
        answer = await host.start(wait_s=5)
    assert answer["error"] == {"code": "insufficient_quota", "message": "You exceeded your quota."}
    assert "credit" in answer["next"]
    assert upstream.emulator.counters()["creates"] == 1


async def test_stored_jobs_can_be_read_without_a_key(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "mine"})
        await host.end(started["job_id"])
    async with hosting(replace(settings, api_key=None)) as host:
        assert (await host.call("agent_poll", job_id=started["job_id"]))["output"] == "mine"
        assert "agent-jobs key set" in await host.refused("agent_start", prompt="hi")


def newer(folder: Path) -> None:
    with sqlite3.connect(folder / "jobs.db") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


def corrupt(folder: Path) -> None:
    (folder / "jobs.db").write_bytes(b"this is no database" * 100)


def a_file_in_the_way(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a newer version's": (newer, "update agent-jobs"),
    "damaged": (corrupt, "Ask the user to move it away"),
    "not a folder": (a_file_in_the_way, "set AGENT_JOBS_DATA_DIR"),
}


@pytest.mark.parametrize(("spoil", "expected"), BROKEN.values(), ids=BROKEN)
async def test_unusable_database_is_reported_and_works_once_it_is_fixed(
    settings: Settings, spoil: Callable[[Path], None], expected: str
) -> None:
    folder = settings.data_dir
    assert folder is not None
    folder.mkdir()
    spoil(folder)
    async with hosting(settings) as host:
        assert expected in await host.refused("agent_start", prompt="hi")
        if folder.is_dir():
            (folder / "jobs.db").unlink()
        else:
            folder.unlink()
        answer = await host.start(emulate={"duration_s": 1})
        assert answer["status"] == "queued"


async def test_sent_start_answers_with_its_id_even_if_the_database_is_locked(
    settings: Settings, upstream: RunningServer
) -> None:
    assert settings.data_dir is not None
    upstream.queue_fault(on="create", delay_s=2 * SPEED)
    async with hosting(settings) as host:
        await host.call("agent_list")
        database = sqlite3.connect(settings.data_dir / "jobs.db", isolation_level=None, check_same_thread=False)
        answers: list[dict[str, Any]] = []

        async def start() -> None:
            answers.append(await host.start(emulate={"duration_s": 1, "text": "safe"}, wait_s=30))

        with closing(database) as other:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start)
                await eventually(lambda: upstream.emulator.counters()["creates"] == 1)
                await to_thread.run_sync(other.execute, "BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        assert (await host.end(answers[0]["job_id"]))["output"] == "safe"
    assert upstream.emulator.counters()["creates"] == 1


async def test_locked_database_is_reported_and_loses_nothing(settings: Settings) -> None:
    async with hosting(settings) as host:
        started = await host.start(emulate={"duration_s": 1, "text": "safe"})
        assert settings.data_dir is not None
        other = sqlite3.connect(settings.data_dir / "jobs.db", isolation_level=None, check_same_thread=False)
        await to_thread.run_sync(other.execute, "BEGIN IMMEDIATE")  # our own loop may have to let go of it first
        assert "locked by another program" in await host.refused("agent_start", prompt="hi")
        other.execute("ROLLBACK")
        other.close()
        assert (await host.end(started["job_id"]))["output"] == "safe"
