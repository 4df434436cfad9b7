"""Is this checkout slower than another one? python docs/benchmarks/checkouts.py OTHER SCENE... [--rounds 3]

OTHER is the folder of another checkout, such as a `git worktree` of an older commit; both run in this environment, in
turns, on a machine that should do nothing else. Prints time and peak memory of `geoseg run`, and their ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]


def run(checkout: Path, scene: str) -> tuple[float, float]:
    """Run a checkout on a scene; return seconds, imports included, and peak memory in MB."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "geoseg", "run", scene, "--out", out, "--quiet"]
        began = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        return seconds, json.loads((Path(out) / "run.json").read_text(encoding="utf-8"))["peak_memory_mb"]


def main() -> None:
    """Print a line per scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("scenes", nargs="+", type=lambda text: str(Path(text).absolute()))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for scene in given.scenes:
        sides = {given.other.absolute(): [], HERE: []}
        for number in range(given.rounds):
            for checkout in list(sides)[:: 1 if number % 2 else -1]:
                sides[checkout].append(run(checkout, scene))
        (other_s, other_mb), (own_s, own_mb) = (
            map(statistics.median, zip(*runs, strict=True)) for runs in sides.values()
        )
        print(
            f"{Path(scene).name}: {own_s:.1f} s, {own_mb:,.0f} MB; the other {other_s:.1f} s, {other_mb:,.0f} MB; "
            f"ratios {own_s / other_s:.3f} and {own_mb / other_mb:.3f}"
        )


if __name__ == "__main__":
    main()
