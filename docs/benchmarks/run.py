"""A whole `geoseg run`: seconds per stage, memory and start-up: python docs/benchmarks/run.py SCENE.

Start-up is the time from the command to the first chip read, beside `python -c "import torch, torchgeo.datasets"`, in
turns, best of each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import measure

TURNS = 3
IMPORTS = "import torch, torchgeo.datasets"


def run_whole(scene: list[str], model: str, cpus: int) -> None:
    """Run the command and print what run.json and the operating system say."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "geoseg", "run", *scene, "--model", model, "--out", str(out), "--quiet"]
        measured = measure(command, cpus=cpus, log=Path(folder) / "log")
        report = json.loads((out / "run.json").read_text())
    work = report["thread_seconds_in_blocks"]
    print("| what | value |\n| --- | --- |")
    print(f"| scene | {report['scene']['name']}, {report['counts']['pixels'] / 1e6:.1f} Mpx at the model's pixels |")
    print(f"| buildings | {report['counts']['buildings']:,} |")
    print(f"| wall, the whole process | {measured.seconds:.1f} s |")
    print("| stages | " + ", ".join(f"{k} {v:.1f} s" for k, v in report["seconds"].items()) + " |")
    print("| in blocks, all threads | " + ", ".join(f"{k} {v:.1f} s" for k, v in work.items()) + " |")
    print(f"| reading and feeding / network | {100 * work['read'] / work['network']:.1f} % |")
    print(
        f"| network's share of the wall time | {100 * work['network'] / report['threads'] / measured.seconds:.1f} % |"
    )
    print(f"| peak memory of all processes | {measured.peak_mb:,.0f} MB |")


def start_up(scene: list[str], model: str) -> None:
    """Print the time to the first chip beside the imports that it cannot avoid."""
    times: dict[str, list[float]] = {"imports": [], "first chip": []}
    with tempfile.TemporaryDirectory() as folder:
        patch = Path(folder) / "sitecustomize.py"
        patch.write_text(HOOK)
        env = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        command = [sys.executable, "-m", "geoseg", "run", *scene, "--model", model, "--out", f"{folder}/out", "--quiet"]
        for _ in range(TURNS):
            times["imports"].append(_seconds([sys.executable, "-c", IMPORTS], dict(os.environ)))
            times["first chip"].append(_seconds(command, env))
    imports, first = min(times["imports"]), min(times["first chip"])
    print(f"| `{IMPORTS}` | {imports:.2f} s |")
    print(f"| `geoseg run` to the first chip | {first:.2f} s, {first / imports:.2f} times |")


HOOK = '''
import importlib.abc, importlib.util, os, sys

class Finder(importlib.abc.MetaPathFinder):
    """Leaves the process at the first chip that geoseg has read."""

    def find_spec(self, name, path, target=None):
        if name != "geoseg.datasets.scenes":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            read = module.SceneDataset.read_chip
            def first(self, window):
                read(self, window)
                os._exit(0)
            module.SceneDataset.read_chip = first

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
'''


def _seconds(command: list[str], env: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", nargs="+")
    parser.add_argument("--model", default="buildings-30cm")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--start-up-only", action="store_true")
    args = parser.parse_args()
    if not args.start_up_only:
        run_whole(args.scene, args.model, args.cpus)
    start_up(args.scene, args.model)


if __name__ == "__main__":
    main()
