"""A result belongs to one model, scene and set of settings: what decides it refuses another run, and nothing else does.

One folder holds a finished result, another a run that cannot end, as one of its scenes is damaged. Every field of the
settings is tried on both, and what decides a result has to change one: a new field has to be declared here.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.enums import ColorInterp

from geoseg.engines.openvino import native_precisions
from geoseg.errors import ExistingResultError, GeosegError, UnfinishedError, UsageError
from geoseg.inference import InferenceOptions
from geoseg.run import RunSettings, run_inputs

SIDE = 96
GSD_M = 0.36
WEST, NORTH = 500_000, 600_000

DECIDING: dict[str, Any] = {
    "aoi": "other.gpkg",
    "aoi_where": "part < 3",
    "threshold": 0.6,
    "split_depth": 0.001,
    "fill_holes_m2": 0,
    "min_area_m2": 0,
    "outline": "raw",
    "tolerance_m": 3.0,
    "bands": (2,),
    "crs": f"+proj=tmerc +lon_0=-3 +k=0.9996 +x_0={WEST + 3} +datum=WGS84 +units=m",
    "nodata": 77,
    "alpha": True,
    "grid": "scene",
    "blend": True,
    "precision": "bf16",
    "chip_px": 32,
    "halo_px": 0,
    "tta": "d4",
    "mosaic": "first",
    "target_crs": "EPSG:32631",
    "model": "other.safetensors",
}
"""Another value of each field that changes what is found: it must be refused, by name."""

NOT_DECIDING: dict[str, Any] = {
    "device": "cpu",
    "threads": 1,
    "block_px": 60,
    "formats": ("gpkg", "fgb"),
    "picture": True,
    "page": False,
    "asset": "visual",
    "scheduler": "tcp://127.0.0.1:9",
    "workers": 3,
    "errors": "nodata",
}
"""Another value of each field that changes how the work is done, or what becomes of blocks that cannot be done."""

PLACE = ("out", "overwrite")
"""Fields that name the place and what may be done there; `test_resume.py` holds them."""


@dataclass(frozen=True)
class Runs:
    """What was run, and where.

    Attributes:
        folder: Scenes and areas.
        models: See the fixture.
        finished: A result.
        begun: A run folder without one.
    """

    folder: Path
    models: Path
    finished: Path
    begun: Path

    def run(self, out: Path, *, turned: bool = False, **changes: Any) -> Any:
        """Give the command that made one of the folders, with changes."""
        given = {
            "model": "model.safetensors",
            "aoi": "aoi.gpkg",
            "aoi_where": "part = 1",
            "crs": "EPSG:32630",
        }
        given |= {"threshold": 0.52, "mosaic": "mean", "target_crs": "EPSG:32630", "precision": "f32"}
        settings = given | {"out": out} | changes
        settings |= {"aoi": self.folder / settings["aoi"], "model": self.models / settings["model"]}
        scenes = [self.folder / ("damaged.tif" if out == self.begun else "scene.tif"), self.folder / "second.tif"]
        return run_inputs(scenes[::-1] if turned else scenes, RunSettings(**settings), quiet=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, threads: Any, models: Path) -> Iterator[Runs]:
    """A finished run and one that cannot end, of a network of a few weights."""
    folder = tmp_path_factory.mktemp("identity")
    runs = Runs(folder, models, folder / "finished", folder / "begun")
    write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSEG_CACHE_DIR", str(folder / "cache"))
        patch.setattr("geoseg.run.run.open_client", lambda *_: nullcontext(threads))  # one cluster for all
        runs.run(runs.finished)
        with pytest.raises(UnfinishedError):
            runs.run(runs.begun, block_px=48)
        yield runs


def write_inputs(folder: Path) -> None:
    """Write two scenes without a CRS that overlap, one of them damaged too, and areas in halves.

    Their last band is an image that is marked alpha.
    """
    layout = {"driver": "GTiff", "compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16}
    for seed, (name, east) in enumerate({"scene": 0, "second": 30}.items()):
        coarse = np.random.default_rng(seed).integers(1, 255, (4, SIDE // 4, SIDE // 4))
        pixels = np.kron(coarse, np.ones((4, 4))).astype(np.uint8)
        pixels[:, 20:28, 40:60], pixels[3, :20, :60] = 77, 0
        place = Affine(GSD_M, 0, WEST + east * GSD_M, 0, -GSD_M, NORTH)
        profile = layout | {"dtype": "uint8", "count": 4, "height": SIDE, "width": SIDE, "transform": place}
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * 2, ColorInterp.alpha]
            file.write(pixels)
    data = bytearray((folder / "scene.tif").read_bytes())
    data[-40:] = bytes(40)
    (folder / "damaged.tif").write_bytes(data)
    left, right, top = (
        shapely.affinity.translate(shapely.box(*(np.array(box) * GSD_M)), WEST, NORTH)
        for box in ((-9, -99, 90, 9), (90, -99, 999, 9), (-9, -50, 90, 9))
    )
    for name, first in (("aoi", left), ("other", top)):
        geopandas.GeoDataFrame({"part": [1, 2]}, geometry=[first, right], crs=32630).to_file(folder / f"{name}.gpkg")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file below a folder, and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def findings(out: Path) -> list[Any]:
    """Return what was found: pixels and where they lie, outlines."""
    found: list[Any] = []
    for name in ("probability", "mask"):
        with rasterio.open(out / f"{name}.tif") as raster:
            found += [raster.crs.to_wkt(), raster.transform, raster.read().tobytes()]
    return [*found, geopandas.read_parquet(out / "buildings.parquet").geometry.to_wkb().tolist()]


@pytest.mark.parametrize(
    ("bands", "said"), [("1,2,3", "1,2,3"), ([0], "0"), ([1, -2, 3], "1,-2,3"), ([], ""), ([1.5], "1.5")]
)
def test_bands_that_are_no_list_of_numbers_from_1_are_refused(bands: Any, said: str) -> None:
    for options in (RunSettings, InferenceOptions):
        with pytest.raises(UsageError, match=f"^`bands={said}` is not a list of band numbers, which count from 1"):
            options(bands=bands)


def test_every_setting_is_declared_once() -> None:
    assert sorted([*DECIDING, *NOT_DECIDING, *PLACE]) == sorted(field.name for field in fields(RunSettings))


def test_a_report_keeps_every_deciding_fact(runs: Runs) -> None:
    assert json.loads((runs.finished / "run.json").read_text())["facts"].keys() == {*DECIDING, "files"}


def test_a_report_tells_the_networks_share_of_the_time_of_all_threads(runs: Runs) -> None:
    report = json.loads((runs.finished / "run.json").read_text())
    network, wall = report["thread_seconds_in_blocks"]["network"], report["seconds"]["total"]
    assert report["threads"] > 1
    assert report["network_share_of_wall"] == pytest.approx(network / report["threads"] / wall, rel=0.1, abs=1e-3)


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_a_result_refuses_another_value_by_its_name(runs: Runs, name: str) -> None:
    for out in (runs.finished, runs.begun):
        before = contents(out)
        with pytest.raises(
            ExistingResultError, match=rf"another run\. `{name}`: [^;]* before, [^;]* now\. Choose"
        ) as refused:
            runs.run(out, **{name: DECIDING[name]})
        assert re.search(r"None|[\[\]]|\d{9}|[0-9a-f]{16}", str(refused.value).split("another run")[1]) is None
        assert contents(out).keys() == before.keys()
        assert [path for path, file in contents(out).items() if file != before[path]] == []


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_a_result_changes_it(runs: Runs, tmp_path: Path, name: str) -> None:
    """So that a setting which is refused also does something."""
    changed = {name: DECIDING[name]}
    if name == "precision" and "bf16" not in native_precisions():
        with pytest.raises(GeosegError, match="bf16"):
            runs.run(tmp_path / "out", **changed)
        return
    runs.run(tmp_path / "out", **changed)
    assert findings(tmp_path / "out") != findings(runs.finished)


def test_averaged_views_do_not_depend_on_the_blocks(runs: Runs, tmp_path: Path) -> None:
    for name, block_px in (("small", 48), ("large", 4096)):
        runs.run(tmp_path / name, tta="d4", block_px=block_px)
    assert findings(tmp_path / "small") == findings(tmp_path / "large")


def test_a_result_of_before_a_setting_was_there_is_one_without_it(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.finished, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "run.json").read_text())
    assert report["facts"].pop("tta") is None
    (tmp_path / "out" / "run.json").write_text(json.dumps(report))
    assert not runs.run(tmp_path / "out").is_new


@pytest.mark.parametrize("name", NOT_DECIDING)
def test_what_decides_nothing_finds_the_result_and_goes_on_with_a_run(runs: Runs, name: str) -> None:
    changed = {name: NOT_DECIDING[name]}
    raster = (runs.finished / "probability.tif").stat().st_mtime_ns
    assert not runs.run(runs.finished, **changed).is_new
    assert (runs.finished / "probability.tif").stat().st_mtime_ns == raster
    if name == "errors":  # that would end it
        return
    parts = {path: file for path, file in contents(runs.begun).items() if "/parts/" in path}
    assert len(parts) > 1
    with pytest.raises(UnfinishedError):
        runs.run(runs.begun, **changed)
    assert contents(runs.begun).items() >= parts.items()


def test_what_is_not_given_and_a_file_that_has_changed_are_named_so(runs: Runs) -> None:
    area = r"`min_area_m2`: the model's before, 7\.5 now"
    with pytest.raises(ExistingResultError, match=rf"`aoi_where`: part = 1 before, not given now; {area}"):
        runs.run(runs.finished, aoi_where=None, min_area_m2=7.5)
    (runs.folder / "again").mkdir(exist_ok=True)
    (runs.folder / "again" / "aoi.gpkg").write_bytes((runs.folder / "other.gpkg").read_bytes())
    with pytest.raises(ExistingResultError, match=r"`aoi`: aoi\.gpkg before, aoi\.gpkg \(changed since\) now"):
        runs.run(runs.finished, aoi="again/aoi.gpkg")


def test_scenes_of_a_mosaic_in_another_order_are_another_run(runs: Runs) -> None:
    for out in (runs.finished, runs.begun):
        with pytest.raises(ExistingResultError, match=r"another run.*files"):
            runs.run(out, turned=True)


@pytest.mark.parametrize("name", ["second.tif", "aoi.gpkg"])
def test_a_file_that_was_written_again_refuses(runs: Runs, name: str) -> None:
    path = runs.folder / name
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    for out in (runs.finished, runs.begun):
        with pytest.raises(ExistingResultError, match=f"another run.*{name}"):
            runs.run(out)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not runs.run(runs.finished).is_new


def test_a_file_behind_a_virtual_raster_that_was_written_again_refuses(runs: Runs, tmp_path: Path) -> None:
    for name in ("scene.tif", "second.tif"):
        (tmp_path / name).write_bytes((runs.folder / name).read_bytes())
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{name}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band, name in ((1, "scene.tif"), (2, "second.tif"))
    )
    place = f"<GeoTransform>{WEST}, {GSD_M}, 0, {NORTH}, 0, -{GSD_M}</GeoTransform>"
    vrt = f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}">{place}{bands}</VRTDataset>'
    (tmp_path / "both.vrt").write_text(vrt)

    def run() -> Any:
        settings = RunSettings(model=runs.models / "model.safetensors", crs="EPSG:32630", out=tmp_path / "out")
        return run_inputs([tmp_path / "both.vrt"], settings, quiet=True)

    assert run().is_new
    assert not run().is_new
    stat = (tmp_path / "second.tif").stat()
    os.utime(tmp_path / "second.tif", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(ExistingResultError, match=r"another run.*second\.tif has changed"):
        run()
