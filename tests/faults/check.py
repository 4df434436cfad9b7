"""Put small faults into a copy of geoseg, one after another, and tell which test notices each.

    python tests/faults/check.py                         # every list beside this file
    python tests/faults/check.py tests/faults/run.toml --only "lease*" --jobs 2 --wide

A list is a TOML file of tables:

    [[fault]]
    name = "aoi-where-ignored"           # unique
    file = "geoseg/cli/run.py"
    find = "aoi_where=aoi_where,"        # occurs once in the file
    put = "aoi_where=None,"
    what = "--aoi-where does not reach the settings"
    tests = ["tests/cli"]                # optional: the nearest tests; by default the folder of the room

The nearest tests are run first, those marked `slow` last (with --quick not at all); with --wide all others follow
where no near one notices. Exit code 1 where a fault is noticed by no test, 2 where a list is wrong. A fault counts as
noticed when a test fails, or when the tests cannot even be collected; the table names the first test that failed. The
tests must pass without a fault: `--sound` runs them on the unchanged copy first.
"""

import argparse
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

REPOSITORY = Path(__file__).resolve().parents[2]
COPIED = (
    "geoseg",
    "tests",
    "pipelines",
    "sample_data",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "pyproject.toml",
)
TIMEOUT_S = 300
TESTED_ELSEWHERE = {"info": "cli"}
"""Rooms without a test folder of their own, and the folder whose tests hold them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of one file.

    Attributes:
        name: Unique in all lists.
        file: The file, from the repository's root.
        find: Text that occurs once in it.
        put: What stands there instead.
        what: What a user would suffer.
        tests: The nearest tests.
    """

    name: str
    file: str
    find: str
    put: str
    what: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Change the file below `root` and return what it held before."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.find) != 1:
            raise ValueError(f"{self.name}: the text to find is {text.count(self.find)} times in {self.file}, not once")
        path.write_text(text.replace(self.find, self.put))
        return text


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who noticed a fault.

    Attributes:
        fault: The fault.
        test: The first test that failed; None where none did.
        is_near: Whether that was one of the nearest tests.
        seconds: How long it took.
    """

    fault: Fault
    test: str | None
    is_near: bool
    seconds: float


def read_faults(path: Path) -> list[Fault]:
    """Read a list."""
    return [
        Fault(
            entry["name"],
            entry["file"],
            entry["find"],
            entry["put"],
            entry["what"],
            tuple(entry.get("tests") or _room_tests(entry["file"])),
        )
        for entry in tomllib.loads(path.read_text()).get("fault", [])
    ]


def _room_tests(file: str) -> list[str]:
    """Return the tests of a file's room, those of its own name first."""
    name = Path(file).parts[1].removesuffix(".py")
    room = f"tests/{TESTED_ELSEWHERE.get(name, name)}"
    return [test for test in (f"{room}/test_{Path(file).stem}.py", room) if (REPOSITORY / test).exists()]


def copy_tree(folder: Path) -> Path:
    """Copy what the tests need; the shipped networks are linked, not copied."""
    root = folder / "geoseg"
    root.mkdir(parents=True)
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        else:
            shutil.copy(source, root / name)
    for weights in REPOSITORY.glob("geoseg/**/*.safetensors"):
        (root / weights.relative_to(REPOSITORY)).symlink_to(weights)
    return root


def run_tests(root: Path, tests: list[str], *, marks: str) -> str | None:
    """Run tests in a copy; return the first that failed, None where all passed."""
    own = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "GEOSEG_REALDATA": str(_realdata())}
    options = ["-x", "-q", "-n=0", "--no-header", "-p", "no:cacheprovider", "-m", marks]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    try:
        done = subprocess.run(
            command, cwd=root, env=os.environ | own, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{' '.join(tests)} (still running after {TIMEOUT_S} s)"
    if done.returncode in (0, 5):  # 5: no test with these marks
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}"


def _realdata() -> Path:
    return Path(os.environ.get("GEOSEG_REALDATA") or REPOSITORY.parent / "shared" / "data")


def try_fault(fault: Fault, root: Path, *, wide: bool, quick: bool) -> Outcome:
    """Put a fault into a copy, run the tests, and take it out again."""
    begun = time.monotonic()
    before = fault.apply(root)
    test: str | None = None
    is_near = True
    try:
        for marks in ("not slow",) if quick else ("not slow", "slow"):
            test = test or _first_to_fail(root, fault.tests, marks=marks)
        if test is None and (wide or not fault.tests):
            is_near = False
            test = run_tests(root, ["tests"], marks="not slow")
    finally:
        (root / fault.file).write_text(before)
    return Outcome(fault, test, is_near, time.monotonic() - begun)


def _first_to_fail(root: Path, tests: Sequence[str], *, marks: str) -> str | None:
    """Run the nearest tests one after another, as pytest would put a file back into the order of its folder."""
    for number, test in enumerate(tests):
        failed = run_tests(root, [test, *(f"--ignore={done}" for done in tests[:number])], marks=marks)
        if failed:
            return failed
    return None


def check(faults: list[Fault], *, jobs: int, wide: bool, quick: bool, sound: bool) -> list[Outcome]:
    """Try faults side by side, each in a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="geoseg-faults-") as folder:
        roots: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            roots.put(copy_tree(Path(folder) / str(number)))

        def one(fault: Fault) -> Outcome:
            root = roots.get()
            try:
                outcome = try_fault(fault, root, wide=wide, quick=quick)
            finally:
                roots.put(root)
            mark = "near" if outcome.is_near else "wide"
            print(f"{fault.name}: {outcome.test or 'NOT NOTICED'} ({mark}, {outcome.seconds:.0f} s)", flush=True)
            return outcome

        if sound:
            root = roots.get()
            failed = run_tests(root, sorted({test for fault in faults for test in fault.tests}), marks="not slow")
            roots.put(root)
            if failed:
                raise ValueError(f"without any fault {failed} fails already")
        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, faults))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", nargs="*", type=Path, help="TOML files; by default all beside this one")
    parser.add_argument("--only", default="*", help="names of faults, with * and ?")
    parser.add_argument("--jobs", type=int, default=1, help="copies that are tried side by side")
    parser.add_argument("--wide", action="store_true", help="run all other quick tests where no near one notices")
    parser.add_argument("--quick", action="store_true", help="leave out the tests marked slow")
    parser.add_argument("--sound", action="store_true", help="run the near tests without any fault first")
    options = parser.parse_args()
    lists = options.lists or sorted(Path(__file__).parent.glob("*.toml"))
    try:
        faults = [fault for path in lists for fault in read_faults(path) if fnmatch.fnmatch(fault.name, options.only)]
        for fault in faults:
            found = (REPOSITORY / fault.file).read_text().count(fault.find)
            if found != 1:
                raise ValueError(f"{fault.name}: the text to find occurs {found} times in {fault.file}, not once")
        outcomes = check(faults, jobs=options.jobs, wide=options.wide, quick=options.quick, sound=options.sound)
    except (ValueError, KeyError, OSError) as err:
        print(f"{type(err).__name__}: {err}", file=sys.stderr)
        return 2
    print("\n| fault | what a user would suffer | noticed by |\n| --- | --- | --- |")
    for outcome in outcomes:
        print(f"| {outcome.fault.name} | {outcome.fault.what} | {outcome.test or 'no test'} |")
    noticed = [outcome for outcome in outcomes if outcome.test is not None]
    near = sum(outcome.is_near for outcome in noticed)
    print(f"\n{len(noticed)} of {len(outcomes)} faults noticed, {near} by the nearest tests")
    return 0 if len(noticed) == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
