"""Whole runs over several scenes: the result of sheets is that of the file; seams leave no trace in the buildings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.warp import Resampling, reproject, transform

from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ThresholdSegmenter
from geoseg.inference import plan_mosaic
from geoseg.run import RunResult, RunSettings, run_plan
from geoseg.sources import SceneSource

SPEC = ModelSpec(
    name="fake",
    network="none",
    bands=("gray",),
    gsd_m=0.3,
    mean=(0.0,),
    std=(1.0,),
    min_area_m2=0.0,
    chip_px=64,
    halo_px=8,
)
BUNDLE = Bundle(SPEC, Path("none"), "0")
PLACE = Affine(0.3, 0, 811_200, 0, -0.3, 618_900)
FILES = ("probability.tif", "mask.tif", "buildings.parquet")


def houses(height: int, width: int) -> np.ndarray:
    """`(y, x)` uint8: rectangles of 230 on 60."""
    rng, out = np.random.default_rng(2), np.full((height, width), 60, np.uint8)
    for row, col in rng.integers(2, (height - 30, width - 30), (60, 2)):
        out[row : row + rng.integers(8, 28), col : col + rng.integers(8, 28)] = 230
    return out


def write(path: Path, pixels: np.ndarray, place: Affine = PLACE, crs: str = "EPSG:32630", **options: object) -> str:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": pixels.shape[0], "width": pixels.shape[1]}
    with rasterio.open(path, "w", crs=crs, transform=place, **profile, **options) as dst:
        dst.write(pixels[None])
    return str(path)


def run(files: Sequence[str], out: Path, *, rule: str = "first", **settings: object) -> RunResult:
    """Run a mosaic with the engine that calls bright pixels buildings."""
    sources = [SceneSource(Path(file).stem, (file,)) for file in files]
    plan = replace(plan_mosaic(sources, BUNDLE, rule=rule), engine=ThresholdSegmenter(145))  # type: ignore[arg-type]
    return run_plan(plan, BUNDLE, RunSettings(out=out, mosaic=rule, **settings), quiet=True)  # type: ignore[arg-type]


def in_degrees(path: Path, ground: np.ndarray) -> str:
    """The same ground in EPSG:4326."""
    x, y = transform("EPSG:32630", "EPSG:4326", [PLACE.c], [PLACE.f])
    place, out = Affine(2.7e-6, 0, x[0], 0, -2.7e-6, y[0]), np.zeros(ground.shape, np.uint8)
    grids = {"src_transform": PLACE, "src_crs": "EPSG:32630", "dst_transform": place, "dst_crs": "EPSG:4326"}
    reproject(ground, out, **grids, resampling=Resampling.bilinear, tolerance=0)
    return write(path, out, place, "EPSG:4326", nodata=0)


@pytest.mark.parametrize("rule", ["first", "mean"])
def test_sheets_give_the_bytes_of_the_file(tmp_path: Path, rule: str) -> None:
    ground = houses(300, 420)
    whole = run([write(tmp_path / "whole.tif", ground)], tmp_path / "one", block_px=1_000)
    places = [(row, col) for row in (0, 130) for col in (0, 170, 320)]
    sheets = [
        write(
            tmp_path / f"{row}_{col}.tif",
            ground[row : (130 if row == 0 else 300), col : {0: 170, 170: 320, 320: 420}[col]],
            PLACE @ Affine.translation(col, row),
        )
        for row, col in places
    ]
    mosaic = run(sheets, tmp_path / "many", rule=rule, block_px=100)
    for name in FILES:
        assert (whole.folder / name).read_bytes() == (mosaic.folder / name).read_bytes(), name
    assert mosaic.report["counts"]["buildings"] > 20


@pytest.mark.parametrize("rule", ["first", "mean"])
def test_blocks_and_threads_do_not_change_a_mosaic_and_seams_cut_no_building(tmp_path: Path, rule: str) -> None:
    ground = houses(200, 300)
    left = write(tmp_path / "left.tif", ground[:, :140])
    files = [left, in_degrees(tmp_path / "right.tif", ground)]
    one = run(files, tmp_path / "a", rule=rule, block_px=1_000, threads=1)
    other = run(files, tmp_path / "b", rule=rule, block_px=60, threads=2)
    for name in FILES:
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    direct = run([write(tmp_path / "whole.tif", ground)], tmp_path / "c")
    mine, theirs = (
        geopandas.read_parquet(result.folder / "buildings.parquet").to_crs("EPSG:32630") for result in (one, direct)
    )
    crossing = theirs[theirs.intersects(seam())]
    assert len(crossing) > 2
    matched = mine.sjoin(crossing[["geometry"]])
    assert sorted(matched["index_right"]) == sorted(crossing.index)  # each is one polygon still
    assert mine.area.sum() == pytest.approx(theirs.area.sum(), rel=0.04)


def seam() -> shapely.LineString:
    """The line where the left scene ends."""
    x = PLACE.c + 140 * 0.3
    return shapely.LineString([(x, PLACE.f - 60), (x, PLACE.f)])


def test_a_mosaic_has_its_picture_and_names_its_scenes(tmp_path: Path) -> None:
    ground = houses(200, 300)
    files = [write(tmp_path / "left.tif", ground[:, :140]), in_degrees(tmp_path / "right.tif", ground)]
    result = run(files, tmp_path / "out", picture=True)
    assert result.report["scene"]["paths"] == files
    assert (result.folder / "preview.png").is_file()
