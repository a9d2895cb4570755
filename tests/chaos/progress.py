"""Report on stderr how far a run is, and where it stands when it stalls or reaches its limit."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

from .plan import Options
from .story import Story
from .witness import Witness

EVERY_S = 10.0  # seconds between lines of progress; a kill has a line at once
STALL_S = 60.0  # seconds without progress after which something hangs: no call of a server lasts longer
SHOWN_TASKS = 30  # tasks in a dump: the first ones show what all the others wait for
ABORT_S = 1.0  # seconds for a server to write its stacks
STDERR_CHARS = 4_000  # characters that are shown of the end of a server's stderr


class Progress:
    """The progress of a run, for the person who waits for it."""

    def __init__(self, options: Options, stories: list[Story], witness: Witness, folder: Path) -> None:
        self.stage = "opening"
        self._options = options
        self._stories = stories
        self._witness = witness
        self._folder = folder
        self._began = time.monotonic()
        self._moved = (self._began, self._count())

    async def report(self, scope: anyio.CancelScope) -> None:
        """Report until cancelled; a run that reaches its limit is stopped."""
        self._witness.on_death = self.say
        limit = self._began + self._options.limit_s
        while (left_s := limit - time.monotonic()) > 0:
            await anyio.sleep(min(EVERY_S, left_s))
            self.say(self.line())
            self._check_stall()
        self.say(f"stopped at the limit of {self._options.limit_s:g} s, while {self.stage}")
        self.dump()
        self._dump_servers()
        scope.cancel()

    def say(self, text: str) -> None:
        """Write a line with the time since the beginning."""
        sys.stderr.write(f"chaos {time.monotonic() - self._began:4.0f} s: {text}\n")
        sys.stderr.flush()

    def line(self) -> str:
        """Return how far the run is, in one line."""
        started, ended = self._count()[:2]
        servers = ", ".join(f"{window.name} {window.state}" for window in self._witness.windows.values())
        return (
            f"{self.stage}; {started} of {self._options.jobs} jobs started, {ended} ended, "
            f"{len(self._witness.deaths)} of {self._options.kills} kills; servers {servers or 'none'}"
        )

    def dump(self) -> None:
        """Write which jobs are open and what each task waits for."""
        for story in [story for story in self._stories if story.is_open][:SHOWN_TASKS]:
            self.say(
                f"open: {story.plan.key} {story.job_id}, refused {len(story.refusals)} times: {story.refusals[-1:]}"
            )
        for task in [*asyncio.all_tasks()][:SHOWN_TASKS]:
            self.say(f"{task.get_name()}: {' > '.join(_places(task.get_coro()))}")

    def _dump_servers(self) -> None:
        """End the servers by a signal on which each writes the stacks of its threads."""
        for window in self._witness.windows.values():
            window.abort()
        time.sleep(ABORT_S)
        for path in sorted(self._folder.glob("stderr-*.txt")):
            self.say(f"{path.name} ends:\n{path.read_text()[-STDERR_CHARS:]}")

    def _check_stall(self) -> None:
        now, count = time.monotonic(), self._count()
        since, before = self._moved
        if count != before:
            self._moved = (now, count)
        elif now - since > STALL_S:
            self._moved = (now, count)
            self.say(f"nothing has moved for {STALL_S:g} s")
            self.dump()

    def _count(self) -> tuple[int, int, int, int]:
        """Return the jobs that were started and have ended, the answers so far, and the kills."""
        started = sum(bool(story.job_ids) for story in self._stories)
        ended = sum(story.end is not None for story in self._stories)
        return started, ended, sum(story.answers for story in self._stories), len(self._witness.deaths)


def _places(awaited: Any) -> Iterator[str]:
    """Yield where a suspended coroutine stands, from its outermost frame inwards."""
    while awaited is not None:
        kind = next((kind for kind in ("cr", "ag", "gi") if hasattr(awaited, f"{kind}_frame")), None)
        if kind is None:
            yield type(awaited).__name__
            return
        if frame := getattr(awaited, f"{kind}_frame"):
            yield f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
