"""Declare a setting: its variable, its subject, the reader of its values, and the sentence that explains it."""

from dataclasses import field
from typing import Any, NamedTuple

from agent_jobs.settings.values import Reader, Written

#: Headings of `agent-jobs config --explain`, docs/settings.md and .env.example.
ENDPOINT = "The key and the endpoint"
REQUEST = "What a job asks for"
STORAGE = "Where things are kept"
LIMITS = "Waiting and limits"
TOOLS = "Tools of your own"
FINISH = "When a job finishes"
MONEY = "Money"
ANSWERS = "What hosts are sent"
TEAM = "The team server"
LOG = "The log"
#: In the order of these pages.
LISTED_SUBJECTS = (ENDPOINT, REQUEST, STORAGE, LIMITS, TEAM, TOOLS, FINISH, MONEY, ANSWERS, LOG)


class Variable(NamedTuple):
    """One environment variable, in the words of `agent-jobs config --explain`, docs/settings.md and .env.example."""

    name: str
    subject: str
    reader: Reader
    about: str
    default: str  #: as it would be written; empty where the program chooses, or does without
    page: str  #: of docs/, where there is more
    field: str = ""  #: of `Settings`

    @property
    def accepts(self) -> str:
        """Return the words for its values, which its refusal repeats."""
        return self.reader.accepts


def declare_setting(name: str, subject: str, reader: Reader, about: str, *, default: str = "", page: str = "") -> Any:
    """Return a field of `Settings` with the variable that sets it.

    Args:
        name: The name of the variable.
        subject: The heading below which it is listed.
        reader: Reads its value, and says what it accepts.
        about: One or more sentences for the user.
        default: The value without the variable, as a user would write it.
        page: The page of docs/ that says more.
    """
    metadata = {"variable": Variable(name, subject, reader, about, default, page)}
    if default:
        return field(default=reader.read(Written(name, default, default, {}, [])), metadata=metadata)
    if reader.empty is not None:
        return field(default_factory=reader.empty, metadata=metadata)
    return field(default=None, metadata=metadata)
