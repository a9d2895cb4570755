"""The owners of a team server: their limits, their tokens, and what they use. Pure."""

from typing import NamedTuple


class OwnerLimits(NamedTuple):
    """What one owner may use; None is no limit of the owner's own."""

    max_concurrent: int | None = None  #: runs at the provider at once
    daily_budget_usd: float | None = None  #: for the jobs that are started in one day (UTC)
    starts_per_minute: int | None = None

    def with_defaults(self, default: "OwnerLimits") -> "OwnerLimits":
        """Return these limits, with those of `default` where one is not set."""
        own = {name: value for name, value in self._asdict().items() if value is not None}
        return default._replace(**own)


class Owner(NamedTuple):
    """What an operator set for one owner."""

    name: str
    limits: OwnerLimits = OwnerLimits()  #: None is the setting for all owners
    key_ref: str = ""  #: names the secret that holds the owner's key; empty for the shared key


class OwnerUse(NamedTuple):
    """An owner with what the owner's jobs use now."""

    owner: Owner
    jobs: int
    running: int
    waiting: int  #: jobs that were not sent yet
    today_usd: float  #: an active job counts with its highest cost


#: No limits.
UNLIMITED = OwnerLimits()
