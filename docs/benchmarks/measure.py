"""Run a command on a fixed number of CPUs; measure its wall time and the peak memory of all its processes."""

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL_S = 0.1
THREAD_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Measured:
    """What a command took: `seconds` of wall time and `peak_mb`, proportional set size of the whole process tree.

    `cpu_s` are seconds of all its cores together: on a busy machine they say more than the wall.
    """

    seconds: float
    peak_mb: float
    cpu_s: float


def measure(command: Sequence[str], *, cpus: int, log: Path, env: Mapping[str, str] | None = None) -> Measured:
    """Run `command` on `cpus` CPUs, its output in `log`.

    Raises:
        SystemExit: If the command fails; the end of its output is shown.
    """
    with log.open("w") as out:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(_pinned(command, cpus), stdout=out, stderr=subprocess.STDOUT, env=_environment(env))
        peak = _PeakMemory(process.pid)
        peak.start()
        status = process.wait()
        seconds = time.perf_counter() - start
        peak.stop()
    if status:
        raise SystemExit(
            f"{' '.join(command)}\nended with status {status}; the end of {log}:\n{log.read_text()[-3000:]}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(seconds, peak.peak_bytes / 1e6, cpu_s)


def _pinned(command: Sequence[str], cpus: int) -> list[str]:
    """Keep a command, its threads and its children on the first CPUs this process may use (Linux only)."""
    if not hasattr(os, "sched_getaffinity"):
        return list(command)
    mine = sorted(os.sched_getaffinity(0))[:cpus]
    return ["taskset", "--cpu-list", ",".join(map(str, mine)), *command]


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """Our own environment without thread counts of the caller, and what a candidate needs."""
    return {key: value for key, value in os.environ.items() if key not in THREAD_POOLS} | dict(extra or {})


class _PeakMemory(threading.Thread):
    """Polls the memory of a process and all its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._done.wait(POLL_S):
            self.peak_bytes = max(self.peak_bytes, _tree_bytes(self._root))

    def stop(self) -> None:
        self._done.set()
        self.join()


def _tree_bytes(root: psutil.Process) -> int:
    try:
        return sum(_process_bytes(p) for p in [root, *root.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def _process_bytes(process: psutil.Process) -> int:
    """Proportional set size (pages shared between processes counted once); resident size where there is none."""
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # another system, or the process has just ended
        pass
    return process.memory_info().rss if process.is_running() else 0
