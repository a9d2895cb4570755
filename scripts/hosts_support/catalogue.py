"""The hosts: their versions, how each is pointed at the scripted model, and how it is given one prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

#: Placeholders in what follows.
MODEL_URL, PROMPT = "MODEL_URL", "PROMPT"
DRIVERS = Path(__file__).parent / "drivers"

#: Made up; the emulator and the scripted model take any.
KEY = "sk-made-up-0123456789abcdef"
KEY_FOLDER = ".config/agent-jobs/keys"  # in the home, for hosts that have no way of their own


@dataclass(frozen=True, kw_only=True)
class RealHost:
    """One host, as it is installed, configured and run."""

    registry: Literal["npm", "pypi"]
    packages: tuple[str, ...]  #: the host with its version first
    install: tuple[str, ...]  #: what `agent-jobs install` is given
    command: tuple[str, ...]  #: the first word is a program of the package
    files: Mapping[str, str] = field(default_factory=dict[str, str])  #: its own settings, in the home
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    #: What names our server in the first request of a host whose model finds tools by a search, None elsewhere.
    announced_as: str | None = None

    @property
    def reads_entry(self) -> bool:
        """Return True for a framework, which has no file of servers: its driver reads the printed entry on stdin."""
        return "--print" in self.install

    @property
    def version(self) -> str:
        """Return the version of the host."""
        return self.packages[0].rpartition("@" if self.registry == "npm" else "==")[2]


CODEX_CONFIG = f"""\
model = "scripted"
model_provider = "loopback"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.loopback]
name = "loopback"
base_url = "{MODEL_URL}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
"""

OPENCODE_CONFIG = f"""\
{{
  "model": "loopback/scripted",
  "small_model": "loopback/scripted",
  "autoupdate": false,
  "share": "disabled",
  "agent": {{"title": {{"disable": true}}}},
  "provider": {{
    "loopback": {{
      "npm": "@ai-sdk/openai-compatible",
      "options": {{"baseURL": "{MODEL_URL}/v1", "apiKey": "{KEY}"}},
      "models": {{"scripted": {{"tool_call": true, "limit": {{"context": 200000, "output": 8000}}}}}}
    }}
  }}
}}
"""

HOSTS: Mapping[str, RealHost] = {
    "codex": RealHost(
        registry="npm",
        packages=("@openai/codex@0.171.0",),
        install=("codex", "--approve"),  # `codex exec` asks nobody, so it refuses agent_start without
        command=("codex", "exec", "--skip-git-repo-check", PROMPT),
        files={".codex/config.toml": CODEX_CONFIG},
    ),
    # Models that Codex does not know are shown all tools. Those that it knows find them by a search.
    "codex-search": RealHost(
        registry="npm",
        packages=("@openai/codex@0.171.0",),
        install=("codex", "--approve"),
        command=("codex", "exec", "--skip-git-repo-check", "--model=gpt-5.5", PROMPT),
        files={".codex/config.toml": CODEX_CONFIG},
        announced_as="mcp__agent_jobs",
    ),
    "claude-code": RealHost(
        registry="npm",
        packages=("@anthropic-ai/claude-code@2.1.332",),
        install=("claude-code",),
        command=("claude", "--allowedTools=mcp__agent-jobs", "-p", PROMPT),
        environment={
            "ANTHROPIC_BASE_URL": MODEL_URL,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
    ),
    "opencode": RealHost(
        registry="npm",
        packages=("opencode-ai@1.18.33",),
        install=("opencode",),
        command=("opencode", "run", PROMPT),
        files={".config/opencode/opencode.json": OPENCODE_CONFIG},
        environment={"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"},
    ),
    "qwen": RealHost(
        registry="npm",
        packages=("@qwen-code/qwen-code@0.24.4",),
        install=("qwen",),
        command=("qwen", "--auth-type", "openai", "--approval-mode", "yolo", "-p", PROMPT),
        files={
            ".qwen/settings.json": (
                '{"privacy": {"usageStatisticsEnabled": false}, "telemetry": {"enabled": false},'
                ' "general": {"enableAutoUpdate": false}}'
            )
        },
        environment={"OPENAI_BASE_URL": f"{MODEL_URL}/v1", "OPENAI_MODEL": "scripted"},
    ),
    "copilot-cli": RealHost(
        registry="npm",
        packages=("@github/copilot@1.0.102",),
        install=("copilot-cli",),
        command=("copilot", "--allow-all-tools", "-p", PROMPT),
        environment={
            "COPILOT_PROVIDER_BASE_URL": f"{MODEL_URL}/v1",
            "COPILOT_PROVIDER_API_KEY": KEY,
            "COPILOT_MODEL": "scripted",
            "COPILOT_OFFLINE": "true",
        },
    ),
    "openai-agents": RealHost(
        registry="pypi",
        packages=("openai-agents==0.24.0",),
        install=("claude-desktop", "--print"),
        command=("python", str(DRIVERS / "run_openai_agents.py"), PROMPT),
        environment={"OPENAI_BASE_URL": f"{MODEL_URL}/v1", "OPENAI_AGENTS_DISABLE_TRACING": "1"},
    ),
    "llama-index": RealHost(
        registry="pypi",
        packages=("llama-index-tools-mcp==0.6.0", "llama-index-llms-openai==0.8.3"),
        install=("claude-desktop", "--print"),
        command=("python", str(DRIVERS / "run_llama_index.py"), PROMPT),
        environment={"OPENAI_API_BASE": f"{MODEL_URL}/v1"},
    ),
}
