"""Compare the end of each job with the end that the provider's log demands. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .drive import Record, is_adoptable
from .faults import Fate, Json
from .story import UNCONFIRMED, End, Story

#: Seconds that a busy machine takes to read what was sent, on either side. A POST that the provider sees may be of a
#: server that has died meanwhile, and an id that was sent may not be stored yet.
LAG_S = 2.0
#: Seconds that a host waits for a tool call.
HOST_WAIT_S = 45.0
TERMINAL = ("completed", "incomplete", "failed", "cancelled", "expired")
#: Any failure, but for an unconfirmed start.
REFUSED = End("failed", "refused by upstream")
_LATER = ("retrieve", "stream", "cancel")


@dataclass(slots=True)
class Wire:
    """The requests and responses of one job in the provider's log."""

    posts: list[Json] = field(default_factory=list[Json])
    responses: list[Json] = field(default_factory=list[Json])
    is_touched: bool = False  #: a server asked for its response before the adoptions, so it had stored the id


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one job."""

    expected: End
    cause: str  #: of an unconfirmed start: fault or kill
    violations: list[str]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of the whole run."""

    wires: dict[str, Wire]
    verdicts: list[Verdict]
    violations: list[str]


def judge(record: Record) -> Judgement:
    """Compare the end of every job with the end that the provider's log demands."""
    wires = _group_log_by_job(record)
    verdicts = [_judge_story(record, story, wires.get(story.job_id, Wire())) for story in record.stories]
    violations = [
        f"{story.plan.key} {story.job_id}: {words}"
        for story, verdict in zip(record.stories, verdicts, strict=True)
        for words in verdict.violations
    ]
    by_kill = sum(verdict.cause == "kill" for verdict in verdicts)
    return Judgement(wires, verdicts, [*violations, *_check_run(record, wires, by_kill)])


def _group_log_by_job(record: Record) -> dict[str, Wire]:
    """Group the provider's log by job."""
    wires: dict[str, Wire] = {}
    is_touched = {
        entry["response_id"]
        for entry in record.log
        if entry["entry"] == "request" and entry["operation"] in _LATER and entry["at"] <= record.closed_at
    }
    for entry in record.log:
        if entry["entry"] == "response":
            wire = wires.setdefault(entry["metadata"]["job_id"], Wire())
            wire.responses.append(entry)
            wire.is_touched = wire.is_touched or entry["id"] in is_touched
        elif entry["operation"] == "create":
            wires.setdefault(entry["job_id"], Wire()).posts.append(entry)
    return wires


def _judge_story(record: Record, story: Story, wire: Wire) -> Verdict:
    may_be = list(_list_allowed_ends(record, story, wire)) or [(End("impossible"), "")]
    expected, cause = next((each for each in may_be if _is_same_end(each[0], story.end)), may_be[0])
    violations = [*_check_posts(story, wire), *_check_adoption(story, wire)]
    if story.end is None:
        violations.append(f"has no end; refused {story.refusals[-1:]}, lost {story.lost_starts} starts")
    elif _is_same_end(expected, story.end):
        expected = story.end
    else:
        violations.append(
            f"is {_describe_end(story.end)}, expected {' or '.join(_describe_end(end) for end, _ in may_be)}"
        )
    if story.stored != story.end:
        violations.append(f"the tools said {story.end}, the database has {story.stored}")
    return Verdict(expected, cause, violations)


def _allow_streamed_part(ends: Iterator[End], response: Json, got: End | None) -> Iterator[End]:
    """Yield the ends; one without an output may have a part of the streamed text, perhaps all that a paid run left."""
    for end in ends:
        is_part = got is not None and bool(got.output) and got.output in response["streamed"]
        yield replace(end, output=got.output) if got is not None and is_part and not end.output else end


def _list_allowed_ends(record: Record, story: Story, wire: Wire) -> Iterator[tuple[End, str]]:
    """Yield the ends that the provider's log allows, each with the cause if its start is unconfirmed."""
    fate = story.plan.post(len(wire.posts) - 1).fate if wire.posts else Fate.BUSY
    if fate is Fate.REFUSED and story.plan.model is not None:
        fate = Fate.BUSY  # only the way of sending was refused, so the server sends it again in another way
    committed = story.names_response or wire.is_touched
    if wire.responses and (committed or fate is Fate.NAMED):
        ends = _list_ends(story, wire.responses[-1], is_cut=_was_sender_killed(record, wire))
        yield from ((end, "") for end in _allow_streamed_part(ends, wire.responses[-1], story.end))
    elif fate is Fate.REFUSED:
        yield REFUSED, ""
    elif fate is Fate.BUSY and story.cancelled:
        yield End("cancelled"), ""
    if fate is Fate.LOST and not committed:
        yield UNCONFIRMED, "fault"
    elif not committed and _may_be_lost_by_kill(record, wire, fate):
        yield UNCONFIRMED, "kill"


