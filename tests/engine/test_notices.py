"""Notices of jobs: to the desktop, ntfy, Slack and webhooks, each event once."""

import base64
import hashlib
import hmac
import json
import logging
import socket
import sys
from collections.abc import Generator
from dataclasses import replace
from email.header import decode_header
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hosts import eventually, hosting
from receiver import Received, Receiver, receiving
from test_asking import script as asking_script
from test_costs import DOLLAR, PRICES
from test_notify import Ear, ear

from agent_jobs.cli.main import cli
from agent_jobs.clock import create_fast_clock
from agent_jobs.engine.on_finish import AT_ONCE
from agent_jobs.notices.daily import claim_day
from agent_jobs.notices.desktop import build_command
from agent_jobs.notices.notice import Notice, make_notice
from agent_jobs.notices.requests import build_request
from agent_jobs.notices.sender import ATTEMPTS, NoticeSender
from agent_jobs.settings.notice_targets import NoticeTarget
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.values import SecretStr

__all__ = ["ear"]

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OUTPUT = "an output that no notice may have"
TITLE = "Größe <!channel> & *all* 東京"


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with receiving() as receiver:
        yield receiver


def notice_target(kind: str, address: str = "") -> NoticeTarget:
    return NoticeTarget(kind, SecretStr(address))


def with_targets(settings: Settings, *targets: NoticeTarget, **more: Any) -> Settings:
    return replace(settings, **{"notify": targets, "notify_min_s": 0.0, **more})


def read_notice(received: Received) -> dict[str, Any]:
    return json.loads(received.body)


def verify_signature(received: Received, secret: str) -> bool:
    """Check a signature as the specification tells receivers to."""
    message = b".".join(
        (received.headers["webhook-id"].encode(), received.headers["webhook-timestamp"].encode(), received.body)
    )
    digest = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), message, hashlib.sha256)
    signatures = [each.split(",") for each in received.headers["webhook-signature"].split(" ")]
    return ["v1", base64.b64encode(digest).decode()] in signatures


# Notices that are sent.


async def test_finished_job_is_sent_to_each_kind_of_target(settings: Settings, receiver: Receiver) -> None:
    kinds = ("webhook", "slack", "ntfy")
    targets = [notice_target(kind, f"{receiver.url}/{kind}") for kind in kinds]
    async with hosting(with_targets(settings, *targets, notify_secret=SecretStr(SECRET))) as host:
        job = await host.start(TITLE, emulate={"duration_s": 0.2, "text": OUTPUT}, batch="night")
        await eventually(lambda: len(receiver.received) == 3)
    got = {each.path.strip("/"): each for each in receiver.received}
    webhook = read_notice(got["webhook"])
    assert (webhook["type"], webhook["timestamp"][-1]) == ("finished", "Z")
    assert webhook["data"].pop("title").startswith(TITLE)
    assert webhook["data"].pop("elapsed_s") >= 0
    assert webhook["data"] == {
        "job_id": job["job_id"], "status": "completed", "model": "gpt-6.1-sol", "batch": "night",
    }  # fmt: skip
    assert verify_signature(got["webhook"], SECRET)
    assert not verify_signature(got["webhook"], SECRET[:6] + "A" + SECRET[7:])
    slack = read_notice(got["slack"])["text"]
    assert slack.startswith("agent-jobs: a job is completed\nGröße &lt;!channel&gt; &amp; *all* 東京")
    assert got["ntfy"].headers["Title"] == "agent-jobs: a job is completed"
    assert (got["ntfy"].headers["Tags"], got["ntfy"].headers["Priority"]) == ("white_check_mark", "3")
    assert got["ntfy"].body.decode().startswith(TITLE)
    assert not any(OUTPUT.encode() in each.body for each in receiver.received)


async def test_question_and_end_are_sent_as_separate_events(settings: Settings, receiver: Receiver) -> None:
    async with hosting(with_targets(settings, notice_target("webhook", receiver.url))) as host:
        job = await host.start(**asking_script(function_calls=[{"name": "lookup", "arguments": {"word": "one"}}]))
        await eventually(lambda: len(receiver.received) == 1)
        asked = await host.call("agent_poll", job_id=job["job_id"])
        output = {"call_id": asked["needs"][0]["call_id"], "output": OUTPUT}
        await host.call("agent_reply", job_id=job["job_id"], outputs=[output])
        await eventually(lambda: len(receiver.received) == 2)
    assert [read_notice(each)["type"] for each in receiver.received] == ["needs_input", "finished"]
    assert read_notice(receiver.received[0])["data"].keys() == {"job_id", "title", "status", "model", "elapsed_s"}
    assert "webhook-signature" not in receiver.received[0].headers


