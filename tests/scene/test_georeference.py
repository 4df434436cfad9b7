"""Where a raster says that it lies: refused at opening if that is nowhere; a CRS that places nothing counts as none."""

import logging
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import geopandas
import pytest
import rasterio
import shapely
from affine import Affine

from geoseg.datasets.labels import read_labels
from geoseg.errors import GeoreferenceError, GeosegError, LabelError, MissingCRSError
from geoseg.inference import read_aoi
from geoseg.io.vectors import read_polygons
from geoseg.scene import open_scene

LOCAL = 'LOCAL_CS["RGF93 v1 / Lambert-93",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
NOWHERE = {
    "a name": LOCAL,
    "a height": "EPSG:5703",
    "geocentric": "EPSG:4978",
}
PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
MOON = (
    'GEOGCRS["Moon",DATUM["Moon",ELLIPSOID["Moon",1737400,0,LENGTHUNIT["metre",1]]],CS[ellipsoidal,2],'
    'AXIS["lat",north],AXIS["lon",east],ANGLEUNIT["degree",0.0174532925199433]]'
)


@pytest.mark.parametrize("crs", NOWHERE.values(), ids=NOWHERE)
def test_a_CRS_that_is_no_place_on_Earth_counts_as_none_and_is_named(write, noise, caplog, crs: str) -> None:
    path = write("a.tif", noise(3, 20, 20), crs=crs)
    with caplog.at_level(logging.WARNING):
        scene = open_scene(path)
    assert scene.grid.crs is None
    assert scene.grid.transform == PLACE
    assert "which is not of a place on Earth: its own pixels are used" in caplog.text
    assert "`crs`" in caplog.text
    assert open_scene(path, crs="EPSG:32630").grid.crs.to_epsg() == 32630
    with pytest.raises(MissingCRSError, match=r"`crs` is the CRS .* no place on Earth"):
        open_scene(path, crs=crs)


def test_labels_whose_CRS_is_only_a_name_lie_where_their_transform_puts_them(write, noise) -> None:
    scene = open_scene(write("a.tif", noise(3, 20, 20)))
    labels = write("labels.tif", (noise(1, 20, 20) > 128).astype("uint8"), crs=LOCAL)
    own = write("own.tif", rasterio.open(labels).read())
    read = [read_labels(path, scene.grid, native=scene.native) for path in (labels, own)]
    assert (read[0] == read[1]).all()
    moved = write("moved.tif", (noise(1, 20, 20) > 128).astype("uint8"), crs=LOCAL, transform=Affine(1, 0, 0, 0, -1, 0))
    with pytest.raises(GeosegError, match="lie elsewhere"):
        read_labels(moved, scene.grid, native=scene.native)


def test_an_AOI_in_the_CRS_that_stands_for_none_is_taken_to_be_in_the_scenes(write, noise, tmp_path, caplog) -> None:
    scene = open_scene(write("a.tif", noise(3, 20, 20)))
    area = shapely.box(500_001, 599_995, 500_003, 599_999)
    given = geopandas.GeoDataFrame(geometry=[area], crs=LOCAL)
    given.to_file(tmp_path / "a.geojson")
    given.to_parquet(tmp_path / "a.parquet")
    for aoi in (given, tmp_path / "a.parquet"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read_aoi(aoi, scene.grid).touches(scene.grid.window)
        assert "has no CRS: its coordinates are taken to be in the scene's" in caplog.text


def test_an_AOI_on_another_body_is_refused_with_both_CRSs(write, noise) -> None:
    scene = open_scene(write("a.tif", noise(3, 20, 20)))
    there = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=MOON)
    with pytest.raises(MissingCRSError, match=r"from Moon to EPSG:32630 \(.*Check both"):
        read_aoi(there, scene.grid)
    with pytest.raises(MissingCRSError, match=r"does not fit its CRS Moon.*no place on Earth"):
        open_scene(write("moon.tif", noise(3, 20, 20), crs=MOON, transform=Affine(1e-5, 0, 0, 0, -1e-5, 0)))


@pytest.mark.parametrize("corner", [(1e8, 1e8), (-2e7, 2e7)])
def test_web_mercator_coordinates_in_a_UTM_zone_are_refused(write, noise, corner: tuple[float, float]) -> None:
    path = write("a.tif", noise(3, 20, 20), transform=Affine(0.3, 0, corner[0], 0, -0.3, corner[1]))
    with pytest.raises(MissingCRSError, match=r"a does not fit its CRS EPSG:32630: .*`crs`"):
        open_scene(path)


