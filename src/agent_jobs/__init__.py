"""agent-jobs: long work as OpenAI Responses background jobs, for hosts that speak MCP.

- The faces parse and render: `mcp_server`, `cli`, `page`, `team_server`.
- `app` and `wiring` build everything from the `settings`.
- `engine` runs jobs, which `jobs` defines. It alone uses `store` and `upstream` together.
- Around the engine: `request`, `rendering`, `attachments`, `toolbox`, `pricing`, `notices`, `install`.
- `emulator` stands in for the provider in tests and demos, and imports nothing of the rest.

docs/architecture.md has the whole map.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
