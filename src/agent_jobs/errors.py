"""The errors of agent-jobs: a class for each thing that the caller can do about it.

Every message is one sentence for the reader of a tool answer: what is wrong and what to do next.

AgentJobsError
├── ConfigError             a setting must be changed by the person who runs the server
├── RequestError            the arguments of this call must be changed
│   ├── JobNotFoundError    ask for a job that exists
│   └── BudgetError         the day's budget does not allow it: wait, or raise the budget
├── StoreError              the database does not take or give data; nothing was spent
├── ToolServerError         one of the user's tool servers does not do as asked: do without it, or see to it
└── UpstreamError           the Responses API
    ├── UnsentError         nothing left this machine: repeat freely
    ├── BusyError           refused for now and not accepted: repeat after `retry_after_s`
    ├── UnclearError        no usable answer: a GET may be repeated, a POST must not
    └── RefusedError        read and refused: change the request
        ├── AccountError    key, permission or credit: a person must act, then it may be repeated
        └── MissingError    upstream does not know this response
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast


class AgentJobsError(Exception):
    """Anything that this program expects to go wrong; its text may be shown to a model."""


class ConfigError(AgentJobsError):
    """A setting must be changed by the person who runs the server."""


class RequestError(AgentJobsError):
    """The arguments of this call must be changed."""


class JobNotFoundError(RequestError):
    """There is no job of that id."""


class BudgetError(RequestError):
    """What this may cost is not left of the day's budget; nothing was started."""


class StoreError(AgentJobsError):
    """The database does not take or give data."""


class ToolServerError(AgentJobsError):
    """One of the user's tool servers does not start, or does not answer."""


class UpstreamError(AgentJobsError):
    """The Responses API did not do as asked.

    Args:
        message: One sentence in upstream's words where it gave any.
        code: Upstream's `error.code` (or `error.type`) as text, for instance `model_not_found`.
        param: The parameter that upstream names.
        status: The HTTP status, None when there was no answer.
        request_id: Upstream's `x-request-id`, for its support.
        retry_after_s: How long upstream asked to wait.
        fix: What a person at a terminal may do about it, where that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        param: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        fix: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.fix = fix


class UnsentError(UpstreamError):
    """Nothing left this machine: the call may be repeated freely."""


class BusyError(UpstreamError):
    """Upstream refused for now and did not accept: repeat after `retry_after_s`."""


class UnclearError(UpstreamError):
    """There is no usable answer: a GET may be repeated, a POST must not, for it may have been accepted."""


class RefusedError(UpstreamError):
    """Upstream read the request and refused it: change the request."""


class AccountError(RefusedError):
    """The key, its permissions or the account's credit: a person must act."""


class MissingError(RefusedError):
    """Upstream does not know this response (any more, or not yet)."""


@contextmanager
def ungroup() -> Generator[None]:
    """Raise the first error of a task group itself, without the group that wraps it.

    Enter it before the task group, so that callers can catch the error by its class.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        first = next(walk_leaves(group))
        context = first.__context__
        try:
            raise first
        finally:
            # Python has made the group the context of its own member, which sends readers of causes round in a circle.
            first.__context__ = context


def walk_leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, or if it is a group, all errors in it, in their order."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for member in cast("BaseExceptionGroup[BaseException]", error).exceptions:
        yield from walk_leaves(member)
