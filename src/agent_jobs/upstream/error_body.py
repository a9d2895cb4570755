"""Find the error in a body of any shape: OpenAI's envelope, a string, a list, a plain text."""

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from agent_jobs.upstream.json_object import JSON, object_of, objects_of, parse_object

#: The fields that hold an error, the most frequent one first; under `errors` there are several.
ERROR_FIELDS = ("error", "errors", "detail", "message", "msg")
#: An error in a 200 whose words match none of these is a plain refusal. The last two say that a server between this
#: process and the model stopped waiting, so the run may still continue.
STATUS_OF_WORDS = (
    (401, re.compile(r"invalid_api_key|authenticat|unauthori[sz]ed")),
    (403, re.compile(r"permission|forbidden")),
    (429, re.compile(r"rate.?limit|too many requests|quota|credit_balance|spend_limit|usage_limit|billing_hard")),
    (503, re.compile(r"overloaded|slow_down|service.?unavailable")),
    (504, re.compile(r"time[sd]?[ _-]?out|timeout")),
    (502, re.compile(r"bad.?gateway|connection (was )?(reset|closed|lost|aborted)")),
)
DEFAULT_STATUS = 500  # of an error whose words say nothing more exact
_ERROR_STATUS = re.compile(r"[45]\d\d")
#: Text fields of one of several errors, as FastAPI, GraphQL and RFC 9457 name them.
_WORDS_FIELDS = ("message", "msg", "detail", "title")


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The error that a body names; everything is empty where it names none."""

    fields: JSON
    is_envelope: bool = False  #: an object under `error`, as OpenAI sends it

    @property
    def code(self) -> str:
        """Return the code, or the type where there is no code."""
        return self.read_field("code") or self.type

    @property
    def type(self) -> str:
        """Return the type of the error."""
        return self.read_field("type")

    @property
    def message(self) -> str:
        """Return the server's own words."""
        return self.read_field("message")

    @property
    def param(self) -> str:
        """Return the parameter that the error is about."""
        return self.read_field("param")

    def read_field(self, name: str) -> str:
        """Return a field as text; empty if it is missing or empty."""
        return str(self.fields.get(name) or "")


def read_error_body(text: str) -> ErrorBody:
    """Return the error in a body. Markup has no words that are worth quoting."""
    body = parse_object(text)
    if body is None:
        return ErrorBody({"message": _read_plain_words(text)})
    for name in ERROR_FIELDS:
        fields = _read_error_field(body, name)
        if fields:
            return ErrorBody(fields, is_envelope=name == "error" and isinstance(body[name], dict))
    return ErrorBody({})


def has_error(body: JSON) -> bool:
    """Return True if a body without an id names an error and no response."""
    return any(map(body.get, ("error", "errors", "detail"))) or _is_marked_failed(body) or _has_words_and_status(body)


def read_status(body: JSON) -> int:
    """Return the HTTP status that an error in a 200 should have had."""
    error = read_error_body(json.dumps(body))
    values = [str(fields.get(name)) for fields in (error.fields, body) for name in ("status", "status_code", "code")]
    named = next(filter(_ERROR_STATUS.fullmatch, values), None)
    if named is not None:
        return int(named)
    words = " ".join(map(error.read_field, ("code", "type", "message"))).lower()
    return next((status for status, pattern in STATUS_OF_WORDS if pattern.search(words)), DEFAULT_STATUS)


def _is_marked_failed(body: JSON) -> bool:
    return body.get("object") == "error" or body.get("success") is False or body.get("status") in ("error", "failed")


def _has_words_and_status(body: JSON) -> bool:
    code = body.get("code") or body.get("status")
    words = body.get("message") or body.get("msg")
    return type(code) is int and 400 <= code < 600 and isinstance(words, str)


def _read_plain_words(text: str) -> str:
    if "<" in text[:100]:
        return ""
    return " ".join(text.split())


def _read_error_field(body: JSON, name: str) -> JSON | None:
    value = body.get(name)
    match value:
        case dict():
            return cast(JSON, value)
        case str() if value:
            beside = {each: body.get(each) for each in ("code", "type", "param") if each in body}
            return {**beside, "message": value}
        case list():
            return _join_error_fields(cast("list[object]", value))
        case _:
            return None


def _join_error_fields(errors: list[object]) -> JSON | None:
    """Return the first of several errors with the words of all, None where they have no words."""
    words = "; ".join(filter(None, map(_read_words, errors)))
    if not words:
        return None
    first = object_of(next(iter(objects_of(errors)), None))
    return {**first, "message": words}


def _read_words(error: object) -> str:
    """Return the words of one of several errors: FastAPI's finding, GraphQL's error, or a string."""
    match error:
        case str():
            return error
        case dict():
            return _read_finding(cast(JSON, error))
        case _:
            return ""


def _read_finding(fields: JSON) -> str:
    words = str(next(filter(None, map(fields.get, _WORDS_FIELDS)), ""))
    place = _read_place(fields.get("loc"))
    if place and words:
        return f"{place}: {words}"
    return words


def _read_place(loc: Any) -> str:
    """Return the place of FastAPI's finding as a dotted name below the body."""
    match loc:
        case ["body", *steps] | [*steps]:
            return ".".join(map(str, steps))
        case _:
            return ""
