from pathlib import Path

import pytest

from geoseg.errors import LabelError
from geoseg.io.pairs import find_labels
from geoseg.scene import list_files
from geoseg.sources.files import list_folder, list_pattern


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def find(scene: Path, labels: Path) -> str:
    """Return the one scene's labels, relative to their folder."""
    return find_labels([scene], labels)[0].relative_to(labels).as_posix()


def test_one_file_holds_the_labels_of_all_scenes(tmp_path):
    make(tmp_path, "all.gpkg")
    assert find_labels(["a.tif", "b.tif"], tmp_path / "all.gpkg") == [tmp_path / "all.gpkg"] * 2
    assert find_labels(["a.tif"], tmp_path / "gone.tif") == [tmp_path / "gone.tif"]  # said by who opens it


def test_labels_beside_their_scenes_are_no_scenes(tmp_path, caplog):
    make(tmp_path, "a.tif", "a_mask.tif", "b.png", "b_labels.tif", "c_mask.tif")
    scenes = [str(tmp_path / name) for name in ("a.tif", "b.png", "c_mask.tif")]
    assert list_files(tmp_path) == list_folder(str(tmp_path)) == list_pattern(str(tmp_path / "*")) == scenes
    assert "2 files left out, as the name is that of a scene's labels, such as" in caplog.text
    assert list_files(tmp_path / "a_mask.tif") == [str(tmp_path / "a_mask.tif")]
    assert find_labels(scenes[:2], tmp_path) == [tmp_path / "a_mask.tif", tmp_path / "b_labels.tif"]


@pytest.mark.parametrize("ending", ["", "_label", "_labels", "_mask"])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".gif", ".gpkg", ".shp", ".parquet", ".TIF"])
def test_labels_have_the_name_of_their_scene(tmp_path, ending, suffix):
    make(tmp_path, "other.tif", f"town{ending}{suffix}", "town2.tif")
    assert find(Path("town.tif"), tmp_path) == f"town{ending}{suffix}"
    assert find(Path("https://example.org/town.tif"), tmp_path) == f"town{ending}{suffix}"


def test_the_scenes_own_file_name_comes_first_then_no_ending_then_rasters(tmp_path):
    names = ["town.png", "town.tif", "town.gpkg", "town_mask.tif", "town_mask.geojson", "town.kml"]
    make(tmp_path / "labels", *names)
    for name in names:
        assert find(tmp_path / "town.png", tmp_path / "labels") == name
        (tmp_path / "labels" / name).unlink()


def test_a_scene_beside_its_labels_is_not_its_own_labels(tmp_path):
    make(tmp_path, "town.tif", "town.gpkg", "hill.tif", "hill_mask.tif", "lake.bil", "lake.kml")
    assert find(tmp_path / "town.tif", tmp_path) == "town.gpkg"
    assert find(tmp_path / "hill.tif", tmp_path) == "hill_mask.tif"
    assert find(tmp_path / "lake.bil", tmp_path) == "lake.kml"
    make(tmp_path, "bare.tif", "sea.bil")
    for name in ("bare.tif", "sea.bil"):
        with pytest.raises(LabelError, match="holds no labels"):
            find(tmp_path / name, tmp_path)


def test_a_geodatabase_is_a_folder_and_labels_too(tmp_path):
    (tmp_path / "town").mkdir()
    (tmp_path / "town.gdb").mkdir()
    assert find(Path("town.tif"), tmp_path) == "town.gdb"


def test_a_mapinfo_file_is_opened_by_its_tab(tmp_path):
    make(tmp_path, "town.dat", "town.id", "town.map", "town.tab")
    assert find(Path("town.tif"), tmp_path) == "town.tab"


def test_a_result_folder_finds_the_labels_of_its_scene_whatever_dots_it_has(tmp_path):
    make(tmp_path, "labels/town.tif", "labels/town.v2.tif", "town.v2_geoseg/run.json", "town.v3_geoseg/run.json")
    assert find(tmp_path / "town.v2_geoseg", tmp_path / "labels") == "town.v2.tif"
    with pytest.raises(LabelError, match=r"no labels for 1 of 1 images \(.*town\.v3_geoseg\)"):
        find(tmp_path / "town.v3_geoseg", tmp_path / "labels")


