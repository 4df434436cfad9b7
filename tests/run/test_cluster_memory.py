"""What keeps a process small."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geoseg.run import cluster

is_glibc = platform.libc_ver()[0] == "glibc"

ALLOCATE = """
import sys
import numpy as np
from geoseg.run.cluster import limit_memory, release_memory
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


CHOICES = """
import gc, json, resource, sys
from geoseg.run.cluster import collect_seldom, limit_memory
if len(sys.argv) > 1:
    gc.set_threshold(123, 4, 5)
limit_memory()
collect_seldom()
import numpy as np
import pyarrow
from rasterio.env import get_gdal_config
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    np.ones(1 << 20, np.uint8)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps({
    "gdal_mb": round(int(get_gdal_config("GDAL_CACHEMAX")) / 2**20), "pool": pyarrow.default_memory_pool().backend_name,
    "collect": gc.get_threshold()[0], "faults": faults,
}))
"""


def choices(repository: Path, *arguments: str, **given: str) -> dict[str, Any]:
    """Return what a new process chooses; without a word of the user, as dask's nannies start it."""
    own = ("GDAL_CACHEMAX", "ARROW_DEFAULT_MEMORY_POOL", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"MALLOC_TRIM_THRESHOLD_": "65536"} | given
    command = [sys.executable, "-c", CHOICES, *arguments]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_process_keeps_its_caches_small_and_its_heap_warm(repository: Path) -> None:
    found = choices(repository)
    assert (found["gdal_mb"], found["pool"]) == (64, "system")
    assert found["collect"] > 10_000
    if is_glibc:
        assert found["faults"] < 5_000  # each array of 256 pages is not asked of the system anew


def test_what_the_user_chose_stays(repository: Path) -> None:
    chosen = {"GDAL_CACHEMAX": "1000", "ARROW_DEFAULT_MEMORY_POOL": "mimalloc", "MALLOC_TRIM_THRESHOLD_": "70000"}
    found = choices(repository, "collect", **chosen)
    assert (found["gdal_mb"], found["pool"], found["collect"]) == (1000, "mimalloc", 123)
    if is_glibc:
        assert found["faults"] > 20_000


@pytest.mark.skipif(not is_glibc, reason="not glibc")
def test_what_was_freed_is_given_back_to_the_system(repository: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ALLOCATE], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_peak_is_that_of_this_process(repository: Path) -> None:
    """And not of the one that started it, however much that has taken."""
    taken = bytearray(b"1") * 400_000_000
    peak = cluster.peak_memory_mb()
    assert peak is None or 400 < peak < 100_000
    child = [sys.executable, "-c", "from geoseg.run.cluster import peak_memory_mb; print(peak_memory_mb() or 1)"]
    found = subprocess.run(child, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert float(found) < 300 < len(taken)
