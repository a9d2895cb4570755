"""The settings of notices: accepted targets, and values that are refused without being shown."""

import base64

import pytest

from agent_jobs.cli.notify import check_targets
from agent_jobs.cli.wording import describe_error
from agent_jobs.errors import ConfigError
from agent_jobs.settings.settings import Settings

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()


def read(text: str, **more: str) -> Settings:
    return Settings.from_env({"OPENAI_API_KEY": "sk-secret-0123456789", "AGENT_JOBS_NOTIFY": text, **more})


@pytest.mark.parametrize(
    ("text", "shown", "addresses"),
    [
        ("desktop", ["desktop"], [""]),
        (" Desktop , desktop", ["desktop"], [""]),
        ("ntfy:my-topic_1", ["ntfy at ntfy.sh"], ["https://ntfy.sh/my-topic_1"]),
        ("ntfy:https://ntfy.example:8443/t", ["ntfy at ntfy.example:8443"], ["https://ntfy.example:8443/t"]),
        ("ntfy:http://localhost:8080/t", ["ntfy at localhost:8080"], ["http://localhost:8080/t"]),
        ("webhook:http://[::1]:9/a?b=c", ["webhook at ::1:9"], ["http://[::1]:9/a?b=c"]),
        ("webhook:https://ada:pw@example.com/a", ["webhook at example.com"], ["https://ada:pw@example.com/a"]),
        ("slack:$HOOK,desktop", ["slack at hooks.example", "desktop"], ["https://hooks.example/T0/s3cret", ""]),
        ("slack:${HOOK}", ["slack at hooks.example"], ["https://hooks.example/T0/s3cret"]),
    ],
)
def test_targets_are_read_and_shown_without_their_addresses(text: str, shown: list[str], addresses: list[str]) -> None:
    settings = read(text, HOOK="https://hooks.example/T0/s3cret")
    assert [str(target) for target in settings.notify] == shown
    assert [target.address.get_secret_value() for target in settings.notify] == addresses
    assert settings.warnings == ()
    assert "s3cret" not in repr(settings)
    assert "pw" not in repr(settings)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("https://hooks.example/s3cret", "slack:, ntfy: or webhook: is missing before the address. Correct it."),
        ("email:s3cret@example.com", "a target begins with desktop, ntfy, slack, webhook."),
        ("slak:https://hooks.example/s3cret", "webhook (did you mean slack?). Correct it."),
        ("desktop:s3cret", "desktop has no address."),
        ("slack:$MISSING", "MISSING is not set."),
        ("slack:", "slack: needs an address that begins with https://."),
        ("slack:s3cret", "slack: needs an address that begins with https://."),
        ("ntfy:my s3cret", "ntfy: needs a topic or an address that begins with https://."),
        ("ntfy:https://ntfy.example/", "ntfy: needs a topic at the end of its address."),
        ("webhook:http://example.com/s3cret", "webhook: needs https://, since anyone on the way can read http://."),
        ("webhook:http://127.0.0.1.example.com/s3cret", "webhook: needs https://,"),
        ("webhook:ftp://example.com/s3cret", "webhook: needs an address that begins with https://."),
        ("webhook:https://example.com:0/s3cret", "webhook: needs an address"),
        ("webhook:https://example.com/s3 cret", "webhook: needs an address"),
    ],
)
def test_unusable_target_is_a_warning_that_does_not_show_it(word: str, reason: str) -> None:
    settings = read(f"desktop,{word}")
    [warning] = map(describe_error, settings.warnings)
    assert warning.startswith("AGENT_JOBS_NOTIFY does not use its target 2: ")
    assert reason.lower() in warning.lower()
    assert "s3cret" not in warning
    assert [str(target) for target in settings.notify] == ["desktop"]


@pytest.mark.parametrize("text", ["s3cret", "whsec_s3cret", "whsec_" + "A" * 8, "whsec_!" * 10])
def test_unusable_secret_is_a_warning_and_no_webhook_is_sent(text: str) -> None:
    settings = read("webhook:https://example.com", AGENT_JOBS_NOTIFY_SECRET=text)
    [warning] = map(describe_error, settings.warnings)
    assert warning.startswith("AGENT_JOBS_NOTIFY_SECRET accepts whsec_ and at least 24 bytes in base64.")
    assert "s3cret" not in warning
    assert settings.notify_secret is not None
    assert settings.notify_secret.get_secret_value() == ""


def test_events_are_chosen_by_their_names() -> None:
    assert read("desktop").notify_events == {"finished", "needs_input", "budget"}
    assert read("desktop", AGENT_JOBS_NOTIFY_EVENTS="Budget, finished").notify_events == {"finished", "budget"}
    with pytest.raises(ConfigError, match=r"Did you mean 'needs_input'\?"):
        read("desktop", AGENT_JOBS_NOTIFY_EVENTS="need_input")


def test_doctor_shows_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read("ntfy:s3cret,webhook:https://example.com/s3cret", AGENT_JOBS_NOTIFY_SECRET=SECRET)
    [finding] = check_targets(settings)
    assert finding.text == "ntfy at ntfy.sh, webhook at example.com (signed); test them with: agent-jobs notify --test"
    monkeypatch.setenv("PATH", "")
    [finding] = check_targets(read("desktop"))
    assert (finding.state, finding.text) == ("warning", "desktop; no program shows notices on this desktop")
    assert list(check_targets(read(""))) == []
