"""Build one-click links: the entries of `install --print` in the forms that the hosts' link handlers accept. Pure."""

import json
from base64 import b64encode
from urllib.parse import quote, urlencode

from agent_jobs.install.hosts import HOSTS, KEY, SERVER, find_input
from agent_jobs.install.machine import Launch

ABOUT = "Long work as OpenAI background responses"


def build_cursor_link(launch: Launch) -> str:
    """Return Cursor's link, by its web address: pages such as a README allow no other schemes."""
    return "https://cursor.com/en/install-mcp?" + _encode_query(
        name=SERVER, config=_encode_base64(HOSTS["cursor"].entry(launch, {}))
    )


def build_vscode_link(launch: Launch, *, insiders: bool = False) -> str:
    """Return VS Code's link, with the question for the key."""
    entry = HOSTS["vscode"].entry(launch, {})
    query = _encode_query(name=SERVER, inputs=_compact_json([find_input(entry)]), config=_compact_json(entry))
    if insiders:
        query += "&quality=insiders"
    return f"https://insiders.vscode.dev/redirect/mcp/install?{query}"


def build_lm_studio_link(launch: Launch) -> str:
    """Return LM Studio's link, by its web address."""
    return "https://lmstudio.ai/install-mcp?" + _encode_query(
        name=SERVER, config=_encode_base64(HOSTS["lm-studio"].entry(launch, {}))
    )


def build_goose_link(launch: Launch) -> str:
    """Return Goose's link, by its web address; Goose asks for the key and keeps it in its keyring."""
    args = "".join(f"&arg={quote(arg, safe='')}" for arg in launch.args)
    rest = _encode_query(id=SERVER, name=SERVER, description=ABOUT, timeout="300", env=f"{KEY}=OpenAI API key")
    return f"https://block.github.io/goose/extension?cmd={quote(launch.command, safe='')}{args}&{rest}"


def build_badges(launch: Launch) -> str:
    """Return the links as the README shows them."""
    shown = (
        ("Add to Cursor", "https://cursor.com/deeplink/mcp-install-dark.svg", build_cursor_link(launch)),
        ("Install in VS Code", _shield_address("VS_Code"), build_vscode_link(launch)),
        ("Install in VS Code Insiders", _shield_address("VS_Code_Insiders"), build_vscode_link(launch, insiders=True)),
        ("Add to LM Studio", "https://files.lmstudio.ai/deeplink/mcp-install-light.svg", build_lm_studio_link(launch)),
        ("Install in Goose", "https://block.github.io/goose/img/extension-install-dark.svg", build_goose_link(launch)),
    )
    return "\n".join(f"[![{text}]({picture})]({link})" for text, picture, link in shown)


def _shield_address(label: str) -> str:
    return f"https://img.shields.io/badge/{label}-Install-0098FF?style=flat-square"


def _encode_query(**fields: str) -> str:
    return urlencode(fields, quote_via=quote, safe="")


def _compact_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _encode_base64(value: object) -> str:
    return b64encode(_compact_json(value).encode()).decode()
