"""The script of pipelines/local as cron would start it: workers, another attempt, no second one at a time."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "local" / "geoseg-local.sh"

# Says how it was called; leaves with the exit codes of a file, one after the other.
STAND_IN = """#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> calls
code=$(head -n 1 codes)
sed -i 1d codes
[ "$code" != wait ] || exec sleep 60
exit "$code"
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], Path]:
    """Make a geoseg that leaves with these exit codes; `wait` for one that works on until it is stopped."""

    def make(codes: str) -> Path:
        path = tmp_path / "stand-in" / "geoseg"
        path.parent.mkdir()
        path.write_text(STAND_IN)
        path.chmod(0o755)
        (path.parent / "codes").write_text(codes.replace(" ", "\n") + "\n")
        return path

    return make


@pytest.fixture
def cron(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment with no pauses between attempts, and locks of its own."""
    return environment | {"PAUSE_S": "0", "XDG_CACHE_HOME": str(tmp_path / "cache"), "WORKERS": "2", "THREADS": "1"}


def start(environment: dict[str, str], folder: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, cwd=folder, text=True, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_two_workers_end_in_the_plain_result(
    environment: dict[str, str],
    tmp_path: Path,
    scene: Path,
    assert_same_as_plain: Callable[[Path], None],
    block_px: int,
) -> None:
    out, settings = tmp_path / "out", {"WORKERS": "2", "THREADS": "1", "ATTEMPTS": "1"}
    script = start(environment | settings, tmp_path, scene, "--out", out, "--block-px", str(block_px))
    _, said = script.communicate()
    assert script.returncode == 0, said
    report = json.loads((out / "run.json").read_text())
    assert (report["settings"]["workers"], report["settings"]["threads"]) == (2, 1)
    assert report["counts"]["blocks"] == 9
    assert report["peak_memory_mb"] < report["worker_peak_memory_mb"]  # the network was in the workers, not here
    assert_same_as_plain(out)


@pytest.mark.parametrize(
    ("codes", "ends_in", "calls"),
    [("0", 0, 1), ("2 0", 2, 1), ("3 1 0", 0, 3), ("137 3 3 3", 3, 3)],
    ids=["done", "refused: not again", "passing failures: again", "at most so often"],
)
def test_exit_codes_decide_on_another_attempt(
    cron: dict[str, str], tmp_path: Path, stand_in: Callable[[str], Path], codes: str, ends_in: int, calls: int
) -> None:
    geoseg = stand_in(codes)
    with start(cron | {"GEOSEG": str(geoseg), "ATTEMPTS": "3"}, tmp_path, "a.tif", "--out", "my results") as script:
        script.communicate(timeout=120)
    said = (geoseg.parent / "calls").read_text().splitlines()
    assert (script.returncode, said) == (ends_in, ["run a.tif --out my results --workers 2 --threads 1"] * calls)


def test_a_second_one_of_the_same_command_leaves_at_once_and_a_stopped_one_takes_geoseg_along(
    cron: dict[str, str], tmp_path: Path, stand_in: Callable[[str], Path]
) -> None:
    geoseg = stand_in("wait 0 0")
    environment = cron | {"GEOSEG": str(geoseg)}
    with start(environment, tmp_path, "a.tif") as first:
        wait_for(geoseg.parent / "calls")
        with start(environment, tmp_path, "a.tif") as second:
            assert "runs already" in second.communicate(timeout=120)[1]
        with start(environment, tmp_path, "b.tif") as other:
            other.communicate(timeout=120)
        first.terminate()
        first.communicate(timeout=120)
    assert (first.returncode, second.returncode, other.returncode) == (143, 0, 0)
    calls = (geoseg.parent / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["a.tif", "b.tif"]
    with start(environment, tmp_path, "a.tif") as again:
        again.communicate(timeout=120)
    assert again.returncode == 0


def wait_for(path: Path) -> None:
    subprocess.run(["sh", "-c", 'until [ -s "$0" ]; do sleep 0.05; done', path], check=True, timeout=120)
