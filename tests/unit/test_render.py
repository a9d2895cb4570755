"""Answers about a job are small, hold only known facts, and have pages that join to the output."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_jobs.jobs.job import Job, Output, Turn
from agent_jobs.jobs.poll_schedule import next_poll_ms
from agent_jobs.jobs.response import RETRYABLE, Failure
from agent_jobs.jobs.status import TERMINAL, Status
from agent_jobs.rendering.answers import page_output, render_finished_job, render_job, render_start
from agent_jobs.rendering.paging import OUTPUT_BYTES
from agent_jobs.text import compact_json

NOW = 1_800_000_000.0
ID = "job_7k2m9x4q1d3f"


def a_job(status: Status = Status.IN_PROGRESS, *, response_id: str | None = "resp_1", **changes: Any) -> Job:
    turn = Turn(number=1, request={"input": "PROMPT"}, request_id="REQUEST", base_url="URL", response_id=response_id)
    return replace(Job(id=ID, title="TITLE", status=status, created_at=NOW, turn=turn), **changes)


def build_completed_job(text: str) -> Job:
    return a_job(Status.COMPLETED, output=Output(text, {"secret": "RESPONSE"}))


def measure_json(answer: object) -> int:
    return len(compact_json(answer).encode())


# An unfinished job.


def test_start_has_the_ids_and_the_next_step():
    assert render_start(a_job(Status.QUEUED, response_id="resp_abc"), NOW) == {
        "job_id": ID,
        "response_id": "resp_abc",
        "status": "queued",
        "next_poll_ms": 2000,
        "next": f"agent_poll job_id={ID}",
    }


def test_start_leaves_out_an_unknown_id():
    assert "response_id" not in render_start(a_job(Status.STARTING, response_id=None), NOW)


def test_running_job_has_its_age_and_activity():
    assert render_job(a_job(activity="12 searches; writing"), NOW + 95) == {
        "job_id": ID,
        "status": "in_progress",
        "elapsed_s": 95,
        "activity": "12 searches; writing",
        "next_poll_ms": 10000,
        "next": f"agent_poll job_id={ID}",
    }


def test_unconfirmed_cancel_is_reported():
    assert render_job(a_job(cancel_requested_at=NOW), NOW)["cancel_requested"] is True
    assert "cancel_requested" not in render_job(a_job(), NOW)


def test_only_a_polled_job_says_how_it_is_observed():
    assert render_job(a_job(observed_by="polling"), NOW)["observed_by"] == "polling"
    assert "observed_by" not in render_job(a_job(observed_by="following"), NOW)


def test_advice_comes_only_on_request():
    assert "advice" not in render_job(a_job(), NOW)
    assert "End your turn" in render_job(a_job(), NOW, advise=True)["advice"]


def test_clock_that_was_set_back_shows_no_age():
    assert "elapsed_s" not in render_job(a_job(), NOW - 60)


def test_activity_that_is_too_long_is_cut_and_marked():
    activity = render_job(a_job(activity="cannot look: " + "very " * 100), NOW)["activity"]
    assert activity.startswith("cannot look: very ")
    assert activity.endswith("…")


def test_very_long_id_is_left_out():
    assert "response_id" not in render_start(a_job(response_id="resp_" + "x" * 421), NOW)


ids = st.integers(1, 120).map(lambda length: "resp_" + "x" * length) | st.text(max_size=120) | st.none()
running_jobs = st.builds(
    a_job,
    st.sampled_from([status for status in Status if status not in TERMINAL]),
    response_id=ids,
    activity=st.text(max_size=400) | st.just("cannot look: the connection to api.openai.com broke (ReadTimeout)"),
    cancel_requested_at=st.sampled_from([None, NOW]),
    observed_by=st.sampled_from(["", "following", "polling"]),
)
ages = st.floats(-1e4, 30 * 24 * 3600)


@settings(max_examples=300)
@given(running_jobs, ages)
def test_unfinished_job_has_few_bytes(job: Job, age_s: float):
    now = NOW + age_s
    assert measure_json(render_start(job, now)) <= 240
    assert measure_json(render_job(job, now)) <= (240 if job.observed_by == "polling" else 200)
    assert measure_json(render_job(job, now, advise=True)) <= 400


@given(running_jobs, ages)
def test_answer_holds_only_known_facts_and_a_next_step(job: Job, age_s: float):
    for answer in (
        render_start(job, NOW + age_s),
        render_job(job, NOW + age_s),
        render_job(job, NOW + age_s, advise=True),
    ):
        assert json.loads(compact_json(answer)) == answer
        assert not [name for name, value in answer.items() if value in (None, "")]
        assert (answer["job_id"], answer["status"]) == (ID, job.status)
        assert answer["next"] == f"agent_poll job_id={ID}"
        assert answer["next_poll_ms"] == next_poll_ms(job, NOW + age_s)


# A finished job.


def test_short_result_comes_in_full():
    job = build_completed_job("The answer.")
    answer = {"job_id": ID, "status": "completed", "output": "The answer."}
    assert render_finished_job(job) == render_job(job, NOW) == render_start(job, NOW) == answer


@pytest.mark.parametrize(
    "job",
    [
        build_completed_job("short"),
        build_completed_job("x" * 50_000),
        a_job(Status.INCOMPLETE, error=Failure("max_output_tokens", "cut"), output=Output("half", {})),
        a_job(Status.FAILED, error=Failure("server_error", "why"), output=Output("x" * 50_000, {})),
        replace(build_completed_job("text"), cost_usd=0.4, context="rebuilt", result_path="/results/a.md"),
    ],
)
def test_output_is_the_last_field(job: Job):
    for answer in (render_finished_job(job), render_job(job, NOW, note="NOTE"), render_start(job, NOW, duplicate=True)):
        assert [*answer][:2] == ["job_id", "status"]
        assert [*answer][-1] == "output"
    assert [*page_output(job, 0)][-1] == "output"


@pytest.mark.parametrize("job", [build_completed_job(""), a_job(Status.COMPLETED)])
def test_result_without_a_text_is_an_empty_one(job: Job):
    assert render_finished_job(job) == {"job_id": ID, "status": "completed", "output": ""}


def test_cancelled_job_has_only_its_status():
    assert render_finished_job(a_job(Status.CANCELLED)) == {"job_id": ID, "status": "cancelled"}


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.INCOMPLETE, Status.FAILED])
def test_output_of_an_unfinished_response_is_shown(status: Status):
    error = None if status is Status.CANCELLED else Failure("max_output_tokens", "cut")
    assert render_finished_job(a_job(status, error=error, output=Output("half", {})))["output"] == "half"


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (Status.FAILED, "start_unconfirmed", f"metadata job_id={ID}"),
        (Status.FAILED, "server_error", "agent_start again in 60 s"),
        (Status.FAILED, "rate_limit_exceeded", "agent_start again in 60 s"),
        (Status.FAILED, "no_such_endpoint", "OPENAI_BASE_URL"),
        (Status.FAILED, "invalid_api_key", "OPENAI_API_KEY"),
        (Status.FAILED, "insufficient_quota", "add credit"),
        (Status.FAILED, "model_not_found", "another model"),
        (Status.FAILED, "context_length_exceeded", "change the request"),
        (Status.EXPIRED, "expired", "agent_start again"),
        (Status.INCOMPLETE, "max_output_tokens", "higher options.max_output_tokens"),
        (Status.INCOMPLETE, "content_filter", "output has the part that arrived"),
    ],
)
def test_every_failure_has_a_next_step(status: Status, code: str, hint: str):
    answer = render_finished_job(a_job(status, error=Failure(code, "why")))
    assert (answer["error"]["code"], answer["error"]["message"]) == (code, "why")
    assert hint in answer["next"]
    assert answer["error"].get("retryable") is (True if code in RETRYABLE else None)
    assert "{" not in answer["next"]


def test_unconfirmed_start_does_not_suggest_an_immediate_restart():
    answer = render_finished_job(a_job(Status.FAILED, error=Failure("start_unconfirmed", "why")))
    assert not answer["next"].startswith("agent_start")
    assert "retryable" not in answer["error"]


def test_long_message_is_cut():
    assert (
        len(render_finished_job(a_job(Status.FAILED, error=Failure("code", "m" * 10_000)))["error"]["message"]) == 300
    )


@given(
    st.sampled_from(sorted(TERMINAL)),
    st.builds(Failure, st.text(), st.text()) | st.none(),
    st.builds(Output, st.text() | st.text(min_size=1).map(lambda text: text * 9_000), st.just({})) | st.none(),
)
def test_finished_job_echoes_no_request_and_holds_one_page_at_most(
    status: Status, error: Failure | None, brought: Output | None
):
    answer = render_finished_job(a_job(status, error=error, output=brought))
    assert json.loads(compact_json(answer)) == answer
    assert measure_json(answer.get("output", "")) <= 24 * 1024
    assert not [name for name, value in answer.items() if value is None]
    rest = compact_json({name: value for name, value in answer.items() if name not in ("output", "error")})
    assert not re.search("PROMPT|TITLE|REQUEST|URL|RESPONSE", rest)


# Pages.

SENTENCE = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. "
TEXTS = {
    "one long line": "x",
    "lines": SENTENCE + "\n",
    "paragraphs": SENTENCE * 5 + "\n\n",
    "emoji": "👩‍🚀🇩🇪",
    "CJK": "長い仕事は普通です。",
    "right to left": "שלום \u202eעולם\u202c العربية ",
    "quotes and newlines": '"\\\n',
    "newlines": "\n",
    "control characters": "\x00\x1f\x7f",
    "all sorts": 'a"é\n🎈\u2028\ufeff長\t\\n',
}


@pytest.mark.parametrize("characters", [61_000, 1_000_000])
@pytest.mark.parametrize("pattern", TEXTS.values(), ids=TEXTS)
def test_pages_put_together_are_the_output_byte_for_byte(pattern: str, characters: int):
    text = (pattern * (characters // len(pattern) + 1))[:characters]
    job, offset, parts = build_completed_job(text), 0, list[str]()
    answer = render_finished_job(job)
    while True:
        parts.append(answer["output"])
        assert parts[-1]
        assert measure_json(parts[-1]) <= OUTPUT_BYTES <= 24 * 1024
        if "next" not in answer:
            break
        assert answer["bytes"] == len(text.encode())
        assert answer["next"].startswith(f"agent_result job_id={ID} offset=")
        offset += len(parts[-1].encode())
        assert answer["next"].endswith(f"={offset}")
        answer = page_output(job, offset)
    assert "".join(parts) == text
    assert len(parts) <= 2 + 2 * measure_json(text) / OUTPUT_BYTES, "a page is at least half full"


@pytest.mark.parametrize("offset", [0, 5, 10**12, -1])
def test_page_beyond_the_end_or_of_nothing_is_empty(offset: int):
    assert page_output(build_completed_job(""), offset) == {"output": ""}
    assert page_output(build_completed_job("ab"), max(offset, 2)) == {"output": ""}
    assert page_output(a_job(Status.CANCELLED), offset) == {"output": ""}
