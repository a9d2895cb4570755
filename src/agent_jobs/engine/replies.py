"""Check a reply against a job's open calls."""

import json
from collections.abc import Mapping
from dataclasses import replace

from agent_jobs.errors import RequestError
from agent_jobs.jobs.queries import Reply
from agent_jobs.jobs.response import Call

DENIED = "The user denied this call."
ECHO_CHARS = 60  # of a wrong id that are repeated in an error


def answer_calls(open_calls: Mapping[str, Call], reply: Reply) -> list[Call]:
    """Return the calls that a reply answers, each with its answer.

    Args:
        open_calls: The open calls of the job, by call id.
        reply: The answers.

    Raises:
        RequestError: An answer fits no call.
    """
    _check_ids(open_calls, reply)
    reply = replace(reply, approve=(*reply.approve, *_find_always_allowed(open_calls, reply)))
    answered = list(filter(None, (_answer_call(call, reply) for call in open_calls.values())))
    if not answered:
        raise RequestError("The reply has no answer to {calls}.", "empty_reply", calls=", ".join(open_calls))
    return answered


def list_always_allowed(open_calls: Mapping[str, Call], reply: Reply) -> set[str]:
    """Return the names of the calls that a reply allows until the end of the job."""
    return {open_calls[call_id].name for call_id in reply.always}


def _find_always_allowed(open_calls: Mapping[str, Call], reply: Reply) -> list[str]:
    """Return the ids of the calls of tools that the reply always allows, but for those with another answer."""
    names = list_always_allowed(open_calls, reply)
    answered = {*reply.outputs, *reply.approve, *reply.deny}
    waiting = [call for call in open_calls.values() if call.name in names and call.id not in answered]
    return [call.id for call in waiting if call.needs == "approval" or call.id in reply.always]


def _check_ids(open_calls: Mapping[str, Call], reply: Reply) -> None:
    """Raise RequestError unless the reply names open calls only, and each of them once."""
    given = [*reply.outputs, *reply.approve, *reply.always, *reply.deny]
    for call_id in given:
        shown = call_id[:ECHO_CHARS]
        if call_id not in open_calls:
            calls = ", ".join(open_calls)
            raise RequestError("The job does not ask for {call!r}.", "unknown_call", call=shown, calls=calls)
        if given.count(call_id) > 1:
            raise RequestError("{call!r} is answered twice.", "answered_twice", call=shown)


def _answer_call(call: Call, reply: Reply) -> Call | None:
    """Return the call with its answer; None if the reply has none for it."""
    if call.id in reply.outputs:
        return _give_output(call, reply.outputs[call.id])
    if call.id in reply.approve:
        return approve_call(call)
    if call.id in reply.deny:
        return replace(call, state="done", output=DENIED)
    if reply.message:
        return replace(call, state="done", output=f"Not done. The user says: {reply.message}")
    return None


def _give_output(call: Call, output: object) -> Call:
    if call.needs != "output":
        raise RequestError("{call} waits for an approval, not for an output.", "needs_approval", call=call.id)
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return replace(call, state="done", output=text)


def approve_call(call: Call) -> Call:
    """Return a call that waits for an approval as approved."""
    if call.needs != "approval":
        raise RequestError("{call} waits for an output, not for an approval.", "needs_output", call=call.id)
    if call.kind == "approval":  # upstream makes the call itself, and gets the approval as its answer
        return replace(call, state="done", output=True)
    return replace(call, state="approved", output=None)
