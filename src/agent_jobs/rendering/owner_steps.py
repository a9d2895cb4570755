"""Name the next step after a failure of a job of a team server's owner, for the owner's model."""

from collections.abc import Mapping

from agent_jobs.rendering.owner_fixes import OPERATOR

#: The next step after a failure of an owner's job, where it is not that of the machine's user.
OWNER_NEXT_STEPS: Mapping[str, str] = {
    "account_refused": f"ask {OPERATOR} to check the key, its permissions and the credit, then agent_start again",
    "budget_exceeded": (
        f"agent_start again once its limit is higher: options.max_cost_usd, or the daily budget, which {OPERATOR} sets"
    ),
    "deadline_exceeded": (
        f"agent_start again with a narrower prompt, or ask {OPERATOR} to raise AGENT_JOBS_JOB_TIMEOUT_S"
    ),
    "endpoint_lost": f"ask {OPERATOR} to use that OPENAI_BASE_URL and its key again, and to adopt the response",
    "insufficient_quota": f"ask {OPERATOR} to add credit at the provider, then agent_start again",
    "invalid_api_key": f"ask {OPERATOR} for a valid key, then agent_start again",
    "missing_secret": "agent_start again without it: jobs of a team server get no secrets",
    "no_such_endpoint": f"ask {OPERATOR} to correct OPENAI_BASE_URL",
    "start_unconfirmed": (
        f"it may be running and billed: ask {OPERATOR} to search the provider's dashboard for metadata job_id={{id}} "
        "before you start it again with options.allow_duplicate"
    ),
}
