"""The outcome of one step of a job: when the next step is due."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do for this job in this process."""


@dataclass(frozen=True, slots=True)
class RunAgain:
    """Run the next step after `after_s`, sooner if a caller watches the job, but never before `not_before_s`."""

    after_s: float
    not_before_s: float = 0.0
    lost_claims: int | None = None  #: of the job as the step read it: a later claim has a step of its own


@dataclass(frozen=True, slots=True)
class WaitForSlot:
    """All slots are in use; the worker continues this job when one is free."""


class LostRace(Exception):
    """Another process or a caller changed the job first, so this step must not do what it was about to do."""