def _list_ends(story: Story, response: Json, *, is_cut: bool = False) -> Iterator[End]:
    """Yield the possible ends of a job whose response the provider ran."""
    codes = {"failed": story.plan.script["error_code"], "incomplete": "max_output_tokens"}
    if is_adoptable(response):
        yield End(response["status"], codes.get(response["status"], ""), response["text"])
        return
    # A foreground run ends with its connection, and the provider keeps nothing of it.
    if is_cut:
        yield from (End("expired", "expired"), End("failed", "interrupted"))
    if story.cancelled:
        yield End("cancelled")


def _was_sender_killed(record: Record, wire: Wire) -> bool:
    """Return True if the process that sent the job's last POST was killed."""
    create_call = record.create_calls[wire.posts[-1]["client_request_id"]][-1]
    return any(create_call.server == death.server for death in record.deaths)


def _may_be_lost_by_kill(record: Record, wire: Wire, fate: Fate) -> bool:
    """Return True if a server died between the first byte of the job's last POST and the commit of its id."""
    if not wire.posts:
        return bool(record.deaths)  # the server died before the provider had read the whole request
    create_calls = record.create_calls[wire.posts[-1]["client_request_id"]]
    if fate is Fate.BUSY and any(death.at >= create_calls[-1].at - LAG_S for death in record.deaths):
        return True  # the server died in the next POST, of which the provider read nothing
    return any(
        create_call.server == death.server and death.at <= create_call.over_at + LAG_S
        for death in record.deaths
        for create_call in create_calls
    )


def _check_posts(story: Story, wire: Wire) -> Iterator[str]:
    """Yield a violation if work was paid twice, or was sent again though the provider may have accepted it."""
    if len(story.job_ids) > 1:
        yield f"one piece of work became {len(story.job_ids)} jobs"
    if len(wire.responses) > 1:
        yield f"was accepted {len(wire.responses)} times"
    for number in range(len(wire.posts) - 1):
        fate = story.plan.post(number).fate
        if fate not in (Fate.BUSY, Fate.REFUSED):
            yield f"was sent again after a POST that was {fate.value}"


def _check_adoption(story: Story, wire: Wire) -> Iterator[str]:
    """Yield a violation if an adopted response did not bring its whole result."""
    if story.stored != UNCONFIRMED or not wire.responses or not is_adoptable(wire.responses[-1]):
        return
    [expected] = _allow_streamed_part(_list_ends(story, wire.responses[-1]), wire.responses[-1], story.adopted)
    if story.adopted != expected:
        yield f"adopted it is {_describe_end(story.adopted)}, expected {_describe_end(expected)}"


def _check_run(record: Record, wires: dict[str, Wire], by_kill: int) -> Iterator[str]:
    options = record.options
    known = {story.job_id for story in record.stories}
    yield from record.complaints
    for job_id, (title, status) in record.rows.items():
        if status not in TERMINAL:
            yield f"{title} {job_id}: was left {status}"
        if job_id not in known:
            yield f"{title} {job_id}: no host was told of this job"
    yield from (f"{job_id}: was sent but not stored" for job_id in wires.keys() - record.rows.keys())
    if by_kill > options.kills * options.in_flight:
        yield f"{by_kill} starts are unconfirmed by kills, more than {options.kills * options.in_flight}"
    if len(record.deaths) != options.kills:
        yield f"{len(record.deaths)} servers were killed, not {options.kills}"
    if record.slowest_start_s > HOST_WAIT_S:
        yield f"a start was answered {record.slowest_start_s:.0f} s late"
    if record.duration_s > options.limit_s:
        yield f"the run reached its limit of {options.limit_s:g} s"


def _is_same_end(expected: End, got: End | None) -> bool:
    if expected == REFUSED:
        return got is not None and got.status == "failed" and got.code != UNCONFIRMED.code
    return expected == got


def _describe_end(end: End | None) -> str:
    return f"{end} with {len(end.output)} characters ({end.output[:40]!r})" if end and end.output else str(end)
