"""Ask a team server whether it is ready, without a token."""

import httpx2

READY_PATH = "/readyz"
#: Seconds for the answer: a server on the network answers `/readyz` within a second.
READY_TIMEOUT_S = 3.0


class NoAnswerError(Exception):
    """The server did not answer; its text is the end of a sentence about the address."""


class NoWebAddressError(Exception):
    """The address is not a web address."""


def fetch_ready_status(base_url: str) -> int:
    """Return the HTTP status of `/readyz` below this address. Redirects are not followed.

    Raises:
        NoAnswerError: There is no answer.
        NoWebAddressError: The address is not a web address.
    """
    try:
        return httpx2.get(f"{base_url}{READY_PATH}", timeout=READY_TIMEOUT_S).status_code
    except httpx2.TimeoutException:
        raise NoAnswerError(f"does not answer within {READY_TIMEOUT_S:g} s") from None
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, ValueError):
        raise NoWebAddressError from None
    except httpx2.HTTPError as error:
        raise NoAnswerError(f"does not answer ({error})") from None
