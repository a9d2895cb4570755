"""agent-jobs: long work as OpenAI Responses background jobs, for hosts that speak MCP."""

__version__ = "0.1.0"

__all__ = ["__version__"]
