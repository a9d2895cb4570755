"""A file with secrets that cannot be read: each variable that names one says why."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent_jobs.errors import ConfigError
from agent_jobs.notices.callback_sender import read_signing_secrets
from agent_jobs.team_server.metrics import read_metrics_token
from agent_jobs.team_server.provider_webhooks import read_secrets

READERS: dict[str, Callable[[Path], object]] = {
    "AGENT_JOBS_METRICS_TOKEN_FILE": read_metrics_token,
    "AGENT_JOBS_CALLBACK_SECRET_FILE": read_signing_secrets,
    "AGENT_JOBS_WEBHOOK_SECRET_FILE": read_secrets,
}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "cannot be read: No such file or directory."),
        ("folder", "cannot be read: Is a directory."),
        ("picture", "is not text."),
        ("picture/below", "cannot be read: Not a directory."),
        ("a\0b", "cannot be read: embedded null byte."),
    ],
)
@pytest.mark.parametrize("variable", READERS)
def test_file_of_secrets_that_cannot_be_read_is_named_with_the_cause(
    variable: str, name: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ConfigError) as refused:
        READERS[variable](tmp_path / name)
    assert str(refused.value) == f"{variable} names {tmp_path / name}, which {problem}"
