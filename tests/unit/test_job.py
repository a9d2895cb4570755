"""A job as a value: tables of its transitions, and properties that hold for any answer of the provider."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_jobs.jobs.job import MAX_EMPTY_COMPLETIONS, Job, Output, Turn
from agent_jobs.jobs.poll_schedule import next_poll_ms, next_retrieve_s
from agent_jobs.jobs.response import Failure, Usage, activity_of, text_of
from agent_jobs.jobs.status import TERMINAL, TRANSITIONS, Status

NOW = 1_800_000_000.0
PENDING, STARTING, QUEUED, IN_PROGRESS, INPUT_REQUIRED = TRANSITIONS
COMPLETED, INCOMPLETE, FAILED = Status.COMPLETED, Status.INCOMPLETE, Status.FAILED
CANCELLED, EXPIRED = Status.CANCELLED, Status.EXPIRED

Verb = Callable[[Job, dict[str, Any]], Job]


def a_turn(**changes: Any) -> Turn:
    return replace(Turn(number=1, request={}, request_id="r", base_url="https://up/v1"), **changes)


def a_job(status: Status = IN_PROGRESS, *, turn: Turn | None = None, **changes: Any) -> Job:
    """Return a job of this status. It has a response id if its status needs one."""
    turn_of_status = a_turn(response_id=None if status in (PENDING, STARTING) else "resp_1")
    job = Job(id="job_1", title="t", status=status, created_at=NOW, turn=turn or turn_of_status)
    return replace(job, finished_at=NOW if job.is_terminal else None, **changes)


def unconfirmed() -> Job:
    return a_job(FAILED, turn=a_turn(), error=Failure("start_unconfirmed", "it is not known"))


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}], **more}


def a_response(status: Any = "completed", **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "status": status, "output": [message("done")], "usage": {"input_tokens": 1}, **more}


def apply_as_poll(job: Job, response: dict[str, Any]) -> Job:
    return job.apply_response(response, NOW)


def apply_as_event(job: Job, response: dict[str, Any]) -> Job:
    return job.apply_event({"type": "response.whatever", "response": response}, NOW)


both_ways = pytest.mark.parametrize("verb", [apply_as_poll, apply_as_event])


def test_table_leads_from_pending_to_every_status_and_never_out_of_a_final_one():
    assert {COMPLETED, INCOMPLETE, FAILED, CANCELLED, EXPIRED} == TERMINAL
    assert {PENDING, *(status for later in TRANSITIONS.values() for status in later)} == set(Status)
    assert all(status not in later for status, later in TRANSITIONS.items())
    assert {before for before, later in TRANSITIONS.items() if PENDING in later} == {STARTING}
    assert {before for before, later in TRANSITIONS.items() if QUEUED in later} == {STARTING}
    assert all(FAILED in later and CANCELLED in later for later in TRANSITIONS.values())
    assert EXPIRED not in TRANSITIONS[PENDING] | TRANSITIONS[STARTING]


#: The status that the provider reports, and for each status of a job the status that follows.
REPORTED = ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled", "brand_new", None]
MOVED_TO = {
    PENDING: [QUEUED, IN_PROGRESS, COMPLETED, INCOMPLETE, FAILED, CANCELLED, IN_PROGRESS, IN_PROGRESS],
    STARTING: [QUEUED, IN_PROGRESS, COMPLETED, INCOMPLETE, FAILED, CANCELLED, IN_PROGRESS, IN_PROGRESS],
    QUEUED: [QUEUED, IN_PROGRESS, COMPLETED, INCOMPLETE, FAILED, CANCELLED, IN_PROGRESS, IN_PROGRESS],
    IN_PROGRESS: [IN_PROGRESS, IN_PROGRESS, COMPLETED, INCOMPLETE, FAILED, CANCELLED, IN_PROGRESS, IN_PROGRESS],
    **{end: [end] * len(REPORTED) for end in TERMINAL},
}


@both_ways
@pytest.mark.parametrize(
    ("before", "status", "after"),
    [(before, status, after) for before, row in MOVED_TO.items() for status, after in zip(REPORTED, row, strict=True)],
)
def test_status_in_the_body_moves_the_job_where_the_table_allows(
    verb: Verb, before: Status, status: str | None, after: Status
):
    job = verb(a_job(before), a_response(status))
    assert job.status is after
    assert job.finished_at == (NOW if after in TERMINAL else None)
    assert job.turn.response_id == "resp_1"


@pytest.mark.parametrize(
    ("name", "status", "after"),
    [
        ("response.failed", "cancelled", CANCELLED),
        ("response.completed", "failed", FAILED),
        ("response.completed", "in_progress", IN_PROGRESS),
        ("response.created", "completed", COMPLETED),
        ("response.completed", None, IN_PROGRESS),
        ("a.new.event", "incomplete", INCOMPLETE),
    ],
)
def test_status_in_the_body_beats_the_name_of_the_event(name: str, status: str | None, after: Status):
    assert a_job(QUEUED).apply_event({"type": name, "response": a_response(status)}, NOW).status is after


@pytest.mark.parametrize("name", ["response.completed", "response.failed", "error", "keepalive", "response.new"])
def test_event_without_a_response_moves_only_the_cursor(name: str):
    before = a_job(QUEUED)
    after = before.apply_event({"type": name, "sequence_number": 7, "error": {"code": "server_error"}}, NOW)
    assert after == replace(before, turn=replace(before.turn, sequence_number=7))


@pytest.mark.parametrize(
    ("cursor", "number", "taken"),
    [(None, 0, 0), (3, 4, 4), (3, 9, 9), (3, 3, None), (3, 2, None), (3, 0, None)],
)
def test_event_counts_once_and_in_order(cursor: int | None, number: int, taken: int | None):
    before = a_job(QUEUED, turn=a_turn(response_id="resp_1", sequence_number=cursor))
    after = before.apply_event({"sequence_number": number, "response": a_response()}, NOW)
    if taken is None:
        assert after == before
    else:
        assert (after.status, after.turn.sequence_number) == (COMPLETED, taken)


@pytest.mark.parametrize("number", [None, True, 4.0, "4", [4], {}])
def test_event_without_a_usable_number_is_applied_and_leaves_the_cursor(number: Any):
    before = a_job(QUEUED, turn=a_turn(response_id="resp_1", sequence_number=3))
    after = before.apply_event({"sequence_number": number, "response": a_response()}, NOW)
    assert (after.status, after.turn.sequence_number) == (COMPLETED, 3)


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
def test_requested_cancel_ends_the_job_only_after_a_poll(status: str):
    before = a_job(STARTING, cancel_requested_at=NOW)
    job = before.apply_event({"sequence_number": 5, "response": a_response(status)}, NOW)
    assert not job.is_terminal
    assert (job.turn.response_id, job.turn.sequence_number, job.output) == ("resp_1", 5, None)
    assert job.apply_response(a_response(status), NOW).status == status


def test_output_that_a_cancelled_run_brought_is_kept():
    job = a_job(cancel_requested_at=NOW).apply_response(a_response("cancelled"), NOW)
    assert (job.status, job.output and job.output.text) == (CANCELLED, "done")


@both_ways
@pytest.mark.parametrize("output", [[], None])
def test_completion_without_output_and_usage_is_not_accepted_at_once(verb: Verb, output: Any):
    job = verb(a_job(STARTING), a_response(output=output, usage=None))
    assert (job.status, job.turn.response_id) == (QUEUED, "resp_1")


def test_empty_completion_is_accepted_after_three_more_polls():
    job, empty = a_job(), a_response(output=[], usage=None)
    for _ in range(MAX_EMPTY_COMPLETIONS):
        job = job.apply_response(empty, NOW)
        assert job.status is IN_PROGRESS
    job = job.apply_response(empty, NOW)
    assert (job.status, job.output) == (COMPLETED, None)


def test_poll_that_shows_the_job_running_resets_the_count_of_empty_completions():
    job, empty = a_job(), a_response(output=[], usage=None)
    for response in [empty] * MAX_EMPTY_COMPLETIONS + [a_response("in_progress")] + [empty] * MAX_EMPTY_COMPLETIONS:
        job = job.apply_response(response, NOW)
        assert job.status is IN_PROGRESS


@both_ways
@pytest.mark.parametrize("full", [{"usage": None}, {"output": []}])
def test_completion_with_output_or_usage_is_accepted_at_once(verb: Verb, full: dict[str, Any]):
    assert verb(a_job(), a_response(**full)).status is COMPLETED


#: The answers of polls by the second, and the status of the job after them.
POLL_SERIES = [
    ("often and long enough", [(0, "missed"), (20, "missed"), (40, "missed"), (60, "missed")], EXPIRED),
    ("often, but not for long", [(second, "missed") for second in range(60)], IN_PROGRESS),
    ("long, but not often", [(0, "missed"), (100, "missed"), (200, "missed")], IN_PROGRESS),
    ("a 200 between", [(0, "missed"), (20, "missed"), (40, "missed"), (50, "seen"), (60, "missed")], IN_PROGRESS),
    ("long enough only before the 200", [(0, "missed"), (90, "seen"), *[(91 + s, "missed") for s in range(9)]],
     IN_PROGRESS),
    ("again after a 200", [(0, "missed"), (9, "seen"), *[(10 + 20 * n, "missed") for n in range(4)]], EXPIRED),
    ("a 500 between", [(0, "missed"), (10, "unreached"), (20, "missed"), (40, "missed"), (60, "missed")], EXPIRED),
    ("only 500s", [(20 * n, "unreached") for n in range(99)], IN_PROGRESS),
]  # fmt: skip


@pytest.mark.parametrize("nonsense", [[], {}, [[]], {"a": []}, 1, True, None], ids=str)
@pytest.mark.parametrize(
    "field", ["type", "id", "call_id", "status", "action", "content", "name", "arguments", "phase"]
)
def test_item_with_any_value_in_a_field_raises_nothing(field: str, nonsense: object):
    for kind in ("message", "function_call", "mcp_approval_request", "web_search_call", "reasoning"):
        item: dict[str, Any] = {
            "type": kind,
            "id": "x",
            "call_id": "c",
            "name": "n",
            "arguments": "{}",
            field: nonsense,
        }
        for status in ("in_progress", "completed"):
            seen = a_job().apply_response({**a_response(status), "output": [item]}, NOW)
            assert seen.turn.response_id == "resp_1"


def test_foreground_run_fails_at_a_404_of_the_provider_but_not_of_a_gateway():
    job = replace(a_job(), turn=replace(a_job().turn, mode="foreground"))
    assert job.mark_not_found(NOW).status is FAILED
    for second in (0, 20, 40):
        job = job.mark_not_found(NOW + second, is_doubtful=True)
        assert job.status is IN_PROGRESS
    assert job.apply_response(a_response("completed"), NOW + 50).status is COMPLETED
    assert job.mark_not_found(NOW + 60, is_doubtful=True).status is FAILED, "the provider does not serve GETs"


@pytest.mark.parametrize(("polls", "after"), [row[1:] for row in POLL_SERIES], ids=[r[0] for r in POLL_SERIES])
def test_job_expires_once_it_was_not_found_often_and_long_enough(polls: list[tuple[float, str]], after: Status):
    job = a_job()
    for second, answer in polls:
        now = NOW + second
        if answer == "missed":
            job = job.mark_not_found(now)
        elif answer == "seen":
            job = job.apply_response(a_response("in_progress"), now)
        else:
            job = job.mark_unreachable("no answer", now)
        assert job.turn.polled_at == now
    assert job.status is after
    assert job.turn.polls == len(polls)
    if after is EXPIRED:
        assert job.finished_at == NOW + polls[-1][0]
        assert job.error is not None
        assert job.error.code == "expired"


def test_poll_without_an_answer_is_reported_and_keeps_the_status():
    job = a_job(QUEUED).mark_unreachable("cannot look: HTTP 502", NOW)
    assert (job.status, job.activity, job.turn.polls) == (QUEUED, "cannot look: HTTP 502", 1)
    assert job.apply_response(a_response("queued", output=[]), NOW).activity == ""


@pytest.mark.parametrize(
    ("job", "after"),
    [
        (unconfirmed(), QUEUED),
        (a_job(PENDING), QUEUED),
        (a_job(STARTING), QUEUED),
        *((a_job(status, turn=a_turn()), status) for status in Status if status not in (PENDING, STARTING)),
        (a_job(FAILED, turn=a_turn(), error=Failure("server_error", "")), FAILED),
        (a_job(CANCELLED, turn=a_turn(), error=Failure("start_unconfirmed", "")), CANCELLED),
        (a_job(FAILED, turn=a_turn(), error=Failure("endpoint_lost", "")), QUEUED),
        (a_job(FAILED, turn=a_turn(response_id="resp_9"), error=Failure("endpoint_lost", "")), QUEUED),
    ],
)
def test_id_is_stored_in_every_status_and_reopens_only_an_unconfirmed_or_lost_job(job: Job, after: Status):
    found = job.set_response_id("resp_9")
    assert (found.turn.response_id, found.status) == ("resp_9", after)
    assert found.is_terminal == (found.finished_at is not None)
    if after is QUEUED:
        assert found.error is None


@pytest.mark.parametrize("job", [unconfirmed(), *(a_job(status, turn=a_turn()) for status in Status)])
@pytest.mark.parametrize("nonsense", [None, "", 7, True, ["resp_9"], {"id": "resp_9"}])
def test_id_that_is_no_text_is_no_id(job: Job, nonsense: Any):
    assert job.set_response_id(nonsense) == job


@both_ways
def test_first_response_id_is_kept(verb: Verb):
    job = a_job(QUEUED, turn=a_turn(response_id="resp_first"))
    assert verb(job, a_response("in_progress", id="resp_other")).turn.response_id == "resp_first"


@both_ways
def test_unconfirmed_start_whose_id_turns_up_continues_to_its_result(verb: Verb):
    job = verb(unconfirmed(), a_response())
    assert (job.status, job.error, job.output and job.output.text) == (COMPLETED, None, "done")


VERBS: dict[str, Callable[[Job], Job]] = {
    "sent": lambda job: job.mark_sending(NOW),
    "unsent": lambda job: job.mark_not_sent("no connection"),
    "failed": lambda job: job.mark_failed("upstream_rejected", "no", NOW),
    "cancelled": lambda job: job.mark_cancelled(NOW),
    "unreached": lambda job: job.mark_unreachable("no answer", NOW),
    "progressed": lambda job: job.with_progress(9, "writing", "so far", ""),
    "unfollowed": lambda job: job.mark_stream_failed(),
    "missed": lambda job: replace(
        job, turn=replace(job.turn, not_found_count=3, not_found_since=NOW - 60)
    ).mark_not_found(NOW),
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_keeps_to_the_table(verb: str, status: Status):
    after = VERBS[verb](a_job(status)).status
    assert after is status or after in TRANSITIONS.get(status, ())


def test_start_counts_its_attempts_and_goes_back_when_provably_nothing_was_accepted():
    sent = a_job(PENDING, activity="cannot connect; trying again").mark_sending(NOW)
    assert (sent.status, sent.turn.attempt, sent.turn.sent_at, sent.activity) == (STARTING, 1, NOW, "")
    back = sent.mark_not_sent("busy; trying again")
    assert (back.status, back.activity) == (PENDING, "busy; trying again")
    assert back.mark_sending(NOW + 9).turn.attempt == 2


@pytest.mark.parametrize(
    ("before", "sequence_number", "after"), [(None, -1, None), (None, 0, 0), (4, 9, 9), (4, 3, 4), (4, -1, 4)]
)
def test_events_of_a_stream_move_the_cursor_only_forward(before: int | None, sequence_number: int, after: int | None):
    job = a_job(activity="1 search", turn=a_turn(response_id="resp_1", sequence_number=before, stream_failures=2))
    job = job.with_progress(sequence_number, "", "so far", "why")
    assert (job.turn.sequence_number, job.turn.partial, job.turn.stream_failures) == (after, "so far", 0)
    assert job.turn.reasoning == "why"
    assert (job.observed_by, job.activity) == ("following", "1 search")
    assert job.with_progress(sequence_number, "writing", "", "").activity == "writing"


@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_stream_changes_nothing_of_a_finished_job(end: Status):
    assert a_job(end).with_progress(9, "writing", "so far", "") == a_job(end)


@pytest.mark.parametrize(
    ("changes", "turn", "expected"),
    [
        ({}, {}, True),
        ({"status": QUEUED}, {}, True),
        ({"status": INPUT_REQUIRED}, {}, False),
        ({"status": COMPLETED}, {}, False),
        ({}, {"sent_at": NOW - 240}, True),
        ({}, {"sent_at": NOW - 300}, False),
        ({}, {"sent_at": None}, False),
        ({}, {"sequence_number": None}, True),
        ({}, {"sequence_number": None, "partial": "so far"}, False),
        ({}, {"sequence_number": None, "reasoning": "so far"}, False),
        ({}, {"stream_failures": 2}, True),
        ({}, {"stream_failures": 3}, False),
    ],
)
def test_stream_is_attached_again_while_it_is_accepted_and_has_events(
    changes: dict[str, Any], turn: dict[str, Any], expected: bool
):
    followed = {"response_id": "resp_1", "sequence_number": 4, "sent_at": NOW - 60, "stream_failures": 0}
    job = replace(a_job(turn=a_turn(**{**followed, **turn})), **changes)
    assert job.can_stream(NOW) is expected


def test_stream_is_given_up_after_three_failures_or_one_refusal():
    job = a_job(turn=a_turn(response_id="resp_1", sequence_number=4, sent_at=NOW))
    for _ in range(2):
        job = job.mark_stream_failed()
        assert job.can_stream(NOW)
    assert job.with_progress(5, "", "", "").mark_stream_failed().mark_stream_failed().can_stream(NOW), (
        "an event resets the count of failures"
    )
    assert not job.mark_stream_failed().can_stream(NOW)
    assert not a_job(turn=job.turn).mark_stream_failed(for_good=True).can_stream(NOW)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (a_response("failed", error={"code": "server_error", "message": "oops"}), ("server_error", "oops")),
        (a_response("failed", error={"code": 503, "message": "oops"}), ("503", "oops")),
        (a_response("failed", error={"code": None, "message": None}), ("failed", "The provider gave no reason.")),
        (a_response("failed", error="oops"), ("failed", "oops")),
        (a_response("failed"), ("failed", "The provider gave no reason.")),
        (a_response("incomplete", incomplete_details={"reason": "max_output_tokens"}),
         ("max_output_tokens", "The output was cut short.")),
        (a_response("incomplete", incomplete_details=None), ("incomplete", "The output was cut short.")),
        (a_response("completed", error={"code": "x", "message": "y"}), None),
        (a_response("cancelled", error={"code": "x", "message": "y"}), None),
    ],
)  # fmt: skip
def test_error_of_a_job_has_the_reason_of_the_provider(end: dict[str, Any], reason: tuple[str, str] | None):
    error = a_job().apply_response(end, NOW).error
    assert error == (Failure(*reason) if reason else None)


@both_ways
@pytest.mark.parametrize("end", ["completed", "incomplete", "failed", "cancelled"])
def test_every_final_response_keeps_its_output_and_usage(verb: Verb, end: str):
    response = a_response(end)
    job = verb(a_job(), response)
    assert (job.output, job.usage) == (Output("done", response), Usage(input_tokens=1))


def test_running_response_has_no_output_but_an_activity():
    job = a_job().apply_response(a_response("in_progress", output=[{"type": "reasoning"}]), NOW)
    assert (job.output, job.activity) == (None, "reasoning")


@pytest.mark.parametrize(
    ("code", "is_retryable"),
    [
        ("server_error", True),
        ("rate_limit_exceeded", True),
        ("upstream_rejected", False),
        ("start_unconfirmed", False),
        ("", False),
    ],
)
def test_only_internal_errors_of_the_provider_make_a_failure_retryable(code: str, is_retryable: bool):
    assert Failure(code, "").is_retryable is is_retryable


REFUSAL = {"type": "refusal", "refusal": "I cannot help with that."}


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        ([message("one")], "one"),
        ([message("one"), message("two")], "one\n\ntwo"),
        ([message("one"), message(""), message("two")], "one\n\ntwo"),
        ([message("thinking", phase="commentary"), message("answer", phase="final_answer")], "answer"),
        ([message("a", phase="final_answer"), message("b", phase="final_answer")], "a\n\nb"),
        ([message("only this", phase="commentary")], "only this"),
        ([message("no phase"), message("new", phase="brand_new")], "no phase\n\nnew"),
        ([{"type": "reasoning", "summary": [{"text": "hidden"}]}, message("shown")], "shown"),
        ([{"type": "message", "content": [REFUSAL]}], "I cannot help with that."),
        ([{"type": "message", "content": [{"text": "a"}, REFUSAL]}], "aI cannot help with that."),
        ([{"type": "message", "content": [{"type": "refusal", "text": None, "refusal": "no"}]}], "no"),
        ([{"type": "message", "content": [{"text": "a"}, {"text": 7}, {"type": "new"}, {"text": "b"}]}], "ab"),
        ([{"type": "message", "content": "not a list"}, {"type": "message"}, {}], ""),
    ],
)
def test_text_of_an_output_is_found(items: list[dict[str, Any]], text: str):
    assert text_of([*items]) == text


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([], ""),
        (["message"], "writing"),
        (["web_search_call", "reasoning"], "1 search; reasoning"),
        (["web_search_call"] * 3 + ["reasoning", "message"], "3 searches; writing"),
        (["message", "web_search_call"], "1 search"),
        (["file_search_call", "web_search_call", "file_search_call"], "1 search; 2 file searches"),
        (["code_interpreter_call"], "1 code run"),
        (["image_generation_call"] * 2, "2 images"),
        (["mcp_call", "function_call"], "1 tool call; 1 function call"),
        (["brand_new", None, ["web_search_call"]], ""),
    ],
)
def test_activity_is_reported_in_a_few_words(kinds: list[Any], words: str):
    assert activity_of([{"type": kind} for kind in kinds]) == words


FULL = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 15},
    "total_tokens": 30,
}


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (FULL, Usage(input_tokens=10, cached_tokens=4, output_tokens=20, reasoning_tokens=15)),
        ({"output_tokens": 5}, Usage(output_tokens=5)),
        ({**FULL, "input_tokens_details": None, "output_tokens_details": []}, Usage(input_tokens=10, output_tokens=20)),
        ({"input_tokens": -1, "output_tokens": "5"}, Usage()),
        ({"input_tokens": None, "output_tokens": 1.5}, Usage()),
        ({"input_tokens": True}, Usage()),
        (None, None),
        ({}, None),
        ([], None),
        ("12", None),
    ],
)
def test_usage_is_the_count_of_upstream(usage: object, read: Usage | None):
    assert Usage.of(usage) == read


@pytest.mark.parametrize(
    ("age_s", "ms"),
    [(-60, 2_000), (0, 2_000), (19, 2_000), (30, 3_000), (95, 10_000), (300, 30_000), (86_400, 30_000)],
)
def test_wait_before_the_next_poll_is_a_tenth_of_the_age(age_s: float, ms: int):
    assert next_poll_ms(a_job(), NOW + age_s) == ms


def list_poll_times(seconds: float, *, watched: bool) -> list[float]:
    """Return the times at which a running job is polled after its start."""
    job = a_job(watched_until=NOW + seconds + 60 if watched else 0.0)
    times: list[float] = []
    second = next_retrieve_s(job, NOW)
    while second <= seconds:
        times.append(second)
        job = job.apply_response(a_response("in_progress"), NOW + second)
        second += next_retrieve_s(job, NOW + second)
    return times


def test_ten_unwatched_minutes_cost_at_most_25_polls_from_the_first_second_on():
    times = list_poll_times(600, watched=False)
    assert times[0] <= 1
    assert len(times) <= 25


def test_watched_job_is_polled_every_five_seconds_after_a_quicker_beginning():
    times = list_poll_times(600, watched=True)
    assert times[0] <= 1
    assert len(times) <= 600 / 5 + 3
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert min(gaps) >= 1
    assert max(gaps) == 5


def test_unwatched_job_is_polled_ever_more_rarely_but_every_minute_at_least():
    times = list_poll_times(3 * 3600, watched=False)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert max(gap for gap, time in zip(gaps, times, strict=False) if time <= 1_800) == 30
    assert max(gaps) == 60


@pytest.mark.parametrize("polls", [0, 1, 5, 40, 100_000])
def test_newly_watched_job_is_polled_within_five_seconds(polls: int):
    job = a_job(watched_until=NOW + 60, turn=a_turn(response_id="resp_1", polls=polls))
    assert 1 <= next_retrieve_s(job, NOW) <= 5
    assert next_retrieve_s(job, NOW + 60) == min(30, 2**polls)


WRONG: list[Any] = [None, True, 0, -7, 2**80, 1.5, "", "nonsense", [], [[]], [None], {}, {"id": []}, {"status": {}}]


@both_ways
@pytest.mark.parametrize("field", ["id", "status", "output", "usage", "error", "incomplete_details"])
@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_field_of_the_wrong_type_counts_as_missing(verb: Verb, field: str, wrong: Any):
    for end in ("in_progress", "incomplete", "failed"):
        job = verb(a_job(STARTING), {**a_response(end), field: wrong})
        expected = IN_PROGRESS if field == "status" else Status(end)
        assert job.status is expected


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_response_of_the_wrong_type_counts_as_missing(wrong: Any):
    job = a_job(QUEUED, turn=a_turn(response_id="resp_1", sequence_number=3))
    after = job.apply_event({"type": wrong, "sequence_number": 4, "response": wrong}, NOW)
    assert after.status in (QUEUED, IN_PROGRESS)
    assert after.turn.sequence_number == 4


# Any events and answers, in any order.

texts = st.text(st.characters(exclude_categories=()), max_size=8)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def usual_or_any(*usual: Any) -> st.SearchStrategy[Any]:
    """Draw one of the usual values, and sometimes any JSON value."""
    return st.one_of(st.sampled_from(usual), st.sampled_from(usual), st.sampled_from(usual), anything)


items = st.fixed_dictionaries(
    {},
    optional={
        "type": usual_or_any("message", "reasoning", "web_search_call", "brand_new"),
        "phase": usual_or_any("final_answer", "commentary"),
        "content": usual_or_any([], [{"type": "output_text", "text": "hi"}], [REFUSAL], [{"text": None}]),
    },
)
responses = st.fixed_dictionaries(
    {},
    optional={
        "id": usual_or_any("resp_1", "resp_2", ""),
        "status": usual_or_any("queued", "in_progress", "completed", "incomplete", "failed", "cancelled", "brand_new"),
        "output": st.lists(items | anything, max_size=3) | anything,
        "usage": usual_or_any(None, FULL),
        "error": usual_or_any(None, {"code": "server_error", "message": "oops"}),
        "incomplete_details": usual_or_any(None, {"reason": "max_output_tokens"}),
        "background": usual_or_any(True, False),
    },
)
events = st.fixed_dictionaries(
    {},
    optional={
        "type": usual_or_any("response.created", "response.completed", "response.failed", "error", "brand.new"),
        "sequence_number": st.integers(-1, 9) | anything,
        "response": responses | anything,
    },
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "apply": events,
    "observe": responses,
    "found": usual_or_any("resp_1", "resp_2"),
    "progressed": st.integers(-1, 9),
    "unfollowed": st.none(),
    "missed": st.none(),
    "unreached": st.none(),
}
verbs = st.sampled_from(["apply", "observe", *VALUES])  # answers and events are drawn more often
steps = st.lists(
    st.tuples(st.floats(0, 40), verbs.flatmap(lambda verb: st.tuples(st.just(verb), VALUES[verb]))), max_size=12
)
jobs = [unconfirmed(), *map(a_job, Status), a_job(IN_PROGRESS, turn=a_turn())]
beginnings = st.sampled_from([replace(job, cancel_requested_at=at) for job in jobs for at in (None, NOW)])


def apply_change(job: Job, now: float, verb: str, value: Any) -> Job:
    match verb:
        case "apply":
            return job.apply_event(value, now)
        case "observe":
            return job.apply_response(value, now)
        case "missed":
            return job.mark_not_found(now)
        case "found":
            return job.set_response_id(value)
        case "progressed":
            return job.with_progress(value, "writing", "so far", "")
        case "unfollowed":
            return job.mark_stream_failed()
        case _:
            return job.mark_unreachable("no answer", now)


def is_allowed(before: Job, after: Job) -> bool:
    """Return True if the table has the transition. A job that gets its id late counts as queued."""
    has_new_id = before.turn.response_id is None and after.turn.response_id is not None
    opened = has_new_id and (before.is_unconfirmed or before.status is PENDING)
    start = QUEUED if opened else before.status
    return after.status is start or after.status in TRANSITIONS.get(start, ())


@settings(max_examples=400, deadline=None)
@given(beginnings, steps)
def test_any_input_keeps_final_status_cursor_and_id_of_a_job(job: Job, steps: list[tuple[float, tuple[str, Any]]]):
    now = NOW
    for passed, (verb, value) in steps:
        now += passed
        before, job = job, apply_change(job, now, verb, value)
        assert is_allowed(before, job), (before.status, job.status)
        if before.is_terminal and not (before.is_unconfirmed and before.turn.response_id is None):
            assert outcome(job) == outcome(before)
        assert before.turn.response_id in (None, job.turn.response_id)
        assert before.turn.sequence_number is None or (job.turn.sequence_number or 0) >= before.turn.sequence_number
        assert job.is_terminal == (job.finished_at is not None)
        assert job.is_terminal or job.error is None
        assert isinstance(job.activity, str)
        assert (job.id, job.created_at, job.turn.number) == (before.id, before.created_at, before.turn.number)
        assert next_retrieve_s(job, now) > 0


def outcome(job: Job) -> tuple[Any, ...]:
    return job.status, job.finished_at, job.error, job.usage, job.output


COURSE: list[dict[str, Any]] = [
    {"type": "response.created", "sequence_number": 0, "response": a_response("queued", output=[], usage=None)},
    {"type": "response.queued", "sequence_number": 1, "response": a_response("queued", output=[], usage=None)},
    {"type": "keepalive", "sequence_number": 2},
    {"type": "response.in_progress", "sequence_number": 3, "response": a_response("in_progress", output=[])},
    {"type": "response.output_text.delta", "sequence_number": 4, "delta": "do"},
    {"type": "response.output_text.delta", "sequence_number": 5, "delta": "ne"},
    {"type": "response.completed", "sequence_number": 6, "response": a_response()},
]


@given(st.lists(st.sampled_from(COURSE), max_size=20))
def test_last_poll_gives_the_same_result_after_lost_doubled_or_late_events(events: list[dict[str, Any]]):
    job = a_job(STARTING)
    for event in events:
        job = job.apply_event(event, NOW)
    job = job.apply_response(a_response(), NOW)
    assert (job.status, job.output, job.usage) == (COMPLETED, Output("done", a_response()), Usage(input_tokens=1))
    assert (job.turn.response_id, job.finished_at, job.error) == ("resp_1", NOW, None)


@given(beginnings, events, st.floats(0, 100))
def test_event_that_comes_again_changes_nothing(job: Job, event: dict[str, Any], later: float):
    number = event.get("sequence_number")
    once = job.apply_event(event, NOW)
    if isinstance(number, int) and not isinstance(number, bool):
        assert once.apply_event(event, NOW + later) == once


@pytest.mark.parametrize(
    ("before", "usage", "input_tokens", "partial"),
    [
        (Usage(input_tokens=5), FULL, 15, False),
        (Usage(input_tokens=5), None, 5, True),
        (Usage(input_tokens=5), {}, 5, True),
        (Usage(input_tokens=5), {"output_tokens": 1}, 5, True),
        (Usage(input_tokens=5, partial=True), FULL, 15, True),
        (None, FULL, 10, True),
    ],
)
def test_usage_of_all_turns_is_partial_if_a_turn_was_not_counted(
    before: Usage | None, usage: object, input_tokens: int, partial: bool
):
    job = a_job()
    later = replace(job, usage=before, usage_before=before, turn=replace(job.turn, number=2))
    used = later.apply_response(a_response(usage=usage), 9.0).usage
    assert used is not None
    assert (used.input_tokens, used.partial) == (input_tokens, partial)
