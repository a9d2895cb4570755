"""Draw from the seed what happens in a chaos run, before anything starts. Pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from .faults import BROKEN, BUSY, CANCELLING, LASTING, LATER, LOST, MODE_ANSWERS, ODD, REFUSED, Fate, Json

#: Jobs that are started at once, at most.
BURST = 8
#: Failures as upstream names them.
ERROR_CODES = ("server_error", "rate_limit_exceeded", "invalid_prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The size of a run."""

    database: str = "sqlite"
    seed: int = 1
    jobs: int = 1000
    kills: int = 20
    speed: float = 10.0  #: emulated seconds in a real one
    in_flight: int = 40  #: jobs that run at once
    limit_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Post:
    """The fault that one POST of a job meets, and what it means for the job."""

    fate: Fate
    fault: Json


#: A POST after the planned ones meets no fault.
PLAIN = Post(Fate.NAMED, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A job: what its host does and when, and what the provider does."""

    key: str
    window: int  #: which of the servers it is started through
    script: Json
    posts: tuple[Post, ...]
    model: str | None  #: a model of its own if the server stores something about the model after this job
    wait_s: float
    poll_s: float
    cancel_after: int | None  #: polls before the host cancels; None if it never does

    @property
    def prompt(self) -> str:
        return f"{self.key}: work\n[emulate {json.dumps(self.script)}]"

    def post(self, number: int) -> Post:
        """Return the plan of the job's n-th POST."""
        return self.posts[number] if number < len(self.posts) else PLAIN


@dataclass(frozen=True, slots=True)
class Kill:
    """The moment at which a server is killed.

    It is the first step of that kind after `after` starts and ends of jobs. Step 0 of an operation is when its request
    was read, step n when the n-th piece of its answer was written. The step of a start is when its line was written to
    the server's stdin.
    """

    after: int
    operation: str
    step: int


def draw_plans(options: Options) -> list[Plan]:
    """Draw the jobs of a run."""
    pick = Random(f"jobs {options.seed}")
    return [_draw_plan(f"chaos-{number:04}", pick) for number in range(options.jobs)]


def draw_bursts(options: Options) -> Iterator[int]:
    """Draw the numbers of jobs that are started at once."""
    pick = Random(f"bursts {options.seed}")
    while True:
        yield pick.randint(1, BURST)


def draw_kills(options: Options) -> list[Kill]:
    """Draw when servers are killed, in order."""
    pick = Random(f"kills {options.seed}")
    after = sorted(pick.randint(options.jobs // 20, options.jobs * 9 // 5) for _ in range(options.kills))
    return [Kill(steps, *_draw_moment(pick)) for steps in after]


def _draw_moment(pick: Random) -> tuple[str, int]:
    operation = pick.choice(("start", "create", "create", "create", "retrieve", "stream", "cancel"))
    steps = {"start": 0, "create": 6, "stream": 4}.get(operation, 1)
    return operation, pick.randint(0, steps)


def _draw_plan(key: str, pick: Random) -> Plan:
    posts, changes_mode = _draw_posts(pick)
    fate, fault = posts[-1]
    # A foreground run cannot be cancelled, so it must have an end.
    end = pick.choices(("completed", "failed", "incomplete", "never"), (80, 8, 8, 0 if changes_mode else 4))[0]
    endless = end == "never" or "stuck_queued" in fault
    cancelled = endless or pick.random() < 0.1
    if fate is Fate.NAMED:
        posts[-1] = (fate, fault | _draw_lasting(pick, cancelled=cancelled, endless=endless))
    busy = [(Fate.BUSY, pick.choice(BUSY)) for _ in range(pick.choices((0, 1, 2), (88, 9, 3))[0])]
    return Plan(
        key=key,
        window=pick.randrange(2),
        script=_draw_script(pick, end, _draw_later(pick)),
        posts=tuple(Post(*post) for post in (*busy, *posts)),
        model=f"emulated-{key}" if changes_mode else None,
        wait_s=pick.choice((0, 0, 2, 5)),
        poll_s=pick.choice((1, 3) if cancelled else (1, 3, 5, 20)),
        cancel_after=pick.choice((0, 0, 1, 2)) if cancelled else None,
    )


def _draw_posts(pick: Random) -> tuple[list[tuple[Fate, Json]], bool]:
    """Draw the POSTs that decide the job, and whether the server stores something about the model after them."""
    match pick.choices(("plain", "odd", "broken", "stuck", "lost", "refused", "mode"), (25, 22, 30, 2, 12, 3, 6))[0]:
        case "odd":
            return [(Fate.NAMED, pick.choice(ODD))], False
        case "broken":
            return [(Fate.NAMED, pick.choice(BROKEN))], False
        case "stuck":
            return [(Fate.NAMED, {"stuck_queued": True})], False
        case "lost":
            return [(Fate.LOST, pick.choice(LOST))], False
        case "refused":
            return [(Fate.REFUSED, pick.choice(REFUSED))], False
        case "mode":
            return [*pick.choice(MODE_ANSWERS)], True
        case _:
            return [(Fate.NAMED, {})], False


def _draw_lasting(pick: Random, *, cancelled: bool, endless: bool) -> Json:
    lasting = pick.choice(LASTING) if pick.random() < 0.3 else {}
    if cancelled and pick.random() < 0.6:
        # A run that never ends and ignores its cancel would keep the test waiting for ever.
        lasting = lasting | pick.choice([fault for fault in CANCELLING if not (endless and "late_complete" in fault)])
    return lasting


def _draw_later(pick: Random) -> list[Json]:
    """Draw up to three faults in a row for each kind of request about the response."""
    faults: list[Json] = []
    for operation, kinds in LATER.items():
        skip = 0
        for _ in range(pick.choices((0, 1, 2, 3), (50, 30, 15, 5))[0]):
            fault = pick.choice(kinds)
            faults.append({**fault, "on": operation, "skip": skip})
            skip += int(fault.get("times", 1))
    return faults


def _draw_script(pick: Random, end: str, faults: list[Json]) -> Json:
    script: dict[str, Any] = {
        "duration_s": round(pick.uniform(1, 35), 1),
        "queued_s": round(pick.choice((0.2, 0.2, 5.0)), 1),
        "length": pick.choice((0, 60, 600, 600, 2_000, 6_000, 40_000)),
        "reasoning": pick.randint(0, 2),
        "searches": pick.choice((0, 0, 1, 3)),
        "end": end,
        "error_code": pick.choice(ERROR_CODES),
        "faults": faults,
    }
    return script | ({"usage": None} if pick.random() < 0.1 else {}) | ({"chunk": 333} if pick.random() < 0.2 else {})
