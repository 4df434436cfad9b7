"""What keeps a process small."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geoseg.run import memory

ALLOCATE = """
import sys
import numpy as np
from geoseg.run.memory import limit_memory, release_memory
limit_memory()
def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6
many = [np.ones(12_000, np.uint8) for _ in range(20_000)]
kept = many[-1]
del many
before = resident_mb()
release_memory()
sys.exit(0 if resident_mb() < before - 100 else f"{before:.0f} MB before, {resident_mb():.0f} MB after")
"""


@pytest.mark.skipif(memory._glibc() is None, reason="not glibc")
def test_what_was_freed_is_given_back_to_the_system(repository: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ALLOCATE], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sizes_that_the_user_chose_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    monkeypatch.setenv("GDAL_CACHEMAX", "1000")
    monkeypatch.delenv("OGR_GPKG_MAX_RAM_USAGE_RTREE", raising=False)
    memory.limit_memory()
    assert os.environ["GDAL_CACHEMAX"] == "1000"
    assert os.environ["OGR_GPKG_MAX_RAM_USAGE_RTREE"] == memory.RTREE_BYTES
    monkeypatch.delenv("OGR_GPKG_MAX_RAM_USAGE_RTREE")


def test_dasks_own_trimming_is_undone_and_the_users_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    libc = type("Libc", (), {"mallopt": staticmethod(lambda number, _: calls.append(number))})
    monkeypatch.setattr(memory, "_glibc", lambda: libc)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", memory.DASKS_TRIM_THRESHOLD)
    memory.limit_memory()
    assert calls == [memory.M_TRIM_THRESHOLD, memory.M_MMAP_THRESHOLD]
    calls.clear()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    memory.limit_memory()
    assert calls == []


def test_the_peak_is_that_of_this_process(repository: Path) -> None:
    """And not of the one that started it, however much that has taken."""
    taken = bytearray(b"1") * 400_000_000
    peak = memory.peak_memory_mb()
    assert peak is None or 400 < peak < 100_000
    child = [sys.executable, "-c", "from geoseg.run.memory import peak_memory_mb; print(peak_memory_mb() or 1)"]
    found = subprocess.run(child, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert float(found) < 300 < len(taken)


def test_garbage_is_looked_for_less_often_unless_the_user_said_how_often() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(memory.PYTHONS_OWN[0], 10, 10)
        memory.collect_seldom()
        assert gc.get_threshold() == memory.SELDOM
        gc.set_threshold(123, 4, 5)
        memory.collect_seldom()
        assert gc.get_threshold() == (123, 4, 5)
    finally:
        gc.set_threshold(*before)
