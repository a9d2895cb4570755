"""CPU time and memory of other processes, as /proc has them: on Linux only."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int, *, with_children: bool = False) -> float:
    """Return the CPU time of a process, or of a server with the processes that it started, ended or not."""
    ticks = _read_stat(pid)[11:15]
    if not with_children:
        return sum(ticks[:2]) / _TICK
    total = sum(ticks)
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if parent_of(int(each.name)) == pid:
                total += sum(_read_stat(int(each.name))[11:13])
        except OSError:
            continue  # it has ended
    return total / _TICK


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6


def parent_of(pid: int) -> int:
    """Return the process that started a process."""
    return _read_stat(pid)[1]


def _read_stat(pid: int) -> list[int]:
    """Return the numbers after the name of a process in /proc; its state stands as 0."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, fields[1:])]
