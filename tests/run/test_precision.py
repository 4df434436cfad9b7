"""The precision of a run: chosen once for all workers, recorded, kept where a run goes on, and never mixed.

A processor with bfloat16 is played: its engine finds a little less than that of float32, so that a mixture would show.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.engines import IdentitySegmenter, choose_precision
from geoseg.errors import DeviceError, ExistingResultError, OutputError
from geoseg.inference import EngineRecipe
from geoseg.run import RunSettings, run_inputs, session

GRID = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
HAS_BFLOAT16 = choose_precision(device="cpu") == "bf16"


@dataclass(frozen=True)
class Rounded(IdentitySegmenter):
    """Find an eighth less than `IdentitySegmenter`."""

    def predict(self, chips: np.ndarray) -> np.ndarray:
        """Return `(n, 1, y, x)` probabilities."""
        return IdentitySegmenter().predict(chips) * np.float32(0.875)


@dataclass
class Bench:
    """Scenes, and machines to run them on.

    Attributes:
        folder: Where the scenes and results are.
        model: A network of a few weights, which never runs.
        machine: The precisions of the processor.
        opened: The recipes of the engines that blocks asked for.
    """

    folder: Path
    model: Path
    machine: tuple[str, ...]
    opened: list[EngineRecipe]

    def run(self, out: str = "out", *scenes: str, machine: str = "", **settings: Any) -> dict[str, Any]:
        """Run scenes on a machine and return the report of the last one."""
        self.machine = ("f32", "bf16") if machine == "bf16" else ("f32",)
        self.opened.clear()
        files = [self.folder / name for name in scenes or ("scene.tif",)]
        result = run_inputs(files, RunSettings(model=self.model, out=self.folder / out, **settings), quiet=True)
        assert not getattr(result, "failed", {})  # scenes of a batch
        found = self.folder / out / (Path(scenes[-1]).stem if len(scenes) > 1 else "") / "run.json"
        report: dict[str, Any] = json.loads(found.read_text())
        return report

    def brightest(self, out: str = "out") -> int:
        """Return the highest stored probability: 200 of float32, 175 of bfloat16."""
        with rasterio.open(self.folder / out / "probability.tif") as file:
            values = file.read(1)
        return int(values[values < 255].max())


@pytest.fixture
def bench(tmp_path: Path, models: Path, threads: Any, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path, models / "model.safetensors", ("f32",), [])

    def open_engine(recipe: EngineRecipe) -> IdentitySegmenter:
        bench.opened.append(recipe)
        return Rounded("rounded") if recipe.precision == "bf16" else IdentitySegmenter()

    monkeypatch.setattr("geoseg.engines.registry.native_precisions", lambda: bench.machine)
    monkeypatch.setattr(EngineRecipe, "open", open_engine)
    monkeypatch.setattr("geoseg.run.run.open_client", lambda *_: nullcontext(threads))
    monkeypatch.setattr("geoseg.run.batch.open_client", lambda *_: nullcontext(threads))
    pixels = np.full((1, 150, 150), 20)
    pixels[:, 30:60, 20:130] = pixels[:, 90:120, 20:130] = 200
    for name, dtype in (("scene", "uint8"), ("second", "uint8"), ("deep", "uint16")):
        profile = {"driver": "GTiff", "dtype": dtype, "count": 1, "crs": "EPSG:32630", "transform": GRID}
        with rasterio.open(tmp_path / f"{name}.tif", "w", height=150, width=150, **profile) as file:
            file.write(pixels.astype(dtype))
    return bench


@pytest.fixture
def begun(bench: Bench, blocks: Any, until: Callable[..., None], place: Any) -> Callable[[str], None]:
    """Begin a run on a machine, and stop it before its fourth block."""

    def begin(machine: str) -> None:
        def fail(_: str) -> None:
            if len(blocks.begun) > 3:
                raise OutputError("the disk is gone")

        blocks.before = fail
        with pytest.raises(OutputError, match="the disk is gone"):
            bench.run(machine=machine, block_px=48)
        until(place.is_idle)
        blocks.before = lambda _: None
        blocks.take()

    return begin


@pytest.mark.parametrize(
    ("scene", "machine", "settings", "expected"),
    [
        ("scene.tif", "bf16", {}, "bf16"),
        ("scene.tif", "f32", {}, "f32"),
        ("deep.tif", "bf16", {}, "f32"),
        ("scene.tif", "bf16", {"precision": "f32"}, "f32"),
        ("deep.tif", "bf16", {"precision": "bf16"}, "bf16"),
        ("scene.tif", "bf16", {"mosaic": "mean"}, "bf16"),
        ("deep.tif", "bf16", {"mosaic": "mean"}, "f32"),
    ],
)
def test_auto_is_bfloat16_for_8_bits_where_the_processor_has_it_and_is_recorded(
    bench: Bench, scene: str, machine: str, settings: dict[str, Any], expected: str
) -> None:
    report = bench.run("out", scene, machine=machine, **settings)
    assert report["facts"]["precision"] == report["settings"]["precision"] == expected
    assert {recipe.precision for recipe in bench.opened} == {expected}
    if expected == "bf16" and "precision" not in settings:  # what was chosen for a processor is not done on a GPU
        assert {recipe.device for recipe in bench.opened} == {"cpu"}


@pytest.mark.parametrize(("before", "now"), [("f32", "bf16"), ("bf16", "f32")])
def test_a_result_of_another_machine_is_the_result(bench: Bench, before: str, now: str) -> None:
    first, found = bench.run(machine=before), bench.brightest()
    assert found == {"f32": 200, "bf16": 175}[before]
    assert bench.run(machine=now) == first
    assert (bench.opened, bench.brightest()) == ([], found)
    with pytest.raises(ExistingResultError, match=f"`precision`: {before} before, {now} now"):
        bench.run(machine=now, precision=now)


@pytest.mark.parametrize(("before", "now"), [("f32", "bf16"), ("bf16", "f32")])
def test_a_run_goes_on_in_the_precision_that_it_was_started_in(
    bench: Bench, begun: Callable[[str], None], before: str, now: str
) -> None:
    begun(before)
    (plan,) = bench.folder.glob("out/.geoseg/plan.json")
    assert json.loads(plan.read_text())["facts"]["precision"] == before
    with pytest.raises(ExistingResultError, match=f"`precision`: {before} before, {now} now"):
        bench.run(machine=now, precision=now)
    report = bench.run(machine=now)
    assert report["counts"]["blocks_done_before"] >= 3
    assert {recipe.precision for recipe in bench.opened} == {before}
    bench.run("whole", machine=before)
    for name in ("probability.tif", "mask.tif", "buildings.parquet"):
        assert (bench.folder / "out" / name).read_bytes() == (bench.folder / "whole" / name).read_bytes()


def test_a_client_that_waited_for_one_on_another_machine_takes_its_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_lease, other = session.hold_lease, []

    def wait(*args: Any) -> Any:
        if not other:
            other.append("f32")
            bench.run(machine="f32")
        return hold_lease(*args)

    monkeypatch.setattr(session, "hold_lease", wait)
    assert bench.run(machine="bf16")["facts"]["precision"] == "f32"
    assert bench.brightest() == 200


def test_a_result_that_is_overwritten_is_made_in_this_machines_precision(bench: Bench) -> None:
    bench.run(machine="f32")
    assert bench.run(machine="bf16", overwrite=True, chip_px=48)["facts"]["precision"] == "bf16"
    assert bench.brightest() == 175
    assert bench.run(machine="f32", overwrite=True)["facts"]["precision"] == "f32"


def test_other_outlines_of_a_finished_result_leave_its_precision(bench: Bench) -> None:
    bench.run(machine="f32")
    report = bench.run(machine="bf16", overwrite=True, outline="raw")
    assert report["facts"]["precision"] == "f32"
    assert (bench.opened, bench.brightest()) == ([], 200)


def test_scenes_of_a_batch_keep_the_precision_of_their_results(bench: Bench) -> None:
    bench.run("all", "scene.tif", "second.tif", machine="f32")
    for file in (bench.folder / "all" / "second").iterdir():
        file.unlink()
    report = bench.run("all", "scene.tif", "second.tif", machine="bf16")
    assert report["facts"]["precision"] == "bf16"  # made anew
    assert (bench.brightest("all/scene"), bench.brightest("all/second")) == (200, 175)


def test_a_worker_without_bfloat16_refuses_and_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if HAS_BFLOAT16:
        monkeypatch.setattr("geoseg.engines.registry.native_precisions", lambda: ("f32",))
    with pytest.raises(DeviceError, match=r"The processor of \S+ has no instructions for bf16.*`precision='f32'`"):
        bench.run(precision="bf16", device="cpu", threads=5)  # no other test has opened this engine
    assert not (bench.folder / "out").exists()


@pytest.mark.skipif(not HAS_BFLOAT16, reason="the processor has no bfloat16 (AMX, AVX-512 BF16)")
def test_in_bfloat16_blocks_threads_and_workers_change_no_pixel_and_no_vertex(
    models: Path, repository: Path, tmp_path: Path
) -> None:
    found = []
    for number, how in enumerate(({"block_px": 128, "threads": 1}, {"block_px": 4096}, {"workers": 2, "threads": 1})):
        out = tmp_path / str(number)
        settings = RunSettings(model="buildings-30cm", precision="bf16", device="cpu", out=out, chip_px=256, **how)
        run_inputs([repository / "sample_data" / "scene.tif"], settings, quiet=True)
        found.append([(out / name).read_bytes() for name in ("probability.tif", "mask.tif", "buildings.parquet")])
    assert found[0] == found[1] == found[2]