async def test_refusal_by_the_budget_is_sent_once_a_day(settings: Settings, receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    settings = with_targets(settings, notice_target("webhook", receiver.url))
    settings = replace(settings, prices=tmp_path / "prices.toml", daily_budget_usd=1.1)
    async with hosting(settings) as host:
        await host.start("within it", emulate={"end": "never"}, options=DOLLAR)
        await host.refused("agent_start", prompt="over it", options=DOLLAR)
        await host.refused("agent_start", prompt="over it again", options=DOLLAR)
    async with hosting(settings) as host:
        await host.refused("agent_start", prompt="over it once more", options=DOLLAR)
    [sent] = receiver.received
    assert (read_notice(sent)["type"], read_notice(sent)["data"]["status"]) == ("budget", "refused")
    assert b"over it" not in sent.body


def test_notice_of_a_day_is_claimed_once_a_day(tmp_path: Path) -> None:
    days = [claim_day(tmp_path, 86_400.0 * day) for day in (1, 1.5, 2, 2, 3)]
    assert days == [True, False, True, False, True]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("report", "event"),
    [
        ({"status": "completed"}, "finished"),
        ({"status": "failed", "error": {"code": "server_error", "message": OUTPUT}}, "finished"),
        ({"status": "failed", "error": {"code": "budget_exceeded", "message": OUTPUT}}, "budget"),
        ({"status": "input_required", "needs": [{"arguments": OUTPUT}]}, "needs_input"),
        ({"status": "incomplete", "output": OUTPUT}, "finished"),
    ],
)
@pytest.mark.parametrize("kind", ["webhook", "slack", "ntfy"])
def test_request_has_no_more_of_a_job_than_its_title(report: dict[str, Any], event: str, kind: str) -> None:
    job = {"job_id": "job_1", "title": f"{TITLE}\r\n\x1b[31m", "created_at": 0, "elapsed_s": 7200, **report}
    notice = make_notice(job, 7201.0)
    request = build_request(kind, notice, message_id="msg_1", sent_at=7201.5, secret=None)
    assert notice.event == event
    assert OUTPUT.encode() not in request.body
    assert b"\x1b" not in request.body
    for value in request.headers.values():
        assert value.isascii()
        assert value.isprintable()
        assert decode_header(value)
    if kind == "webhook":
        assert (
            json.loads(request.body)["timestamp"]
            == {True: "1970-01-01T02:00:00Z", False: "1970-01-01T02:00:01Z"}[event != "needs_input"]
        )


# Notices that are not sent.


@pytest.mark.parametrize(
    "options",
    [{"notify_min_s": 3600.0}, {"notify_events": frozenset({"needs_input", "budget"})}],
    ids=["too short", "not chosen"],
)
async def test_unwanted_event_is_not_sent(settings: Settings, receiver: Receiver, ear: Ear, options: Any) -> None:
    settings = with_targets(settings, notice_target("webhook", receiver.url), on_finish=ear.words, **options)
    async with hosting(settings) as host:
        await host.start(emulate={"duration_s": 0.2})
        await host.start(emulate={"duration_s": 0.2})
        await ear.wait_for_reports(2)
    assert receiver.received == []


