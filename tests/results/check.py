"""Tell whether the results of whole runs are still the same, to the last byte.

    python tests/results/check.py keep KEPT         # run the jobs with this checkout and keep their sums
    python tests/results/check.py compare KEPT      # run them again after a change; exit code 1 where one differs

The jobs are real scenes (`../shared/data`, or the folder named by GEOSEG_REALDATA): Banepa in degrees, Accra large and
masked, mosaics of three scenes and of two pixel sizes, and a six-class network, trained for a moment when the sums are
kept, so that both sides read the same weights. Rasters, GeoParquet and styles are compared as bytes, a GeoPackage row
by row, because it stores when it was written, of `run.json` the counts, and of `index.html` what is on its map. `--only
banepa` runs some of the jobs.

Sums depend on the processor and on the versions of the libraries: keep and compare on one machine.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GEOSEG_REALDATA") or REPOSITORY.parent / "shared" / "data")
SIX_CLASSES = "six-classes.safetensors"

Sums = dict[str, str]


def jobs(kept: Path) -> dict[str, list[str]]:
    """Return the arguments of `geoseg run` by name of job."""
    boston = sorted((DATA / "massachusetts" / "images").glob("2357*.tif"))[:3]
    banepa, north = DATA / "banepa" / "banepa.tif", DATA / "towns" / "banepa_north.tif"
    return {
        "sample": [str(REPOSITORY / "sample_data" / "scene.tif"), "--picture"],
        "banepa": [str(banepa)],
        "accra": [str(DATA / "accra" / "accra.tif")],
        "mosaic": [*map(str, boston), "--model", "buildings-1m", "--mosaic", "mean"],
        "mosaic-utm": [str(banepa), str(north), "--mosaic", "first", "--target-crs", "EPSG:32645"],
        "six-classes": [str(banepa), "--model", str(kept / SIX_CLASSES)],
    }


def geoseg(*arguments: str) -> None:
    """Run the command of this checkout; what it says is shown only where it fails."""
    own = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "geoseg", *arguments]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def train_six_classes(path: Path, scratch: Path) -> None:
    """Train a small network for a few steps on the six-class set and keep its bundle."""
    steps = ["network.encoder_weights=", "fit.steps=30", "fit.validate_every=15", "fit.minutes=30", "fit.device=cpu"]
    options = [option for step in steps for option in ("--set", step)]
    recipe = REPOSITORY / "pipelines" / "recipes" / "landcover-lite.toml"
    geoseg("train", str(recipe), "--data", str(DATA), "--out", str(scratch / "train"), *options)
    (bundle,) = [found for found in (scratch / "train").glob("*.safetensors") if "best-loss" not in found.name]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bundle.read_bytes())


def sum_of(path: Path) -> str:
    """Return a sum of what a file of results holds; when and how fast it was made does not count."""
    if path.name == "run.json":
        report = json.loads(path.read_text())
        content = json.dumps([report["counts"], report["area_m2"], report["classes"]], sort_keys=True).encode()
    elif path.name == "index.html":
        data = json.loads(path.read_text().partition('id="data">')[2].partition("</script>")[0])
        content = json.dumps([data[name] for name in ("buildings", "by_confidence", "image")]).encode()
    elif path.suffix == ".gpkg":
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            content = repr(database.execute("SELECT * FROM buildings ORDER BY rowid").fetchall()).encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def run(name: str, arguments: list[str], scratch: Path) -> Sums:
    """Run a job and return the sums by file."""
    begun, out = time.monotonic(), scratch / name
    geoseg("run", *arguments, "--out", str(out), "--device", "cpu")
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "item.json"]  # made of run.json
    sums = {str(path.relative_to(out)): sum_of(path) for path in files}
    print(f"{name}: {len(sums)} files, {time.monotonic() - begun:.0f} s", flush=True)
    return sums


def differences(kept: Sums, found: Sums) -> list[str]:
    """Return a line for every file that is not the kept one."""
    lines = [f"{name} is missing" for name in kept.keys() - found.keys()]
    lines += [f"{name} is new" for name in found.keys() - kept.keys()]
    return sorted(lines + [f"{name} differs" for name in kept.keys() & found.keys() if kept[name] != found[name]])


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["keep", "compare"])
    parser.add_argument("kept", type=Path, help="folder of the sums and of the six-class network")
    parser.add_argument("--only", default="*", help="names of jobs, with * and ?")
    options = parser.parse_args()
    file, worst = options.kept / "sums.json", 0
    with tempfile.TemporaryDirectory(prefix="geoseg-results-") as folder:
        scratch = Path(folder)
        if options.what == "keep" and not (options.kept / SIX_CLASSES).exists():
            train_six_classes(options.kept / SIX_CLASSES, scratch)
        names = {name: job for name, job in jobs(options.kept).items() if fnmatch.fnmatch(name, options.only)}
        found = {name: run(name, arguments, scratch) for name, arguments in names.items()}
    kept: dict[str, Sums] = json.loads(file.read_text()) if file.exists() else {}
    if options.what == "keep":
        file.write_text(json.dumps(kept | found, indent=1, sort_keys=True))
        return 0
    for name, sums in found.items():
        lines = differences(kept.get(name, {}), sums)
        worst |= bool(lines)
        print(f"{name}: {'; '.join(lines) if lines else 'the same'}")
    return worst


if __name__ == "__main__":
    sys.exit(main())
