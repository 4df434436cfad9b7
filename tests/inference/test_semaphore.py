"""As many networks at once as the engine wants, while other threads read."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.grid import fit_lattice
from geoseg.inference import Plan, predict_block
from geoseg.inference.block import engine_semaphore
from geoseg.scene import close_readers, open_scene


@dataclass
class Counting:
    """Counts who is inside at once."""

    name: str
    threads: int = 2
    batch_size: int = 1
    now: int = 0
    most: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def predict(self, chips: np.ndarray) -> np.ndarray:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1
        return np.zeros((len(chips), 1, *chips.shape[2:]), np.float32)


@pytest.fixture
def scene_path(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    place = {"crs": "EPSG:32630", "transform": Affine(0.3, 0, 5e5, 0, -0.3, 6e5)}
    with rasterio.open(path, "w", driver="GTiff", dtype="uint8", count=1, height=160, width=160, **place) as dst:
        dst.write(np.ones((1, 160, 160), np.uint8))
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_networks_at_once_than_the_engine_wants(scene_path: Path, threads: int) -> None:
    engine = Counting(f"counting {threads}", threads)
    scene = open_scene(scene_path)
    plan = Plan(scene, fit_lattice(scene.grid.shape, chip_px=32, halo_px=4, multiple_px=2), engine)
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda block: predict_block(plan, block), plan.blocks(24)))
        list(pool.map(lambda _: close_readers(), range(5)))
    assert engine.most == threads
    assert sum(pixels.watch.seconds.get("wait", 0) for pixels in found) > 0


def test_one_thread_alone_never_waits(scene_path: Path) -> None:
    engine = Counting("alone", 1)
    scene = open_scene(scene_path)
    plan = Plan(scene, fit_lattice(scene.grid.shape, chip_px=64, halo_px=4, multiple_px=2), engine)
    (block,) = plan.blocks(1000)
    watch = predict_block(plan, block).watch
    close_readers()
    assert "wait" not in watch.seconds
    assert watch.chips > 1


def test_an_engine_that_fails_releases_the_semaphore() -> None:
    for _ in range(3):
        with pytest.raises(RuntimeError, match="memory"), engine_semaphore(Counting("failing", 1)):
            raise RuntimeError("out of memory")
    with engine_semaphore(Counting("failing", 1)) as waited:
        assert waited == 0


def test_objects_of_one_engine_share_a_semaphore_and_other_engines_have_their_own() -> None:
    entered = threading.Event()

    def enter(name: str) -> None:
        with engine_semaphore(Counting(name, 1)):
            entered.set()

    with engine_semaphore(Counting("one", 1)):
        same = threading.Thread(target=enter, args=("one",))
        same.start()
        assert not entered.wait(0.2)
        other = threading.Thread(target=enter, args=("another",))
        other.start()
        assert entered.wait(60)
    same.join()
    other.join()
