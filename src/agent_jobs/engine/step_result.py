"""What a step of a job answers: when to come back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do for this job, here."""


@dataclass(frozen=True, slots=True)
class RunAgain:
    """Come back after so many seconds, sooner if somebody watches, but never before `not_before_s`."""

    s: float
    not_before_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WaitForSlot:
    """As many jobs run as may: somebody comes back to this one when a slot is free."""
