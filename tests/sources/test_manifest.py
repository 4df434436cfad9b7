"""Manifests: a scene per row, in CSV, Parquet, GeoParquet and stac-geoparquet."""

import datetime as dt
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from geoseg.errors import ManifestError
from geoseg.sources import SceneSource, list_sources

Touch = Callable[..., list[Path]]
Bucket = Callable[[dict[str, bytes]], str]

TAKEN = dt.datetime(2023, 5, 1, 10, 30, tzinfo=dt.UTC)


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def write_table(file: Path, /, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def test_a_CSV_says_all_that_a_source_holds(touch: Touch, tmp_path: Path) -> None:
    touch("scenes/a.tif")
    path = write_csv(
        tmp_path / "m.csv",
        "cloud,path,datetime,crs,name,bands,nodata,alpha",
        '3,scenes/a.tif,2023-05-01T10:30:00Z,EPSG:32630,north,"4,3,2",0,no',
        "x,s3://b/k.tif,2023-05-01,32631,,,-3.4e38,True",
        "",
        "y,https://h/w.tif,,,,,,",
    )
    day = dt.datetime(2023, 5, 1, tzinfo=dt.UTC)
    assert list_sources([path]) == [
        SceneSource("north", (str(tmp_path / "scenes" / "a.tif"),), TAKEN, None, "EPSG:32630", (4, 3, 2), 0.0, False),
        SceneSource("k", ("s3://b/k.tif",), day, None, "EPSG:32631", None, -3.4e38, True),
        SceneSource("w", ("https://h/w.tif",)),
    ]


@pytest.mark.parametrize("column", ["path", "href", "location", "URL", " Path "])
def test_the_column_of_the_paths_has_many_names(tmp_path: Path, column: str) -> None:
    assert list_sources([write_csv(tmp_path / "m.csv", f"n,{column}", "1,s3://b/k.tif")])[0].paths == ("s3://b/k.tif",)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,bands\ns3://b/k.tif,1 2 3\n",
        "path;bands\r\ns3://b/k.tif;1,2,3\r\n",
        "path\tbands\ns3://b/k.tif\t1,2,3",
    ],
)
def test_CSV_as_spreadsheets_write_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_bytes(text.encode())
    assert list_sources([tmp_path / "m.csv"]) == [SceneSource("k", ("s3://b/k.tif",), bands=(1, 2, 3))]


@pytest.mark.parametrize("taken", ["2023-05-01T12:30:00+02:00", "2023-05-01T10:30:00Z", "2023-05-01T10:30:00"])
def test_a_time_becomes_UTC_and_one_without_a_zone_is_UTC(tmp_path: Path, taken: str) -> None:
    path = write_csv(tmp_path / "m.csv", "path,datetime", f"s3://b/k.tif,{taken}")
    assert list_sources([path])[0].datetime == TAKEN
    assert list_sources([path])[0].datetime.tzinfo == dt.UTC


def test_a_time_without_a_zone_is_UTC_on_every_computer(tmp_path: Path, local_time: str) -> None:
    path = write_csv(tmp_path / "m.csv", "path,datetime", "s3://b/k.tif,2023-05-01T10:30:00", "s3://b/l.tif,2023-05-01")
    table = write_table(
        tmp_path / "m.parquet",
        path=["s3://b/m.tif", "s3://b/n.tif"],
        datetime=[TAKEN.replace(tzinfo=None), dt.datetime(2023, 5, 1)],
    )
    midnight = dt.datetime(2023, 5, 1, tzinfo=dt.UTC)
    assert [source.datetime for source in list_sources([path, table])] == [TAKEN, midnight, TAKEN, midnight]
    days = write_table(tmp_path / "days.parquet", path=["s3://b/k.tif"], datetime=[dt.date(2023, 5, 1)])
    assert list_sources([days])[0].datetime == midnight


def test_a_period_counts_from_its_start_where_no_moment_is_given(tmp_path: Path) -> None:
    lines = ("s3://b/k.tif,,2023-05-01T10:30:00Z,2024-01-01", "s3://b/l.tif,2023-05-01T10:30:00Z,2022-01-01,2024-01-01")
    path = write_csv(tmp_path / "m.csv", "path,datetime,start_datetime,end_datetime", *lines)
    assert [source.datetime for source in list_sources([path])] == [TAKEN, TAKEN]


def test_the_path_goes_before_other_addresses_of_a_row(tmp_path: Path) -> None:
    """A table may hold the address of a page about the scene, too."""
    columns = ["url", "location", "href", "path"]
    while columns:
        cells = ",".join(f"s3://b/{column}.tif" for column in columns)
        path = write_csv(tmp_path / "m.csv", ",".join(columns), cells)
        assert list_sources([path])[0].paths == (f"s3://b/{columns.pop()}.tif",)


