"""Start `agent-jobs` processes without paying for the interpreter and the imports each time.

A new interpreter that imports all that a command needs costs about a second of CPU, and the tests start a thousand.
So each test process keeps one fork server: this file run as a program, which has imported everything once. `Process`
is `subprocess.Popen`, except that it asks the fork server for a fork instead of running `python -m agent_jobs`. The
fork becomes what a new process would be: it gets the descriptors, environment, folder and arguments that were asked
for, opens its standard streams anew, runs `agent_jobs` as `__main__`, and ends as an interpreter ends. It has a pid,
signals and exit status of its own. The fork server is its parent and reports how it ended. A fork is measured as
`measuring.py` says, where the fork server is.

Everything else runs in a new interpreter, as `subprocess.Popen` would: another program, other options of Python, or
`PYTHON*` variables that differ from ours.
"""

import atexit
import faulthandler
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, cast

import measuring
from fork_client import ask
from kept_certificates import keep_certificates

COMMAND = [sys.executable, "-m", "agent_jobs"]
#: Variables that an interpreter reads when it starts. Those of the locale have a fork server for each value.
AT_START, LOCALE = "PYTHON", ("LANG", "LC_ALL", "LC_CTYPE")
#: Those that a fork can still obey.
LATER = {"PYTHONFAULTHANDLER"}
#: What has a fork server measured, as it is at the start: a test may run without our variables.
MEASURED = {name: value for name, value in os.environ.items() if name == measuring.VARIABLE}
#: What the commands and the server import late, and third-party code imports later still.
LATE = (
    "anyio._backends._asyncio", "anyio._core._signals", "encodings.idna", "encodings.utf_8_sig",
    "genai_prices.data", "genai_prices.data_snapshot", "httpcore2", "importlib.readers", "platformdirs.unix",
    "rich.logging", "truststore",
)  # fmt: skip


#: The pids of our fork servers.
_servers: list[int] = []


def spent_s() -> float:
    """Return the CPU seconds of our fork servers and of the forks that ended."""
    return sum(map(_read_cpu_s, _servers))


def _read_cpu_s(pid: int) -> float:
    """Return the CPU of a process and of the processes that it waited for; 0 where there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            ticks = sum(map(int, stat.read().rpartition(")")[2].split()[11:15]))
    except OSError:
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK")


class Process(subprocess.Popen[str]):
    """An `agent-jobs` process, forked where that makes no difference."""

    _end: socket.socket | None = None  #: where the fork server reports the end

    def __init__(self, command: Sequence[str | os.PathLike[str]], **options: Any) -> None:
        super().__init__(command, text=True, **options)

    def _execute_child(
        self, args: Sequence[Any], executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Sequence[int],
        cwd: Any, env: Mapping[str, str] | None, startupinfo: Any, creationflags: Any, shell: bool, *more: Any,
    ) -> None:  # fmt: skip
        """Replace what starts the process in every Python from 3.11 on; the pipes are made by then."""
        environ = os.environ if env is None else env
        if not can_fork(args, environ) or preexec_fn or pass_fds or shell:
            given = (args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell)
            cast("Any", super())._execute_child(*given, *more)
            return
        pipes: Sequence[int] = more[:6]
        request = {
            "arguments": [os.fsdecode(argument) for argument in args[1:]],
            "environment": dict(environ),
            "folder": os.path.abspath(os.fsdecode(cwd or os.curdir)),
            "is_session": bool(more[11]),
        }
        descriptors = [own if own != -1 else inherited for inherited, own in enumerate((pipes[0], pipes[3], pipes[5]))]
        self._end, theirs = socket.socketpair()
        _connect(tuple(environ.get(name) for name in LOCALE))(theirs)
        ask(self._end, request, descriptors)
        self.pid = int.from_bytes(_receive(self._end, 4))
        self._child_created = True
        cast("Any", self)._close_pipe_fds(*pipes)

    def _internal_poll(self, *unused: Any, **more: Any) -> int | None:
        if self._end is None:
            return cast("Any", super())._internal_poll(*unused, **more)
        if self.returncode is None and select.select([self._end], [], [], 0)[0]:
            self.returncode = _read_status(self._end)
        return cast("int | None", self.returncode)

    def wait(self, timeout: float | None = None) -> int:
        if self._end is None:
            return super().wait(timeout)
        limit_s = None if timeout is None else max(0.0, timeout)
        if self.returncode is None and not select.select([self._end], [], [], limit_s)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._internal_poll() or 0


def run(
    command: Sequence[str | os.PathLike[str]], *, input: str | None = None, timeout: float | None = None, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, as `subprocess.run` does with `capture_output=True, text=True`."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | (
        {} if input is None else {"stdin": subprocess.PIPE}
    )
    with Process(command, **(pipes | options)) as process:
        try:
            stdout, stderr = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def can_fork(command: Sequence[Any], environment: Mapping[str, str]) -> bool:
    """Return True if a fork of ours is the same as running the command."""

    def at_start(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if name.startswith(AT_START) and name not in LATER}

    return [*command[: len(COMMAND)]] == COMMAND and at_start(environment) == at_start(os.environ)


@contextmanager
def listening(path: Path) -> Generator[None]:
    """Pass on what `fork_client.py` asks at this address: the processes of a shell are forks too."""
    hand_over = _connect((None,) * len(LOCALE))

    def accept() -> None:
        with suppress(OSError):  # it was shut down
            while True:
                hand_over(listener.accept()[0])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


@cache
def _connect(locale: tuple[str | None, ...]) -> Callable[[socket.socket], None]:
    """Start the fork server of a locale; returns what hands it a connection, at which it then reads a request.

    It ends when our end of the channel closes, at the latest with this process.
    """
    environment = {name: value for name, value in os.environ.items() if name not in LOCALE}
    environment |= {name: value for name, value in zip(LOCALE, locale, strict=True) if value is not None} | MEASURED
    channel, theirs = socket.socketpair()
    with theirs:
        command, inherited = [sys.executable, __file__, str(theirs.fileno())], [theirs.fileno()]
        server = subprocess.Popen(command, pass_fds=inherited, env=environment, stdin=subprocess.DEVNULL)
    _servers.append(server.pid)

    def stop() -> None:
        channel.close()
        server.wait()

    atexit.register(stop)

    def hand_over(end: socket.socket) -> None:
        assert server.poll() is None, "the fork server ended"
        with end:
            socket.send_fds(channel, [b"."], [end.fileno()])

    return hand_over


def _read_status(end: socket.socket) -> int:
    with end:
        return int.from_bytes(_receive(end, 4), signed=True)


def _receive(connection: socket.socket, count: int) -> bytes:
    received = connection.recv(count, socket.MSG_WAITALL)
    assert len(received) == count, "the fork server ended"
    return received


def control_terminal() -> None:
    """Have the terminal on stdin control this session, so that Ctrl-C reaches it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


