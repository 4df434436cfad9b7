"""The page of a result as a file: what is on its map, what it does not tell, and how it is made again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ThresholdSegmenter
from geoseg.errors import MissingFileError
from geoseg.grid import Grid, fit_lattice
from geoseg.inference import Plan, plan_mosaic
from geoseg.outputs import page as page_module
from geoseg.outputs import probability_file, write_raster
from geoseg.outputs.page import PARTS, View, gather_buildings
from geoseg.run import RunResult, RunSettings, run_plan, write_report
from geoseg.run import page as run_page
from geoseg.scene import open_scene
from geoseg.sources import SceneSource

SIDE = 120
UTM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
TURNED = Affine.translation(9.3, 27.5) @ Affine.rotation(30) @ Affine.scale(3e-6, -3e-6)
HOUSES = ((10, 40, 20, 50), (60, 100, 70, 110))
SPEC = ModelSpec("fake", "none", ("gray",), 0.3, (0.0,), (1.0,), min_area_m2=0.0)
BUNDLE = Bundle(SPEC, Path("none"), "0")


def write(path: Path, transform: Affine = UTM, crs: str = "EPSG:32630") -> Path:
    """Write a scene with two houses."""
    pixels = np.full((1, SIDE, SIDE), 60, np.uint8)
    for top, bottom, left, right in HOUSES:
        pixels[0, top:bottom, left:right] = 230
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": SIDE, "width": SIDE}
    with rasterio.open(path, "w", transform=transform, crs=crs, **profile) as file:
        file.write(pixels)
    return path


def run(scene: Path, out: Path, **settings: Any) -> RunResult:
    opened = open_scene(scene)
    plan = Plan(opened, fit_lattice(opened.grid.shape, chip_px=128, halo_px=0), ThresholdSegmenter(145))
    return run_plan(plan, BUNDLE, RunSettings(out=out, **settings), quiet=True)


def data_of(out: Path) -> dict[str, Any]:
    """Return what the script of a page is told."""
    text = (out / "index.html").read_text()
    found: dict[str, Any] = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    return found


def polygons(found: list[list[list[int]]]) -> list[shapely.Polygon]:
    """Return the shapes of a page as polygons in pixels of the scene."""
    rings = [[np.cumsum(np.reshape(ring, (-1, 2)), axis=0) / PARTS for ring in rings] for rings in found]
    return [shapely.Polygon(outer, holes) for outer, *holes in rings]


@pytest.mark.parametrize("place", [(UTM, "EPSG:32630"), (TURNED, "EPSG:4326")], ids=["utm", "turned"])
def test_the_map_has_the_buildings_in_pixels_of_the_scene(tmp_path: Path, place: tuple[Affine, str]) -> None:
    data = data_of(run(write(tmp_path / "scene.tif", *place), tmp_path / "out").folder)
    found = sorted(polygons(data["buildings"]["shapes"]), key=lambda polygon: float(polygon.centroid.y))
    assert len(found) == len(HOUSES)
    for polygon, (top, bottom, left, right) in zip(found, HOUSES, strict=True):
        house = shapely.box(left, top, right, bottom)
        assert polygon.symmetric_difference(house).area < 0.03 * house.area
    assert (data["width"], data["height"]) == (SIDE, SIDE)
    assert sum(data["by_confidence"]["counts"]) == 2
    assert data["image"].startswith("data:image/jpeg;base64,")


def test_holes_are_rings_of_their_own(tmp_path: Path) -> None:
    ring = np.full((1, SIDE, SIDE), 60, np.uint8)
    ring[0, 20:100, 20:100] = 230
    ring[0, 50:70, 50:70] = 60
    with rasterio.open(write(tmp_path / "scene.tif"), "r+") as file:
        file.write(ring)
    (found,) = polygons(data_of(run(tmp_path / "scene.tif", tmp_path / "out").folder)["buildings"]["shapes"])
    assert len(found.interiors) == 1
    assert found.area == pytest.approx(80 * 80 - 20 * 20, rel=0.02)


def test_no_page_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    result = run(write(tmp_path / "scene.tif"), tmp_path / "out", page=False)
    assert not (tmp_path / "out" / "index.html").exists()
    assert "page" not in result.report["seconds"]
    assert write_report(tmp_path / "out") == [str(tmp_path / "out" / name) for name in ("project.qgz", "index.html")]


def test_buildings_made_anew_have_a_page_of_their_own(tmp_path: Path) -> None:
    scene = write(tmp_path / "scene.tif")
    run(scene, tmp_path / "out")
    run(scene, tmp_path / "out", overwrite=True, min_area_m2=100.0)
    assert sum(data_of(tmp_path / "out")["by_confidence"]["counts"]) == 1


def test_of_another_run_that_makes_no_page_none_is_left(tmp_path: Path) -> None:
    scene = write(tmp_path / "scene.tif")
    run(scene, tmp_path / "out")
    run(scene, tmp_path / "out", page=False, overwrite=True, threshold=0.7)
    assert not (tmp_path / "out" / "index.html").exists()


def test_page_and_project_are_made_again_of_a_finished_result_the_same(tmp_path: Path) -> None:
    sheets = [write(tmp_path / "west.tif"), write(tmp_path / "east.tif", Affine.translation(20.1, 0) @ UTM)]
    sources = [SceneSource(path.stem, (str(path),)) for path in sheets]
    plan = plan_mosaic(sources, BUNDLE)
    plan = Plan(plan.scene, plan.lattice, ThresholdSegmenter(145), covered=plan.covered)
    run_plan(plan, BUNDLE, RunSettings(out=tmp_path / "all" / "mosaic", mosaic="first"), quiet=True)
    run(sheets[0], tmp_path / "all" / "single")
    names, before = ("project.qgz", "index.html"), {}
    for folder in (tmp_path / "all").iterdir():
        before[folder] = {path.name: path.read_bytes() for path in folder.iterdir()}
        for name in names:
            (folder / name).unlink()
    write_report(tmp_path / "all")
    assert {folder: {path.name: path.read_bytes() for path in folder.iterdir()} for folder in before} == before


def test_a_project_in_which_something_was_saved_is_kept(tmp_path: Path) -> None:
    run(write(tmp_path / "scene.tif"), tmp_path / "out")
    (tmp_path / "out" / "project.qgz").write_bytes(b"a day of work")
    write_report(tmp_path / "out")
    write_report(tmp_path / "out")
    assert (tmp_path / "out" / "project.qgz").read_bytes() == b"a day of work"


def test_a_page_without_its_scene_says_so(tmp_path: Path) -> None:
    run(write(tmp_path / "scene.tif"), tmp_path / "out")
    (tmp_path / "scene.tif").unlink()
    write_report(tmp_path / "out")
    data = data_of(tmp_path / "out")
    assert data["image"] is None
    assert "not where it was" in data["notes"][0]
    assert len(data["buildings"]["shapes"]) == 2


def test_a_scene_that_was_moved_along_is_found_beside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    run(write(tmp_path / "here" / "scene.tif"), tmp_path / "here" / "out")
    project = (tmp_path / "here" / "out" / "project.qgz").read_bytes()
    (tmp_path / "here").rename(tmp_path / "there")
    write_report(tmp_path / "there" / "out")
    assert data_of(tmp_path / "there" / "out")["image"] is not None
    assert (tmp_path / "there" / "out" / "project.qgz").read_bytes() == project


def test_a_large_scene_without_overviews_is_not_read_for_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_page, "MOST_LOCAL", SIDE * SIDE - 1)
    data = data_of(run(write(tmp_path / "scene.tif"), tmp_path / "out").folder)
    assert data["image"] is None
    assert "no overviews" in data["notes"][0]


def test_a_scene_with_overviews_is_read_through_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_page, "MOST_LOCAL", SIDE * SIDE - 1)
    monkeypatch.setattr(page_module, "PREVIEW_PX", SIDE // 4)
    with rasterio.open(write(tmp_path / "scene.tif"), "r+") as file:
        file.build_overviews([2])
    data = data_of(run(tmp_path / "scene.tif", tmp_path / "out").folder)
    assert data["image"] is not None
    assert data["step"] == 4


def test_secrets_of_urls_do_not_reach_the_page(tmp_path: Path) -> None:
    result = run(write(tmp_path / "scene.tif"), tmp_path / "out")
    url = "https://me:hush@host/a.tif?sig=hush"
    report = result.report | {"scene": result.report["scene"] | {"paths": [url]}}
    report |= {"settings": report["settings"] | {"aoi": url, "scheduler": "tcp://me:hush@host:1"}, "command": [url]}
    (result.folder / "run.json").write_text(json.dumps(report))
    write_report(result.folder)
    assert "hush" not in (result.folder / "index.html").read_text()


def test_a_folder_without_a_finished_result_is_refused(tmp_path: Path) -> None:
    run(write(tmp_path / "scene.tif"), tmp_path / "out")
    (tmp_path / "out" / "buildings.parquet").unlink()
    with pytest.raises(MissingFileError, match=r"no finished result with run\.json"):
        write_report(tmp_path / "out")


@pytest.mark.parametrize(
    ("shape", "part"), [((5000, 4000), (3000, 100, 60, 90)), ((300, 200), (0, 0, 20, 30)), ((5000, 4000), None)]
)
def test_the_page_shows_where_the_result_has_data(
    tmp_path: Path, shape: tuple[int, int], part: tuple[int, int, int, int] | None
) -> None:
    pixels: NDArray[np.uint8] = np.full(shape, 255, np.uint8)
    grid = Grid(None, UTM, shape)
    row, col, height, width = part or (0, 0, *shape)
    pixels[row : row + height, col : col + width] = 9
    if part is None:
        pixels[:] = 255
    path = write_raster(probability_file(tmp_path / "probability.tif"), [(grid.window, pixels)], grid)
    view = View.of(path)
    top, left, rows, cols = view.part_of(shape)
    assert top <= row
    assert left <= col
    assert top + rows >= row + height
    assert left + cols >= col + width
    if part is not None:
        assert rows * cols < 6 * height * width
    assert max(view.window.shape) <= page_module.PREVIEW_PX


def test_buildings_are_gathered_batch_by_batch_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(write(tmp_path / "scene.tif"), tmp_path / "out")
    monkeypatch.setattr(page_module, "MOST_BUILDINGS", 1)
    table = pyarrow.parquet.read_table(result.folder / "buildings.parquet")
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet", row_group_size=1)
    grid = open_scene(tmp_path / "scene.tif").grid
    raster = result.folder / "probability.tif"
    found = gather_buildings(tmp_path / "b.parquet", raster, grid, View.of(raster))
    assert (found.total, found.shapes) == (2, [])
    assert found.probability is not None
    assert found.areas.sum() == pytest.approx(result.report["area_m2"], abs=0.1)
