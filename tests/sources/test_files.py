"""Files, folders, patterns and prefixes of buckets: what is a scene, and what is not."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geoseg.errors import MissingFileError, SourceError, UsageError
from geoseg.sources import SceneSource, inputs, list_sources
from geoseg.sources.location import identity, join
from geoseg.sources.source import Found, safe_name

Touch = Callable[..., list[Path]]
Bucket = Callable[[dict[str, bytes]], str]


def paths(*inputs: str | Path) -> list[str]:
    sources = list_sources(inputs)
    assert all(len(source.paths) == 1 for source in sources)
    return [source.paths[0] for source in sources]


def test_a_file_is_a_scene_and_nothing_is_known_of_it_yet(touch: Touch) -> None:
    (file,) = touch("a.tif")
    assert list_sources([file]) == [SceneSource("a", (str(file),), is_direct=True)]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a/scene.tif?token=x/y.z",
        "s3://bucket/a/scene.tif",
        "/vsicurl/https://example.org/scene.tif?token=1",
        "/vsizip/a.zip/scene.tif",
        "gs://bucket/scene.tif",
    ],
)
def test_a_URL_is_a_scene_as_it_stands(url: str) -> None:
    assert list_sources([url]) == [SceneSource("scene", (url,), is_direct=True)]


def test_inputs_keep_their_order_and_folders_are_sorted(touch: Touch, tmp_path: Path) -> None:
    touch("one/b.tif", "one/a.JP2", "z.vrt")
    assert paths(tmp_path / "z.vrt", tmp_path / "one", "s3://x/k.tif") == [
        str(tmp_path / "z.vrt"),
        str(tmp_path / "one" / "a.JP2"),
        str(tmp_path / "one" / "b.tif"),
        "s3://x/k.tif",
    ]


def test_a_folder_leaves_out_hidden_and_side_files_and_folders_below(touch: Touch, tmp_path: Path) -> None:
    touch(".hidden.tif", "a.tif", "a.tif.aux.xml", "a.tif.ovr", "a.tif.msk", "a.tfw", "notes.txt", "below/b.tif")
    (tmp_path / "folder.tif").mkdir()
    assert paths(tmp_path) == [str(tmp_path / "a.tif")]


def test_a_folder_without_rasters_says_what_it_holds(touch: Touch, tmp_path: Path) -> None:
    touch("x/a.las", "x/below/b.tif", *(f"x/n{i}.txt" for i in range(9)))
    with pytest.raises(
        MissingFileError, match=r"holds no raster .* Found: a\.las, below/, n0\.txt, .* and 6 more\. .*/x/\*\*/\*\.tif"
    ):
        list_sources([tmp_path / "x"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="Found: nothing"):
        list_sources([tmp_path / "empty"])


@pytest.mark.parametrize("name", ["gone.tif", "gone/", "gone.csv", "gone.json"])
def test_what_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingFileError, match=r"There is no (file|folder) .*gone.*working folder"):
        list_sources([f"{tmp_path}/{name}"])


def test_naming_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="No scene was named"):
        list_sources([])


def test_a_pattern_crosses_folders_with_two_stars_alone(touch: Touch, tmp_path: Path) -> None:
    touch("s/a.tif", "s/t/b.tif", "s/t/u/c.tif", "s/t/.hidden/d.tif", "s/t/note.txt")
    below = [str(tmp_path / "s" / name) for name in ("a.tif", "t/b.tif", "t/u/c.tif")]
    assert paths(f"{tmp_path}/s/**/*.tif") == below
    assert paths(f"{tmp_path}/s/*.tif") == below[:1]
    assert paths(f"{tmp_path}/s/*/[a-b].tif") == below[1:2]
    assert paths(f"{tmp_path}/s/**") == below


def test_a_pattern_takes_other_suffixes_only_where_it_names_them(touch: Touch, tmp_path: Path) -> None:
    touch("a.tif", "a.tif.ovr", "a.tif.aux.xml", "b.dat", "c.txt")
    assert paths(f"{tmp_path}/*") == [str(tmp_path / "a.tif")]
    assert paths(f"{tmp_path}/*.tif*") == [str(tmp_path / "a.tif")]
    assert paths(f"{tmp_path}/*.dat") == [str(tmp_path / "b.dat")]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(touch: Touch, tmp_path: Path) -> None:
    touch("a[1].tif", "a1.tif")
    assert paths(tmp_path / "a[1].tif") == [str(tmp_path / "a[1].tif")]


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"No scene matches .*\*\.tif\. Check the pattern"):
        list_sources([f"{tmp_path}/*.tif"])


@pytest.mark.parametrize(
    "url", ["https://example.org/a/*.tif", "gs://bucket/*.tif", "/vsicurl/https://example.org/*.tif"]
)
def test_a_server_is_not_asked_what_it_holds(url: str) -> None:
    with pytest.raises(SourceError, match=r"cannot list its files.*manifest.*s3://bucket"):
        list_sources([url])


def test_a_folder_on_a_web_server_is_refused() -> None:
    with pytest.raises(SourceError, match=r"folder on a server.*catalog\.json"):
        list_sources(["https://example.org/scenes/"])


def test_results_of_geoseg_are_no_scenes(touch: Touch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = ("probability.tif", "mask.tif", "classes.tif", "interior.tif", "preview.png", "run.json")
    touch("a.tif", *results, *(f"out/b/{name}" for name in results), "out/b/.geoseg/parts/x.tif", "out/b.tif")
    with caplog.at_level(logging.WARNING):
        assert paths(f"{tmp_path}/**") == [str(tmp_path / "a.tif"), str(tmp_path / "out" / "b.tif")]
    assert "10 results of geoseg left out, such as" in caplog.text
    assert paths(tmp_path) == [str(tmp_path / "a.tif")]
    with pytest.raises(MissingFileError, match="holds no raster to segment"):
        list_sources([tmp_path / "out" / "b"])
    assert paths(tmp_path / "mask.tif") == [str(tmp_path / "mask.tif")], "named by itself it is meant"


def test_scenes_that_are_called_like_results_are_scenes(touch: Touch, tmp_path: Path) -> None:
    touch("mask.tif", "other.tif")
    assert len(paths(tmp_path)) == 2


def test_a_bucket_is_listed_by_prefix_and_by_pattern(bucket: Bucket) -> None:
    names = ["s/a.tif", "s/b.png", "s/b.txt", "s/.hidden.tif", "s/t/c.tif", "s/t/.x/d.tif", "s/", "sx/e.tif"]
    url = bucket(dict.fromkeys(names, b""))
    assert paths(f"{url}/s/") == [f"{url}/s/a.tif", f"{url}/s/b.png"]
    assert paths(f"{url}/s/**/*.tif") == [f"{url}/s/a.tif", f"{url}/s/t/c.tif"]
    assert paths(f"{url}/s/*.tif") == [f"{url}/s/a.tif"]
    assert paths(f"{url}/s*/[a-e].tif") == [f"{url}/s/a.tif", f"{url}/sx/e.tif"]
    assert paths(f"{url}/**") == [f"{url}/s/a.tif", f"{url}/s/b.png", f"{url}/s/t/c.tif", f"{url}/sx/e.tif"]


def test_keys_with_any_characters_are_scenes(bucket: Bucket) -> None:
    names = ["a b.tif", "c#1.tif", "d+e.tif", "f%20g.tif", "what?.tif", "[m].tif", "x*.tif", "xy.tif"]
    url = bucket({f"odd [1]/{name}": b"" for name in names})
    assert set(paths(f"{url}/odd [1]/")) == {f"{url}/odd [1]/{name}" for name in names}
    for name in names:
        (found,) = list_sources([f"{url}/odd [1]/{name}"])
        assert (found.paths, found.name) == ((f"{url}/odd [1]/{name}",), safe_name(name.removesuffix(".tif")))


def test_results_in_a_bucket_are_no_scenes(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    names = [
        "o/a/probability.tif",
        "o/a/mask.tif",
        "o/a/run.json",
        "o/b/.geoseg/plan.json",
        "o/b/mask.tif",
        "o/mask.tif",
    ]
    url = bucket(dict.fromkeys(names, b""))
    assert paths(f"{url}/**/*.tif") == [f"{url}/o/mask.tif"]
    assert "results of geoseg left out" in caplog.text


def test_an_empty_place_in_a_bucket_is_an_error(bucket: Bucket) -> None:
    url = bucket({"s/readme.txt": b""})
    with pytest.raises(MissingFileError, match=r"holds no raster .* Found: readme\.txt"):
        list_sources([f"{url}/s/"])
    with pytest.raises(MissingFileError, match=r"No scene matches s3://"):
        list_sources([f"{url}/s/*.tif"])


def test_what_is_named_twice_is_taken_once(
    touch: Touch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touch("b.tif", "a.tif")
    monkeypatch.chdir(tmp_path)
    again = [tmp_path, f"file://{tmp_path}/b.tif", "s3://x/k.tif", "/vsis3/x/k.tif"]
    assert paths("b.tif", *again) == ["b.tif", str(tmp_path / "a.tif"), "s3://x/k.tif"]
    assert "3 repeated scenes left out, such as" in caplog.text


def test_spaces_in_a_URL_are_escaped_once() -> None:
    assert paths("https://example.org/my%20own scene.tif") == ["https://example.org/my%20own%20scene.tif"]
    assert paths("https://example.org/50%/c#1.tif?a=%20") == ["https://example.org/50%25/c%231.tif?a=%20"]
    assert list_sources(["https://example.org/my%20own scene.tif"])[0].name == "my own scene"


def test_an_asset_that_serves_no_input_is_said(touch: Touch, caplog: pytest.LogCaptureFixture) -> None:
    list_sources(touch("a.tif"), asset="visual")
    assert "`asset=visual` is not used" in caplog.text


@pytest.mark.parametrize(
    ("base", "href", "expected"),
    [
        ("cat/item.json", "./img/a.tif", "cat/img/a.tif"),
        ("/d/cat/item.json", "../a.tif", "/d/a.tif"),
        ("item.json", "/abs/a.tif", "/abs/a.tif"),
        ("item.json", "file:///abs/a%20b.tif", "/abs/a b.tif"),
        ("item.json", "s3://b/a.tif", "s3://b/a.tif"),
        ("s3://b/x/y/item.json", "../a.tif", "s3://b/x/a.tif"),
        ("s3://b/item.json", "a.tif", "s3://b/a.tif"),
        ("s3://b/x/item.json", "/top.tif", "s3://b/top.tif"),
        ("https://h/x/item.json?sig=1", "a b.tif", "https://h/x/a%20b.tif"),
        ("https://h/x/item.json", "/top.tif?v=2", "https://h/top.tif?v=2"),
        ("https://h/x/item.json", "/vsis3/b/a.tif", "/vsis3/b/a.tif"),
    ],
)
def test_hrefs_start_beside_their_document(base: str, href: str, expected: str) -> None:
    assert join(base, href) == expected


def test_one_place_has_one_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert identity("./x/../a.tif") == identity(str(tmp_path / "a.tif")) != identity("b.tif")


def test_a_new_kind_of_input_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    sheets = inputs.Kind(lambda location: location.startswith("sheets:"), lambda location, _: [Found(location[7:])])
    monkeypatch.setattr(inputs, "KINDS", (sheets, *inputs.KINDS))
    assert paths("sheets:s3://x/a.tif", "s3://x/b.tif") == ["s3://x/a.tif", "s3://x/b.tif"]


@pytest.mark.parametrize("name", ["scene.tif", "scene.dat"])
def test_a_raster_is_found_without_pystac(name: str, touch: Touch) -> None:
    (file,) = touch(name)
    code = f"""
import sys
from geoseg.sources import list_sources
assert len(list_sources([{str(file)!r}])) == 1
assert not {{"pystac", "pyarrow", "geopandas", "torch"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_thousand_files_load_neither_pystac_nor_a_raster(touch: Touch, tmp_path: Path) -> None:
    touch(*(f"{i:04}.tif" for i in range(1000)))
    code = f"""
import sys
from geoseg.sources import list_sources
assert len(list_sources([{str(tmp_path)!r}])) == 1000
assert not {{"pystac", "pyarrow", "geopandas", "torch"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