WRONG = {
    "NaN": Affine(math.nan, 0, 500_000, 0, -0.3, 600_000),
    "infinite corner": Affine(0.3, 0, math.inf, 0, -0.3, 600_000),
    "no width": Affine(0, 0, 500_000, 0, -0.3, 600_000),
    "rows along columns": Affine(0.3, 0.3, 500_000, 0.3, 0.3, 600_000),
    "tiny": Affine(1e-200, 0, 0, 0, -1e-200, 0),
    "tiny beside its coordinates": Affine(1e-8, 0, 5e6, 0, -1e-8, 6e6),
    "huge": Affine(1e300, 0, 0, 0, -1e300, 0),
}


@pytest.mark.parametrize("crs", ["EPSG:32630", None])
@pytest.mark.parametrize("transform", WRONG.values(), ids=WRONG)
def test_a_transform_that_places_nothing_is_refused_at_opening(tmp_path, crs: str | None, transform: Affine) -> None:
    path = tmp_path / "a.vrt"
    srs = f"<SRS>{crs}</SRS>" if crs else ""
    numbers = ", ".join(map(repr, transform.to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="20" rasterYSize="20">{srs}<GeoTransform>{numbers}</GeoTransform>'
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    with pytest.raises(GeoreferenceError, match=r"a has the transform .* georeference it again"):
        open_scene(path)


def test_a_mosaic_names_the_scenes_without_a_place(write, noise) -> None:
    from geoseg.mosaic import choose_grid

    scenes = [open_scene(write("a.tif", noise(3, 20, 20), crs=LOCAL)), open_scene(write("b.tif", noise(3, 20, 20)))]
    with pytest.raises(MissingCRSError, match="Scenes without a CRS: 1 of 2"):
        choose_grid(scenes, crs=None, gsd_m=None)


@pytest.fixture(scope="module")
def foreign_proj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of PROJ data as an installation of another PROJ has it: the database has an older layout."""
    folder = tmp_path_factory.mktemp("proj")
    shutil.copyfile(Path(rasterio.__file__).parent / "proj_data" / "proj.db", folder / "proj.db")
    with sqlite3.connect(folder / "proj.db") as database:
        database.execute("update metadata set value = '0' where key = 'DATABASE.LAYOUT.VERSION.MINOR'")
    database.close()
    return folder


@pytest.mark.parametrize("variable", ["PROJ_LIB", "PROJ_DATA"])
def test_the_data_of_another_PROJ_are_named_and_only_what_needs_a_CRS_is_refused(
    foreign_proj: Path, variable: str, write: Callable[..., Path], noise: Callable[..., object], tmp_path: Path
) -> None:
    code = (
        "import sys, geoseg.run, geoseg.evaluate\nfrom geoseg.errors import InstallationError\n"
        "from geoseg.scene import open_scene\nfrom geoseg.io.vectors import read_polygons\n"
        "for call in (lambda: open_scene(sys.argv[1]), lambda: read_polygons('a', what='', error=ValueError)):\n"
        "    try:\n        call()\n    except InstallationError as err:\n        print(err)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, write("a.tif", noise(3, 20, 20))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, variable: str(foreign_proj)},
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == second
    assert f"The environment has {variable}={foreign_proj}" in first
    assert "unset" in first


def test_labels_in_the_CRS_that_stands_for_none_in_GeoPackage_are_one_line(write, noise, tmp_path, capfd) -> None:
    """geoseg's own polygons of a picture without georeference are in it."""
    grid = open_scene(write("a.tif", noise(3, 20, 20))).grid
    given = geopandas.GeoDataFrame(geometry=[shapely.box(1, 1, 5, 5)], crs=LOCAL)
    given.to_file(tmp_path / "a.gpkg", engine="pyogrio")
    frame = read_polygons(tmp_path / "a.gpkg", what="labels", error=LabelError)
    assert (len(frame), frame.crs) == (1, None)
    with pytest.raises(LabelError, match="no coordinate reference system"):
        read_labels(tmp_path / "a.gpkg", grid)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("interpretation", ["Point", "Area"])
@pytest.mark.parametrize("ignored", ["TRUE", "NO"])
def test_a_switch_of_GDAL_that_moves_pixels_by_half_of_one_is_named(
    write, noise, caplog: pytest.LogCaptureFixture, interpretation: str, ignored: str
) -> None:
    path = write("a.tif", noise(3, 20, 20), crs="EPSG:32631", transform=PLACE)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT=interpretation)
    with rasterio.Env(GTIFF_POINT_GEO_IGNORE=ignored):
        moved = open_scene(path).native.transform.c != PLACE.c
    assert moved is (interpretation == "Point" and ignored == "TRUE")
    assert ("GTIFF_POINT_GEO_IGNORE" in caplog.text) is moved
