"""What was seen of a job from its host's side."""

from dataclasses import dataclass, field

from .faults import Json
from .plan import Plan
from .windows import RefusalError

#: A call that a server refuses is repeated so often, a second apart at most.
ASK_AGAIN = 100


class GivenUpError(Exception):
    """The servers refuse whatever is asked about this job."""


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended."""

    status: str
    code: str = ""
    output: str = ""

    def __str__(self) -> str:
        return f"{self.status}/{self.code}" if self.code else self.status


UNCONFIRMED = End("failed", "start_unconfirmed")


@dataclass(slots=True)
class Story:
    """A job as its host lived through it."""

    plan: Plan
    job_ids: set[str] = field(default_factory=set[str])
    answers: int = 0  #: so far
    named: bool = False  #: an answer told the response's id
    cancelled: bool = False  #: the host asked for it
    lost_starts: int = 0  #: starts whose server died before it answered
    refusals: list[str] = field(default_factory=list[str])
    end: End | None = None  #: as the tools told it
    stored: End | None = None  #: as it stands in the database
    adopted: End | None = None  #: after its lost id was given back

    @property
    def job_id(self) -> str:
        return next(iter(self.job_ids), "")

    @property
    def is_open(self) -> bool:
        """Return True if the job was started and has not ended."""
        return bool(self.job_ids) and self.end is None

    def hear(self, answer: Json) -> bool:
        """Take in an answer about the job; returns whether it goes on."""
        self.answers += 1
        self.job_ids.add(answer["job_id"])
        self.named = self.named or "response_id" in answer
        return "next_poll_ms" in answer

    def refuse(self, refusal: RefusalError) -> None:
        """Take in that a call was refused."""
        self.refusals.append(f"{refusal.code}: {refusal}")
        if len(self.refusals) > ASK_AGAIN:
            raise GivenUpError
