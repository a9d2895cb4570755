"""Word errors for a person at the page, who can press its buttons and fill in its form."""

from collections.abc import Mapping

from agent_jobs.errors import AgentJobsError, Argument
from agent_jobs.jobs.job import Job
from agent_jobs.rendering.fixes import Voice, capitalize_step
from agent_jobs.rendering.owner_fixes import OPERATOR, OWNER_FIXES, ask_operator, pass_on_to_operator

#: Fixes for a person at the page, by the code of the error.
FIXES: Mapping[str, str] = {
    "budget_spent": "Wait until midnight UTC, or raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "budget_too_small": "Ask for less, or raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "has_response": "Its page shows it.",
    "job_asks": "Answer it on its page.",
    "job_running": "Wait until it finishes, or cancel it.",
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


#: The next step for a person after a failure, by its code.
NEXT_STEPS: Mapping[str, str] = {
    "account_refused": "Check the key, its permissions and the credit. Then run it again.",
    "budget_exceeded": "Raise its limit or AGENT_JOBS_DAILY_BUDGET_USD. Then run it again.",
    "deadline_exceeded": "Run it again with a narrower prompt, or raise AGENT_JOBS_JOB_TIMEOUT_S.",
    "endpoint_lost": "Set that OPENAI_BASE_URL and its key. Then run: agent-jobs adopt {job_id} RESPONSE_ID",
    "expired": "Run it again.",
    "insufficient_quota": "Add credit at the provider. Then run it again.",
    "invalid_api_key": "Set a valid key with: agent-jobs key set",
    "max_output_tokens": "Run it again with a narrower prompt.",
    "max_tool_calls": "Run it again with a narrower prompt.",
    "max_turns": "Run it again with a narrower prompt or other tools.",
    "missing_secret": "Set it in the environment and list it in AGENT_JOBS_SECRETS. Then run it again.",
    "model_not_found": "Run it again with another model.",
    "no_such_endpoint": "Set OPENAI_BASE_URL to the API's address, which usually ends in /v1.",
    "start_unconfirmed": (
        "It may be running and billed. Find the response whose metadata has job_id={job_id} in the provider's "
        "dashboard. Then run: agent-jobs adopt {job_id} RESPONSE_ID"
    ),
}
#: What an owner of a team server can do instead, who cannot change its settings.
OWNER_PAGE_FIXES: Mapping[str, str] = {
    "budget_spent": f"Wait until midnight UTC, or ask {OPERATOR} to raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "budget_too_small": f"Ask for less, or ask {OPERATOR} to raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "owner_budget_too_small": f"Ask for less, or ask {OPERATOR} to raise it.",
}
OWNER_NEXT_STEPS: Mapping[str, str] = {
    "account_refused": f"Ask {OPERATOR} to check the key, its permissions and the credit. Then run it again.",
    "budget_exceeded": f"Raise its limit, or ask {OPERATOR} to raise the daily budget. Then run it again.",
    "deadline_exceeded": (f"Run it again with a narrower prompt, or ask {OPERATOR} to raise AGENT_JOBS_JOB_TIMEOUT_S."),
    "endpoint_lost": f"Ask {OPERATOR} to use that OPENAI_BASE_URL and its key again, and to adopt the response.",
    "insufficient_quota": f"Ask {OPERATOR} to add credit at the provider. Then run it again.",
    "invalid_api_key": f"Ask {OPERATOR} for a valid key. Then run it again.",
    "missing_secret": "Run it again without it: jobs of a team server get no secrets.",
    "no_such_endpoint": f"Ask {OPERATOR} to correct OPENAI_BASE_URL.",
    "start_unconfirmed": (
        f"It may be running and billed. Ask {OPERATOR} to find the response whose metadata has job_id={{job_id}} in "
        "the provider's dashboard, and to adopt it."
    ),
}


def describe_remedy(job: Job) -> str:
    """Return the next step for a person after a failed job; empty if it is unknown."""
    if job.error is None:
        return ""
    if job.error.is_retryable:
        return "You can run it again."
    steps = NEXT_STEPS
    if job.owner:
        steps = {**NEXT_STEPS, **OWNER_NEXT_STEPS}
    return steps.get(job.error.code, "").format(job_id=job.id)


def word_error(error: AgentJobsError, *, is_for_owner: bool = False) -> str:
    """Return what is wrong and what a person can do about it: the user of this machine, or an owner of a team."""
    if is_for_owner:
        return OWNER_VOICE.describe(error)
    return _VOICE.describe(error)


def _name_field(name: Argument) -> str:
    field = name.removeprefix("options.")
    return _FIELDS.get(field, field.replace("_", " "))


_VOICE = Voice(FIXES, capitalize_step, _name_field)
OWNER_VOICE = Voice(
    {**FIXES, **OWNER_FIXES, **OWNER_PAGE_FIXES}, ask_operator, _name_field, pass_on=pass_on_to_operator
)
