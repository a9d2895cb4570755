"""Show a run as a table for people. Pure."""

from collections import Counter
from collections.abc import Iterator

from .drive import Record
from .judge import Judgement
from .story import UNCONFIRMED

#: Violations below the table; the others are mostly of the same kind.
SHOWN = 10


def format_table(record: Record, judgement: Judgement) -> Iterator[str]:
    """Yield the lines of the table: what happened, then the first violations."""
    options = record.options
    size = f"{options.jobs} jobs, {options.in_flight} in flight, {options.speed:g}x"
    yield f"seed {options.seed}, {options.database}: {size}"
    yield ""
    yield f"{'end':<40}{'expected':>10}{'got':>10}"
    expected = Counter(str(verdict.expected) for verdict in judgement.verdicts)
    got = Counter(str(story.end) for story in record.stories)
    for end in sorted(expected | got):
        yield f"{end:<40}{expected[end]:>10}{got[end]:>10}"
    yield ""
    for name, value in _list_figures(record, judgement):
        yield f"{name:<40}{value}"
    yield f"{'violations':<40}{len(judgement.violations)}"
    yield from (f"  {violation}" for violation in judgement.violations[:SHOWN])


def _list_figures(record: Record, judgement: Judgement) -> Iterator[tuple[str, str]]:
    options, wires = record.options, judgement.wires.values()
    causes = Counter(verdict.cause for verdict in judgement.verdicts)
    moments = Counter(death.operation for death in record.deaths)
    requests = Counter(entry["operation"] for entry in record.log if entry["entry"] == "request")
    adopted = [story.adopted for story in record.stories if story.adopted]
    accepted = max((len(wire.responses) for wire in wires), default=0)
    sent = max((len(wire.posts) for wire in wires), default=0)
    yield "POSTs per job at most", f"{accepted} accepted, {sent} sent"
    yield "kills", f"{len(record.deaths)} ({', '.join(f'{count} at {name}' for name, count in moments.items())})"
    yield "starts asked for again", str(sum(story.lost_starts for story in record.stories))
    yield "unconfirmed by fault", str(causes["fault"])
    yield "unconfirmed by kill", f"{causes['kill']} (at most {options.kills * options.in_flight})"
    yield "adopted", f"{len(adopted)}, {sum(end != UNCONFIRMED for end in adopted)} with their result"
    for name in ("create", "retrieve", "stream", "cancel"):
        yield f"{name} requests", str(requests[name])
    yield "refused calls", str(sum(len(story.refusals) for story in record.stories))
    yield "slowest start", f"{record.slowest_start_s:.1f} s"
    yield "duration", f"{record.duration_s:.0f} s"
