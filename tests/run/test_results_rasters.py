"""Parts of any layout become the same rasters and the same counts."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geoseg.bundle import ModelSpec
from geoseg.engines import ThresholdSegmenter
from geoseg.errors import MissingFileError
from geoseg.grid import Block, Grid, Lattice, Window
from geoseg.inference import BlockPixels, Plan, Stopwatch
from geoseg.io.store import LocalStore
from geoseg.run import results
from geoseg.run.parts import write_part
from geoseg.run.results import CELL_TILES, mask_buildings, write_rasters
from geoseg.scene import Scene, open_scene

NODATA, THRESHOLD = 255, 100
SHAPE = (1500, 1300)
NAMES = ("land", "building", "water")
FILES = ("probability.tif", "mask.tif", "classes.tif")


def spec(classes: tuple[str, ...] = ("building",)) -> ModelSpec:
    model = {"name": "fake", "network": "none", "bands": ("gray",), "gsd_m": 0.3, "mean": (0.0,), "std": (1.0,)}
    return ModelSpec(**model, classes=classes, target="building")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    place = {"crs": CRS.from_epsg(32630), "transform": Affine(0.3, 0, 500_000, 0, -0.3, 600_000)}
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, height=SHAPE[0], width=SHAPE[1], sparse_ok=True, **place
    ):
        pass
    return open_scene(path)


def plan(scene: Scene, *, core: int, classes: tuple[str, ...] = ("building",)) -> Plan:
    return Plan(scene, Lattice(SHAPE, (core, core), 8), ThresholdSegmenter(), classes=classes)


def patches(top: int, seed: int = 1) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, top, (SHAPE[0] // 20, SHAPE[1] // 20), dtype=np.uint8)
    return np.kron(coarse, np.ones((20, 20), np.uint8))


def probabilities() -> np.ndarray:
    values = patches(255)
    values[400:800, :700] = NODATA
    return values


class Parts:
    """Rasters of a scene, handed out block by block in the place of a store's parts."""

    def __init__(self, **rasters: np.ndarray) -> None:
        self.rasters, self.read = rasters, 0

    def read_raster(self, store: object, block: Block, name: str) -> np.ndarray | None:
        self.read += 1
        values = self.rasters[name][block.window.slices]
        return None if (values == NODATA).all() else values


def run(monkeypatch, parts: Parts, planned: Plan, folder: Path, *, block_px: int, order: int = 1) -> results.Counts:
    monkeypatch.setattr(results, "read_raster", parts.read_raster)
    folder.mkdir()
    blocks = planned.blocks(block_px)[::order]
    return write_rasters(planned, spec(planned.classes), THRESHOLD, blocks, LocalStore(folder), folder)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


def test_rasters_are_the_parts_and_their_mask_and_counts_are_counted(tmp_path, monkeypatch, scene) -> None:
    values = probabilities()
    counts = run(monkeypatch, Parts(probability=values), plan(scene, core=100), tmp_path / "a", block_px=300)
    mask = np.where(values == NODATA, NODATA, values >= THRESHOLD)
    np.testing.assert_array_equal(read(tmp_path / "a" / "probability.tif"), values)
    np.testing.assert_array_equal(read(tmp_path / "a" / "mask.tif"), mask)
    assert counts.valid == (values != NODATA).sum()
    assert counts.building == (mask == 1).sum()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "mask.qml",
        "mask.tif",
        "probability.qml",
        "probability.tif",
    ]


def test_descriptions_name_the_target(tmp_path, monkeypatch, scene) -> None:
    run(monkeypatch, Parts(probability=probabilities()), plan(scene, core=300), tmp_path / "a", block_px=600)
    with rasterio.open(tmp_path / "a" / "probability.tif") as raster:
        assert raster.descriptions == ("building probability",)
    with rasterio.open(tmp_path / "a" / "mask.tif") as raster:
        assert raster.descriptions == ("building mask: 0 background, 1 building",)


