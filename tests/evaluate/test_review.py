"""Where a map is doubtful, and how good it is by a sample that a person checks."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from typer.testing import CliRunner

from geoseg.cli import app
from geoseg.errors import GeosegError
from geoseg.evaluate import ReviewSettings, count_answers, review_run
from geoseg.evaluate.review import measure_cells
from geoseg.grid import Grid
from geoseg.outputs.footprints import write_geoparquet
from geoseg.scene import StoredRaster

WEST, NORTH, PX = 500_000.0, 600_000.0, 0.5
CELL_PX = 30  # squares of 15 m


def make_run(folder: Path, stored: Any, confidence: Any, crs: int | None = 32630) -> Path:
    """Make the result folder of a run with these stored probabilities and a building per confidence."""
    folder.mkdir()
    x = WEST + 3.0 * np.arange(len(confidence))
    shapes = shapely.box(x, NORTH - 2, x + 2, NORTH)
    columns = {"id": [f"b{i}" for i in range(len(x))], "confidence": confidence}
    write_geoparquet(geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs), folder / "buildings.parquet")
    height, width = stored.shape
    options = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint8", "nodata": 255}
    where = Affine(PX, 0, WEST, 0, -PX, NORTH)
    with rasterio.open(folder / "probability.tif", "w", **options, crs=crs, transform=where) as dst:
        dst.write(stored.astype(np.uint8), 1)
    (folder / "run.json").write_text(json.dumps({"threshold": 0.6}))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 4 x 5 squares, one of them without data, one doubtful, and 80 buildings."""
    stored = np.zeros((4 * CELL_PX, 5 * CELL_PX))
    stored[:CELL_PX, :CELL_PX] = 255
    stored[CELL_PX : CELL_PX + 10, CELL_PX : CELL_PX + 10] = 127  # 100 px that are ground with a chance of one half
    stored[-10:, -10:] = 254 * 0.75  # 100 px of a building that is none with a chance of a quarter
    return make_run(tmp_path / "town_geoseg", stored, np.linspace(0.2, 0.99, 80))


def layer(folder: Path, name: str) -> geopandas.GeoDataFrame:
    return geopandas.read_file(folder / "review.gpkg", layer=name)


def test_the_squares_with_most_expected_errors_come_first(run: Path, tmp_path: Path) -> None:
    report = review_run(run, ReviewSettings(tmp_path / "out")).report
    places = layer(tmp_path / "out", "places")
    assert len(places) == 19
    assert places["rank"].tolist() == list(range(1, 20))
    assert places["doubt_m2"][:3].tolist() == [pytest.approx(12.5, abs=0.01), pytest.approx(6.25, abs=0.1), 0]
    left, top = WEST + 15, NORTH - 15
    assert places.geometry[0].normalize().equals(shapely.MultiPolygon([shapely.box(left, top - 15, left + 15, top)]))
    assert report["counts"] == {"places": 19, "buildings": 80}
    assert report["expected_wrong"] == pytest.approx(18.8, abs=0.1)


def test_the_least_sure_buildings_come_first_and_only_the_most_doubtful_are_listed(run: Path, tmp_path: Path) -> None:
    review_run(run, ReviewSettings(tmp_path / "out", most=5))
    buildings = layer(tmp_path / "out", "buildings")
    assert buildings["id"].tolist() == [f"b{i}" for i in range(5)]
    assert buildings["doubt"][0] == pytest.approx(0.8)
    assert len(layer(tmp_path / "out", "places")) == 5