# What follows runs in the fork server, and from `_become` on in its forks.


def _serve(channel: socket.socket) -> str:
    """Fork for each request, and report how each fork ended; returns in forks only, which script is to be run or ""."""
    children: dict[int, socket.socket] = {}
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([channel, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _report(children)
        if channel not in ready:
            continue
        asked, received, _, _ = socket.recv_fds(channel, 1, 1)
        if not asked:
            os._exit(0)
        end = socket.socket(fileno=received[0])
        _, descriptors, _, _ = socket.recv_fds(end, 1, 3)
        request = json.loads(_receive(end, int.from_bytes(_receive(end, 4))))
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for ours in (channel, woken, wake, end, *children.values()):
                ours.close()
            return _replace_process(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        end.sendall(pid.to_bytes(4))
        children[pid] = end


def _report(children: dict[int, socket.socket]) -> None:
    """Report the forks that ended; each stays a zombie until its end is written, so that its pid is not reused."""
    for pid, end in [*children.items()]:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            continue
        status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with children.pop(pid), suppress(OSError):  # its test may not wait for it
            end.sendall(status.to_bytes(4, signed=True))
        os.waitpid(pid, 0)


def _replace_process(request: Mapping[str, Any], descriptors: Sequence[int]) -> str:
    """Make a fork what a new interpreter would be; returns the script that it runs, "" for `-m agent_jobs`."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["is_session"]:
        os.setsid()
        if os.isatty(0):
            control_terminal()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    coerced = os.environ.get("LC_CTYPE")  # an interpreter sets it where the locale would be ASCII
    os.environ.clear()
    os.environ.update({"LC_CTYPE": coerced} if coerced else {}, **request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    script, *arguments = request["arguments"]
    if script == "-m":
        script, folder, arguments = "", request["folder"], arguments[1:]
    else:
        folder = os.path.dirname(script)
    sys.path[:0] = [folder, *request.get("module_folders", ())]
    if python := request.get("python"):
        sys.executable = python
        sys.prefix = sys.exec_prefix = str(Path(python).parents[1])
    sys.argv[1:] = arguments
    _open_streams()
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    return script


def _open_streams() -> None:
    """Open the standard streams as `create_stdio` of CPython does."""
    for number, name, mode in ((0, "stdin", "rb"), (1, "stdout", "wb"), (2, "stderr", "wb")):
        old: TextIOWrapper = getattr(sys, f"__{name}__")
        is_unbuffered = old.write_through  # PYTHONUNBUFFERED
        binary = open(number, mode, 0 if is_unbuffered else -1, closefd=False)  # noqa: SIM115
        is_by_line = not is_unbuffered and (number == 2 or os.isatty(number))
        stream = TextIOWrapper(
            binary, old.encoding, old.errors, newline="\n", line_buffering=is_by_line, write_through=is_unbuffered
        )
        cast("Any", stream).mode = mode[0]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _import_everything() -> None:
    """Import our modules and what they, and what they use, import late."""
    package = import_module("agent_jobs")
    for module in pkgutil.walk_packages(package.__path__, "agent_jobs."):
        if module.name != "agent_jobs.__main__":
            import_module(module.name)
    for name in LATE:
        import_module(name)


def _run_program(script: str) -> None:
    """Run `agent_jobs` or a script as `__main__`, and end as an interpreter ends, but leave the objects to the system.

    Taking apart all that was imported costs 25 ms, which is more than a short command. Only coroutines that were
    never awaited and the like are still found, which an interpreter reports at its end.
    """
    try:
        if script:
            runpy.run_path(script, run_name="__main__")
        else:
            runpy.run_module("agent_jobs", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        if ended.code is not None and not isinstance(ended.code, int):
            raise
        status = ended.code or 0
    cast("Any", threading)._shutdown()
    cast("Any", atexit)._run_exitfuncs()
    gc.collect()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except OSError:
        raise SystemExit(status) from None  # the interpreter reports it, and ends with a status of its own
    os._exit(status & 0xFF)


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    gc.disable()  # hardly any of what is imported is garbage
    measuring.measure()
    _import_everything()
    measuring.write()
    keep_certificates()
    gc.collect()
    gc.enable()
    gc.freeze()  # at the end of each fork, looking through all that was imported would cost 0.4 s
    _run_program(_serve(socket.socket(fileno=int(sys.argv.pop()))))
