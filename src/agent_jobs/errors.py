"""Define the errors of agent-jobs: one class for each reaction of a caller.

An error says what is wrong in a sentence that addresses no reader, with a code and data. Each face finds the fix for
its reader under the code: a model is to ask its user or to call a tool, a person gets the command or flag to type.

AgentJobsError
├── ConfigError             the user must change a setting
├── RequestError            the caller must change the arguments of this call
│   ├── JobNotFoundError    ask for a job that exists
│   ├── BudgetError         the cost exceeds the day's budget: wait, or raise the budget
│   └── BusyOwnerError      the owner started too many jobs lately: repeat after `retry_after_s`
├── StoreError              the database cannot be read or written; nothing was spent
├── ToolServerError         one of the user's tool servers failed: do without it, or repair it
└── UpstreamError           the Responses API
    ├── UnsentError         nothing left this machine: repeat freely
    ├── BusyError           refused for now and not accepted: repeat after `retry_after_s`
    ├── UnclearError        no usable answer: a GET may be repeated, a POST must not
    └── RefusedError        read and refused: change the request
        ├── AccountError    key, permission or credit: a person must act, then it may be repeated
        └── MissingError    upstream does not know this response
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import cast


class Argument(str):
    """The name of an argument as tools have it, such as `options.tools`. Each face writes it in its own way."""

    __slots__ = ()


class AgentJobsError(Exception):
    """An error that this program expects. Its text is the problem alone, and holds no key, prompt or output.

    Args:
        problem: One sentence about the fault that addresses no reader. `{name}` is replaced by a piece of `data`.
        code: Each face has the fix for its reader under it. Without one, `data` holds an error with the fix, or the
            problem says all to a person, as mistakes in settings and in hosts' files do.
        data: The facts that the problem and the fixes name.
    """

    def __init__(self, problem: str, code: str = "", /, **data: object) -> None:
        super().__init__(problem.format_map(data) if data else problem)
        self.problem = problem
        self.code = code
        self.data: Mapping[str, object] = MappingProxyType(data)


class ConfigError(AgentJobsError):
    """The user must change a setting."""


class SettingWarning(ConfigError):
    """A setting that does not work as the user meant. It is reported, never raised: jobs run without it."""


class RequestError(AgentJobsError):
    """The caller must change the arguments of this call."""


class JobNotFoundError(RequestError):
    """No job has that id."""


class BudgetError(RequestError):
    """The day's budget does not cover the cost of a job, and nothing was started."""


class BusyOwnerError(RequestError):
    """An owner started as many jobs as the limit of a minute allows, and nothing was started."""

    @property
    def retry_after_s(self) -> int:
        """Return the seconds until it may be tried again."""
        return cast("int", self.data["seconds"])


class StoreError(AgentJobsError):
    """The database cannot be read or written."""


class ToolServerError(AgentJobsError):
    """One of the user's tool servers does not start, or does not answer."""


class UpstreamError(AgentJobsError):
    """The Responses API failed, or refused.

    Args:
        message: One sentence, in upstream's words if it gave any.
        code: Upstream's `error.code` (or `error.type`), for instance `model_not_found`.
        param: The parameter that upstream names.
        status: The HTTP status; None if there was no answer.
        request_id: Upstream's `x-request-id`, for its support.
        retry_after_s: The seconds that upstream asked to wait.
        fix: The code of the fix, if a more exact one is known than that for upstream's code or the class.
        data: The facts that the fix names.
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
        data: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__("{message}", code, message=message, **data)
        self.param = param
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.fix = fix


class UnsentError(UpstreamError):
    """Nothing left this machine. The call may be repeated freely."""


class BusyError(UpstreamError):
    """Upstream refused for now and did not accept. The call may be repeated after `retry_after_s`."""


class UnclearError(UpstreamError):
    """There is no usable answer. A GET may be repeated; a POST must not, since it may have been accepted."""


class RefusedError(UpstreamError):
    """Upstream read the request and refused it. The request must change."""


class AccountError(RefusedError):
    """Upstream refused the key, its permissions or the account's credit. A person must act."""


class MissingError(RefusedError):
    """Upstream does not know this response, any more or yet."""


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
