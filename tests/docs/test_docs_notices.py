"""The statements of docs/notices.md are true, and its check of a signature works."""

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

from agent_jobs.engine import on_finish
from agent_jobs.notices import sender
from agent_jobs.notices.notice import Notice
from agent_jobs.notices.requests import build_request
from agent_jobs.settings.notice_targets import EVENTS, KINDS, decode_secret
from agent_jobs.settings.settings import VARIABLES, Settings

PAGE = (Path(__file__).parents[2] / "docs/notices.md").read_text()
SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def test_check_of_the_page_accepts_only_genuine_notices() -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict[str, Any] = {}
    exec(code, names)  # the code of the page itself
    notice = Notice("finished", time.time(), {"job_id": "job_1", "title": "T", "status": "completed"})
    request = build_request("webhook", notice, message_id="msg_1", sent_at=time.time(), secret=decode_secret(SECRET))
    assert names["is_genuine"](request.headers, request.body, SECRET)
    assert not names["is_genuine"](request.headers, request.body + b" ", SECRET)
    assert not names["is_genuine"]({**request.headers, "webhook-id": "msg_2"}, request.body, SECRET)
    assert not names["is_genuine"]({**request.headers, "webhook-timestamp": "1"}, request.body, SECRET)


def test_example_of_a_body_has_the_fields_that_are_sent() -> None:
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    body = json.loads(example)
    notice = Notice(body["type"], 1_795_966_755.0, body["data"])
    sent = build_request("webhook", notice, message_id="msg_1", sent_at=0.0, secret=None)
    assert json.loads(sent.body) == body


def test_targets_events_and_figures_of_the_page_are_those_of_the_program() -> None:
    assert re.findall(r"^\| `(\w+)(?:`|:\w+`) \|", PAGE, re.M) == [*KINDS, *EVENTS]
    assert f"`AGENT_JOBS_NOTIFY_MIN_S` seconds ({VARIABLES['AGENT_JOBS_NOTIFY_MIN_S'].default})" in PAGE
    assert f"a timeout of {sender.REQUEST_LIMIT_S:g} s" in PAGE
    waits = [sender.FIRST_RETRY_S * 2**n for n in range(sender.ATTEMPTS - 1)]
    assert "after {:g}, {:g} and {:g} s".format(*waits) in PAGE
    assert {408, 425, 429} < sender.RETRIED_STATUSES
    assert on_finish.AT_ONCE == 4
    [example] = re.findall(r"^AGENT_JOBS_NOTIFY=(.*)$", PAGE, re.M)
    settings = Settings.from_env({"AGENT_JOBS_NOTIFY": example, "SLACK_WEBHOOK": "https://hooks.slack.com/services/T0"})
    assert list(map(str, settings.notify)) == ["desktop", "ntfy at ntfy.sh", "slack at hooks.slack.com"]
    assert settings.warnings == ()
