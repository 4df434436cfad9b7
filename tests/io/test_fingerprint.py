"""A fingerprint changes with every file that GDAL reads for a data set, and with no other."""

import os
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.io.fingerprint import files_of, fingerprint, name_changes

SQUARES = geopandas.GeoDataFrame({"kind": ["a", "b"]}, geometry=[shapely.box(0, 0, 1, 1)] * 2, crs=32631)


def raster(path: Path, *, driver: str = "GTiff", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": driver, "count": 1, "height": 64, "width": 64, "dtype": "uint8", **options}
    transform = Affine(0.5, 0, 500_000, 0, -0.5, 1_000_000)
    with rasterio.open(path, "w", crs="EPSG:32631", transform=transform, **profile) as file:
        file.write(np.ones((1, 64, 64), np.uint8))
    return path


def vrt_over(path: Path, *sources: Path) -> Path:
    named = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{os.path.relpath(source, path.parent)}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource>"
        for source in sources
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = f'<VRTRasterBand dataType="Byte" band="1">{named}</VRTRasterBand>'
    path.write_text(f'<VRTDataset rasterXSize="64" rasterYSize="64">{bands}</VRTDataset>')
    return path


def full_raster(folder: Path) -> Path:
    """A TIFF with everything beside it that GDAL reads: overviews, mask, auxiliary metadata."""
    path = raster(folder / "a.tif")
    with rasterio.Env(TIFF_USE_OVR="YES", GDAL_TIFF_INTERNAL_MASK="NO"), rasterio.open(path, "r+") as file:
        file.write_mask(np.ones((64, 64), bool))
        file.build_overviews([2])
    (folder / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    return path


def picture(folder: Path) -> Path:
    """A PNG whose world file is in capitals."""
    path = raster(folder / "a.png", driver="PNG")
    (folder / "a.png.aux.xml").unlink(missing_ok=True)
    (folder / "A.PGW").write_text("0.5\n0\n0\n-0.5\n0\n0\n")
    return path


def envi(folder: Path) -> Path:
    """A raster of two files that no list of suffixes knows: its header has the other name."""
    return raster(folder / "a.bsq", driver="ENVI")


def shapefile(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    SQUARES.to_file(folder / "a.shp")
    return folder / "a.shp"


def mapinfo(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    SQUARES.to_file(folder / "a.tab", driver="MapInfo File")
    return folder / "a.tab"


def geopackage(folder: Path) -> Path:
    """A GeoPackage that another program has edited, and left its journal."""
    folder.mkdir(parents=True, exist_ok=True)
    SQUARES.to_file(folder / "a.gpkg")
    (folder / "a.gpkg-wal").write_bytes(b"pages")
    return folder / "a.gpkg"


def folder_of_files(folder: Path) -> Path:
    raster(folder / "x.gdb" / "deep" / "a.tif")
    raster(folder / "x.gdb" / "b.tif")
    return folder / "x.gdb"


def nested(folder: Path) -> Path:
    """A VRT of a VRT of a TIFF with a mask, in other folders."""
    inner = full_raster(folder / "tiles" / "deep")
    return vrt_over(folder / "all.vrt", vrt_over(folder / "tiles" / "part.vrt", inner), raster(folder / "b.tif"))


def archive(folder: Path) -> str:
    path = raster(folder / "a.tif")
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.write(path, "in/a.tif")
    path.unlink()
    return f"/vsizip/{folder}/a.zip/in/a.tif"


KINDS: tuple[Callable[[Path], Path | str], ...] = (
    full_raster,
    picture,
    envi,
    shapefile,
    mapinfo,
    geopackage,
    folder_of_files,
    nested,
    archive,
)


def change(path: Path) -> None:
    """Write a file anew, with as many bytes: only its time tells."""
    if path.name.endswith(".aux.xml"):
        path.write_text(path.read_text().replace("0</NoData", "7</NoData"))
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(before, before + 1000))


@pytest.mark.parametrize("make", KINDS)
def test_a_change_of_any_file_changes_the_fingerprint_and_names_it(
    make: Callable[[Path], Path | str], tmp_path: Path
) -> None:
    location = make(tmp_path / "data")
    files = sorted(path for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert files
    for path in files:
        before = fingerprint([location])
        change(path)
        now = fingerprint([location])
        assert before != now, path
        assert [line.rpartition("/")[2] for line in name_changes(before, now)] == [f"{path.name} has changed since"]
    for path in files[::-1]:
        before, kept = fingerprint([location]), path.read_bytes()
        path.unlink()
        without = fingerprint([location])
        assert any("missing now" in line for line in name_changes(before, without)), path
        path.write_bytes(kept)
        assert any("is new" in line for line in name_changes(without, fingerprint([location]))), path


@pytest.mark.parametrize("make", [full_raster, picture, envi])
def test_it_knows_every_file_that_gdal_lists(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    with rasterio.open(path) as dataset:
        listed = {Path(file).resolve() for file in dataset.files}
    assert len(listed) > 1
    assert listed <= {Path(place).resolve() for place, _ in files_of(path)}


SIDES = ("", ".msk", ".ovr", ".msk.ovr")


@settings(max_examples=40, deadline=None)
@given(
    parents=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    sides=st.lists(st.sampled_from(SIDES), min_size=1, max_size=6),
    picked=st.integers(0, 1000),
)
def test_any_file_below_any_tree_of_vrts_counts(parents: list[int], sides: list[str], picked: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = [folder / f"d{n % 3}" / f"n{n}.vrt" for n in range(len(parents) + 1)]
        children: dict[int, list[Path]] = {n: [] for n in range(len(nodes))}
        for n, parent in enumerate(parents, 1):
            children[parent % n].append(nodes[n])
        for n, side in enumerate(sides):
            leaf = folder / "leaves" / f"l{n}.tif"
            leaf.parent.mkdir(exist_ok=True)
            for part in dict.fromkeys(("", side.removesuffix(".ovr") if ".msk.ovr" in side else "", side)):
                leaf.with_name(leaf.name + part).write_bytes(b"pixels")
            children[n % len(nodes)].append(leaf)
        for n, node in enumerate(nodes):
            vrt_over(node, *children[n])
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        before = fingerprint([nodes[0]])
        change(files[picked % len(files)])
        assert fingerprint([nodes[0]]) != before


def test_a_vrt_that_names_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.vrt"
    assert len(fingerprint([vrt_over(path, path)])) == 1


@pytest.mark.parametrize("make", KINDS)
def test_moved_data_have_the_fingerprint_that_they_had(make: Callable[[Path], Path | str], tmp_path: Path) -> None:
    location = make(tmp_path / "data")
    before = fingerprint([location])
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    shutil.rmtree(tmp_path / "data")
    assert fingerprint([str(location).replace(str(tmp_path / "data"), str(tmp_path / "moved"))]) == before


def test_other_data_styles_and_statistics_beside_it_do_not_count(tmp_path: Path) -> None:
    full_raster(tmp_path)
    shutil.copy(tmp_path / "a.tif", tmp_path / "b.tif")
    picked = [tmp_path / "a.tif", tmp_path / "b.tif"]
    before = fingerprint(picked)
    shapefile(tmp_path)  # labels of the same name
    for name in ("a.qml", "a.tif.md5", "c.tif", "a.geojson", "b.tif.xml"):
        (tmp_path / name).write_text("else")
    statistics = '<Metadata><MDI key="STATISTICS_MAXIMUM">1</MDI></Metadata><Histograms><HistItem/></Histograms>'
    (tmp_path / "b.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{statistics}</PAMRasterBand></PAMDataset>'
    )
    kept = (tmp_path / "a.tif.aux.xml").read_text()
    (tmp_path / "a.tif.aux.xml").write_text(kept.replace("<NoData", f"{statistics}<NoData"))
    assert fingerprint(picked) == before


def test_a_geopackage_that_is_only_open_elsewhere_is_as_before(tmp_path: Path) -> None:
    path = geopackage(tmp_path)
    path.with_name("a.gpkg-wal").unlink()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA journal_mode=WAL")
        before = fingerprint([path])
        other.execute("SELECT count(*) FROM a").fetchall()
        path.with_name("a.gpkg-shm").touch()
        assert fingerprint([path]) == before
    other.close()


def test_what_is_not_there_is_named_and_a_file_that_comes_to_be_changes_it(tmp_path: Path) -> None:
    before = fingerprint([tmp_path / "a.tif"])
    assert before == [["a.tif"]]
    raster(tmp_path / "a.tif")
    assert name_changes(before, fingerprint([tmp_path / "a.tif"])) == ["a.tif is new"]


def test_a_file_beside_it_is_seen_at_once_however_often_its_folder_was_listed(tmp_path: Path) -> None:
    path = raster(tmp_path / "a.tif")
    os.utime(tmp_path, ns=(1, 1))  # long ago, so that the names are kept
    before = fingerprint([path])
    assert fingerprint([path]) == before
    (tmp_path / "a.tif.msk").write_bytes(b"mask")
    assert fingerprint([path]) != before
