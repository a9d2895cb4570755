"""The reference to an owner's API key, as `owner set --key-ref` accepts it. The typed text is never repeated."""

import os
import re
from typing import Any

import click

from agent_jobs.errors import ConfigError
from agent_jobs.settings.secret_values import read_owner_key
from agent_jobs.settings.settings import Settings

MAX_NAME_BYTES = 255  # of a file, on all usual file systems
ENV = "env:"
_ACCEPTS = "It accepts the name of a file in the folder of AGENT_JOBS_OWNER_KEYS_DIR, without a path, or env:NAME."
_PREFIXED = re.compile(
    r"(?:sk|rk|pk|gsk|xai|ajt|sess|eyJ|AIza|whsec)[-_A-Za-z0-9]{12,}|(?:sk|ajt|whsec)[-_].*|.*[=\"'].*"
)
#: A variable, or nothing for the shared key.
_VARIABLE = re.compile(r"(?:env:[A-Za-z_][A-Za-z0-9_]*)?")
#: A name without a path, and without blanks around it.
_FILE = re.compile(r"(?!\.{1,2}$)(?!\s)[^/\\:]+(?<!\s)")
_BEARER = re.compile(r"(?:bearer|basic)\s.*", re.IGNORECASE)
_RANDOM = re.compile(r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{24,}")


class KeyReference(click.ParamType[str]):
    """The name of a file with a key, `env:NAME`, or nothing for the shared key."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the reference; refuse what no server could read, and what may be a key itself."""
        reference = str(value)
        if _looks_like_key(reference.removeprefix(ENV)):
            self.fail(f"This looks like a key itself, which would be kept in the database. {_ACCEPTS}", param, ctx)
        if not _VARIABLE.fullmatch(reference) and not _names_file(reference):
            self.fail(_ACCEPTS, param, ctx)
        return reference


def find_missing_key(settings: Settings, reference: str) -> str:
    """Return a warning if this machine has no key under a reference; empty if it has one, or cannot know.

    The environment of a server is its own.
    """
    if reference.startswith(ENV):
        return ""
    if settings.owner_keys_dir is None:
        return "AGENT_JOBS_OWNER_KEYS_DIR is not set here, so it is not known whether that key exists."
    try:
        read_owner_key(settings.owner_keys_dir, reference, os.environ)
    except ConfigError:
        path = settings.owner_keys_dir / reference
        return f"There is no key in {path}. Until there is one, starts of this owner are refused."
    return ""


def _names_file(reference: str) -> bool:
    is_name = _FILE.fullmatch(reference) is not None and reference.isprintable()
    return is_name and len(os.fsencode(reference)) <= MAX_NAME_BYTES


def _looks_like_key(text: str) -> bool:
    patterns = (_PREFIXED.fullmatch, _BEARER.fullmatch, _RANDOM.search)
    return any(matches(text) is not None for matches in patterns)
