"""Recognize a web page that stands where an API should answer."""

import re

import httpx2

from agent_jobs.upstream.endpoint import redact_url

_SCANNED_CHARS = 20_000  # a sign-in form stands near the top, and a page may be large
_BEGIN_CHARS = 200
_SIGN_IN = re.compile(r"""\b(?:sign|log)[ -]?in\b|type=["']?password""", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]{1,120})", re.IGNORECASE)


def read_content_type(answer: httpx2.Response) -> str:
    """Return the media type of an answer in small letters, without parameters."""
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_sign_in_page(answer: httpx2.Response) -> bool:
    """Return True if the answer is a page on which a person signs in: no API stands behind it.

    Any other page may come from a gateway that lost the answer to an accepted request.
    """
    text = answer.text[:_SCANNED_CHARS]
    begin = text[:_BEGIN_CHARS].lstrip("\ufeff \t\r\n").lower()
    is_html = begin.startswith(("<!doctype html", "<html"))
    if read_content_type(answer) == "text/html" and "<" in begin:
        is_html = True
    return is_html and _SIGN_IN.search(text) is not None


def describe_page(answer: httpx2.Response) -> str:
    """Return a sentence that names the page and what to check."""
    title = ""
    if found := _TITLE.search(answer.text[:_SCANNED_CHARS]):
        title = f' ("{" ".join(found[1].split())}")'
    where = redact_url(answer.request.url)
    return f"{where} answered with a web page{title} and not with a response: check OPENAI_BASE_URL and the login there"