def test_whole_numbers_with_gaps_are_whole_numbers_in_a_table(tmp_path: Path) -> None:
    """pandas stores a column of numbers as 32630.0 where one is missing."""
    path = write_table(
        tmp_path / "m.parquet",
        path=["s3://b/k.tif", "s3://b/l.tif"],
        crs=[32630.0, float("nan")],
        name=[12345678.0, float("nan")],
        bands=[2.0, float("nan")],
        nodata=[0.1234567, float("nan")],
        alpha=[0.0, float("nan")],
    )
    assert list_sources([path]) == [
        SceneSource("12345678", ("s3://b/k.tif",), crs="EPSG:32630", bands=(2,), nodata=0.1234567, alpha=False),
        SceneSource("l", ("s3://b/l.tif",)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gone.tif,,,", r"line 3: there is no file .*gone\.tif\. A raster is expected"),
        (".,,,", r"line 3: there is no file"),
        (",2023-05-01,,", r"line 3: path is empty"),
        ("s3://b/x.tif,May 2023,,", r"line 3: datetime May 2023 cannot be read\. Expected: 2023-05-01"),
        ("s3://b/x.tif,,EPSG:0,", r"line 3: crs EPSG:0 is not a coordinate reference system\. Expected: EPSG:32630"),
        ("s3://b/x.tif,,,red", r"line 3: bands red is not a list of band numbers\. Expected: 1,2,3"),
        ("s3://b/x.tif,,,0", r"line 3: bands 0 counts from 0; bands are numbered from 1"),
        ("s3://b/x.tif,,,1,,,2", r'line 3: it has 1 values more than there are columns.*bands "1,2,3"'),
        ("s3://b/x.tif,,,,black,", r"line 3: nodata black is not a number\. Expected: 255"),
        ("s3://b/x.tif,,,,inf,", r"line 3: nodata inf is not a number"),
        ("s3://b/x.tif,,,,,maybe", r"line 3: alpha maybe is neither true nor false"),
    ],
)
def test_a_bad_row_is_named_with_what_was_expected(tmp_path: Path, line: str, message: str) -> None:
    path = write_csv(tmp_path / "m.csv", "path,datetime,crs,bands,nodata,alpha", "s3://b/k.tif", line)
    with pytest.raises(ManifestError, match=rf"(?s)m\.csv: 1 of 2 rows cannot be used.*{message}"):
        list_sources([path])


