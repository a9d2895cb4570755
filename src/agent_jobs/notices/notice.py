"""A notice of a job, without its output, and without its prompt beyond the title. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Code of the failure of a job that the budget ended.
BUDGET_CODE = "budget_exceeded"
#: Fields of a job's report that receivers of a webhook get.
_SENT_FIELDS = ("job_id", "title", "status", "model", "batch", "elapsed_s", "cost_usd")
_HEADLINES = {"needs_input": "a job needs your answer", "budget": "the budget stopped a job", "test": "test"}
_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class Notice:
    """One event, as every target shows it.

    Args:
        event: finished, needs_input, budget or test.
        at: When it happened, in epoch seconds.
        data: The fields of the job, at least `title` and `status`.
    """

    event: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def is_good(self) -> bool:
        """Return True if the user does not have to do anything."""
        return self.data["status"] in ("completed", "test")

    @property
    def headline(self) -> str:
        """Return a few words of ASCII about the event."""
        words = _HEADLINES.get(self.event) or f"a job is {self.data['status']}"
        if self.event == "finished" and self.data["status"] in ("failed", "expired"):
            words = f"a job {self.data['status']}"
        return f"agent-jobs: {words}"

    @property
    def title(self) -> str:
        """Return the job's title on one line."""
        text = " ".join(str(self.data["title"]).split())
        return "".join(filter(str.isprintable, text))

    @property
    def facts(self) -> str:
        """Return what else is known of the job, on one line."""
        cost, elapsed = self.data.get("cost_usd"), self.data.get("elapsed_s")
        parts = [str(self.data.get("job_id", "")), str(self.data.get("error_code", ""))]
        if elapsed is not None:
            parts.append(format_elapsed(elapsed))
        if cost is not None:
            parts.append(f"${cost:.2f}")
        if self.event == "needs_input":
            parts.append(f"agent-jobs reply {self.data['job_id']}")
        return ", ".join(filter(None, parts))

    @property
    def text(self) -> str:
        """Return the title with the facts below it."""
        return f"{self.title}\n{self.facts}".rstrip()


def make_notice(report: Mapping[str, Any], now: float) -> Notice:
    """Return the notice of a job from the report that a command of AGENT_JOBS_ON_FINISH gets."""
    data = {name: report[name] for name in _SENT_FIELDS if report.get(name) is not None}
    code = report.get("error", {}).get("code")
    if code:
        data["error_code"] = code
    if report["status"] == "input_required":
        return Notice("needs_input", now, data)
    at = min(now, report["created_at"] + report["elapsed_s"])
    return Notice("budget" if code == BUDGET_CODE else "finished", at, data)


def make_refusal_notice(now: float) -> Notice:
    """Return the notice that the day's budget does not allow any more jobs."""
    return Notice("budget", now, {"title": "The daily budget does not allow this job.", "status": "refused"})


def make_test_notice(now: float) -> Notice:
    """Return a notice that only shows that notices arrive."""
    return Notice("test", now, {"title": "Notices of agent-jobs arrive here.", "status": "test"})


def format_elapsed(seconds: float) -> str:
    """Return a time in words, such as 40 s, 12 min or 2 h 5 min."""
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    hours, minutes = divmod(whole // _MINUTE_S, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min"