def test_a_scene_with_a_suffix_that_is_not_known_has_labels_of_its_stem_or_whole_name(tmp_path):
    make(tmp_path, "town.tif")
    assert find(Path("town.bil"), tmp_path) == "town.tif"
    make(tmp_path, "town.bil.tif")
    assert find(Path("town.bil"), tmp_path) == "town.bil.tif"


def test_scenes_of_one_name_find_the_labels_of_their_own_folder(tmp_path):
    make(tmp_path, *(f"{part}/{kind}/p.tif" for part in "78" for kind in ("images", "masks")))
    scenes = [tmp_path / part / "images" / "p.tif" for part in "78"]
    assert find_labels(scenes, tmp_path) == [tmp_path / part / "masks" / "p.tif" for part in "78"]


def test_the_folder_itself_comes_before_those_below_and_these_before_unknown_suffixes(tmp_path):
    make(tmp_path, "town.kml", "old/town.tif")
    assert find(Path("/elsewhere/town.tif"), tmp_path) == "old/town.tif"
    make(tmp_path, "town.TIF")
    assert find(Path("/elsewhere/town.tif"), tmp_path) == "town.TIF"


def test_labels_that_are_equally_near_are_refused(tmp_path):
    make(tmp_path, "a/town.tif", "b/town_mask.tif")
    with pytest.raises(LabelError, match=r"a/town\.tif and .*b/town_mask\.tif may both be the labels of town\.tif"):
        find(Path("/elsewhere/town.tif"), tmp_path)


def test_every_scene_without_labels_is_counted_and_some_are_named(tmp_path):
    make(tmp_path, "b.tif")
    with pytest.raises(LabelError, match=r"no labels for 4 of 5 images \(a\.tif, c\.tif, d\.tif and 1 more\)"):
        find_labels([f"{name}.tif" for name in "abcde"], tmp_path)


@pytest.mark.parametrize(
    ("labels", "beside"),
    [
        ("town.shp", ["town.cpg", "town.dbf", "town.prj", "town.shx", "town.shp.xml"]),
        ("town.tif", ["town.tfw", "town.tif.aux.xml", "town.tif.ovr", "._town.tif"]),
        ("town.geojson", ["town.qmd", "town.qml", "._town.geojson"]),
        ("town.kml", ["town.qmd", "town.xml", "._town.kml"]),
        ("sub/town.gpkg", ["__MACOSX/town.gpkg", "sub/._town.gpkg", "town.qmd"]),
    ],
)
def test_files_that_lie_beside_others_are_no_labels(tmp_path, labels, beside):
    make(tmp_path, labels, *beside)
    assert find(Path("/elsewhere/town.tif"), tmp_path) == labels
    (tmp_path / labels).unlink()
    with pytest.raises(LabelError, match="no labels for 1 of 1"):
        find(Path("/elsewhere/town.tif"), tmp_path)


def test_every_command_leaves_out_what_a_Mac_writes_beside_images(tmp_path):
    from geoseg.datasets.layouts import Rule, find_pairs
    from geoseg.scene import list_files
    from geoseg.sources import list_sources
    from geoseg.training.recipe import Source
    from geoseg.training.source_files import find_images

    for name in ("town", "hill"):
        make(tmp_path, *(f"{folder}/{name}.tif" for folder in ("images", "labels", "images/__MACOSX")))
        make(tmp_path, *(f"{folder}/._{name}.tif" for folder in ("images", "labels", "images/__MACOSX")))
    expected = [tmp_path / "images" / f"{name}.tif" for name in ("hill", "town")]
    assert [Path(file) for file in list_files(tmp_path / "images")] == expected
    for named in ("images", "images/*.tif", "images/**/*.tif"):
        assert [Path(*source.paths) for source in list_sources([str(tmp_path / named)])] == expected
    pairs = find_pairs(tmp_path, [Rule("images/{name}.*", ("labels/{name}.*",))])
    assert [pair.image for pair in pairs] == expected
    for pattern in ("images/*.tif", "images/**/*.tif", "images/*"):
        if pattern == "images/*":
            (tmp_path / "images" / "town.tfw").touch()
        source = Source(name="s", images=pattern, labels="labels")
        found = find_images(source, tmp_path)
        assert [pair.image for pair in found if pair.image.is_file()] == expected
