"""Word errors for a model that calls tools."""

from collections.abc import Mapping

from agent_jobs.rendering.fixes import Voice, capitalize_step
from agent_jobs.rendering.owner_fixes import OPERATOR, OWNER_FIXES, ask_operator, pass_on_to_operator

#: Fixes for a model, by the code of the error.
FIXES: Mapping[str, str] = {
    # Arguments
    "literal_secret": (
        'Ask the user to list its name in AGENT_JOBS_SECRETS, and write "${{NAME}}" or "Bearer ${{NAME}}" in its place.'
    ),
    "tool_servers_gone": "Ask the user to set AGENT_JOBS_TOOLBOX, or start it with options.toolbox none.",
    "unset_secret": "Ask the user to put {secret} into the env of this server's entry and restart it.",
    "wrong_tool_servers": ("Ask the user to correct that; jobs that do not name it in options.toolbox can be started."),
    "wrong_value": "Correct it and call again.",
    # Costs
    "budget_spent": "Wait until midnight UTC, or ask the user to raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "budget_too_small": (
        "Lower its bound with options.max_output_tokens, or ask the user to raise AGENT_JOBS_DAILY_BUDGET_USD."
    ),
    "owner_budget_spent": "Wait until midnight UTC, or ask the user to have the operator of the server raise it.",
    "owner_budget_too_small": (
        "Lower its bound with options.max_output_tokens, wait until midnight UTC, or ask the user to have the operator "
        "of the server raise it."
    ),
    "over_max_cost": "Lower options.max_output_tokens or options.max_tool_calls, or allow more.",
    "unbounded_calls": "Set options.max_tool_calls.",
    "unbounded_output": "Set options.max_output_tokens.",
    "unbounded_turns": "Set options.max_cost_usd, which limits them all.",
    "too_many_starts": "Call again in {seconds} s.",
    # Jobs
    "approval_at_terminal": (
        "Ask them to run `agent-jobs reply {job_id}` in a terminal, or to set AGENT_JOBS_APPROVALS=model. You may deny."
    ),
    "approval_in_dialog": (
        "Call agent_poll, which asks them, or ask them to set AGENT_JOBS_APPROVALS=model. You may deny."
    ),
    "no_result": "Call agent_poll job_id={job_id} until it finishes.",
    "no_selection": "Give job_id, job_ids or batch.",
    "prompt_or_prompts": "Give either prompt, or prompts for several jobs.",
    "two_selections": "Give one of job_id, job_ids and batch.",
    "empty_reply": "Answer with outputs, approve, deny or message.",
    "has_response": "Call agent_poll job_id={job_id}.",
    "job_asks": (
        "agent_poll shows what it asks. Answer with agent_reply and wait until it finishes, or agent_cancel it; then "
        "continue it."
    ),
    "job_running": "Call agent_poll job_id={job_id} until it finishes, then continue it.",
    "needs_approval": "Use approve or deny.",
    "needs_output": "Give it in outputs.",
    "not_always_allowed": "Call agent_poll job_id={job_id} to see what it asks.",
    "no_jobs": "There are no jobs yet; agent_start makes one.",
    "no_such_batch": "Call agent_list to see all jobs.",
    "nothing_to_repeat": "Call agent_list to see all jobs.",
    "nothing_to_answer": "Call agent_poll job_id={job_id}.",
    # The server
    "internal": "Jobs continue: agent_poll finds them.",
    "no_key": "Ask the user to run `{command}` in a terminal, then try again.",
    "not_sending": "Ask the user to start agent-jobs as a server.",
    "postgres_interrupted": "Call again in a few seconds; no job is lost.",
    "tool_server_failed": "Ask the user to check its entry in the file of AGENT_JOBS_TOOLBOX, or start without it.",
    "tool_server_paused": "Call again then, or start without it.",
    "upstream_busy": "Call again in 60 s.",
}


def _pass_on(text: str) -> str:
    return f"Ask the user to change a setting. {text}"


def _ask_user(step: str) -> str:
    return f"Ask the user to {step}."


#: The words of the log, which a person reads.
LOG_READER = Voice({}, capitalize_step)
MODEL = Voice(FIXES, _ask_user, pass_on=_pass_on)
#: What the model of an owner of a team server can do instead.
OWNER_MODEL_FIXES: Mapping[str, str] = {
    **OWNER_FIXES,
    "approval_at_terminal": (
        f"Ask the user to answer on the page of this server, or ask {OPERATOR} to set AGENT_JOBS_APPROVALS=model. "
        "You may deny."
    ),
    "approval_in_dialog": (
        f"Call agent_poll, which asks the user, or ask {OPERATOR} to set AGENT_JOBS_APPROVALS=model. You may deny."
    ),
    "budget_spent": f"Wait until midnight UTC, or ask {OPERATOR} to raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "budget_too_small": (
        f"Lower its bound with options.max_output_tokens, or ask {OPERATOR} to raise AGENT_JOBS_DAILY_BUDGET_USD."
    ),
    "owner_budget_too_small": (
        f"Lower its bound with options.max_output_tokens, wait until midnight UTC, or ask {OPERATOR} to raise it."
    ),
    "tool_server_failed": (
        f"Ask {OPERATOR} to check its entry in the file of AGENT_JOBS_TOOLBOX, or start without it."
    ),
    "tool_servers_gone": f"Ask {OPERATOR} to set AGENT_JOBS_TOOLBOX, or start it with options.toolbox none.",
    "wrong_tool_servers": (
        f"Ask {OPERATOR} to correct that; jobs that do not name it in options.toolbox can be started."
    ),
}
#: The words for the model of an owner of a team server.
OWNER_MODEL = Voice({**FIXES, **OWNER_MODEL_FIXES}, ask_operator, pass_on=pass_on_to_operator)
