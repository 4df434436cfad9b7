"""From parts to footprints in files: the same bytes however the scene was cut into blocks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet
import pytest
import rasterio
import shapely
from affine import Affine
from geopandas.testing import assert_geodataframe_equal

from geoseg.engines import ThresholdSegmenter
from geoseg.errors import DamagedPartError, OutputError
from geoseg.grid import Block, fit_lattice
from geoseg.inference import NODATA, BlockPixels, Plan, Stopwatch
from geoseg.io.store import LocalStore
from geoseg.outputs import batches as batches_module
from geoseg.run import results
from geoseg.run.job import outline_block
from geoseg.run.parts import part_name, write_part
from geoseg.run.results import FootprintCounts, write_footprints
from geoseg.scene import open_scene

TRANSFORM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
OPTIONS = {"min_area_m2": 0.5, "simplify_px": 1.0}


def plan_for(folder: Path, shape: tuple[int, int], crs: str | None = "EPSG:32630") -> Plan:
    path = folder / "scene.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": crs, "transform": TRANSFORM}
    with rasterio.open(path, "w", height=shape[0], width=shape[1], sparse_ok=True, **profile):
        pass
    scene = open_scene(path)
    return Plan(scene, fit_lattice(shape, chip_px=24, halo_px=4, multiple_px=8), ThresholdSegmenter())


def roofs(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return `(y, x)` stored probabilities: slanted roofs side by side, some nodata."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape)
    walls = ((rows - 0.3 * cols) % 11 > 2) & ((cols + 0.3 * rows) % 17 > 3)
    probability = np.where(walls ^ (rng.random(shape) < 0.01), rng.integers(127, 255, shape), 20).astype(np.uint8)
    probability[60:75, 40:70] = NODATA
    return probability


def write_parts(plan: Plan, probability: np.ndarray, blocks: Sequence[Block], store: LocalStore) -> None:
    valid = np.pad(probability != NODATA, 1)
    for block in blocks:
        ring = block.window.expand(1)
        seen = valid[ring.row + 1 : ring.rows.stop + 1, ring.col + 1 : ring.cols.stop + 1]
        pixels = BlockPixels(probability[block.window.slices], seen, Stopwatch())
        write_part(store, block, pixels, outline_block(plan, pixels, block, threshold=127, **OPTIONS))


def run_polygons(folder: Path, plan: Plan, probability: np.ndarray, block_px: int) -> tuple[Path, FootprintCounts]:
    blocks, out = plan.lattice.plan_blocks(block_px), folder / f"out{block_px}"
    out.mkdir()
    write_parts(plan, probability, blocks, LocalStore(out / "work"))
    return out, write_footprints(plan, blocks, LocalStore(out / "work"), out, **OPTIONS)


@pytest.mark.parametrize("crs", ["EPSG:32630", None])
def test_files_do_not_depend_on_the_blocks(tmp_path: Path, crs: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "BATCH", 17)
    probability = roofs((150, 130))
    plan = plan_for(tmp_path, probability.shape, crs)
    one, counts = run_polygons(tmp_path, plan, probability, 1000)
    table = geopandas.read_file(one / "buildings.gpkg", layer="buildings")
    assert len(table) > 60
    for block_px in (16, 64):
        other, other_counts = run_polygons(tmp_path, plan, probability, block_px)
        assert (other / "buildings.parquet").read_bytes() == (one / "buildings.parquet").read_bytes()
        assert_geodataframe_equal(geopandas.read_file(other / "buildings.gpkg", layer="buildings"), table)
        assert other_counts == counts


def test_both_files_hold_the_same_and_the_counts_say_what(tmp_path: Path) -> None:
    probability = roofs((200, 170))
    out, counts = run_polygons(tmp_path, plan_for(tmp_path, probability.shape), probability, 64)
    package = geopandas.read_file(out / "buildings.gpkg", layer="buildings")
    parquet = geopandas.read_parquet(out / "buildings.parquet")
    assert_geodataframe_equal(parquet, package, check_like=True)
    assert counts == FootprintCounts(len(package), int(package["edge"].sum()), pytest.approx(package["area_m2"].sum()))
    assert 0 < counts.at_edge < counts.count


def test_footprints_are_in_reading_order_and_row_groups_of_fixed_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "BATCH", 50)
    probability = np.kron(roofs((80, 20))[60:] >= 127, np.pad(np.full((3, 3), 200), (0, 3))).astype(np.uint8)
    plan = plan_for(tmp_path, probability.shape)
    out, counts = run_polygons(tmp_path, plan, probability, 16)
    shapes = geopandas.read_parquet(out / "buildings.parquet").geometry
    corners = [((600_000 - top) / 0.3, (left - 500_000) / 0.3) for left, _, _, top in shapes.bounds.to_numpy()]
    assert [(round(row), round(col)) for row, col in corners] == sorted((round(r), round(c)) for r, c in corners)
    found = pyarrow.parquet.read_metadata(out / "buildings.parquet")
    sizes = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    assert sizes[:-1] == [50] * (counts.count // 50)
    assert sum(sizes) == counts.count > 200


def test_one_building_all_over_the_scene_keeps_its_courtyards(tmp_path: Path) -> None:
    probability = np.full((100, 90), 200, np.uint8)
    probability[3:-3:6, 3:-3:6] = 0
    courtyards = int((probability == 0).sum())
    out, counts = run_polygons(tmp_path, plan_for(tmp_path, probability.shape), probability, 32)
    (shape,) = geopandas.read_parquet(out / "buildings.parquet").geometry
    assert (counts.count, shapely.get_num_interior_rings(shape)) == (1, courtyards)


def test_scene_without_buildings_gives_empty_files(tmp_path: Path) -> None:
    out, counts = run_polygons(tmp_path, plan_for(tmp_path, (50, 60)), np.zeros((50, 60), np.uint8), 16)
    assert counts == FootprintCounts(0, 0, 0.0)
    assert len(geopandas.read_file(out / "buildings.gpkg", layer="buildings")) == 0
    assert len(geopandas.read_parquet(out / "buildings.parquet")) == 0


def test_blocks_without_a_part_have_no_buildings(tmp_path: Path) -> None:
    probability, folder = roofs((100, 90)), tmp_path / "out"
    plan, store = plan_for(tmp_path, probability.shape), LocalStore(folder / "work")
    blocks = plan.lattice.plan_blocks(32)
    write_parts(plan, probability, [block for block in blocks if block.window.row == 0], store)
    write_footprints(plan, blocks, store, folder, **OPTIONS)
    found = geopandas.read_parquet(folder / "buildings.parquet")
    assert len(found) > 10
    assert found.total_bounds[1] == pytest.approx(600_000 - 0.3 * blocks[0].window.height)


@pytest.mark.parametrize("kind", [b"finished_wkb", b"pending_vertices"])
def test_damaged_part_is_named_and_no_file_is_left(tmp_path: Path, kind: bytes) -> None:
    probability, folder = roofs((200, 180)), tmp_path / "out"
    plan, store = plan_for(tmp_path, probability.shape), LocalStore(folder / "work")
    blocks = plan.lattice.plan_blocks(96)
    write_parts(plan, probability, blocks, store)
    name = part_name(blocks[0])
    data = bytearray(store.read(name))
    data[data.index(kind + b".npy.zst") + 250] ^= 1
    store.write(name, bytes(data))
    with pytest.raises(DamagedPartError, match=f"{name} is damaged"):
        write_footprints(plan, blocks, store, folder, **OPTIONS)
    assert [path.name for path in folder.iterdir()] == ["work"]


def test_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, (50, 60))
    with pytest.raises(OutputError, match="there is no folder"):
        write_footprints(plan, [], LocalStore(tmp_path / "work"), tmp_path / "missing", **OPTIONS)


def test_rows_of_blocks_are_written_as_soon_as_nothing_undecided_begins_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held does not grow with the scene, but for what is open; and a band of a row holds few footprints."""
    monkeypatch.setattr(results, "AT_ONCE", 40)
    probability = roofs((400, 120))
    probability[:, :2] = 0
    probability[100:180, 3] = 200  # a wall across several rows of blocks
    log: list[tuple[str, int]] = []
    for name in ("read_pending", "read_finished"):
        read = getattr(results, name)

        def note(store: LocalStore, block: Block, *, name: str = name, read: Any = read) -> Any:
            log.append((name, block.window.row))
            return read(store, block)

        monkeypatch.setattr(results, name, note)
    sizes: list[int] = []
    to_batch = batches_module.to_batch
    monkeypatch.setattr(batches_module, "to_batch", lambda found: sizes.append(len(found)) or to_batch(found))
    _, counts = run_polygons(tmp_path, plan_for(tmp_path, probability.shape), probability, 32)
    written = {row: log.index(("read_finished", row)) for row in {row for _, row in log}}
    joined = {row: log.index(("read_pending", row)) for row in written}
    rows = sorted(written)
    assert written[rows[0]] < joined[rows[2]]
    assert written[max(row for row in rows if row <= 100)] > joined[max(row for row in rows if row < 180)]
    assert written[rows[-3]] < joined[rows[-1]]
    assert sum(sizes) == counts.count > 250
    assert max(sizes) < 60


def test_a_gap_cuts_what_lies_along_it_and_not_what_meets_its_corner(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, (64, 64))
    blocks = plan.lattice.plan_blocks(32)
    gap = next(block for block in blocks if block.window.row and block.window.col)
    row, col = gap.window.row, gap.window.col
    probability = np.full((64, 64), 20, np.uint8)
    probability[row - 9 : row, col - 9 : col] = 250  # meets the corner
    probability[row - 7 : row, col + 8 : col + 16] = 250  # lies along the upper side
    kept, store = [block for block in blocks if block != gap], LocalStore(tmp_path / "work")
    write_parts(plan, probability, kept, store)
    write_footprints(plan, kept, store, tmp_path, gaps=[gap.window], **OPTIONS)
    found = geopandas.read_parquet(tmp_path / "buildings.parquet")
    sides = found.total_bounds[0] + 9 * 0.3
    assert found["edge"].tolist() == [bool(left > sides) for left in found.geometry.bounds["minx"]]
    assert sorted(found["edge"]) == [False, True]