@pytest.mark.parametrize(("core", "block_px", "order"), [(130, 130, 1), (97, 400, -1), (512, 512, 1), (1500, 1500, 1)])
def test_blocks_and_their_order_change_no_byte_and_no_count(
    tmp_path, monkeypatch, scene, core, block_px, order
) -> None:
    parts = Parts(probability=probabilities(), classes=np.where(probabilities() == NODATA, NODATA, patches(3, seed=2)))
    first = run(monkeypatch, parts, plan(scene, core=260, classes=NAMES), tmp_path / "a", block_px=520)
    other = run(
        monkeypatch, parts, plan(scene, core=core, classes=NAMES), tmp_path / "b", block_px=block_px, order=order
    )
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (first.valid, first.building) == (other.valid, other.building)
    assert first.class_pixels.tolist() == other.class_pixels.tolist()
    assert first.class_m2.tolist() == other.class_m2.tolist()


def test_classes_are_counted_in_pixels_and_square_meters_of_the_ground(tmp_path, monkeypatch, scene) -> None:
    classes = patches(3)
    classes[300:500] = NODATA
    parts = Parts(probability=np.where(classes == NODATA, NODATA, 7).astype(np.uint8), classes=classes)
    counts = run(monkeypatch, parts, plan(scene, core=100, classes=NAMES), tmp_path / "a", block_px=700)
    np.testing.assert_array_equal(read(tmp_path / "a" / "classes.tif"), classes)
    assert counts.class_pixels.tolist() == [(classes == index).sum() for index in range(3)]
    ground = scene.grid.gsd_m
    assert counts.class_m2 == pytest.approx(counts.class_pixels * ground[0] * ground[1], rel=1e-5)
    assert not counts.building


def test_ground_is_measured_where_the_pixels_are() -> None:
    """In degrees, a pixel at 60 north covers half the ground of one at the equator."""
    side = CELL_TILES * 512
    degrees = 60 / (2 * side)
    grid = Grid(CRS.from_epsg(4326), Affine(degrees, 0, 0, 0, -degrees, 60), (2 * side, side))
    tally = results.Tally(grid, THRESHOLD, 2, has_classes=True)
    tile = np.zeros((2, 512, 512), np.uint8)
    tally.derive(tile, 0, 0)
    northern = tally.count().class_m2[0]
    tally.derive(tile, CELL_TILES, 0)
    both = tally.count().class_m2[0]
    assert northern / (both - northern) == pytest.approx(np.cos(np.radians(45)) / np.cos(np.radians(15)), rel=0.01)


def test_blocks_that_are_not_named_are_nodata_and_their_parts_are_not_read(tmp_path, monkeypatch, scene) -> None:
    values, planned = patches(255), plan(scene, core=100)
    parts = Parts(probability=values)
    monkeypatch.setattr(results, "read_raster", parts.read_raster)
    blocks = [block for block in planned.blocks(500) if block.window != Window(500, 500, 500, 500)]
    counts = write_rasters(planned, spec(), THRESHOLD, blocks, LocalStore(tmp_path), tmp_path)
    expected = values.copy()
    expected[500:1000, 500:1000] = NODATA
    np.testing.assert_array_equal(read(tmp_path / "probability.tif"), expected)
    assert counts.valid == values.size - 500 * 500
    assert parts.read == len(blocks)


def test_parts_of_a_store_become_rasters(tmp_path, scene) -> None:
    store, values, planned = LocalStore(tmp_path / "work"), probabilities(), plan(scene, core=100)
    blocks = planned.blocks(700)
    for block in blocks:
        write_block(store, block, values)
    write_rasters(planned, spec(), THRESHOLD, blocks, store, tmp_path)
    np.testing.assert_array_equal(read(tmp_path / "probability.tif"), values)


def write_block(store: LocalStore, block: Block, values: np.ndarray) -> None:
    """Write a block's part."""
    valid = np.zeros((block.window.height + 2, block.window.width + 2), bool)
    write_part(store, block, BlockPixels(values[block.window.slices], valid, Stopwatch()))


def test_lost_part_is_an_error_and_leaves_no_raster(tmp_path, scene) -> None:
    planned = plan(scene, core=100)
    with pytest.raises(MissingFileError):
        write_rasters(planned, spec(), THRESHOLD, planned.blocks(700), LocalStore(tmp_path / "work"), tmp_path)
    assert not list(tmp_path.glob("*.tif"))


@pytest.mark.parametrize("threshold", [0, 1, 127, 254, 255])
def test_mask_holds_what_reaches_the_threshold_and_nodata_never(threshold) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask, valid = mask_buildings(values, threshold)
    np.testing.assert_array_equal(mask.ravel()[:255], values.ravel()[:255] >= threshold)
    assert mask[15, 15] == NODATA
    assert valid == 255
