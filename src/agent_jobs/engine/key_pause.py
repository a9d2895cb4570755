"""Stop new POSTs for a while after upstream rejected the API key or the account."""

from agent_jobs.clock import Clock
from agent_jobs.errors import AccountError

PAUSE_S = 60.0  # every new job would fail in the same way; a successful GET ends the pause sooner


class KeyPause:
    """The pause of new POSTs with this process's key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0
        self._rejection = ""

    @property
    def reason(self) -> str | None:
        """Return upstream's rejection while the pause lasts, else None."""
        if self._clock.now() >= self._until:
            return None
        return self._rejection

    def begin(self, error: AccountError) -> None:
        """Send nothing new for a while."""
        self._until = self._clock.now() + PAUSE_S
        self._rejection = str(error)

    def end(self) -> None:
        """Allow new POSTs: upstream accepted the key."""
        self._until = 0.0
