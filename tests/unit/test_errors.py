"""The errors of a task group are unwrapped in their order."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from agent_jobs.errors import StoreError, UnclearError, ungroup, walk_leaves


async def fail_with(error: Exception) -> None:
    raise error


async def fail_in_body(error: Exception) -> None:
    with ungroup():
        async with anyio.create_task_group():
            raise error


async def fail_in_task(error: Exception) -> None:
    with ungroup():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail_with, error)


async def fail_in_nested_group(error: Exception) -> None:
    with ungroup():
        async with anyio.create_task_group() as outer:
            outer.start_soon(fail_in_bare_group, error)


async def fail_in_bare_group(error: Exception) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail_with, error)


async def fail_without_group(error: Exception) -> None:
    with ungroup():
        raise error


@pytest.mark.parametrize("fail", [fail_in_body, fail_in_task, fail_in_nested_group, fail_without_group])
async def test_ungroup_raises_the_error_itself(fail: Callable[[Exception], Awaitable[None]]) -> None:
    error = UnclearError("no answer")
    with pytest.raises(UnclearError) as raised:
        await fail(error)
    assert raised.value is error
    assert error.__context__ is None
    assert error.__cause__ is None


async def test_ungroup_raises_the_first_of_several_errors() -> None:
    errors = [StoreError("locked"), UnclearError("no answer")]
    with pytest.raises(StoreError, match="locked"), ungroup():
        raise ExceptionGroup("several", [ExceptionGroup("inner", errors[:1]), errors[1]])


async def test_ungroup_lets_a_cancelled_scope_end() -> None:
    with anyio.CancelScope() as scope, ungroup():
        async with anyio.create_task_group():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


def test_leaves_of_a_group_come_in_their_order() -> None:
    leaves = [StoreError("a"), UnclearError("b"), OSError("c")]
    nested = ExceptionGroup("outer", [leaves[0], ExceptionGroup("inner", leaves[1:])])
    assert list(walk_leaves(nested)) == leaves
    assert list(walk_leaves(leaves[0])) == leaves[:1]