def test_all_bad_rows_are_told_at_once(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "m.csv", "path", *(f"{i}.tif" for i in range(8)), "s3://b/k.tif")
    with pytest.raises(ManifestError, match=r"8 of 9 rows") as caught:
        list_sources([path])
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines[1:6]] == [f"line {i}" for i in range(2, 7)]
    assert lines[6:] == ["and 3 more"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"does not say where its scenes are.*Found: nothing"),
        (b"scenes/a.tif\nscenes/b.tif\n", r"a column path, href, location or url is expected.*Found: scenes/a\.tif"),
        (b"path,name\n\n", r"has columns but no rows"),
        (b"path\n\xff\xfe\n", r"is not text in UTF-8"),
    ],
)
def test_a_table_that_names_no_scene_is_an_error(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(data)
    with pytest.raises(ManifestError, match=message):
        list_sources([tmp_path / "m.csv"])


def test_paths_start_from_the_manifest_on_a_server_and_in_a_bucket(
    tmp_path: Path, web: SimpleNamespace, bucket: Bucket
) -> None:
    (tmp_path / "d").mkdir()
    path = write_csv(tmp_path / "d" / "m.csv", "path", "a b.tif", "../c.tif")
    assert [s.paths[0] for s in list_sources([f"{web.url}/d/m.csv?key=1"])] == [
        f"{web.url}/d/a%20b.tif",
        f"{web.url}/c.tif",
    ]
    url = bucket({"d/m.csv": path.read_bytes()})
    assert [s.paths[0] for s in list_sources([f"{url}/d/m.csv"])] == [f"{url}/d/a b.tif", f"{url}/c.tif"]


def test_a_Parquet_table_has_the_same_columns(touch: Touch, tmp_path: Path) -> None:
    touch("a.tif")
    path = write_table(
        tmp_path / "m.parquet",
        Href=["a.tif", "s3://b/k.tif"],
        datetime=pa.array([TAKEN, None], pa.timestamp("ns", "Europe/Paris")),
        crs=[32630.0, float("nan")],
        name=["north", None],
        bands=pa.array([[4, 3, 2], None], pa.list_(pa.int64())),
        other=[1, 2],
    )
    assert list_sources([path]) == [
        SceneSource("north", (str(tmp_path / "a.tif"),), TAKEN, None, "EPSG:32630", (4, 3, 2)),
        SceneSource("k", ("s3://b/k.tif",)),
    ]


def test_times_with_nanoseconds_and_days_are_times(tmp_path: Path) -> None:
    late = pa.array([1_682_937_000_000_000_001], pa.timestamp("ns"))
    path = write_table(tmp_path / "ns.parquet", path=["s3://b/k.tif"], datetime=late)
    assert list_sources([path])[0].datetime == TAKEN
    path = write_table(tmp_path / "day.parquet", path=["s3://b/k.tif"], datetime=[dt.date(2023, 5, 1)])
    assert list_sources([path])[0].datetime == TAKEN.replace(hour=0, minute=0)


def test_a_bad_row_of_a_Parquet_table_is_named(tmp_path: Path) -> None:
    path = write_table(tmp_path / "m.parquet", path=["s3://b/k.tif", "gone.tif"])
    with pytest.raises(ManifestError, match=r"(?s)1 of 2 rows.*row 2: there is no file"):
        list_sources([path])


@pytest.mark.parametrize("name", ["m.parquet", "m.geoparquet"])
def test_geometries_of_any_CRS_are_footprints(tmp_path: Path, name: str) -> None:
    boxes = geopandas.GeoSeries([shapely.box(6, 50, 6.1, 50.1), None, shapely.Polygon()], crs=4326)
    frame = geopandas.GeoDataFrame({"location": [f"s3://b/{i}.tif" for i in "xyz"]}, geometry=boxes)
    frame.rename_geometry("where").to_crs(32632).to_parquet(tmp_path / name)
    known, *unknown = list_sources([tmp_path / name])
    assert shapely.hausdorff_distance(known.footprint, boxes[0]) < 1e-4
    assert [source.footprint for source in unknown] == [None, None]


def test_footprints_of_no_CRS_are_said_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = geopandas.GeoDataFrame({"path": ["s3://b/k.tif"]}, geometry=[shapely.box(0, 0, 1, 1)])
    frame.to_parquet(tmp_path / "m.parquet")
    assert list_sources([tmp_path / "m.parquet"])[0].footprint is None
    assert "its footprints have no CRS and are not used" in caplog.text


def stac_table() -> bytes:
    """A table as stac-geoparquet writes it: assets are a struct of all keys, with gaps."""
    assets = [
        {
            "visual": {"href": "./img/1.tif", "type": "image/tiff; application=geotiff", "roles": ["visual"]},
            "thumbnail": {"href": "t.png", "type": "image/png", "roles": ["thumbnail"]},
            "B08": {"href": "s3://b/8.tif", "type": "image/jp2", "roles": None},
        },
        {
            "visual": None,
            "thumbnail": None,
            "B08": {"href": "s3://b/9.tif", "type": "image/jp2", "roles": None},
        },
    ]
    moments = pa.array([TAKEN, TAKEN], pa.timestamp("us", "UTC"))
    frame = geopandas.GeoDataFrame(
        {"id": ["i1", "i2"], "collection": ["c", "c"]}, geometry=[shapely.box(0, 0, 1, 1)] * 2, crs=4326
    )
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    table = pq.read_table(io.BytesIO(buffer.getvalue()))
    table = table.append_column("assets", pa.array(assets)).append_column("datetime", moments)
    pq.write_table(table, buffer := io.BytesIO())
    return buffer.getvalue()


def test_a_table_of_STAC_Items_is_a_manifest(bucket: Bucket) -> None:
    url = bucket({"d/items.parquet": stac_table()})
    first, second = list_sources([f"{url}/d/items.parquet"])
    assert first == SceneSource("i1", (f"{url}/d/img/1.tif",), TAKEN, shapely.box(0, 0, 1, 1))
    assert second.paths == ("s3://b/9.tif",)
    assert [s.paths[0] for s in list_sources([f"{url}/d/items.parquet"], asset="B08")] == [
        "s3://b/8.tif",
        "s3://b/9.tif",
    ]


def test_a_row_without_the_asset_asked_for_is_named(bucket: Bucket) -> None:
    url = bucket({"items.parquet": stac_table()})
    with pytest.raises(ManifestError, match=r"(?s)1 of 2 rows.*row 2: the Item i2 has no asset visual\. Found: B08"):
        list_sources([f"{url}/items.parquet"], asset="visual")


def test_assets_that_are_no_struct_are_said(tmp_path: Path) -> None:
    path = write_table(tmp_path / "m.parquet", id=["i"], assets=['{"visual": {}}'])
    with pytest.raises(ManifestError, match=r"row 1: assets hold str; a struct of assets .* is expected"):
        list_sources([path])


def test_what_is_no_Parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"path\n")
    with pytest.raises(ManifestError, match="cannot be read as Parquet"):
        list_sources([tmp_path / "m.parquet"])
    write_table(tmp_path / "m.parquet", scene=["a.tif"])
    with pytest.raises(ManifestError, match=r"Found: scene\. Name the column"):
        list_sources([tmp_path / "m.parquet"])


def test_several_manifests_and_files_are_one_list(
    touch: Touch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch("a.tif", "b.tif")
    path = write_csv(tmp_path / "m.csv", "path,name", "b.tif,first", "a.tif,")
    assert [source.name for source in list_sources([path, tmp_path])] == ["first", "a"]
    assert "2 repeated scenes left out" in caplog.text


def test_one_file_with_other_bands_is_another_scene(touch: Touch, tmp_path: Path) -> None:
    touch("a.tif")
    path = write_csv(tmp_path / "m.csv", "path,name,bands", 'a.tif,rgb,"1,2,3"', 'a.tif,nir,"4,3,2"')
    assert [(source.name, source.bands) for source in list_sources([path])] == [("rgb", (1, 2, 3)), ("nir", (4, 3, 2))]
