"""How each job should have ended by the upstream's log, and how it did. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .drive import Record, adoptable
from .faults import Fate, Json
from .story import UNCONFIRMED, End, Story

#: What a busy machine takes to read what was sent, on either side: a POST that upstream sees may be of a server that
#: is dead by then, and an id that was sent may not be written down yet.
LAG_S = 2.0
#: No tool call may last longer than a host waits.
HOST_WAIT_S = 45.0
TERMINAL = ("completed", "incomplete", "failed", "cancelled", "expired")
#: Any failure, but for an unconfirmed start.
REFUSED = End("failed", "refused by upstream")
_LATER = ("retrieve", "stream", "cancel")


@dataclass(slots=True)
class Wire:
    """What upstream saw of one job."""

    posts: list[Json] = field(default_factory=list[Json])
    responses: list[Json] = field(default_factory=list[Json])
    touched: bool = False  #: a server asked about its response before the adoptions: it had written the id down


@dataclass(frozen=True, slots=True)
class Verdict:
    """One job's case."""

    expected: End
    cause: str  #: of an unconfirmed start: fault or kill
    violations: list[str]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The whole run's."""

    wires: dict[str, Wire]
    verdicts: list[Verdict]
    violations: list[str]


def judge(record: Record) -> Judgement:
    """Compare every job's end with what upstream's log says it must be."""
    wires = _wires(record)
    verdicts = [_verdict(record, story, wires.get(story.job_id, Wire())) for story in record.stories]
    violations = [
        f"{story.plan.key} {story.job_id}: {words}"
        for story, verdict in zip(record.stories, verdicts, strict=True)
        for words in verdict.violations
    ]
    by_kill = sum(verdict.cause == "kill" for verdict in verdicts)
    return Judgement(wires, verdicts, [*violations, *_of_the_whole(record, wires, by_kill)])


def _wires(record: Record) -> dict[str, Wire]:
    """Upstream's log by job."""
    wires: dict[str, Wire] = {}
    touched = {
        entry["response_id"]
        for entry in record.log
        if entry["entry"] == "request" and entry["operation"] in _LATER and entry["at"] <= record.closed_at
    }
    for entry in record.log:
        if entry["entry"] == "response":
            wire = wires.setdefault(entry["metadata"]["job_id"], Wire())
            wire.responses.append(entry)
            wire.touched = wire.touched or entry["id"] in touched
        elif entry["operation"] == "create":
            wires.setdefault(entry["job_id"], Wire()).posts.append(entry)
    return wires


def _verdict(record: Record, story: Story, wire: Wire) -> Verdict:
    may_be = list(_allowed(record, story, wire)) or [(End("impossible"), "")]
    expected, cause = next((each for each in may_be if _same(each[0], story.end)), may_be[0])
    violations = [*_of_the_posts(story, wire), *_of_the_adoption(story, wire)]
    if story.end is None:
        violations.append(f"has no end; refused {story.refusals[-1:]}, lost {story.lost_starts} starts")
    elif _same(expected, story.end):
        expected = story.end
    else:
        violations.append(f"is {_told(story.end)}, expected {' or '.join(_told(end) for end, _ in may_be)}")
    if story.stored != story.end:
        violations.append(f"the tools said {story.end}, the database has {story.stored}")
    return Verdict(expected, cause, violations)


def _keeps_streamed(ends: Iterator[End], response: Json, got: End | None) -> Iterator[End]:
    """Also allow ends without an output to have a part of what was streamed, maybe all there is of a paid run."""
    for end in ends:
        is_part = got is not None and bool(got.output) and got.output in response["streamed"]
        yield replace(end, output=got.output) if got is not None and is_part and not end.output else end


def _allowed(record: Record, story: Story, wire: Wire) -> Iterator[tuple[End, str]]:
    """How the job may have ended by all that upstream knows, and the cause where its start is unconfirmed."""
    fate = story.plan.post(len(wire.posts) - 1).fate if wire.posts else Fate.BUSY
    if fate is Fate.REFUSED and story.plan.model is not None:
        fate = Fate.BUSY  # what is refused in this way is only how it was sent: it is sent again in another
    committed = story.named or wire.touched
    if wire.responses and (committed or fate is Fate.NAMED):
        ends = _ends_of(story, wire.responses[-1], cut=_cut(record, wire))
        yield from ((end, "") for end in _keeps_streamed(ends, wire.responses[-1], story.end))
    elif fate is Fate.REFUSED:
        yield REFUSED, ""
    elif fate is Fate.BUSY and story.cancelled:
        yield End("cancelled"), ""
    if fate is Fate.LOST and not committed:
        yield UNCONFIRMED, "fault"
    elif not committed and _killed(record, wire, fate):
        yield UNCONFIRMED, "kill"


