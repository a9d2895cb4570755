"""A notice as the HTTP request that ntfy, Slack or a webhook expects. Pure."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import NamedTuple

from agent_jobs.notices.notice import Notice

#: ntfy shows these as emoji.
_TAGS = {"completed": "white_check_mark", "needs_input": "question", "budget": "moneybag", "test": "wave"}
_FAILED_TAG = "x"
_DEFAULT_PRIORITY, _HIGH_PRIORITY = "3", "4"


class NoticeRequest(NamedTuple):
    """The headers and the body of a POST."""

    headers: dict[str, str]
    body: bytes


def build_request(kind: str, notice: Notice, *, message_id: str, sent_at: float, secret: bytes | None) -> NoticeRequest:
    """Return the request of a notice to a target of this kind.

    Args:
        kind: ntfy, slack or webhook.
        notice: The event.
        message_id: The same in each attempt to send the notice, so that a receiver can ignore the second one.
        sent_at: The time of this attempt, in epoch seconds.
        secret: Signs a webhook; None leaves it unsigned.
    """
    match kind:
        case "ntfy":
            return _build_ntfy(notice)
        case "slack":
            return _build_json({"text": _escape_slack(f"{notice.headline}\n{notice.text}")})
        case _:
            return _build_webhook(notice, message_id, int(sent_at), secret)


def sign_webhook(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a webhook, as https://www.standardwebhooks.com defines version 1."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def _build_json(content: object) -> NoticeRequest:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return NoticeRequest({"Content-Type": "application/json"}, body)


def _build_webhook(notice: Notice, message_id: str, sent_at: int, secret: bytes | None) -> NoticeRequest:
    timestamp = datetime.fromtimestamp(notice.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    request = _build_json({"type": notice.event, "timestamp": timestamp, "data": dict(notice.data)})
    headers = {"webhook-id": message_id, "webhook-timestamp": str(sent_at)}
    if secret is not None:
        headers["webhook-signature"] = sign_webhook(secret, message_id, sent_at, request.body)
    return NoticeRequest(request.headers | headers, request.body)


def _build_ntfy(notice: Notice) -> NoticeRequest:
    # The title of a job may hold any character, so it goes into the body; headers stay ASCII.
    tag = _TAGS.get(notice.event) or _TAGS.get(notice.data["status"], _FAILED_TAG)
    priority = _DEFAULT_PRIORITY if notice.is_good else _HIGH_PRIORITY
    headers = {"Title": notice.headline, "Tags": tag, "Priority": priority, "Content-Type": "text/plain; charset=utf-8"}
    return NoticeRequest(headers, notice.text.encode("utf-8", "replace"))


def _escape_slack(text: str) -> str:
    """Return a text in which nothing mentions a person or a channel, or becomes a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
