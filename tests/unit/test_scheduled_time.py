"""The clocks of the tests stand still while a busy machine does not run their process."""

import os
import subprocess
import sys
import time
from threading import get_native_id

import pytest
from scheduled_time import IS_COUNTED, SAMPLE_S, read_wait_ns

from agent_jobs.clock import Clock, create_fast_clock
from agent_jobs.emulator.run import Clock as EmulatorClock

#: Nanoseconds that the process has to wait for a core: far more than the error of a sample.
WAIT_NS = 200_000_000
SPEED = 100.0


@pytest.mark.skipif(not IS_COUNTED, reason="this system does not count how long threads wait for a core")
def test_clocks_stand_still_while_their_process_waits_for_a_core() -> None:
    cores, thread = os.sched_getaffinity(0), str(get_native_id())
    os.sched_setaffinity(0, {min(cores)})
    clocks = {"loop": (Clock(now=time.monotonic), 1.0), "engine": (create_fast_clock(SPEED), SPEED)}
    emulated = EmulatorClock(SPEED)
    try:
        with subprocess.Popen([sys.executable, "-ISc", "while True: pass"]) as busy:
            began = {name: clock.now() for name, (clock, _) in clocks.items()}
            emulated_began, real_began, waited_ns = emulated.now(), time.perf_counter(), read_wait_ns(thread)
            while read_wait_ns(thread) - waited_ns < WAIT_NS:
                time.monotonic()
            passed_s = {name: (clock.now() - began[name]) / speed for name, (clock, speed) in clocks.items()}
            passed_s["emulator"] = (emulated.now() - emulated_began) / SPEED
            real_s = time.perf_counter() - real_began
            busy.kill()
    finally:
        os.sched_setaffinity(0, cores)
    most_s = real_s - WAIT_NS / 1e9 * 0.9 + 4 * SAMPLE_S
    assert {name: s for name, s in passed_s.items() if s > most_s} == {}


def test_clocks_pass_while_their_process_sleeps() -> None:
    began, real_began = time.monotonic(), time.perf_counter()
    time.sleep(0.05)
    while time.monotonic() - began < 0.05:
        time.sleep(0.001)
    assert time.monotonic() - began <= time.perf_counter() - real_began + SAMPLE_S
