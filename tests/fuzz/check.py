"""Feed changed files to geoseg's readers: each must be read, or refused with one of geoseg's own errors.

    python tests/fuzz/check.py --minutes 10 --seed 1          # every reader for ten minutes
    python tests/fuzz/check.py --minutes 2 tiff vrt           # some of them (readers.py)
    python tests/fuzz/check.py --first 12345 --count 1 tiff   # one input again
    python tests/fuzz/check.py --read KEPT/tiff/12345 tiff    # the folder of a kept one

Input number n of a reader depends on the seed alone. A fault is any other exception or warning, whatever is printed (as
Python prints exceptions that it ignores, and libtiff its errors), an error of more than one line or of thousands of
characters, more than 2 GB, more than ten seconds of CPU, and the end of the process. Each kind of fault is printed
once, with a folder that holds the changed file and what lies beside it. Exit code 1 if there is any.
"""

import argparse
import faulthandler
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType

from readers import READERS, Reader, Seed

from geoseg.errors import GeosegError

MOST_BYTES = 2 << 30
MOST_SECONDS = 10
HANGS_AFTER_S = 120
"""Seconds on the clock after which a process that waits for something is ended."""

LONGEST_MESSAGE = 3000
KIND_LENGTH = 40
"""Characters of what is printed that tell one kind from another."""

MANY_LINES = ("manifest",)
"""Readers that list what is wrong with each row."""

SAYS_NOTHING = 75
"""Exit code of a process that ended itself as it hung."""


class TooSlowError(BaseException):
    """Ten seconds of CPU are over; no `except Exception` takes it."""


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlowError


def attempt(name: str, path: Path) -> tuple[str, str]:
    """Read a file: `read` or `refused`, and the kind of fault if it is one."""
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        READERS[name].read(path)
    except GeosegError as err:
        text = str(err)
        lines = len(text.splitlines()) if name not in MANY_LINES else 1
        if lines != 1 or max(map(len, text.splitlines())) > LONGEST_MESSAGE:
            return "refused", f"{type(err).__name__} of {lines} lines and {len(text)} characters: {text[:300]!r}"
        if any(isinstance(cause, MemoryError) or "allocate memory" in str(cause) for cause in _causes(err)):
            return "refused", f"more than 2 GB: {text[:300]}"
        return "refused", ""
    except (Exception, TooSlowError) as err:  # noqa: BLE001 - what is looked for
        own = [f for f in traceback.extract_tb(err.__traceback__) if f"{os.sep}geoseg{os.sep}" in f.filename]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "nowhere"
        return "failed", f"{type(err).__name__} at {place}: {' '.join(str(err).split())[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read", ""


def _causes(err: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while err is not None and err not in found:
        found.append(err)
        err = err.__cause__ or err.__context__
    return found


def change(seeds: list[Seed], rng: random.Random) -> tuple[Seed, Path, bytes]:
    """Choose an input and change it; return what its changed file held before."""
    seed = rng.choice(seeds)
    path = rng.choice(seed.files)
    whole = path.read_bytes()
    path.write_bytes(rng.choice(seed.changes)(rng, whole))
    return seed, path, whole


def prepare_process() -> None:
    """Limit what the process takes, and make warnings errors."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _too_slow)
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", module="pyogrio"
    )  # what GDAL says of a file, which the command line shows as a line


def fuzz(name: str, seeds: list[Seed], numbers: range, until: float, seed: int, state: Path) -> None:
    """Try inputs until the time is over; write the state after each, and what was found into `state/faults`."""
    prepare_process()
    printed = (state / "printed").open("w+b", buffering=0)
    os.dup2(printed.fileno(), 2)
    counts: Counter[str] = Counter(json.loads((state / "counts").read_text()))
    for number in numbers:
        if time.monotonic() > until:
            break
        (state / "number").write_text(str(number))
        changed, path, whole = change(seeds, random.Random(f"{seed} {name} {number}"))
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        outcome, fault = attempt(name, changed.entry)
        faulthandler.cancel_dump_traceback_later()
        if said := " ".join((state / "printed").read_text(errors="replace").split()):
            fault = fault or f"printed {said[:KIND_LENGTH]!r}: {said[:LONGEST_MESSAGE]}"
            printed.seek(0)
            printed.truncate()
        counts[outcome] += 1
        (state / "counts").write_text(json.dumps(counts))
        if fault:
            report(name, number, fault, changed.entry.parent, state)
        path.write_bytes(whole)
    (state / "number").unlink()


def report(name: str, number: int, fault: str, folder: Path, state: Path) -> None:
    """Print a fault of a new kind, and keep the folder with the changed file."""
    kind = fault.partition(": ")[0]
    faults = json.loads((state / "faults").read_text())
    faults[kind] = faults.get(kind, 0) + 1
    (state / "faults").write_text(json.dumps(faults))
    if faults[kind] == 1:
        kept = state / "kept" / str(number)
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        print(f"{name} {number}: {fault}\n    {kept}", flush=True)


def check(name: str, reader: Reader, minutes: float, first: int, count: int | None, seed: int, kept: Path) -> int:
    """Fuzz a reader in processes of their own, as a library may end one; return the number of kinds of faults."""
    state = kept / name
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    for file in ("counts", "faults"):
        (state / file).write_text("{}")
    with tempfile.TemporaryDirectory() as folder:
        seeds = reader.make(Path(folder))
        for one in seeds:
            outcome, fault = attempt(name, one.entry)
            if outcome != "read" and "python" not in one.entry.name:
                print(f"{name}: the sound {one.entry.name} is {outcome} {fault}")
        originals = {path: path.read_bytes() for one in seeds for path in one.files}
        began, at = time.monotonic(), first
        until = began + 60 * minutes
        last = first + count if count is not None else sys.maxsize
        while time.monotonic() < until and at < last:
            arguments = (name, seeds, range(at, last), until, seed, state)
            process = multiprocessing.get_context("fork").Process(target=fuzz, args=arguments)
            process.start()
            process.join()
            if not (state / "number").exists():
                break
            at = int((state / "number").read_text())
            changed = next((p.parent for p, whole in originals.items() if p.read_bytes() != whole), Path(folder))
            said = (state / "printed").read_text(errors="replace")[-LONGEST_MESSAGE:]
            report(name, at, f"exit code {process.exitcode}: the process ended {said}", changed, state)
            for path, whole in originals.items():
                path.write_bytes(whole)
            at += 1
    counts, faults = (json.loads((state / file).read_text()) for file in ("counts", "faults"))
    told = ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(counts.items()))
    print(f"{name}: {sum(counts.values()):,} inputs in {time.monotonic() - began:.0f} s, {told}", flush=True)
    for kind, number in faults.items():
        print(f"    {number:,} times {kind}", flush=True)
    return len(faults)


def main() -> int:
    """Read the arguments and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="reader", help=f"some of {', '.join(READERS)}; all by default")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, help="number of inputs at most")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "geoseg-fuzz")
    parser.add_argument("--read", type=Path, help="read one file again, and show the whole traceback")
    args = parser.parse_args()
    unknown = set(args.readers) - set(READERS)
    if unknown:
        parser.error(f"there is no reader {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    names = args.readers or list(READERS)
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("CPL_LOG", os.devnull)  # as the command line does
    if args.read:
        READERS[names[0]].read(args.read)
        return 0
    found = [check(name, READERS[name], args.minutes, args.first, args.count, args.seed, args.keep) for name in names]
    return 1 if any(found) else 0


if __name__ == "__main__":
    sys.exit(main())
