"""Word errors for a person at a terminal."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent_jobs.errors import AgentJobsError, Argument
from agent_jobs.jobs.job import UNANSWERED, Job
from agent_jobs.jobs.queries import WorkerInfo
from agent_jobs.jobs.response import Failure
from agent_jobs.rendering.fixes import Voice, capitalize_step

#: Fixes for a person, by the code of the error.
FIXES: Mapping[str, str] = {
    # Arguments
    "literal_secret": "List its name in AGENT_JOBS_SECRETS, and write ${{NAME}} or Bearer ${{NAME}} in its place.",
    "tool_servers_gone": "Set AGENT_JOBS_TOOLBOX, or add --option toolbox=none.",
    "unset_secret": "Set {secret} in the environment.",
    "wrong_tool_servers": "Correct that; jobs without --option toolbox can be started.",
    "wrong_value": "Correct it and try again.",
    # Costs
    "budget_spent": "Wait until midnight UTC, or raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "budget_too_small": "Lower its bound with --option max_output_tokens=N, or raise AGENT_JOBS_DAILY_BUDGET_USD.",
    "owner_budget_spent": "Wait until midnight UTC, or raise it with: agent-jobs owner set NAME --daily-budget USD",
    "owner_budget_too_small": (
        "Lower its bound with --option max_output_tokens=N, or raise it with: "
        "agent-jobs owner set NAME --daily-budget USD"
    ),
    "over_max_cost": "Lower --option max_output_tokens or --option max_tool_calls, or allow more.",
    "unbounded_calls": "Add --option max_tool_calls=N.",
    "unbounded_output": "Add --option max_output_tokens=N.",
    "unbounded_turns": "Limit them all with --option max_cost_usd=USD.",
    "too_many_starts": "Try again in {seconds} s.",
    # Jobs
    "empty_reply": "Use --output, --approve, --deny or --message.",
    "has_response": "See it with: agent-jobs show {job_id}",
    "job_asks": "Answer with: agent-jobs reply {job_id}",
    "job_running": "Watch it with: agent-jobs watch {job_id}",
    "needs_approval": "Use --approve or --deny.",
    "needs_output": "Give it with --output.",
    "no_jobs": "There are no jobs yet; start one with: agent-jobs run",
    "no_such_batch": "See all jobs with: agent-jobs list",
    "nothing_to_repeat": "See all jobs with: agent-jobs list",
    "not_always_allowed": "See what is allowed with: agent-jobs show {job_id}",
    "nothing_to_answer": "See its state with: agent-jobs show {job_id}",
    # The program
    "internal": "Jobs continue; see them with: agent-jobs list",
    "no_key": "Set it with: {command}",
    "not_sending": "Start it with: agent-jobs run",
    "postgres_interrupted": "Try again in a few seconds; no job is lost.",
    "tool_server_failed": "Check its entry with: agent-jobs doctor",
    "tool_server_paused": "Try again then, or start without it.",
    "upstream_busy": "Try again in a minute.",
}
#: The flags of arguments; options without one are set with `--option`.
FLAGS = {
    "batch": "--batch",
    "effort": "--effort",
    "files": "--file",
    "model": "--model",
    "preset": "--preset",
    "previous_job_id": "--previous",
    "web_search": "--web-search",
}
_OPTION = re.compile(r"options(?:\.|$)")


#: The next step after a failure, by its code.
NEXT_STEPS: Mapping[str, str] = {
    "account_refused": "Check the key, its permissions and the credit, then start it again.",
    "budget_exceeded": (
        "Start it again once its limit is higher: --option max_cost_usd=USD, or AGENT_JOBS_DAILY_BUDGET_USD."
    ),
    "deadline_exceeded": "Start it again with a narrower prompt, or raise AGENT_JOBS_JOB_TIMEOUT_S.",
    "endpoint_lost": ("Set that OPENAI_BASE_URL and its key, then run: agent-jobs adopt {job_id} RESPONSE_ID"),
    "expired": "Start it again.",
    "insufficient_quota": "Add credit at the provider, then start it again.",
    "invalid_api_key": "Set a valid key with `agent-jobs key set`, then start it again.",
    "max_output_tokens": "Start it again with a higher --option max_output_tokens or a narrower prompt.",
    "max_tool_calls": "Start it again with a higher --option max_tool_calls or a narrower prompt.",
    "max_turns": "Start it again with a narrower prompt or other tools.",
    "missing_secret": "Set it in the environment and list it in AGENT_JOBS_SECRETS, then start the job again.",
    "model_not_found": "Choose another with --model.",
    "no_such_endpoint": "Set OPENAI_BASE_URL to the API's address, which usually ends in /v1.",
    "start_unconfirmed": (
        "It may be running and billed. Find the response whose metadata has job_id={job_id} in the provider's "
        "dashboard, then run: agent-jobs adopt {job_id} RESPONSE_ID"
    ),
}
#: Ends the message of a server_error. `describe_next_step` says the same with a command.
_PROVIDER_ADVICE = "You can retry your request."
_SANDBOX_LINKS = "Links to its sandbox do not work. See its saved files with: agent-jobs result {job_id} --part files"


def describe_error(error: AgentJobsError) -> str:
    """Return the problem and its fix for a person."""
    return VOICE.describe(error)


def describe_problem(error: AgentJobsError) -> str:
    """Return what is wrong."""
    return VOICE.problem(error)


def describe_fix(error: AgentJobsError) -> str:
    """Return the fix of an error for a person; empty if there is none."""
    return VOICE.fix(error)


def describe_next_step(job: Job) -> str:
    """Return the next step for a person after a failed job; empty if it is unknown."""
    if job.error is None:
        return ""
    if job.error.is_retryable:
        return f"Try again with: agent-jobs retry {job.id}"
    if job.error == UNANSWERED:
        return "Start it again once you can answer."
    return NEXT_STEPS.get(job.error.code, "").format(job_id=job.id)


def describe_failure(failure: Failure) -> str:
    """Return the message of a failure, without the provider's own advice if ours follows."""
    if not failure.is_retryable:
        return failure.message
    return failure.message.removesuffix(_PROVIDER_ADVICE).rstrip()


def word_answer(answer: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Return the JSON of a job with the next step and the warning for a person in place of those for a model."""
    step = f"agent-jobs watch {job.id}"
    if job.is_terminal:
        step = describe_next_step(job)
    words = {"next": step, "warning": describe_warning(job)}
    return {name: words.get(name, value) for name, value in answer.items() if words.get(name) != ""}


def name_workers(workers: Iterable[WorkerInfo]) -> str:
    """Return the commands of processes that work on jobs, with their ids."""
    return ", ".join(f"agent-jobs {worker.what} (pid {worker.pid})" for worker in workers)


def describe_warning(job: Job) -> str:
    """Return a warning about the output of a job; empty if there is none."""
    from agent_jobs.rendering import answers

    code = answers.find_warning(job)
    if code == "sandbox_links":
        return _SANDBOX_LINKS.format(job_id=job.id)
    return answers.WARNINGS.get(code, "")


def _write_flag(name: Argument) -> str:
    if name in FLAGS:
        return FLAGS[name]
    return _OPTION.sub("--option ", name, count=1).rstrip()


VOICE = Voice(FIXES, capitalize_step, _write_flag)
