"""Hold the error answers of the API, in OpenAI's words."""

from typing import Any

__all__ = ["ApiError"]

_BY_STATUS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is invalid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: ("invalid_request_error", None, "Not found."),
    408: ("server_error", None, "Request timed out."),
    409: ("invalid_request_error", None, "The resource is in conflict with another request."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached. Please try again in 1s."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    502: ("server_error", None, "Bad gateway."),
    503: ("service_unavailable_error", "server_is_overloaded", "Our servers are currently overloaded."),
    504: ("server_error", None, "Gateway timeout."),
}


class ApiError(Exception):
    """An answer other than success, with the fields of OpenAI's envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.type = type

    @classmethod
    def from_status(cls, status: int) -> "ApiError":
        """Return the usual error of an HTTP status."""
        type, code, message = _BY_STATUS.get(status, ("server_error", None, f"HTTP {status}"))
        return cls(status, message, code=code, type=type)

    def body(self, shape: str | None = None) -> dict[str, Any] | str:
        """Return the body in OpenAI's shape, or in the shape of another server."""
        match shape:
            case "detail":
                return {"detail": self.message}
            case "text":
                return self.message
            case "integer_code":
                return self._build_envelope(self.status)
            case _:
                return self._build_envelope(self.code)

    def _build_envelope(self, code: int | str | None) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": code}}


def response_not_found_error(response_id: str) -> ApiError:
    return ApiError(404, f"Response with id '{response_id}' not found.")


def missing_key_error() -> ApiError:
    return ApiError(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth"
        " (i.e. Authorization: Bearer YOUR_KEY).",
    )


def wrong_key_error(key: str) -> ApiError:
    return ApiError(
        401,
        f"Incorrect API key provided: {key}. You can find your API key at https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


def broken_json_error() -> ApiError:
    return ApiError(400, "We could not parse the JSON body of your request.")


def no_stream_error(reason: str) -> ApiError:
    return ApiError(400, reason, param="stream", code="invalid_request_error")
