"""Reads the certificates of this machine once in a process.

A TLS context takes 30 ms of CPU to make, and each engine, each command and each HTTP client of a test makes one. It
depends on the machine and on two variables alone, and may be shared.
"""

import os
import ssl

#: Those that name other certificates, as they are at the start: a test that changes them has certificates of its own.
NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
AT_START = [os.environ.get(name) for name in NAMES]


def keep_certificates() -> None:
    """Have the HTTP clients of this process, and of its forks, share TLS contexts."""
    import httpcore2

    read, kept = httpcore2.default_ssl_context, dict[tuple[str | None, ...], ssl.SSLContext]()

    def share(*, _trust_env: bool = True) -> ssl.SSLContext:
        named = tuple(os.environ.get(name) if _trust_env else None for name in NAMES)
        if any(named) and list(named) != AT_START:
            return read()
        if named not in kept:
            kept[named] = read(_trust_env=_trust_env)
        return kept[named]

    httpcore2.default_ssl_context = share
    # Most forks have none of the variables, whatever is set here: the context that trusts no variable is theirs too.
    for trusts_environment in (True, False):
        share(_trust_env=trusts_environment)