async def test_each_event_is_sent_once_by_several_servers(settings: Settings, receiver: Receiver) -> None:
    settings, count = with_targets(settings, notice_target("webhook", receiver.url)), AT_ONCE + 2
    async with hosting(settings) as one, hosting(settings) as other:
        jobs = [await host.start(emulate={"duration_s": 0.5}) for host in (one, other) for _ in range(count // 2)]
        await eventually(lambda: len(receiver.received) >= count)
    assert sorted(read_notice(each)["data"]["job_id"] for each in receiver.received) == sorted(
        job["job_id"] for job in jobs
    )


# Sending.


def make_sender(*targets: NoticeTarget, secret: str | None = None) -> NoticeSender:
    return NoticeSender(
        targets=targets,
        events=frozenset({"finished"}),
        min_s=0.0,
        secret=None if secret is None else SecretStr(secret),
        environ={},
        clock=create_fast_clock(1000.0),
    )


NOTICE = Notice("finished", 1_000_000.0, {"job_id": "job_1", "title": TITLE, "status": "completed"})


@pytest.mark.parametrize(
    ("statuses", "count", "failure"),
    [
        ([], 1, ""),
        ([204], 1, ""),
        ([503, 429], 3, ""),
        ([500] * 9, ATTEMPTS, f"it answered with status 500, {ATTEMPTS} times"),
        ([404], 1, "it answered with status 404"),
        ([410, 200], 1, "it answered with status 410"),
        ([302], 1, "it redirects elsewhere (status 302), which is not followed"),
        ([307], 1, "it redirects elsewhere (status 307), which is not followed"),
    ],
)
def test_sending_is_repeated_while_that_may_help(
    receiver: Receiver, statuses: list[int], count: int, failure: str
) -> None:
    receiver.statuses[:] = statuses
    to = notice_target("webhook", f"{receiver.url}/hook")
    assert make_sender(to, secret=SECRET).send("job_1", NOTICE) == {to: failure}
    assert [each.path for each in receiver.received] == ["/hook"] * count
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 1
    assert all(verify_signature(each, SECRET) for each in receiver.received)


def test_log_never_has_the_address(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/T0/s3cret"
        receiver.statuses[:] = [200, 404]
        targets = [
            notice_target("slack", f"{receiver.url}/T0/s3cret"),
            notice_target("webhook", f"{receiver.url}/T1/s3cret"),
        ]
        with caplog.at_level(logging.DEBUG):
            make_sender(*targets, notice_target("ntfy", nowhere)).send("job_1", NOTICE)
    assert "its notice was not sent to ntfy at 127.0.0.1:" in caplog.text
    assert "s3cret" not in caplog.text
    assert TITLE not in caplog.text


def test_webhook_with_an_unusable_secret_is_not_sent(receiver: Receiver) -> None:
    to = notice_target("webhook", receiver.url)
    assert make_sender(to, secret="").send("job_1", NOTICE) == {to: "AGENT_JOBS_NOTIFY_SECRET cannot be used"}
    assert receiver.received == []


# The desktop.


@pytest.mark.skipif(sys.platform != "linux", reason="the program is another one there")
def test_desktop_shows_a_notice_or_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/shown\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sender = replace(make_sender(notice_target("desktop")), environ={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert sender.send("job_1", NOTICE) == {notice_target("desktop"): ""}
    assert (tmp_path / "shown").read_text() == (
        "--app-name=agent-jobs\n--\nagent-jobs: a job is completed\nGröße &lt;!channel&gt; &amp; *all* 東京\njob_1\n"
    )
    program.unlink()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert sender.send("job_1", NOTICE) == {notice_target("desktop"): "notify-send is not installed"}
    assert len(caplog.records) == 1


def test_text_never_becomes_a_command_on_other_desktops() -> None:
    notice = replace(NOTICE, data={**NOTICE.data, "title": 'x" & do shell script "id" ; $(id) `id`'})
    mac, windows = build_command("osascript", notice), build_command("powershell", notice)
    assert mac[-1].startswith('x" & do shell script "id"')
    assert not any("shell script" in word for word in mac[:-1])
    assert not any("shell script" in word for word in windows)


# On the command line.


def test_notify_shows_the_targets_without_secrets_and_sends_a_test(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outputs: list[str] = []

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == status, (result.output, result.exception)
        outputs.append(result.output)
        return result.output

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AGENT_JOBS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HOOK", f"{receiver.url}/T0/s3cret")
    monkeypatch.setenv("AGENT_JOBS_NOTIFY", f"slack:$HOOK, webhook:{receiver.url}/s3cret")
    monkeypatch.setenv("AGENT_JOBS_NOTIFY_SECRET", SECRET)
    place = receiver.url.removeprefix("http://")
    shown = run("notify").splitlines()
    assert shown[:2] == [f"slack at {place}", f"webhook at {place} (signed)"]
    assert shown[2].startswith("Events: finished after at least 60 s, needs_input, budget.")
    assert shown[3] == "Test the targets with: agent-jobs notify --test"
    assert run("notify", "--test") == f"slack at {place}: sent\nwebhook at {place} (signed): sent\n"
    assert {each.path for each in receiver.received} == {"/T0/s3cret", "/s3cret"}
    receiver.statuses[:] = [403, 403]
    failed = json.loads(run("notify", "--test", "--json", status=1))
    assert [row["failure"] for row in failed["targets"]] == ["it answered with status 403"] * 2
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other-0123456789")
    assert f"slack at {place}, webhook at {place}" in run("config")
    assert not any("s3cret" in output or SECRET in output for output in outputs)
    monkeypatch.setenv("AGENT_JOBS_NOTIFY", "")
    assert "AGENT_JOBS_NOTIFY names no target." in run("notify", status=1)
