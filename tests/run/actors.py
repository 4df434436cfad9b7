"""Clients, workers and schedulers as processes of their own, forked in milliseconds from one that has imported all.

As a script it reads commands from stdin, one JSON object per line, and answers in kind: `{"start": role, ...}` forks
and gives the process id, `{"wait": pid, "seconds": n}` gives the exit code, or null where the process lives on.
As a module it says what tests and these processes share: the model, the plan, the hooks around a block. dask's workers
that are started anew load it with `--preload`, and take their hooks from the environment.
"""

import asyncio
import atexit
import ctypes
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOOKS = "GEOSEG_TEST_HOOKS"
"""Environment variable with the `Hooks` of preloaded workers, as JSON."""

CHIP_PX, HALO_PX = 48, 8
PARENT_DIES = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass
class Hooks:
    """What happens in a process besides the run.

    Attributes:
        log: File to which `begin NAME` and `end NAME` are appended around every block.
        pause_s: A random time up to this passes before a block is computed.
        hungry: A block that takes memory until its worker is killed.
        deadly: A block that kills its worker at once.
        once: File that says that the hungry or deadly one has struck, and need not again.
        beat_s: Seconds between two beats of a client's heart.
        uploads: A client is killed before it puts this many files of a result in their place.
        stop_at: A client is suspended before it calls this function of `geoseg.run.results`.
        stop_writing: A client is suspended before it writes a file whose name begins so.
    """

    log: str
    pause_s: float = 0.0
    hungry: str | None = None
    deadly: str | None = None
    once: str | None = None
    beat_s: float | None = None
    uploads: int | None = None
    stop_at: str | None = None
    stop_writing: str | None = None

    def install(self) -> None:
        """Put them around geoseg's functions."""
        from geoseg.run import job, lease

        predict_block, write_part = job.predict_block, job.write_part

        def predict(plan: Any, block: Any) -> Any:
            self.note(f"begin {block.name}")
            time.sleep(random.uniform(0, self.pause_s))
            self.strike(block.name)
            return predict_block(plan, block)

        def write(store: Any, block: Any, *rest: Any) -> None:
            write_part(store, block, *rest)
            self.note(f"end {block.name}")

        job.predict_block, job.write_part = predict, write
        lease.BEAT_S = self.beat_s or lease.BEAT_S
        self.watch_finish()

    def watch_finish(self) -> None:
        """Be killed or suspended while the results are made, or a file is written."""
        from geoseg.io.store import LocalStore
        from geoseg.run import results

        if self.stop_at is not None:
            results.__dict__[self.stop_at] = before(results.__dict__[self.stop_at], self.stop)
        if self.stop_writing is not None:
            write = LocalStore.write
            LocalStore.write = lambda store, name, data: self.stop_before(name) or write(store, name, data)  # type: ignore[method-assign]
        if self.uploads is not None:
            LocalStore.upload = before(LocalStore.upload, self.count_upload)  # type: ignore[method-assign]

    def stop(self) -> None:
        """Be suspended, once."""
        if self.stop_at is not None:
            self.stop_at = None
            kill_me(signal.SIGSTOP)

    def stop_before(self, name: str) -> None:
        """Be suspended before such a file is written, once."""
        if self.stop_writing is not None and name.startswith(self.stop_writing):
            self.stop_writing = None
            kill_me(signal.SIGSTOP)

    def count_upload(self) -> None:
        """Be killed before the last upload that is granted."""
        assert self.uploads is not None
        if self.uploads == 0:
            kill_me(signal.SIGKILL)
        self.uploads -= 1

    def note(self, line: str) -> None:
        """Append a line, whole, whoever else appends."""
        with Path(self.log).open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def strike(self, name: str) -> None:
        """Kill the process, or have it killed, if this is the block that does."""
        if name not in (self.hungry, self.deadly) or (self.once is not None and Path(self.once).exists()):
            return
        if self.once is not None:
            Path(self.once).touch()
        if name == self.deadly:
            kill_me(signal.SIGKILL)
        taken = []
        for _ in range(60):
            taken.append(bytearray(b"1" * 50_000_000))
            time.sleep(0.05)


def kill_me(how: int) -> None:
    """Send a signal to this process."""
    os.kill(os.getpid(), how)


def before(function: Any, act: Any) -> Any:
    """Return a function before which something is done."""

    def acted(*args: Any, **kwargs: Any) -> Any:
        act()
        return function(*args, **kwargs)

    return acted


def dask_setup(_: Any) -> None:
    """Install the environment's hooks: dask calls this in a worker that preloads this file."""
    Hooks(**json.loads(os.environ[HOOKS])).install()


def make_bundle(key: str = "0", version: str = "1") -> Any:
    """Return a model without a file."""
    from geoseg.bundle import Bundle, ModelSpec

    spec = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), min_area_m2=0.0)
    return Bundle(spec, Path("none"), key)


