"""Render the open calls of a job for its model, and a call for the person who approves it."""

from collections.abc import Iterator, Sequence

from agent_jobs.jobs.job import Job
from agent_jobs.jobs.response import Call
from agent_jobs.rendering.answers import LIST_TITLE_CHARS, Answer, drop_falsy, drop_missing
from agent_jobs.rendering.paging import count_json_bytes
from agent_jobs.rendering.short_lines import NAME_CHARS
from agent_jobs.text import truncate

#: The open calls of a waiting job have at most this size, unless the id of one call alone is longer.
ASKING_BYTES = 8_000
MAX_CALLS = 20  # more calls at once would leave no room for their arguments
ARGUMENT_CHARS = 2_000
MIN_ARGUMENT_CHARS = 120  # below this, fewer calls say more than shorter ones


def render_questions(
    job: Job, calls: Sequence[Call], *, may_approve: bool, dialog: bool = False, note: str = ""
) -> Answer:
    """Return the answer to a poll of a waiting job: what it needs, and how to give it. At most ASKING_BYTES.

    `dialog` says that a poll asks the user directly; `note`, what became of an answer that the user gave before.
    """
    replies = {**_describe_replies(job, calls, may_approve=may_approve, dialog=dialog), "note": note}
    answer: Answer = {}
    for count, chars in _iterate_sizes(len(calls)):
        answer = _render_calls(job, calls, count, chars, replies)
        if count_json_bytes(answer) <= ASKING_BYTES:
            break
    return answer


def _iterate_sizes(count: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of a number of calls and the characters of their arguments, from the largest to the smallest."""
    count = min(count, MAX_CALLS)
    chars = ARGUMENT_CHARS
    yield count, chars
    while chars > MIN_ARGUMENT_CHARS:
        chars = max(MIN_ARGUMENT_CHARS, chars // 2)
        yield count, chars
    for fewer in range(count - 1, 0, -1):
        yield fewer, chars


def _render_calls(job: Job, calls: Sequence[Call], count: int, chars: int, replies: Answer) -> Answer:
    needs = [_render_need(call, chars) for call in calls[:count]]
    answer = drop_falsy({"job_id": job.id, "status": job.status, "more": len(calls) - count})
    if count < len(calls) or any("cut" in need for need in needs):
        answer["whole"] = f"agent_result job_id={job.id} part=items"
    return drop_missing({**answer, **replies, "needs": needs})


def _render_need(call: Call, chars: int) -> Answer:
    need: Answer = {"call_id": call.id, "name": call.name[:NAME_CHARS], "arguments": call.arguments[:chars]}
    cut = max(0, len(call.arguments) - chars)
    return need | drop_falsy({"cut": cut, "approval": call.needs == "approval"})


def _describe_replies(job: Job, calls: Sequence[Call], *, may_approve: bool, dialog: bool) -> Answer:
    """Return how the model can answer these calls, and what only the user can do."""
    kinds = {call.needs for call in calls}
    reply = f"agent_reply job_id={job.id}"
    poll = f"agent_poll job_id={job.id}"
    answer: Answer = {}
    arguments: list[str] = []
    if "output" in kinds:
        arguments.append("outputs=[{call_id,output}]")
    if "approval" in kinds and may_approve:
        arguments.append("approve=[...] or deny=[...]")
    elif "approval" in kinds:
        ask = f"tell them to run `agent-jobs reply {job.id}` in a terminal"
        if dialog:
            ask = f"{poll} asks them"
        answer["user"] = f"only the user may approve: {ask}. What they refuse: {reply} deny=[...]"
    answer["next"] = f"{poll} once they did"
    if arguments:
        answer["next"] = f"{reply} {' '.join(arguments)}"
    return answer


def name_tool(name: str) -> str:
    """Return the name of a call for a person: that of a tool on the user's own servers is `server/tool`, too."""
    if "/" in name:
        return name
    return name.replace("__", "/", 1)


def list_always_allowed(job: Job) -> list[str]:
    """Return the tools that a job may call without asking, as a person reads them; none once it has ended."""
    if job.is_terminal:
        return []
    return [escape_invisible(name_tool(name)) for name in job.always_allowed]


def word_approval_question(job: Job, call: Call) -> str:
    """Return the text that a person reads before approving a call, without characters that could disguise it."""
    title = truncate(escape_invisible(job.title), LIST_TITLE_CHARS)
    name = truncate(escape_invisible(name_tool(call.name)), NAME_CHARS)
    arguments = _shorten_middle(escape_invisible(call.arguments), job)
    return (
        f"The job {title} ({job.id}) asks to call {name} with:\n{arguments}\nAccept to allow it, decline to refuse it."
    )


def escape_invisible(text: str) -> str:
    """Return a text on one line with every invisible character as an escape, for a person who decides on it."""
    return "".join(map(_escape_invisible_character, text))


def _escape_invisible_character(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "replace").decode()


def _shorten_middle(arguments: str, job: Job) -> str:
    """Return the beginning and the end of long arguments, with the number of characters that are missing between."""
    if len(arguments) <= ARGUMENT_CHARS:
        return arguments
    head = ARGUMENT_CHARS * 3 // 4
    tail = ARGUMENT_CHARS - head
    missing = len(arguments) - head - tail
    note = f"[{missing} characters are not shown: agent_result job_id={job.id} part=items]"
    return f"{arguments[:head]}\n{note}\n{arguments[-tail:]}"