@pytest.mark.parametrize("shape", [(1, 1), (37, 400), (2500, 90)])
def test_squares_do_not_depend_on_the_windows(shape: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    stored = rng.integers(0, 256, shape)
    folder = make_run(tmp_path / "run", stored, [0.5])
    grid = Grid(rasterio.crs.CRS.from_epsg(32630), Affine(PX, 0, WEST, 0, -PX, NORTH), shape)
    cells = measure_cells(StoredRaster(str(folder / "probability.tif")), grid, 3.0, 0.6)
    p = stored / 254
    chance = np.where(stored == 255, 0, np.where(p >= 0.6, 1 - p, p)) * PX**2
    gsd = grid.gsd_m
    assert gsd is not None
    for row, col, doubt in zip(cells.row, cells.col, cells.doubt, strict=True):
        assert doubt == pytest.approx(chance[row : row + 6, col : col + 6].sum(), rel=2e-3)
    full = [(r, c) for r in range(0, shape[0], 6) for c in range(0, shape[1], 6)]
    kept = [rc for rc in full if (stored[rc[0] : rc[0] + 6, rc[1] : rc[1] + 6] != 255).any()]
    assert sorted(zip(cells.row.tolist(), cells.col.tolist(), strict=True)) == kept


def test_the_sample_is_random_but_the_same_again_and_hides_what_is_doubtful(run: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        review_run(run, ReviewSettings(tmp_path / name, sample=10, seed=seed))
    a, b, c = (layer(tmp_path / name, "sample_buildings")["id"].tolist() for name in "abc")
    assert len(set(a)) == 10
    assert a == b != c
    places = layer(tmp_path / "a", "sample_places")
    assert places["stratum"].value_counts().to_dict() == {"other": 5, "doubtful": 2}  # there are only two
    assert places.groupby("stratum")["of"].first().to_dict() == {"doubtful": 2, "other": 17}
    assert places["missed"].isna().all()
    assert "doubt_m2" not in places


def fill_in(path: Path, **answers: list[Any]) -> None:
    """Write answers as QGIS does."""
    with closing(sqlite3.connect(path)) as database:
        for name, values in answers.items():
            column = {"sample_buildings": "is_right", "sample_places": "missed"}[name]
            keys = [key for (key,) in database.execute(f"SELECT feature FROM {name} ORDER BY feature")]
            # Without GDAL's triggers of the spatial index, which SQLite alone cannot run.
            triggers = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for (trigger,) in triggers:
                database.execute(f'DROP TRIGGER "{trigger}"')
            rows = list(zip(values, keys, strict=False))
            database.executemany(f"UPDATE {name} SET {column} = ? WHERE feature = ?", rows)
        database.commit()


def test_answers_give_precision_and_recall(run: Path, tmp_path: Path) -> None:
    review_run(run, ReviewSettings(tmp_path / "out", sample=20))
    path = tmp_path / "out" / "review.gpkg"
    places = layer(tmp_path / "out", "sample_places")
    missed = [3 if kind == "doubtful" else 0 for kind in places["stratum"]]
    missed[missed.index(0)] = 1
    fill_in(path, sample_buildings=[1] * 12 + [0] * 4, sample_places=missed)
    found = count_answers(path)
    others = missed.count(0) + 1
    lost = 3 * 2 + 17 * 1 / others
    assert (found.buildings, found.right, found.open_buildings, found.open_places) == (16, 12, 4, 0)
    assert found.precision == 0.75
    assert found.recall == pytest.approx(60 / (60 + lost))
    # Wilson by hand: p = 12/16, z = 1.96.
    assert found.precision_interval == (pytest.approx(0.505, abs=0.001), pytest.approx(0.898, abs=0.001))
    low, high = found.recall_interval
    assert low < found.recall < high
    result = CliRunner().invoke(app, ["review", str(tmp_path / "out"), "--answers"])
    assert "| precision | 0.750 | 0.505 to 0.898 | 16 buildings, 12 right |" in result.stdout
    assert "4 sampled buildings without an answer left out" in result.stderr


def test_intervals_hold_the_truth_as_often_as_they_say(tmp_path: Path) -> None:
    """Maps with a known precision and recall, and many people who each check another sample of them."""
    rng = np.random.default_rng(9)
    stored = np.where(rng.random((40, 40)) < 0.1, 127, 0).repeat(CELL_PX // 5, 0).repeat(CELL_PX // 5, 1)
    folder = make_run(tmp_path / "run", stored, np.full(1000, 0.8))
    is_right = rng.random(1000) < 0.8
    hits, right, total = [], is_right.sum(), _missed_of_all(stored)
    for seed in range(25):
        out = tmp_path / f"out{seed}"
        review_run(folder, ReviewSettings(out, cell_m=3, sample=60, seed=seed))
        buildings, places = layer(out, "sample_buildings"), layer(out, "sample_places")
        answers = is_right[[int(name[1:]) for name in buildings["id"]]]
        # Truth: a missed building in every third doubtful square, in every twentieth of the others.
        x, y = places.geometry.centroid.x, places.geometry.centroid.y
        cell = (((x - WEST) // 3) + 40 * ((NORTH - y) // 3)).astype(int)
        lost = np.where(places["stratum"] == "doubtful", cell % 3 == 0, cell % 20 == 0).astype(int)
        fill_in(out / "review.gpkg", sample_buildings=answers.astype(int).tolist(), sample_places=lost.tolist())
        found = count_answers(out)
        recall = right / (right + total)
        hits.append(
            [
                found.precision_interval[0] <= is_right.mean() <= found.precision_interval[1],
                found.recall_interval[0] <= recall <= found.recall_interval[1],
            ]
        )
    assert (np.mean(hits, axis=0) >= 0.85).all(), np.mean(hits, axis=0)


def _missed_of_all(stored: Any) -> int:
    """Return the number of missed buildings in all squares of the test above."""
    doubt = stored[:: CELL_PX // 5, :: CELL_PX // 5].ravel() == 127
    order = np.argsort(~doubt, kind="stable")
    is_doubtful = np.zeros(len(doubt), bool)
    is_doubtful[order[: int(np.ceil(0.1 * len(doubt)))]] = True
    cell = np.arange(len(doubt))
    return int(np.where(is_doubtful, cell % 3 == 0, cell % 20 == 0).sum())


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({}, "No row of the layer sample_buildings .* has an answer"),
        ({"sample_buildings": [2]}, "is_right of .* has 2; 1 .right. or 0 .wrong. is expected"),
        ({"sample_buildings": [1], "sample_places": [-1]}, "missed of .* has -1"),
    ],
    ids=["none", "two", "minus"],
)
def test_answers_that_cannot_be_counted_are_refused(
    run: Path, tmp_path: Path, answers: dict[str, list[int]], says: str
) -> None:
    review_run(run, ReviewSettings(tmp_path / "out", sample=5))
    fill_in(tmp_path / "out" / "review.gpkg", **answers)
    with pytest.raises(GeosegError, match=says):
        count_answers(tmp_path / "out")


def test_a_review_with_answers_is_not_replaced_unasked(run: Path, tmp_path: Path) -> None:
    settings = ReviewSettings(tmp_path / "out", sample=5)
    review_run(run, settings)
    before = (tmp_path / "out" / "review.gpkg").read_bytes()
    with pytest.raises(GeosegError, match="perhaps with your answers"):
        review_run(run, settings)
    assert (tmp_path / "out" / "review.gpkg").read_bytes() == before
    with pytest.raises(GeosegError, match="has no probability"):
        review_run(tmp_path, ReviewSettings(tmp_path / "new"))
    review_run(run, ReviewSettings(tmp_path / "bare"))
    with pytest.raises(GeosegError, match="no sample, only places, buildings"):
        count_answers(tmp_path / "bare")
    assert not (tmp_path / "new").exists()
