"""What a caller asks for, before it is a request."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_jobs.errors import RequestError
from agent_jobs.jobs.response import JSON

#: Jobs that one call starts at most.
BATCH_MAX, BATCH_CHARS = 20, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """What a caller asks for: the same for each prompt, a job for each. See `request.build` for the arguments."""

    prompts: Sequence[str]
    preset: str | None = None
    model: str | None = None
    effort: str | None = None
    web_search: bool | None = None
    files: Sequence[str] = ()
    previous_job_id: str | None = None
    batch: str = ""
    priority: int = 0
    options: JSON = field(default_factory=dict[str, Any])

    def check(self) -> None:
        """Raise a RequestError for what no request can be."""
        if not 0 < len(self.prompts) <= BATCH_MAX:
            raise RequestError(f"prompts takes 1 to {BATCH_MAX} texts: start the others in another call.")
        if len(self.batch) > BATCH_CHARS:
            raise RequestError(f"batch takes a name of at most {BATCH_CHARS} characters.")
        if len(self.prompts) > 1 and self.options.get("key") is not None:
            raise RequestError("options.key names one job: start jobs with keys one by one.")
