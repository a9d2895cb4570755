"""Lists the modules that our server loads beyond a bare `import mcp.server`, and when."""

import json
import subprocess
import sys
import tempfile

from bench.peers import ROOT, environment

#: An event loop has run here too, because no server could answer without one.
_BARE = "import mcp.server, anyio, sys, json; anyio.run(anyio.sleep, 0); print(json.dumps(list(sys.modules)))"
#: The real server on pipes. A thread holds their other ends, and reads sys.modules as soon as an answer arrives.
_OURS = """
import json, os, sys, threading

stdin, asking = os.pipe()
answers, stdout = os.pipe()
report = os.dup(1)
os.dup2(stdin, 0)
os.dup2(stdout, 1)
seen = {}

def ask(number, method, **params):
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    os.write(asking, json.dumps(message).encode() + b"\\n")
    os.read(answers, 65536)
    return list(sys.modules)

def host():
    client = {"name": "bench", "version": "1"}
    seen["initialized"] = ask(1, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=client)
    seen["opened"] = ask(2, "tools/call", name="agent_poll", arguments={"job_id": "job_none", "wait_s": 0})
    os.write(report, json.dumps(seen).encode())
    os.close(asking)

sys.argv = ["agent-jobs"]
from agent_jobs.__main__ import main
import agent_jobs.mcp_server.stdio
seen["imported"] = list(sys.modules)
threading.Thread(target=host).start()
main()
"""


def new_modules() -> dict[str, list[str]]:
    """Return the modules of other packages that a bare `import mcp.server` lacks, by the moment when each appeared.

    `imported`: the server's modules are imported, and nothing runs yet. `initialized`: `initialize` was just answered.
    Modules that the opening in the background has loaded by then are among them. `opened`: a first tool call was
    answered, so everything is open.
    """
    known = set(json.loads(_run(_BARE, {})))
    with tempfile.TemporaryDirectory() as folder:
        seen = json.loads(_run(_OURS, {"OPENAI_API_KEY": "bench", "AGENT_JOBS_DATA_DIR": folder}))
    new: dict[str, list[str]] = {}
    for moment in ("imported", "initialized", "opened"):
        there = [name for name in seen[moment] if name not in known]
        new[moment] = sorted(name for name in there if name.partition(".")[0] != "agent_jobs")
        known.update(there)
    return new


def _run(program: str, env: dict[str, str]) -> bytes:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    ).stdout
