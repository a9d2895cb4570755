"""Show a notice on the desktop, with a program that the system has."""

import html
import shutil
import subprocess
import sys
from collections.abc import Mapping

from agent_jobs.notices.notice import Notice

LIMIT_S = 10.0  # these programs end at once
#: The program of each system, by `sys.platform`; other systems are like Linux.
PROGRAMS = {"darwin": "osascript", "win32": "powershell", "linux": "notify-send"}
_APPLE_SCRIPT = (
    "on run said", "display notification (item 2 of said) with title (item 1 of said)", "end run",
)  # fmt: skip
#: The texts come as variables of the environment: nothing in them can become a command.
_POWERSHELL = """
$null = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications, ContentType = WindowsRuntime]
$kind = [Windows.UI.Notifications.ToastTemplateType]::ToastText02
$xml = [Windows.UI.Notifications.ToastNotificationManager]::GetTemplateContent($kind)
$texts = $xml.GetElementsByTagName('text')
$null = $texts.Item(0).AppendChild($xml.CreateTextNode($env:NOTICE_TITLE))
$null = $texts.Item(1).AppendChild($xml.CreateTextNode($env:NOTICE_TEXT))
$app = '{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\\WindowsPowerShell\\v1.0\\powershell.exe'
$toast = [Windows.UI.Notifications.ToastNotification]::new($xml)
[Windows.UI.Notifications.ToastNotificationManager]::CreateToastNotifier($app).Show($toast)
"""


def find_program(environ: Mapping[str, str]) -> str | None:
    """Return the path of the program that shows notices here, None if there is none."""
    return shutil.which(PROGRAMS.get(sys.platform, "notify-send"), path=environ.get("PATH"))


def show_on_desktop(notice: Notice, environ: Mapping[str, str]) -> str:
    """Show a notice; return why it was not shown, an empty string if it was."""
    program = PROGRAMS.get(sys.platform, "notify-send")
    texts = {"NOTICE_TITLE": notice.headline, "NOTICE_TEXT": notice.text}
    try:
        done = subprocess.run(
            build_command(program, notice), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**environ, **texts}, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return f"{program} is not installed"
    except OSError as error:
        return f"{program} cannot be started ({error.strerror})"
    except subprocess.TimeoutExpired:
        return f"{program} did not end"
    if done.returncode:
        return f"{program} ended with status {done.returncode}"
    return ""


def build_command(program: str, notice: Notice) -> list[str]:
    """Return the command that shows a notice."""
    match program:
        case "osascript":
            script = [word for line in _APPLE_SCRIPT for word in ("-e", line)]
            return [program, *script, notice.headline, notice.text]
        case "powershell":
            return [program, "-NoProfile", "-NonInteractive", "-Command", _POWERSHELL]
        case _:
            # The second text may hold markup.
            return [program, "--app-name=agent-jobs", "--", notice.headline, html.escape(notice.text, quote=False)]
