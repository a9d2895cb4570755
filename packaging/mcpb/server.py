"""For hosts that run the entry point of a bundle by themselves; the others start `uv tool run`."""

from agent_jobs.__main__ import main

main()