def make_plan(scene: str | Path, **changes: Any) -> Any:
    """Return a plan whose probabilities are the scene's pixels: a misplaced one shows."""
    from geoseg.engines import IdentitySegmenter
    from geoseg.grid import fit_lattice
    from geoseg.inference import Plan
    from geoseg.scene import open_scene

    opened = open_scene(scene)
    lattice = fit_lattice(opened.grid.shape, chip_px=CHIP_PX, halo_px=HALO_PX, multiple_px=8)
    return Plan(opened, lattice, IdentitySegmenter(), **changes)


CONNECT_S = 5
"""Seconds after which a client gives a scheduler up that was killed before it answered; half a minute otherwise."""


def client(scene: str, out: str, settings: dict[str, Any], hooks: dict[str, Any] | None = None) -> None:
    """Run a scene as `geoseg run` would, exit code included."""
    from geoseg.cli import errors_as_messages
    from geoseg.run import RunSettings, cluster, run_plan

    cluster.CONNECT_S = CONNECT_S
    if hooks is not None:
        Hooks(**hooks).install()
    with errors_as_messages():
        run_plan(make_plan(scene), make_bundle(), RunSettings(out=out, **settings), quiet=True)


def batch(scenes: str, out: str, settings: dict[str, Any], hooks: dict[str, Any] | None = None) -> None:
    """Run every scene of a folder as `geoseg run` would."""
    from geoseg.cli import errors_as_messages
    from geoseg.run import RunSettings, run_each
    from geoseg.run import batch as module

    module.load_bundle = lambda _: make_bundle()
    module.plan_inference = lambda paths, _bundle, _settings: make_plan(paths)
    if hooks is not None:
        Hooks(**hooks).install()
    with errors_as_messages():
        if run_each(scenes, RunSettings(out=out, **settings), quiet=True).failed:
            sys.exit(3)


def scheduler(file: str, deaths: int = 3) -> None:
    """Be a dask scheduler that says in a file where it is; after so many deaths a task is blamed for them."""
    import dask
    from distributed import Scheduler

    dask.config.set({"distributed.scheduler.allowed-failures": deaths})

    async def serve() -> None:
        async with Scheduler(host="127.0.0.1", dashboard=False, dashboard_address=None) as own:
            aside = Path(f"{file}.aside")
            aside.write_text(json.dumps({"address": own.address}))
            aside.replace(file)
            await own.finished()

    asyncio.run(serve())


def worker(file: str, folder: str, hooks: dict[str, Any]) -> None:
    """Be a dask worker of one thread."""
    from distributed import Worker

    async def serve() -> None:
        address = json.loads(Path(file).read_text())["address"]
        async with Worker(address, nthreads=1, memory_limit=0, dashboard=False, local_directory=folder) as own:
            await own.finished()

    Hooks(**hooks).install()
    asyncio.run(serve())


ROLES = {"batch": batch, "client": client, "scheduler": scheduler, "worker": worker}


def import_all() -> None:
    """Import what the roles need, so that the forked processes have it."""
    import distributed
    import geopandas  # noqa: F401
    import pyarrow.parquet
    import pyogrio  # noqa: F401
    import torch  # noqa: F401

    import geoseg.cli
    import geoseg.datasets
    import geoseg.outputs
    import geoseg.run

    del distributed, geoseg, pyarrow


def serve() -> tuple[str, dict[str, Any]] | None:
    """Obey commands; return the role and its arguments in a forked process, None at the end of the commands."""
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            answer = {"code": _wait(command["wait"], command["seconds"])}
        else:
            pid = os.fork()
            if pid == 0:
                return _become(command)
            answer = {"pid": pid}
        say(answer)
    return None


def say(answer: dict[str, Any]) -> None:
    """Answer a command."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _become(command: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Turn a forked process into an actor: it dies with its parent, and writes to a file."""
    ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGKILL)
    said = os.open(command["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.register(signal.SIGUSR1)
    random.seed(command["seed"])
    return command["start"], command["arguments"]


def _wait(pid: int, seconds: float) -> int | None:
    """Wait for a process to end and return its exit code, -9 where it was killed."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


def main() -> None:
    """Serve, and in a forked process play the role."""
    import dask

    dask.config.set({"logging.distributed": "error", "distributed.admin.tick.limit": "60s"})
    import_all()
    say({"threads": len(list(Path("/proc/self/task").iterdir()))})
    part = serve()
    leave(0 if part is None else play(*part))


def play(role: str, arguments: dict[str, Any]) -> int:
    """Play a role and return the exit code."""
    try:
        ROLES[role](**arguments)
    except SystemExit as err:
        return int(err.code or 0)
    except Exception:  # noqa: BLE001  # told in full, as Python would at the end of a process
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> None:
    """End as Python does, threads waited for, but without taking all of torch apart, which costs a forked process."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
