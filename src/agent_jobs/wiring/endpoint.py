"""Build the provider's endpoint from the settings, and find its key."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from agent_jobs.settings.missing_key import missing_key_error
from agent_jobs.settings.secret_values import read_owner_key
from agent_jobs.settings.settings import Settings
from agent_jobs.settings.stored_keys import read_keyring, refuse_keyring

if TYPE_CHECKING:  # imported where jobs are sent
    from agent_jobs.upstream.endpoint import Endpoint

KEYRING_WAIT_S = 20.0  # the user may have to unlock the keyring, and hosts cut calls at 60 s


def create_endpoint(settings: Settings, key: str) -> Endpoint:
    """Return the endpoint of the settings with this key."""
    from agent_jobs.upstream.endpoint import Endpoint

    return Endpoint.of(
        settings.base_url, key, auth=settings.auth, organization=settings.organization, project=settings.project
    )


def create_owner_endpoint(settings: Settings, key_ref: str) -> Endpoint:
    """Return the endpoint of the settings with the key to which an owner's reference points now.

    Raises:
        ConfigError: The key is missing.
    """
    return create_endpoint(settings, read_owner_key(settings.owner_keys_dir, key_ref, os.environ))


async def resolve_key(settings: Settings, limit_s: float = KEYRING_WAIT_S) -> tuple[Settings, str]:
    """Return the settings with their key, and the key itself. Wait for the keyring for at most `limit_s`.

    Raises:
        ConfigError: There is none, or the keyring that has it cannot be read.
    """
    if settings.api_key is None and settings.stored_key is not None:
        endpoint = settings.stored_key.endpoint
        with anyio.move_on_after(limit_s):
            secret = await anyio.to_thread.run_sync(read_keyring, endpoint, abandon_on_cancel=True)
            settings = replace(settings, api_key=secret)
        if settings.api_key is None:
            raise refuse_keyring(endpoint)
    if settings.api_key is None:
        raise missing_key_error(settings)
    return settings, settings.api_key.get_secret_value()


def list_secrets(settings: Settings) -> list[str]:
    """Return the values that no error may repeat."""
    secrets = (settings.api_key, settings.notify_secret, *settings.secrets.values())
    return [each.get_secret_value() for each in secrets if each is not None]


def can_be_same_host(base_url: str, other: str) -> bool:
    """Return False if two addresses are certainly of different hosts; the full comparison loads the HTTP client."""
    hosts = {urlsplit(url).hostname for url in (base_url, other)}
    return len(hosts) == 1 or not all(host and host.isascii() for host in hosts)
