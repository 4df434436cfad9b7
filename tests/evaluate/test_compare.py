"""A run against a map that exists: what is matched, changed, new, missing, and how far the map lies away."""

import json
import re
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
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from geoseg.cli import app
from geoseg.cli.app import with_flags
from geoseg.errors import GeosegError
from geoseg.evaluate import CompareSettings, compare_with_map
from geoseg.evaluate.compare import match_map, measure_shift
from geoseg.evaluate.polygons import Clipped
from geoseg.outputs.footprints import write_geoparquet
from geoseg.third_party import ignore_warnings

WEST, NORTH, PX = 500_000.0, 600_000.0, 0.5
SIZE = 400  # pixels: 200 m; the last 100 columns are nodata


def house(x: float, y: float, width: float = 10, height: float = 8) -> shapely.Polygon:
    """Return a house whose upper left corner lies `x` m east and `y` m south of the scene's."""
    return shapely.box(WEST + x, NORTH - y - height, WEST + x + width, NORTH - y)


def village(rows: int = 5, cols: int = 6) -> list[shapely.Polygon]:
    """Return houses of different sizes, on no regular lattice."""
    rng = np.random.default_rng(7)
    return [
        house(5 + 24 * col + rng.uniform(0, 9), 5 + 36 * row + rng.uniform(0, 15), *rng.uniform(7, 14, 2))
        for row in range(rows)
        for col in range(cols)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Return a function that makes the result folder of a run with some buildings."""

    def make(shapes: list[shapely.Polygon], crs: int | None = 32630) -> Path:
        folder = tmp_path / "town_geoseg"
        folder.mkdir()
        frame = geopandas.GeoDataFrame(
            {"id": [f"b{i}" for i in range(len(shapes))], "confidence": 0.9, "edge": False}, geometry=shapes, crs=crs
        )
        write_geoparquet(frame, folder / "buildings.parquet")
        pixels = np.full((1, SIZE, SIZE), 100, np.uint8)
        pixels[..., 300:] = 255
        options = {"driver": "GTiff", "count": 1, "height": SIZE, "width": SIZE, "dtype": "uint8", "nodata": 255}
        where = Affine(PX, 0, WEST, 0, -PX, NORTH)
        with rasterio.open(folder / "probability.tif", "w", **options, crs=crs, transform=where) as dst:
            dst.write(pixels)
        (folder / "run.json").write_text("{}")
        return folder

    return make


def save(path: Path, shapes: list[Any], crs: int | None = 32630, **columns: list[Any]) -> Path:
    with ignore_warnings(UserWarning, "'crs' was not provided"):
        geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path)
    return path


def layers_of(folder: Path) -> tuple[geopandas.GeoDataFrame, geopandas.GeoDataFrame]:
    path = folder / "comparison.gpkg"
    return geopandas.read_file(path, layer="buildings"), geopandas.read_file(path, layer="missing")


def test_buildings_are_matched_changed_new_or_missing(run: Any, tmp_path: Path) -> None:
    same, extended, new = house(10, 10), house(40, 10, 20, 8), house(70, 10)
    beyond, mostly_beyond = house(170, 10), house(147, 60)  # the run has data for the first 150 m
    mapped = [house(11, 10), house(40, 10, 8, 8), house(10, 60), beyond, mostly_beyond]
    path = save(tmp_path / "map.gpkg", mapped, osm_id=["w1", "w2", "w3", "w4", "w5"])
    found = compare_with_map(run([same, extended, new]), path, CompareSettings(tmp_path / "out"))
    buildings, missing = layers_of(tmp_path / "out")
    assert buildings["id"].tolist() == ["b0", "b1", "b2"]
    assert buildings["status"].tolist() == ["matched", "changed", "new"]
    assert buildings["map_id"].fillna("none").tolist() == ["w1", "w2", "none"]
    np.testing.assert_allclose(buildings["iou"], [9 / 11, 8 / 20, 0], atol=1e-4)
    np.testing.assert_allclose(buildings["offset_m"], [1, np.nan, np.nan], atol=0.01)
    assert missing[["osm_id", "map_id", "status"]].to_numpy().tolist() == [["w3", "w3", "missing"]]
    assert missing.geometry[0].equals(mapped[2])
    counts = {"matched": 1, "changed": 1, "new": 1, "missing": 1, "run": 3, "map": 3}
    assert found.report["counts"] == counts
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["counts"] == counts
    strict = compare_with_map(tmp_path / "town_geoseg", path, CompareSettings(tmp_path / "strict", iou=0.9))
    assert strict.report["counts"]["matched"] == 0


def test_a_house_of_the_map_is_the_match_of_one_building_alone(run: Any, tmp_path: Path) -> None:
    halves = [house(10, 10, 12, 8), house(22, 10, 8, 8)]
    path = save(tmp_path / "map.gpkg", [house(10, 10, 20, 8)])
    compare_with_map(run(halves), path, CompareSettings(tmp_path / "out"))
    buildings, missing = layers_of(tmp_path / "out")
    assert buildings["status"].tolist() == ["matched", "changed"]
    assert missing.empty


@pytest.mark.parametrize("crs", [32630, 4326])
def test_a_shift_of_the_map_is_found_told_and_taken_out(
    run: Any, tmp_path: Path, crs: int, caplog: pytest.LogCaptureFixture
) -> None:
    shapes = village()
    frame = geopandas.GeoDataFrame({"name": ["x"] * 30}, geometry=shapes, crs=32630).translate(4.0, -6.5)
    frame.to_crs(crs).to_file(tmp_path / "map.gpkg")
    folder = run(shapes)
    result = CliRunner().invoke(app, ["compare", str(folder), str(tmp_path / "map.gpkg"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    line = "4.00 m east and 6.50 m south of the buildings (30 pairs"
    assert line in caplog.text
    assert "| matched | 30 |" in result.stderr
    shift = json.loads((tmp_path / "out" / "comparison.json").read_text())["shift"]
    assert shift["pairs"] == 30
    assert (shift["east"], shift["north"]) == (pytest.approx(4, abs=0.02), pytest.approx(-6.5, abs=0.02))
    buildings, _ = layers_of(tmp_path / "out")
    assert (buildings["offset_m"] < 0.05).all()
    still = compare_with_map(folder, tmp_path / "map.gpkg", CompareSettings(tmp_path / "still", shift=False))
    assert still.report["counts"]["matched"] < 5
    assert still.report["shift"] is None


def test_a_few_buildings_tell_no_shift(run: Any, tmp_path: Path) -> None:
    shapes = village()[:9]
    path = save(tmp_path / "map.gpkg", [shapely.affinity.translate(s, 2.0, 0) for s in shapes])
    found = compare_with_map(run(shapes), path, CompareSettings(tmp_path / "out"))
    assert found.report["shift"] == {"east": 0.0, "north": 0.0, "error": 0.0, "pairs": 0}


@given(st.floats(-10, 10), st.floats(-10, 10), st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_shifts_are_measured_between_houses_that_changed_in_part(x: float, y: float, seed: int) -> None:
    rng, shapes = np.random.default_rng(seed), np.array(village(), object)
    kept = rng.permutation(30)[:20]  # ten are missing in the map, five others are of another size
    mapped = shapely.transform(shapes[kept], lambda xy: xy + np.array([x, y]))
    mapped[:5] = [shapely.affinity.scale(shape, 1.2, 0.7) for shape in mapped[:5]]
    found = measure_shift(Clipped.of(shapes), Clipped.of(mapped), 0.5)
    assert abs(found.x - x) < 0.05 or np.hypot(x, y) < 0.05
    assert abs(found.y - y) < 0.05 or np.hypot(x, y) < 0.05


def test_every_building_has_one_status_and_matches_are_one_to_one() -> None:
    rng = np.random.default_rng(3)

    def boxes(n: int) -> Any:
        x, y = rng.uniform(0, 60, (2, n))
        return shapely.box(x, y, x + rng.uniform(2, 12, n), y + rng.uniform(2, 12, n))

    for _ in range(20):
        ours, theirs = boxes(25), boxes(25)
        match = match_map(Clipped.of(ours), theirs, 0.5)
        is_matched = match.status == "matched"
        partners = match.partner[is_matched]
        assert len(set(partners)) == len(partners)
        for shape, status, iou, partner in zip(ours, match.status, match.iou, match.partner, strict=True):
            shares = shapely.area(shapely.intersection(shape, theirs))
            touched = shares >= 0.1 * np.minimum(shape.area, shapely.area(theirs)) - 1e-6
            assert (status == "new") == (not touched.any())
            if partner >= 0:
                other = theirs[partner]
                assert abs(iou - shape.intersection(other).area / shape.union(other).area) < 2e-6
        of_theirs = shapely.area(shapely.intersection(theirs[:, None], ours[None]))
        least = np.minimum(shapely.area(theirs)[:, None], shapely.area(ours)[None])
        np.testing.assert_array_equal(match.is_missing, ~(of_theirs >= 0.1 * least - 1e-6).any(axis=1))


def test_parts_of_a_dissolved_map_are_buildings_and_odd_columns_are_kept(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "map.geojson"
    parts = [house(10, 10), house(40, 40), house(80, 80)]
    frame = geopandas.GeoDataFrame({"geometry": [shapely.MultiPolygon(parts)]}, crs=32630).to_crs(4326)
    document = json.loads(frame.to_json())
    del document["features"][0]["id"]
    document["features"][0]["properties"] = {"Name": "town", "name": "ville", "tags": ["a", "b"], "fid": 5}
    path.write_text(json.dumps(document))
    compare_with_map(run([house(10, 10)]), path, CompareSettings(tmp_path / "out"))
    buildings, missing = layers_of(tmp_path / "out")
    assert buildings["status"].tolist() == ["matched"]
    assert len(missing) == 2
    assert {"Name", "name_2", "tags", "fid"} <= set(missing.columns)
    assert missing["map_id"].tolist() == ["5", "5"]


def test_QGIS_finds_a_style_for_both_layers(run: Any, tmp_path: Path) -> None:
    compare_with_map(
        run([house(10, 10)]), save(tmp_path / "map.gpkg", [house(60, 60)]), CompareSettings(tmp_path / "o")
    )
    with closing(sqlite3.connect(tmp_path / "o" / "comparison.gpkg")) as database:
        rows = dict(database.execute("SELECT f_table_name, styleQML FROM layer_styles WHERE useAsDefault"))
    assert set(rows) == {"buildings", "missing"}
    assert all(f'value="{kind}"' in rows["buildings"] for kind in ("matched", "changed", "new"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"map": "elsewhere"}, "No polygon of the map .* touches the scene"),
        ({"map": "nowhere"}, "There is no map file"),
        ({"map": "bare"}, "has no CRS, but the run has"),
        ({"map_id": "name"}, "has no column 'name'. It has osm_id, geometry"),
        ({"iou": "1"}, r"--iou 1.0 is not between 0 and 1"),
        ({"run": "empty"}, "is not the folder of a finished run: it has no buildings.parquet"),
        ({"out": "taken"}, "already holds comparison.json.* or replace them with --overwrite"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_refused_in_a_line(
    run: Any, tmp_path: Path, given: dict[str, str], says: str
) -> None:
    folder = run(village())
    save(tmp_path / "map.gpkg", village(), osm_id=list(range(30)))
    save(tmp_path / "elsewhere.gpkg", [shapely.box(0, 0, 9, 9)], osm_id=[1])
    save(tmp_path / "bare.gpkg", village(), crs=None, osm_id=list(range(30)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "comparison.json").touch()
    before = sorted(tmp_path.rglob("*"))
    args = [str(tmp_path / given.get("run", folder.name)), str(tmp_path / f"{given.get('map', 'map')}.gpkg")]
    args += ["--out", str(tmp_path / given.get("out", "out"))]
    args += [word for key in ("map_id", "iou") if key in given for word in (f"--{key.replace('_', '-')}", given[key])]
    result = CliRunner().invoke(app, ["compare", *args])
    assert isinstance(result.exception, GeosegError)
    assert re.search(says, with_flags(str(result.exception))), result.exception
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.realdata
def test_a_town_moved_by_hand_is_put_back(realdata: Path, tmp_path: Path) -> None:
    mapped = geopandas.read_file(realdata / "banepa" / "buildings.geojson").to_crs(32645)
    shapes = np.array(mapped.explode().geometry)
    moved = shapely.transform(shapes, lambda xy: xy + np.array([2.5, -1.5]))
    found = measure_shift(Clipped.of(shapes), Clipped.of(moved), 0.5)
    assert (found.x, found.y) == (pytest.approx(2.5, abs=0.01), pytest.approx(-1.5, abs=0.01))
