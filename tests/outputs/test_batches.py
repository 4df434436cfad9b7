"""Footprints along a Hilbert curve: the same order whatever comes at a time, and row groups that a box can skip."""

from collections.abc import Sequence
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
import shapely

from geoseg.errors import OutputError
from geoseg.outputs import batches
from geoseg.outputs.batches import cut_evenly, frame_batch, rebatch, sort_along_curve
from geoseg.outputs.geoparquet import GeoParquet

BOUNDS = (500_000.0, 590_000.0, 510_000.0, 600_000.0)


def town(count: int, seed: int = 0) -> geopandas.GeoDataFrame:
    """Return houses all over the bounds from top to bottom, as a run finds them."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(BOUNDS[0], BOUNDS[2], count), np.sort(rng.uniform(BOUNDS[1], BOUNDS[3], count))[::-1]
    return geopandas.GeoDataFrame({"number": np.arange(count)}, geometry=shapely.box(x, y - 9, x + 9, y), crs=32630)


def sort(frame: geopandas.GeoDataFrame, rows_each: int, spool: Path) -> list[pa.RecordBatch]:
    return list(sort_along_curve(rebatch([frame_batch(frame)], rows_each), BOUNDS, spool))


def numbers(found: Sequence[pa.RecordBatch]) -> list[int]:
    return [number for batch in found for number in batch["number"].to_pylist()]


@pytest.mark.parametrize("rows_each", [7, 100, 5000])
@pytest.mark.parametrize("most", [10, 300, 5000])
def test_the_order_is_that_of_the_curve_whatever_comes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_each: int, most: int
) -> None:
    monkeypatch.setattr(batches, "BATCH", most)
    frame = town(2000)
    middles = geopandas.GeoSeries(shapely.centroid(frame.geometry.array))
    expected = np.argsort(middles.hilbert_distance(total_bounds=BOUNDS).to_numpy(), kind="stable")
    found = sort(frame, rows_each, tmp_path / "spool")
    assert numbers(found) == expected.tolist()
    assert max(map(len, found)) <= most
    table = pa.Table.from_batches(found)
    assert table.schema == frame_batch(frame).schema
    assert shapely.from_wkb(table["geometry"].to_numpy()).tolist() == frame.geometry.iloc[expected].tolist()
    assert list(tmp_path.iterdir()) == []


def test_footprints_in_one_place_keep_their_order_and_those_beyond_the_bounds_are_not_lost(tmp_path: Path) -> None:
    frame = town(300)
    frame.geometry = [shapely.box(501_000, 595_000, 501_009, 595_009)] * 299 + [shapely.box(0, 0, 9, 9)]
    assert sorted(numbers(sort(frame, 50, tmp_path / "spool"))) == list(range(300))
    assert numbers(sort(frame.iloc[:299], 50, tmp_path / "spool")) == list(range(299))


def test_without_footprints_there_is_an_empty_batch(tmp_path: Path) -> None:
    found = sort(town(0), 50, tmp_path / "spool")
    assert sum(map(len, found)) == 0
    assert found[0].schema == frame_batch(town(0)).schema


def test_a_full_disk_is_an_error(tmp_path: Path, full_disk: object) -> None:
    frame = town(20_000)
    with full_disk(200_000), pytest.raises(OutputError, match=r"spool cannot be written .*Make room"):  # type: ignore[operator]
        sort(frame, 1000, tmp_path / "spool")
    assert list(tmp_path.iterdir()) == []


def test_stretches_hold_up_to_so_many_or_a_single_cell() -> None:
    count = np.array([0, 3, 4, 0, 9, 1, 0, 0, 5, 5, 1, 0])
    found = list(cut_evenly(count, 7))
    assert found == [(0, 4), (4, 5), (5, 9), (9, 12)]
    assert [int(count[begin:end].sum()) for begin, end in found] == [7, 9, 6, 6]


def test_row_groups_that_a_box_does_not_meet_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the statistics of the column of boxes, which pyarrow, geopandas and DuckDB look at."""
    monkeypatch.setattr(batches, "BATCH", 700)
    frame, total = town(20_000), {}
    rng = np.random.default_rng(1)
    squares = [(x, y, x + 500, y + 500) for x, y in rng.uniform(BOUNDS[:2], np.subtract(BOUNDS[2:], 500), (40, 2))]
    for name in ("read", "sorted"):
        rows = rebatch([frame_batch(frame)], 1000)
        rows = (
            rebatch(sort_along_curve(rows, BOUNDS, tmp_path / "spool"), 200) if name == "sorted" else rebatch(rows, 200)
        )
        GeoParquet().write(rows, frame_batch(frame).schema, frame.crs, tmp_path / f"{name}.parquet")
        (file,) = pyarrow.dataset.dataset(tmp_path / f"{name}.parquet").get_fragments()
        assert file.num_row_groups == 100
        total[name] = 0
        for left, bottom, right, top in squares:
            x, y = (pyarrow.dataset.field("bbox", side) for side in ("xmin", "ymin"))
            far = [pyarrow.dataset.field("bbox", side) for side in ("xmax", "ymax")]
            part = file.subset((x <= right) & (y <= top) & (far[0] >= left) & (far[1] >= bottom))
            total[name] += part.num_row_groups
            found = geopandas.read_parquet(tmp_path / f"{name}.parquet", bbox=(left, bottom, right, top))
            is_met = frame.intersects(shapely.box(left, bottom, right, top))
            assert sorted(found["number"]) == frame["number"][is_met].tolist()
    assert total["sorted"] < 4 * len(squares)  # of 100 row groups, where a square is a 400th of the scene
    assert total["sorted"] < total["read"] / 2
