"""One rule for the names of owners holds in commands, settings, tokens and sign-ins."""

import anyio
import click
import pytest

from agent_jobs.cli.owner import OwnerName
from agent_jobs.clock import Clock
from agent_jobs.engine.owner_registry import OwnerRegistry
from agent_jobs.errors import ConfigError, RequestError
from agent_jobs.owner_name import is_owner_name
from agent_jobs.settings.settings import Settings

GOOD = ["alice", "Alice Smith", "alice@example.com", "https://issuer.example#auth0|1", "日本語", "josé", "0", "a" * 512]
BAD = ["", " ", "..", ".", "---", "-x", " alice", "alice ", "a\nb", "a\x00b", "a\u200bb", "a\xa0b", "jose\u0301",
       "(none)", "(others)", "#", "a" * 513]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_name_is_accepted_everywhere(name: str) -> None:
    assert is_owner_name(name)
    assert OwnerName().convert(name, None, None) == name
    assert Settings.from_env({"AGENT_JOBS_TOOLBOX_OWNERS": name}).toolbox_owners == (name,)


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_bad_name_is_refused_everywhere_with_the_rule(name: str) -> None:
    assert not is_owner_name(name)
    if name != "jose\u0301":  # keyboards may send this form, so a command normalizes it
        with pytest.raises(click.UsageError, match=r"is not a valid owner name\. A name has 1 to 512 printable"):
            OwnerName().convert(name, None, None)
    if name.strip() == name:  # the setting strips its names
        with pytest.raises(ConfigError, match="names of owners"):
            Settings.from_env({"AGENT_JOBS_TOOLBOX_OWNERS": f"{name},bob" if name else ","})
    access = OwnerRegistry(object(), Clock())  # pyright: ignore[reportArgumentType]  # refused before the store is asked
    with pytest.raises(RequestError, match="is not a valid owner name"):
        anyio.run(access.add_token, name)


def test_command_takes_the_normal_form_of_a_name() -> None:
    assert OwnerName().convert("jose\u0301", None, None) == "josé"
