"""Word errors for a person at a terminal: the packages below word them for a model that calls tools."""

import re
from collections.abc import Mapping
from typing import Any

from agent_jobs.errors import AgentJobsError, UpstreamError

#: The sentence about a missing key, and its fix for a person.
NO_KEY = re.compile(
    r"\b(?P<fact>No API key is set(?: for \S+)?)\. Ask the user to run `(?P<command>[^`]+)` in a terminal, "
    r"then try again\."
)
NO_KEY_HERE = r"\g<fact>. Set it with: \g<command>"
#: The command that does what a tool does.
COMMANDS = {
    "agent_start": "`agent-jobs run`",
    "agent_poll": "`agent-jobs watch`",
    "agent_result": "`agent-jobs result`",
    "agent_list": "`agent-jobs list`",
    "agent_reply": "`agent-jobs reply`",
    "agent_cancel": "`agent-jobs cancel`",
}
#: The flag that sets an option; the others are set with `--option`.
FLAGS = {"allow_duplicate": "--new"}
#: Fields of a JSON answer that hold sentences.
SENTENCE_FIELDS = ("message", "warning", "unbounded")
#: What a model does for its user is what the reader of a terminal does. Longer phrases come first.
PHRASES = (
    (re.compile(r"\b(?P<first>[Aa])sk the user to (?P<verb>\w)"), "{verb}"),
    (re.compile(r"\b(?P<first>[Aa])sk the user[;,.:] *(?P<verb>\w)"), "{verb}"),
    (re.compile(r"\b(?P<first>[Tt])he user (?:has to|must|should) (?P<verb>\w)"), "{verb}"),
    (re.compile(r"\b(?P<first>[Aa])sk the user\b"), "check it yourself"),
    (re.compile(r"\b(?P<first>[Tt])ell the user\b"), "note"),
    (re.compile(r"\b(?P<first>a)gent_start (?P<verb>again|with)\b"), "start it {verb}"),
    (re.compile(r"\b(?P<first>a)gent_poll it\b"), "watch it with `agent-jobs watch`"),
    (re.compile(r"\b(?P<first>a)gent_cancel it\b"), "cancel it with `agent-jobs cancel`"),
    (re.compile(r"\b(?P<first>a)gent_reply and let\b"), "answer with `agent-jobs reply` and let"),
    (re.compile(r"\b(?P<first>[Tt])he user's\b"), "your"),
    (re.compile(r"\b(?P<first>[Tt])he user is\b"), "you are"),
    (re.compile(r"\b(?P<first>[Tt])he user has\b"), "you have"),
    (re.compile(r"\b(?P<first>[Tt])he user was\b"), "you were"),
    (re.compile(r"\b(?P<first>[Tt])he user does\b"), "you do"),
    (re.compile(r"\b(?P<first>[Tt])he user (?P<verb>\w+[^\Ws])s\b"), "you {verb}"),
    (re.compile(r"\b(?P<first>[Tt])he user\b"), "you"),
)
_CALL = re.compile(rf"({'|'.join(COMMANDS)}) job_id=(\w+)(?: part=(\w+))?(?: offset=\d+)?")
_TOOL = re.compile("|".join(COMMANDS))
_OPTION = re.compile(r"\boptions\.(\w+)")
_ENTRY = re.compile(r"the env of this (?:MCP )?server(?:'s entry)?")


def describe_error(error: AgentJobsError) -> str:
    """Return what is wrong and what a person can do about it."""
    text = reword(str(error))
    fix = error.fix if isinstance(error, UpstreamError) else ""
    if not fix or fix in text:
        return text
    return f"{text.rstrip('.')}. {fix[0].upper()}{fix[1:]}."


def reword(text: str) -> str:
    """Return a sentence for a model as one for a person: commands for tools, flags for options, "you" for the user."""
    text = NO_KEY.sub(NO_KEY_HERE, text)
    for pattern, words in PHRASES:
        text = pattern.sub(lambda found, words=words: _replace_phrase(found, words), text)
    text = _ENTRY.sub("the environment", text)
    text = _OPTION.sub(lambda found: FLAGS.get(found[1], f"--option {found[1]}"), text)
    text = _CALL.sub(_replace_call, text)
    return _TOOL.sub(lambda found: COMMANDS[found[0]], text)


def reword_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON answer with its sentences for a person."""
    return {name: _reword_field(name, value) for name, value in answer.items()}


def _reword_field(name: str, value: Any) -> Any:
    if name == "error" and isinstance(value, dict):
        return reword_answer(value)  # pyright: ignore[reportUnknownArgumentType]
    if name in SENTENCE_FIELDS and isinstance(value, str):
        return reword(value)
    return value


def _replace_call(found: "re.Match[str]") -> str:
    """Return the command line for a call of a tool."""
    part = f" --part {found[3]}" if found[3] else ""
    return f"{COMMANDS[found[1]].strip('`')} {found[2]}{part}"


def _replace_phrase(found: "re.Match[str]", words: str) -> str:
    """Return the words, with the case of the phrase that they replace."""
    phrase = words.format(**found.groupdict())
    if found["first"].isupper():
        return phrase[0].upper() + phrase[1:]
    return phrase
