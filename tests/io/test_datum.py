"""Shifts between datums: what PROJ uses, what it would need to be better, and what the user is told of it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pyproj.network
import pytest
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from geoseg.datasets.labels import read_labels
from geoseg.grid import Grid
from geoseg.inference import read_aoi
from geoseg.io.datum import check_shift

CUSTOM = "+proj=tmerc +lat_0=50 +lon_0=10 +a=6378000 +rf=298 +units=m"
"""A CRS of an unknown datum."""


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    """Grids are not fetched."""
    was = pyproj.network.is_network_enabled()
    pyproj.network.set_network_enabled(False)
    yield
    pyproj.network.set_network_enabled(was)


def grid_at(epsg: int, lon: float, lat: float, gsd_m: float = 0.3) -> Grid:
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    return Grid(CRS.from_epsg(epsg), Affine(gsd_m, 0, x - 20 * gsd_m, 0, -gsd_m, y + 20 * gsd_m), (40, 40))


NORWICH = grid_at(32631, 1.3107, 52.6276)


def test_a_missing_grid_is_named_with_what_it_costs_and_how_to_get_it(caplog: pytest.LogCaptureFixture) -> None:
    shift = check_shift("labels a.gpkg", 27700, NORWICH)
    assert shift is not None
    assert shift.accuracy_m > shift.best_accuracy_m > 0
    assert len(shift.missing_grids) == 1
    (said,) = caplog.messages
    assert said.startswith("The labels a.gpkg: from EPSG:27700 to EPSG:32631")
    assert "accurate to 2 m (6.7 pixels): Inverse of British National Grid + OSGB36 to WGS 84" in said
    assert "PROJ_NETWORK=ON" in said
    assert f"projsync --file {shift.missing_grids[0]}" in said
    assert "OSTN15" in shift.missing_grids[0]


@pytest.mark.parametrize(("gsd_m", "said"), [(1.9, "accurate to 2 m (1.1 pixels)"), (2.1, "")])
def test_a_missing_grid_counts_from_a_pixel_on(caplog: pytest.LogCaptureFixture, gsd_m: float, said: str) -> None:
    shift = check_shift("AOI", 27700, grid_at(32631, 1.3107, 52.6276, gsd_m=gsd_m))
    assert shift is not None
    assert shift.missing_grids
    assert said in caplog.text
    assert bool(caplog.messages) == bool(said)


def test_an_unknown_accuracy_is_said(caplog: pytest.LogCaptureFixture) -> None:
    shift = check_shift("AOI", CUSTOM, grid_at(32632, 10, 50))
    assert shift is not None
    assert shift.accuracy_m is None
    (said,) = caplog.messages
    assert "whose accuracy is unknown" in said
    assert "Ballpark" in said


@pytest.mark.parametrize(("gsd_m", "warns"), [(0.3, True), (1.0, False)])
def test_pixels_decide_what_is_rough(caplog: pytest.LogCaptureFixture, gsd_m: float, *, warns: bool) -> None:
    shift = check_shift("AOI", 25832, grid_at(32632, 9, 50, gsd_m))
    assert shift is not None
    assert shift.accuracy_m == 1.0
    assert bool(caplog.messages) == warns


@pytest.mark.parametrize("crs", [4326, 3857, 32631, 32632, None])
def test_one_datum_needs_no_shift(caplog: pytest.LogCaptureFixture, crs: int | None) -> None:
    shift = check_shift("AOI", crs, grid_at(32632, 9, 50))
    assert shift is None or shift.accuracy_m == 0
    assert caplog.messages == []


def test_every_reader_says_it_once_per_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    house = geopandas.GeoDataFrame(geometry=[shapely.box(*NORWICH.bounds)], crs=NORWICH.crs.to_wkt()).to_crs(27700)
    for name in ("a.gpkg", "b.gpkg"):
        house.to_file(tmp_path / name)
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        for window in (NORWICH.window, NORWICH.window.expand(-10)):
            read_labels(tmp_path / "a.gpkg", NORWICH.crop(window))
        aoi = read_aoi(tmp_path / "b.gpkg", NORWICH)
    assert aoi.shift is not None
    assert aoi.shift.source == "EPSG:27700"
    assert [said.split(": ")[0] for said in caplog.messages if "PROJ uses" in said] == [
        f"The labels {tmp_path / 'a.gpkg'}",
        f"The AOI {tmp_path / 'b.gpkg'}",
    ]


def test_a_label_raster_on_another_datum_is_no_exception(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import rasterio

    own = grid_at(27700, 1.3107, 52.6276)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "width": 40, "height": 40}
    with rasterio.open(tmp_path / "l.tif", "w", crs=own.crs, transform=own.transform, **profile) as file:
        file.write(np.ones((1, 40, 40), np.uint8))
    read_labels(tmp_path / "l.tif", NORWICH)
    assert [said.split(": ")[0] for said in caplog.messages] == [f"The labels {tmp_path / 'l.tif'}"]
