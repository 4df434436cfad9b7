"""PMTiles as others read them: the archive by the package pmtiles, single tiles by GDAL."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely

from geoseg.errors import OutputError
from geoseg.outputs import gdal
from geoseg.outputs.footprints import write_footprints
from geoseg.outputs.gdal import PMTiles

pmtiles = pytest.importorskip("pmtiles.reader")

ZOOMS = (13, 14, 15)


def town(count: int = 300, crs: str = "EPSG:32630") -> geopandas.GeoDataFrame:
    """Return houses of 10 m on 3 km."""
    place = np.random.default_rng(0).uniform(0, 3000, (count, 2))
    x, y = np.add(place, (500_000, 600_000)).T
    columns = {
        "id": [f"house {number}" for number in range(count)],
        "area_m2": np.full(count, 100.0),
        "perimeter_m": np.full(count, 40.0),
        "confidence": np.linspace(0.5, 1, count),
    }
    return geopandas.GeoDataFrame(columns, geometry=shapely.box(x, y, x + 10, y + 10), crs="EPSG:32630").to_crs(crs)


def write(frame: geopandas.GeoDataFrame, path: Path) -> Path:
    return write_footprints(frame, path, PMTiles())


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, dict[tuple[int, int, int], bytes]]]:
    """Open an archive; give the reader, and its tiles by zoom, column and row."""
    with path.open("rb") as file:
        source = pmtiles.MmapSource(file)
        yield pmtiles.Reader(source), dict(pmtiles.all_tiles(source))


def buildings(tiles: dict[tuple[int, int, int], bytes], folder: Path) -> geopandas.GeoDataFrame:
    """Return the features of tiles in Web Mercator, with the zoom."""
    found = []
    for (zoom, x, y), data in tiles.items():
        path = folder / str(zoom) / str(x) / f"{y}.pbf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.decompress(data))
        found.append(geopandas.read_file(path, layer="buildings").assign(zoom=zoom))
    return pd.concat(found)


@pytest.mark.parametrize("crs", ["EPSG:32630", "EPSG:4326"])
def test_every_building_is_in_the_tiles_of_every_zoom(tmp_path: Path, crs: str) -> None:
    frame = town(crs=crs).assign(scene="north", date=date(2023, 5, 1))  # as `geoseg merge` adds them
    path = write(frame, tmp_path / "a.pmtiles")
    with opened(path) as (reader, tiles):
        header = reader.header()
        assert (header["version"], header["tile_type"].name) == (3, "MVT")
        assert (header["min_zoom"], header["max_zoom"]) == (ZOOMS[0], ZOOMS[-1])
        bounds = [header[f"{side}_e7"] / 1e7 for side in ("min_lon", "min_lat", "max_lon", "max_lat")]
        assert bounds == pytest.approx(frame.to_crs("EPSG:4326").total_bounds, abs=1e-6)
        (layer,) = reader.metadata()["vector_layers"]
        assert layer["id"] == "buildings"
        assert layer["fields"].keys() == {"id", "area_m2", "confidence", "scene", "date"}
        found = buildings(tiles, tmp_path / "tiles")
    expected = frame.to_crs(3857).set_index("id")
    for zoom in ZOOMS:
        own = found[found["zoom"] == zoom]
        assert set(own["id"]) == set(expected.index)
        parts = own.dissolve("id").loc[expected.index]  # a building on the border of tiles is in both
        unit_m = 2 * np.pi * 6378137 / 2**zoom / 4096
        distance = shapely.hausdorff_distance(parts.geometry.array, expected.geometry.array)
        assert distance.max() < 1.5 * unit_m, zoom
        assert set(parts["scene"]) == {"north"}
        assert {str(day)[:10] for day in parts["date"]} == {"2023-05-01"}
        assert parts["confidence"].tolist() == pytest.approx(expected["confidence"].tolist())
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["a.pmtiles"]
    assert path.read_bytes() == write(frame, tmp_path / "tiles" / "a.pmtiles").read_bytes()


def test_a_building_on_the_antimeridian_is_in_the_tiles_on_both_sides_alone(tmp_path: Path) -> None:
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32660", always_xy=True).transform(179.99999, 9.0)
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[shapely.box(x, y, x + 20, y + 20)], crs=32660)
    with opened(write(frame, tmp_path / "a.pmtiles")) as (_, tiles):
        assert sorted((zoom, column) for zoom, column, _ in tiles) == [
            (zoom, column) for zoom in ZOOMS for column in (0, 2**zoom - 1)
        ]


def test_without_buildings_there_is_an_archive_without_tiles(tmp_path: Path) -> None:
    with opened(write(town().iloc[:0], tmp_path / "a.pmtiles")) as (reader, tiles):
        assert tiles == {}
        assert reader.header()["tile_type"].name == "MVT"


def test_a_dense_tile_keeps_its_detail(tmp_path: Path) -> None:
    """GDAL would encode tiles of more than 500 kB at a lower resolution, with a warning, which fails this test."""
    rng = np.random.default_rng(0)
    x, y = np.add(rng.uniform(0, 900, (30_000, 2)), (500_000, 600_000)).T
    names = [rng.bytes(16).hex() for _ in x]
    frame = geopandas.GeoDataFrame({"id": names}, geometry=shapely.box(x, y, x + 5, y + 5), crs=32630)
    with opened(write(frame, tmp_path / "a.pmtiles")) as (_, tiles):
        assert max(map(len, tiles.values())) > 600_000


@pytest.mark.parametrize("kept", [-10, 50])
def test_an_archive_that_is_cut_short_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    def cut(path: Path, layer: str) -> int | None:
        path.write_bytes(path.read_bytes()[:kept])
        return check(path, layer)

    check = gdal._check_archive
    monkeypatch.setattr(gdal, "_check_archive", cut)
    with pytest.raises(OutputError, match=r"a\.pmtiles cannot be written \(0 of 300 footprints after writing"):
        write(town(), tmp_path / "a.pmtiles")
    assert list(tmp_path.iterdir()) == []
