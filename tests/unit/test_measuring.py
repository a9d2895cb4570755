"""What the measurement of coverage notes of a process and its forks."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import measuring

PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
import measuring
measuring.measure()
from agent_jobs.address_values import find_host
measuring.write()
if os.fork() == 0:
    find_host("http://localhost")
    sys.exit()
os.wait()
"""


def test_a_fork_writes_what_it_ran_since_the_process_that_it_is_a_fork_of_wrote(tmp_path: Path) -> None:
    support = str(Path(measuring.__file__).parent)
    environment = {**os.environ, measuring.VARIABLE: str(tmp_path)}
    subprocess.run([sys.executable, "-c", PROGRAM, support], env=environment, check=True)
    path = str(measuring.SOURCE / "address_values.py")
    seen = [pickle.loads(written.read_bytes()).get(path, set()) for written in tmp_path.iterdir()]
    nothing, run, imported = sorted(seen, key=len)
    assert nothing == set()
    assert run and imported and not run & imported
