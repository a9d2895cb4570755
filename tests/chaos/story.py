"""Record a job as its host sees it."""

from dataclasses import dataclass, field

from .faults import Json
from .plan import Plan
from .windows import RefusalError

#: Refused calls of one job, at most a second apart, after which its host gives up.
MAX_REFUSALS = 100


class GivenUpError(Exception):
    """The servers refuse every call about this job."""


@dataclass(frozen=True, slots=True)
class End:
    """The final state of a job."""

    status: str
    code: str = ""
    output: str = ""

    def __str__(self) -> str:
        return f"{self.status}/{self.code}" if self.code else self.status


UNCONFIRMED = End("failed", "start_unconfirmed")


@dataclass(slots=True)
class Story:
    """A job as its host saw it. Mutable: it grows with each answer."""

    plan: Plan
    job_ids: set[str] = field(default_factory=set[str])
    answers: int = 0  #: so far
    names_response: bool = False  #: an answer had the response's id
    cancelled: bool = False  #: the host asked to cancel
    lost_starts: int = 0  #: starts whose server died before it answered
    refusals: list[str] = field(default_factory=list[str])
    end: End | None = None  #: as the tools reported it
    stored: End | None = None  #: as the database has it
    adopted: End | None = None  #: after its lost response was adopted

    @property
    def job_id(self) -> str:
        return next(iter(self.job_ids), "")

    @property
    def is_open(self) -> bool:
        """Return True if the job was started and has not finished."""
        return bool(self.job_ids) and self.end is None

    def take_answer(self, answer: Json) -> bool:
        """Record an answer about the job; return True if the job is still running."""
        self.answers += 1
        self.job_ids.add(answer["job_id"])
        self.names_response = self.names_response or "response_id" in answer
        return "next_poll_ms" in answer

    def take_refusal(self, refusal: RefusalError) -> None:
        """Record that a call was refused.

        Raises:
            GivenUpError: Too many calls were refused.
        """
        self.refusals.append(f"{refusal.code}: {refusal}")
        if len(self.refusals) > MAX_REFUSALS:
            raise GivenUpError
