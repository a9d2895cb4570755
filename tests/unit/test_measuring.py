"""The measurement of coverage records the lines that a process and its forks ran."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from secrets import token_hex
from typing import Any

import measuring

PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
import measuring
measuring.measure()
from agent_jobs.settings.address_values import find_host
measuring.write()
if os.fork() == 0:
    find_host("http://localhost")
    sys.exit()
os.wait()
"""


def test_fork_records_what_it_ran_since_its_parent_recorded(tmp_path: Path) -> None:
    support = str(Path(measuring.__file__).parent)
    environment = {**os.environ, measuring.VARIABLE: str(tmp_path)}
    subprocess.run([sys.executable, "-c", PROGRAM, support], env=environment, check=True)
    path = str(measuring.SOURCE / "settings/address_values.py")
    seen = [pickle.loads(written.read_bytes()).get(path, set()) for written in tmp_path.iterdir()]
    nothing, run, imported = sorted(seen, key=len)
    assert nothing == set()
    assert run and imported and not run & imported


MODULE = """
def choose(number):
    if number > 1:
        return "many"
    return "few"
"""

RUN_MODULE = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import measuring
measuring.SOURCE = Path(sys.argv[2])
measuring.measure()
import chosen
chosen.choose(int(sys.argv[3]))
"""


def test_cached_code_is_measured_like_new_code_until_its_module_changes(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    module = tmp_path / "modules/chosen.py"

    def measure(number: int) -> set[Any]:
        """Return the lines and branches of the function that a new process ran."""
        folder = tmp_path / token_hex(4)
        folder.mkdir()
        arguments = [str(Path(measuring.__file__).parent), str(module.parent), str(number)]
        environment = {**os.environ, measuring.VARIABLE: str(folder)}
        subprocess.run([sys.executable, "-c", RUN_MODULE, *arguments], env=environment, check=True)
        [written] = folder.iterdir()
        return pickle.loads(written.read_bytes())[str(module)]

    module.write_text(MODULE)
    new = measure(1)
    assert new == {2, 3, 5, (3, 5)}
    assert measure(1) == new
    assert measure(2) == {2, 3, 4, (3, 4)}
    module.write_text(f"\n{MODULE}")
    assert measure(1) == {3, 4, 6, (4, 6)}
