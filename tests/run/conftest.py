"""What the tests of interruptions share: a scene that tells, its result in one piece, and processes to kill."""

import importlib.util
import itertools
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

SHAPE = (230, 300)
ACTORS = Path(__file__).with_name("actors.py")


def _load_actors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("geoseg_test_actors", ACTORS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def telling_pixels(shape: tuple[int, int]) -> np.ndarray:
    """Return `(y, x)` uint8: random blobs as buildings, and in every pixel where it lies, more or less."""
    rows, cols = np.indices(shape)
    coarse = np.random.default_rng(7).random((shape[0] // 5 + 2, shape[1] // 5 + 2)) < 0.4
    is_building = np.kron(coarse, np.ones((5, 5), bool))[2 : shape[0] + 2, 1 : shape[1] + 1]
    return np.where(is_building, 150, 20).astype(np.uint8) + ((rows * 31 + cols * 17) % 90).astype(np.uint8)


def valid_mask(shape: tuple[int, int]) -> np.ndarray:
    """Return `(y, x)` bool with holes of nodata."""
    rng = np.random.default_rng(3)
    return np.kron(rng.random((shape[0] // 23 + 1, shape[1] // 23 + 1)) < 0.85, np.ones((23, 23), bool))[
        : shape[0], : shape[1]
    ]


@dataclass
class Place:
    """A scene, how to run it here, and what must come of it.

    Attributes:
        scene: The file.
        client: A dask client on threads of this process.
        expected: The result folder of a run in one block, None until there is one.
    """

    scene: Path
    client: Any
    actors: ModuleType
    expected: Path

    def plan(self, scene: Path | str | None = None, **changes: Any) -> Any:
        """Return a plan of the scene."""
        return self.actors.make_plan(scene or self.scene, **changes)

    def run(self, out: Path | str, *, plan: Any = None, client: Any = None, model: str = "0", **settings: Any) -> Any:
        """Run the scene here."""
        from geoseg.run import RunSettings, run_plan

        plan, bundle = plan or self.plan(), self.actors.make_bundle(model)
        return run_plan(plan, bundle, RunSettings(out=out, **settings), quiet=True, client=client or self.client)

    def names(self, block_px: int) -> list[str]:
        """Return the names of all blocks of a size."""
        return [block.name for block in self.plan().blocks(block_px)]

    def is_idle(self) -> bool:
        """Tell whether no task is on the cluster, not even one that was taken back and has not heard of it."""
        known = self.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        held = self.client.run(lambda dask_worker: len(dask_worker.state.tasks))
        return not known and not any(held.values())

    def assert_same(self, out: Path) -> None:
        """Assert that a result is the expected one: files byte for byte, GeoPackage row by row."""
        for name in ("probability.tif", "mask.tif", "buildings.parquet"):
            assert (out / name).read_bytes() == (self.expected / name).read_bytes(), name
        found, expected = rows(out / "buildings.gpkg"), rows(self.expected / "buildings.gpkg")
        assert len(expected) > 50
        assert found == expected
        assert not (out / ".geoseg").exists()


def rows(path: Path) -> list[tuple[Any, ...]]:
    """Return the rows of a GeoPackage's buildings in their order, geometries as bytes."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        found = database.execute("SELECT * FROM buildings ORDER BY rowid").fetchall()
    database.close()
    return found


def write_scene(path: Path, shape: tuple[int, int] = SHAPE, **profile: Any) -> Path:
    """Write the scene that tells."""
    own = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:32630"} | profile
    own["transform"] = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=shape[0], width=shape[1], **own) as file,
    ):
        file.write(telling_pixels(shape)[None])
        file.write_mask(valid_mask(shape))
    return path


@pytest.fixture(scope="session")
def threads() -> Iterator[Any]:
    """A dask client whose workers are threads of this process."""
    import dask

    from geoseg.run.cluster import LOCAL_CONFIG, _closed_quietly

    dask.config.set({"logging.distributed": "error"})  # else it logs every task to whoever captures logs
    with dask.config.set(LOCAL_CONFIG):
        from distributed import Client, LocalCluster

        for name in ("distributed", "distributed.scheduler", "distributed.core", "distributed.worker"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=3,
            processes=False,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
        )
        client = Client(cluster, set_as_default=False)
        with _closed_quietly(cluster), _closed_quietly(client):  # "IOLoop is closed", seen once, fails no session
            yield client


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, threads: Any) -> Place:
    """A scene of 230 x 300 pixels, and its result in one block."""
    folder = tmp_path_factory.mktemp("place")
    place = Place(write_scene(folder / "scene.tif"), threads, _load_actors(), folder / "expected")
    place.run(place.expected, block_px=4096)
    return place


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two networks of a few weights, `model.safetensors` and `other.safetensors`."""
    import torch

    from geoseg.bundle import ModelSpec, save_bundle
    from geoseg.networks import build_network

    folder, options = tmp_path_factory.mktemp("models"), {"depth": 2, "filters": 4}
    cut = {"chip_px": 64, "halo_px": 8, "stride_px": 8, "network_options": options}
    spec = ModelSpec("tiny", "unet-plain", ("gray",), 0.3, (0.4,), (0.3,), threshold=0.53, min_area_m2=2.0, **cut)
    with torch.random.fork_rng():
        for seed, name in enumerate(("model", "other")):
            torch.manual_seed(seed)
            weights = build_network("unet-plain", bands=1, classes=1, **options).state_dict()
            save_bundle(folder / f"{name}.safetensors", spec, weights)
    return folder


@dataclass
class Recorder:
    """Which blocks this process computes.

    Attributes:
        begun: Their names, in the order of their beginning.
        before: Called with a block's name before it is computed.
    """

    begun: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def once(self, act: Callable[[], None]) -> None:
        """Do something before the first block from now on, and nothing more, whoever comes at the same time."""
        todo = [act]

        def first(_: str) -> None:
            with self.lock:
                mine = todo.pop() if todo else None
            if mine is not None:
                mine()

        self.before = first

    def take(self) -> list[str]:
        """Return what was begun since the last call."""
        found, self.begun = self.begun, []
        return found


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Record the blocks that threads of this process compute."""
    from geoseg.run import job

    recorder, predict_block = Recorder(), job.predict_block

    def predict(plan: Any, block: Any) -> Any:
        recorder.begun.append(block.name)
        recorder.before(block.name)
        return predict_block(plan, block)

    monkeypatch.setattr(job, "predict_block", predict)
    return recorder


@dataclass
class Actor:
    """A process to kill."""

    pid: int
    stage: "Stage"
    said: Path
    code: int | None = None

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait(10)

    def story(self) -> str:
        """Return what it said, and where it is if it lives."""
        if self.code is None:
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(0.3)
        return self.said.read_text()

    def suspend(self) -> None:
        """Stop it, and wait until each of its threads has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        self.await_stop()

    def await_stop(self) -> None:
        """Wait until each of its threads has stopped: a signal is on its way for a while."""
        deadline = time.monotonic() + 60
        while any(state != "T" for state in self._states()):
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.005)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _states(self) -> list[str]:
        found = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return [path.read_text().rpartition(")")[2].split()[0] for path in found]

    def wait(self, seconds: float) -> int | None:
        """Return the exit code; None where it lives on."""
        if self.code is None:
            self.code = self.stage.ask(wait=self.pid, seconds=seconds)["code"]
        return self.code


class Stage:
    """Where actors are started; see actors.py."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers, self.actors = folder, itertools.count(), list[Actor]()
        self.process = subprocess.Popen(
            [sys.executable, str(ACTORS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["threads"] <= 2  # forking many would hang some day

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give a command and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def start(self, role: str, **arguments: Any) -> Actor:
        """Start an actor."""
        number = next(self.numbers)
        said = self.folder / f"{role}-{number}.log"
        own = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
        pid = self.ask(start=role, arguments=own, said=str(said), seed=number)["pid"]
        self.actors.append(Actor(pid, self, said))
        return self.actors[-1]

    def clear(self) -> None:
        """Kill whoever is left."""
        for actor in self.actors:
            actor.kill()
        self.actors.clear()


@pytest.fixture(scope="session")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.clear()
    assert stage.process.stdin is not None
    stage.process.stdin.close()
    stage.process.wait(180)
    assert stage.process.stdout is not None
    stage.process.stdout.close()


@pytest.fixture
def stage(_stage: Stage) -> Iterator[Stage]:
    """Where processes are started; none outlives the test."""
    yield _stage
    _stage.clear()


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until something is true."""

    def wait(is_true: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not is_true():
            assert time.monotonic() < deadline, "it did not come true"
            time.sleep(0.005)

    return wait
