"""Kill -9 of anyone at any moment: the same command ends in the same bytes, and computes no finished block again."""

import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

log = logging.getLogger(__name__)

KILLS = 50
AT_A_TIME = 4
"""Most kills of one run before it is left alone to end."""
BLOCK_PX = 40
VICTIMS = ("worker", "worker", "scheduler", "client", "client")


class Cast:
    """A scheduler, two workers and a client on one run folder."""

    def __init__(self, stage: Any, place: Any, folder: Path) -> None:
        self.stage, self.place, self.folder = stage, place, folder
        self.out, self.log, self.file = folder / "out", folder / "blocks.log", folder / "scheduler.json"
        self.log.touch()
        self.hooks = {"log": str(self.log), "pause_s": 0.04}
        self.scheduler: Any = None
        self.workers: list[Any] = []
        self.client: Any = None
        self.launches: list[tuple[int, set[str]]] = []

    def complete(self) -> None:
        """Start whoever is missing but the client."""
        if self.scheduler is None or self.scheduler.code is not None:
            for worker in self.workers:
                worker.kill()
            self.file.unlink(missing_ok=True)
            self.scheduler = self.stage.start("scheduler", file=self.file)
            wait_for(self.file)
        self.workers = [worker for worker in self.workers if worker.code is None]
        while len(self.workers) < 2:
            self.workers.append(self.stage.start("worker", file=self.file, folder=self.folder, hooks=self.hooks))

    def launch(self) -> None:
        """Give the command; note which parts are there and how long the log is."""
        self.launches.append((self.log.stat().st_size, self.parts()))
        self.client = self.stage.start(
            "client", scene=self.place.scene, out=self.out, settings={"scheduler": str(self.file), "block_px": BLOCK_PX}
        )

    def parts(self) -> set[str]:
        """Return the names of the blocks that are finished."""
        return {path.stem for path in self.out.glob(".geoseg/*/parts/r*.npz")}

    def kill(self, victim: str) -> None:
        """Kill one of them."""
        chosen = {"worker": self.workers[0], "scheduler": self.scheduler, "client": self.client}[victim]
        chosen.kill()

    def assert_nothing_twice(self) -> None:
        """Assert that no block was begun after a launch that found its part."""
        said = self.log.read_bytes()
        for position, parts in self.launches:
            begun = {line.split()[1] for line in said[position:].decode().splitlines() if line.startswith("begin")}
            assert not begun & parts


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.005)


@pytest.mark.slow
def test_whoever_is_killed_whenever_the_same_command_ends_in_the_same_bytes(
    stage: Any, place: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, __name__)
    seed = int(os.environ.get("GEOSEG_CHAOS_SEED", random.randrange(1 << 30)))
    log.info("To replay: GEOSEG_CHAOS_SEED=%d", seed)  # pytest shows it where the test fails
    rng, killed, resumed = random.Random(seed), dict.fromkeys(VICTIMS, 0), 0
    cast: Cast | None = None
    while sum(killed.values()) < KILLS:
        folder = tmp_path / f"run{sum(killed.values())}"
        folder.mkdir()
        cast = moved(cast, Cast(stage, place, folder))
        resumed += endure(cast, rng, killed)
        place.assert_same(cast.out)
        cast.assert_nothing_twice()
    log.info("%s killed, %d blocks found done", killed, resumed)
    assert all(killed.values())
    assert resumed > KILLS  # blocks: the kills came while there was something to lose


def moved(before: Cast | None, cast: Cast) -> Cast:
    """Let the next run have the scheduler of the one before, and workers of its own."""
    if before is not None:
        for worker in before.workers:
            worker.kill()
        cast.scheduler = before.scheduler
        if cast.scheduler.code is None:
            cast.file.write_text(before.file.read_text())
    return cast


def endure(cast: Cast, rng: random.Random, killed: dict[str, int]) -> int:
    """Carry out one run with kills in between; return how many blocks it found done after its first launch."""
    left = AT_A_TIME
    cast.complete()
    cast.launch()
    while True:
        code = cast.client.wait(rng.uniform(0.05, 1.2) if left else 60)
        if code == 0:
            return sum(len(parts) for _, parts in cast.launches)
        assert code in (None, 3), cast.client.said.read_text()
        if code is None:
            assert left, f"the client hangs: {cast.client.story()}"
            victim = rng.choice(VICTIMS)
            cast.kill(victim)
            killed[victim] += 1
            left -= 1
            if victim == "scheduler":
                assert cast.client.wait(180) in (0, 3), cast.client.story()  # 0: all blocks were done
        cast.complete()
        if cast.client.code is not None:
            cast.launch()


def test_a_client_whose_scheduler_dies_says_so_and_leaves(
    stage: Any, place: Any, tmp_path: Path, until: Callable[..., None]
) -> None:
    cast = Cast(stage, place, tmp_path)
    cast.hooks["pause_s"] = 0.3
    cast.complete()
    cast.launch()
    until(lambda: len(cast.parts()) > 2)
    cast.kill("scheduler")
    assert cast.client.wait(30) == 3
    assert "scheduler" in cast.client.said.read_text()
    assert "Traceback" not in cast.client.said.read_text()
    assert not (tmp_path / "out" / ".geoseg" / "lock").exists()
