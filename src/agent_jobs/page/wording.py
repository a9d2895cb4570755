"""Word errors for a person at the page, who can press its buttons and fill in its form."""

from collections.abc import Mapping

from agent_jobs.errors import AgentJobsError, Argument
from agent_jobs.rendering.fixes import Voice

#: What a person can do here, by the code of the error.
FIXES: Mapping[str, str] = {
    "budget_spent": "Wait until midnight UTC, or raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "budget_too_small": "Ask for less, or raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "has_response": "Its page shows it.",
    "job_asks": "Answer it on its page.",
    "job_running": "Wait for its end, or cancel it.",
    "no_key": "Set it with: {command}",
    "no_such_batch": "All jobs are on the first page.",
    "nothing_to_answer": "Load the page again: it may have been answered meanwhile.",
    "nothing_to_repeat": "All jobs are on the first page.",
    "over_max_cost": "Allow more, or ask for less.",
    "unbounded_calls": "Use the terminal to limit its calls.",
    "unbounded_output": "Use the terminal to limit its output.",
    "unbounded_turns": "Set what it may cost at most.",
    "upstream_busy": "Try again in a minute.",
    "wrong_value": "Correct it and try again.",
}
#: Names of arguments on the form.
_FIELDS = {"max_cost_usd": "the limit", "web_search": "web search", "previous_job_id": "the earlier job"}


def word_error(error: AgentJobsError) -> str:
    """Return what is wrong and what a person can do about it."""
    return _VOICE.describe(error)


def _capitalize_sentence(step: str) -> str:
    return f"{step[0].upper()}{step[1:]}."


def _name_field(name: Argument) -> str:
    field = name.removeprefix("options.")
    return _FIELDS.get(field, field.replace("_", " "))


_VOICE = Voice(FIXES, _capitalize_sentence, _name_field)
