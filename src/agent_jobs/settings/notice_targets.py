"""Read the settings of notices: where they are sent, for which events, and how they are signed. Pure."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from agent_jobs.errors import SettingWarning
from agent_jobs.settings.values import Reader, SecretStr, Written, split_list
from agent_jobs.text import ask_if_meant, nearest
from agent_jobs.web_address import is_loopback, split_web_address

KINDS = ("desktop", "ntfy", "slack", "webhook")
EVENTS = ("finished", "needs_input", "budget")
NTFY = "https://ntfy.sh/"
SECRET_PREFIX = "whsec_"
MIN_SECRET_BYTES = 24  # the specification asks for 24 to 64
_ADDRESS_WORDS = {"ntfy": "a topic or an address"}
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
_PLAIN = re.compile(r"[!-~]+")  # ASCII without spaces
_REFERENCE = re.compile(r"\$\{?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}?")


class NoticeTarget(NamedTuple):
    """Somewhere to send notices. Its text never shows the address, which may be the only secret."""

    kind: str
    address: SecretStr = SecretStr("")  #: empty for the desktop

    def __str__(self) -> str:
        parts = urlsplit(self.address.get_secret_value())
        if not parts.hostname:
            return self.kind
        port = ""
        if parts.port:
            port = f":{parts.port}"
        return f"{self.kind} at {parts.hostname}{port}"


class _UnusableTarget(Exception):
    """The text of the exception completes "NAME does not use its target N: "."""


def notice_targets() -> Reader:
    """Return the reader of targets; with a warning in place of one that cannot be used.

    A notice that cannot be sent must not keep jobs from being started.
    """

    def read(written: Written) -> tuple[NoticeTarget, ...]:
        found: list[NoticeTarget] = []
        for number, word in enumerate(written.text.split(","), 1):
            try:
                found.append(_read_target(word.strip(), written.env))
            except _UnusableTarget as error:
                problem, name = "{name} does not use its target {number}: {error}.", written.name
                unusable = SettingWarning(problem, "unusable_target", name=name, number=number, error=error)
                written.warnings.append(unusable)
        return tuple(dict.fromkeys(found))

    accepts = "desktop, ntfy:TOPIC, slack:ADDRESS and webhook:ADDRESS, separated by commas"
    return Reader(accepts, read, tuple[NoticeTarget, ...], join=",".join)


def notice_events() -> Reader:
    """Return the reader of the events that are reported."""
    accepts = f"one or more of {', '.join(EVENTS)}, separated by commas"

    def read(written: Written) -> frozenset[str]:
        words = split_list(written.text.lower())
        for word in words:
            if word not in EVENTS:
                written.refuse(accepts, ask_if_meant(word, EVENTS))
        return frozenset(words)

    return Reader(accepts, read, join=",".join)


def webhook_secret() -> Reader:
    """Return the reader of the secret that signs webhooks; with a warning in place of one that cannot be used."""
    accepts = f"{SECRET_PREFIX} and at least {MIN_SECRET_BYTES} bytes in base64"

    def read(written: Written) -> SecretStr | None:
        if decode_secret(written.text) is None:
            problem = "{name} accepts {accepts}."
            written.warnings.append(SettingWarning(problem, "wrong_secret", name=written.name, accepts=accepts))
            return SecretStr("")
        return SecretStr(written.text)

    return Reader(accepts, read)


def decode_secret(text: str) -> bytes | None:
    """Return the bytes of a secret for signatures; None if the text is no such secret."""
    import base64  # not needed where the variable is not set

    if not text.startswith(SECRET_PREFIX):
        return None
    with suppress(ValueError):
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        if len(secret) >= MIN_SECRET_BYTES:
            return secret
    return None


def _read_target(word: str, env: Mapping[str, str]) -> NoticeTarget:
    """Return the target that a word names.

    Raises:
        _UnusableTarget: It names none. The sentence does not repeat the word, which may be a secret.
    """
    kind, colon, rest = word.partition(":")
    kind, address = kind.strip().lower(), rest.strip()
    if kind not in KINDS:
        if kind in ("http", "https"):
            raise _UnusableTarget("slack:, ntfy: or webhook: is missing before the address")
        raise _UnusableTarget(f"a target begins with {', '.join(KINDS)}{_suggest_kind(kind)}")
    if kind == "desktop":
        if colon:
            raise _UnusableTarget("desktop has no address")
        return NoticeTarget(kind)
    return NoticeTarget(kind, SecretStr(_complete_address(kind, _replace_reference(address, env))))


def _replace_reference(address: str, env: Mapping[str, str]) -> str:
    """Return an address, or the value of the variable that `$NAME` names in its place."""
    reference = _REFERENCE.fullmatch(address)
    if reference is None:
        return address
    value = env.get(reference["name"], "").strip()
    if not value:
        raise _UnusableTarget(f"{reference['name']} is not set")
    return value


def _complete_address(kind: str, address: str) -> str:
    """Return the web address of a target; a topic of ntfy may stand alone."""
    if kind == "ntfy" and _TOPIC.fullmatch(address):
        return NTFY + address
    parts = split_web_address(address)
    if parts is None or not _PLAIN.fullmatch(address):
        raise _UnusableTarget(f"{kind}: needs {_ADDRESS_WORDS.get(kind, 'an address')} that begins with https://")
    if parts.scheme == "http" and not is_loopback(str(parts.hostname)):
        raise _UnusableTarget(f"{kind}: needs https://, since anyone on the way can read http://")
    if kind == "ntfy" and not parts.path.strip("/"):
        raise _UnusableTarget("ntfy: needs a topic at the end of its address")
    return address


def _suggest_kind(kind: str) -> str:
    """Return the question for the nearest kind, in brackets; empty if none is near."""
    near = nearest(kind, KINDS)
    if near is None:
        return ""
    return f" (did you mean {near}?)"
