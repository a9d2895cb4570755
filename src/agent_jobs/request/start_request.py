"""Define the arguments of a start before they become a request."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_jobs.errors import Argument, RequestError
from agent_jobs.jobs.response import JSON
from agent_jobs.request.options import StartOptions

BATCH_MAX = 20  # jobs that one call starts: the answer with their ids stays short
BATCH_CHARS = 60  # a name fits a row of a list


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """The arguments of a start: the same for each prompt, a job for each. See `request.body.build_body` for them."""

    prompts: Sequence[str]
    preset: str | None = None
    model: str | None = None
    effort: str | None = None
    web_search: bool | None = None
    files: Sequence[str] = ()
    previous_job_id: str | None = None
    batch: str = ""
    priority: int = 0
    client: str = ""  #: the name of the host, or `terminal`
    repeats_job_id: str | None = None  #: send this job's first request again; the other arguments do not count
    options: JSON = field(default_factory=dict[str, Any])

    @property
    def is_dry_run(self) -> bool:
        """Return True if the caller wants a dry run."""
        return StartOptions.parse({"dry_run": self.options.get("dry_run")}).dry_run

    def check(self) -> None:
        """Raise a RequestError if no request can be made of the arguments."""
        if not 0 < len(self.prompts) <= BATCH_MAX:
            raise RequestError(
                "{name} accepts 1 to {most} strings, not {given}.",
                "too_many_prompts",
                name=Argument("prompts"),
                most=BATCH_MAX,
                given=len(self.prompts),
            )
        if len(self.batch) > BATCH_CHARS:
            raise RequestError(
                "{name} accepts a name of at most {most} characters, not {given}.",
                "too_long",
                name=Argument("batch"),
                most=BATCH_CHARS,
                given=len(self.batch),
            )
        if len(self.prompts) > 1 and self.options.get("key") is not None:
            raise RequestError("{name} names one job, not several.", "key_for_several", name=Argument("options.key"))