def _ends_of(story: Story, response: Json, *, cut: bool = False) -> Iterator[End]:
    """The end of a job whose response upstream ran."""
    codes = {"failed": story.plan.script["error_code"], "incomplete": "max_output_tokens"}
    if adoptable(response):
        yield End(response["status"], codes.get(response["status"], ""), response["text"])
        return
    # A foreground run ends with its connection, and upstream does not know it any more.
    if cut:
        yield from (End("expired", "expired"), End("failed", "interrupted"))
    if story.cancelled:
        yield End("cancelled")


def _cut(record: Record, wire: Wire) -> bool:
    """Whether the process that sent the job's last POST was killed."""
    birth = record.births[wire.posts[-1]["client_request_id"]][-1]
    return any(birth.server == death.server for death in record.deaths)


def _killed(record: Record, wire: Wire, fate: Fate) -> bool:
    """Whether a server died between the first byte of the job's last POST and the commit of its id."""
    if not wire.posts:
        return bool(record.deaths)  # it died before upstream read the whole request
    births = record.births[wire.posts[-1]["client_request_id"]]
    if fate is Fate.BUSY and any(death.at >= births[-1].at - LAG_S for death in record.deaths):
        return True  # in the POST after that, of which upstream read nothing
    return any(
        birth.server == death.server and death.at <= birth.over_at + LAG_S
        for death in record.deaths
        for birth in births
    )


def _of_the_posts(story: Story, wire: Wire) -> Iterator[str]:
    """Nothing may be paid twice, nor sent again unless upstream provably did not accept it."""
    if len(story.job_ids) > 1:
        yield f"one piece of work became {len(story.job_ids)} jobs"
    if len(wire.responses) > 1:
        yield f"was accepted {len(wire.responses)} times"
    for number in range(len(wire.posts) - 1):
        fate = story.plan.post(number).fate
        if fate not in (Fate.BUSY, Fate.REFUSED):
            yield f"was sent again after a POST that was {fate.value}"


def _of_the_adoption(story: Story, wire: Wire) -> Iterator[str]:
    """A lost id that is given back brings the whole result."""
    if story.stored != UNCONFIRMED or not wire.responses or not adoptable(wire.responses[-1]):
        return
    [expected] = _keeps_streamed(_ends_of(story, wire.responses[-1]), wire.responses[-1], story.adopted)
    if story.adopted != expected:
        yield f"adopted it is {_told(story.adopted)}, expected {_told(expected)}"


def _of_the_whole(record: Record, wires: dict[str, Wire], by_kill: int) -> Iterator[str]:
    options = record.options
    known = {story.job_id for story in record.stories}
    yield from record.complaints
    for job_id, (title, status) in record.rows.items():
        if status not in TERMINAL:
            yield f"{title} {job_id}: was left {status}"
        if job_id not in known:
            yield f"{title} {job_id}: nobody was told of this job"
    yield from (f"{job_id}: was sent but not written down" for job_id in wires.keys() - record.rows.keys())
    if by_kill > options.kills * options.in_flight:
        yield f"{by_kill} starts are unconfirmed by kills, more than {options.kills * options.in_flight}"
    if len(record.deaths) != options.kills:
        yield f"{len(record.deaths)} servers were killed, not {options.kills}"
    if record.slowest_start_s > HOST_WAIT_S:
        yield f"a start was answered {record.slowest_start_s:.0f} s late"
    if record.duration_s > options.limit_s:
        yield f"the run reached its limit of {options.limit_s:g} s"


def _same(expected: End, got: End | None) -> bool:
    if expected == REFUSED:
        return got is not None and got.status == "failed" and got.code != UNCONFIRMED.code
    return expected == got


def _told(end: End | None) -> str:
    return f"{end} with {len(end.output)} characters ({end.output[:40]!r})" if end and end.output else str(end)
