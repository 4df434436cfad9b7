"""Sources: which pixels of which scene train, validate or do neither."""

import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely.affinity
import torch
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.datasets.prepared import PreparedScene
from geoseg.errors import LabelError, RecipeError
from geoseg.grid import Window
from geoseg.scene import open_scene
from geoseg.testing import label_raster, paint_scene
from geoseg.third_party import allow_no_georeference
from geoseg.training import load_recipe
from geoseg.training.library import recipe_text
from geoseg.training.recipe import Fit, Network, Recipe, Source
from geoseg.training.sources import PreparedSource, prepare_source, prepare_sources


def target(**wanted: Any) -> Recipe:
    """Return a recipe by the keys that decide what is prepared, wherever they are in it."""
    of_network = {"bands", "classes", "target", "colors", "pixel_max", "options"} & set(wanted)
    of_fit = {"unscored", "seed"} & set(wanted)
    network = Network(name="unet", mean=(0.0,) * 3, std=(1.0,) * 3, **{key: wanted.pop(key) for key in of_network})
    fit = Fit(**{key: wanted.pop(key) for key in of_fit})
    keys = {"name": "r", "gsd_m": 0.5, "chip_px": 96, "halo_px": 16, "loss": {}, "sources": ()}
    return Recipe(**{**keys, "network": network, "fit": fit, **wanted})


def prepare(source: Source, world: Path, **wanted: Any) -> PreparedSource:
    return prepare_source(source, target(**wanted), data=world, cache=world / "out" / "prepared")


def truth_of(path: Path) -> NDArray[np.uint8]:
    """Return the stored truth laid into the whole scene; `IGNORED` where nothing is stored."""
    scene = PreparedScene(path)
    out = np.full(scene.scene_shape, IGNORED, np.uint8)
    (row, col), stored = scene.origin, scene.pixels[..., -1]
    out[row : row + stored.shape[0], col : col + stored.shape[1]] = stored
    return out


def only(truth: NDArray[np.uint8], rows: slice, cols: slice) -> NDArray[np.uint8]:
    out = np.full_like(truth, IGNORED)
    out[rows, cols] = truth[rows, cols]
    return out


def whole(**options: object) -> Source:
    given = {"name": "s", "images": "images/*.tif", "labels": "labels", **options}
    return Source(**given)  # type: ignore[arg-type]


def test_scenes_are_split_by_name_and_left_out_by_name(world: Path) -> None:
    prepared = prepare(whole(validate_scenes=("b",), exclude=("c*",)), world)
    assert [p.name[0] for p in prepared.train] == ["a"]
    assert [p.name[0] for p in prepared.validate] == ["b"]


def test_a_prepared_scene_holds_image_and_truth_pixel_for_pixel(world: Path, kit: SimpleNamespace) -> None:
    image, truth = kit.squares(0)
    pixels = PreparedScene(prepare(whole(), world).train[0]).pixels
    assert np.array_equal(pixels[..., :3], image.transpose(1, 2, 0))
    assert np.array_equal(pixels[..., 3], truth)


def test_a_coarser_gsd_shrinks_image_and_truth_alike(world: Path, kit: SimpleNamespace) -> None:
    image, truth = kit.squares(0)
    pixels = PreparedScene(prepare(whole(), world, gsd_m=1.0).train[0]).pixels
    assert pixels.shape == (80, 80, 4)
    mean = truth.reshape(80, 2, 80, 2).mean(axis=(1, 3))
    assert np.array_equal(pixels[..., 3], mean >= 0.5)
    shrunk = image.reshape(3, 80, 2, 80, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
    assert np.abs(pixels[..., :3] - shrunk).max() <= 0.51


def test_areas_part_one_scene_and_what_is_in_none_has_no_truth(world: Path, kit: SimpleNamespace) -> None:
    shapes = [kit.box_of(slice(10, 150), slice(10, 70)), kit.box_of(slice(10, 150), slice(90, 150))]
    kit.write_polygons(world / "splits.geojson", shapes, split=["train", "val"])
    source = whole(images="images/a.tif", areas="splits.geojson", train=("train",), validate=("val",))
    prepared, (_, truth) = prepare(source, world), kit.squares(0)
    train, val = (truth_of(paths[0]) for paths in (prepared.train, prepared.validate))
    assert np.array_equal(train, only(truth, slice(10, 150), slice(10, 70)))
    assert np.array_equal(val, only(truth, slice(10, 150), slice(90, 150)))
    kit.write_polygons(world / "splits.geojson", shapes[::-1], split=["train", "val"])  # edited since
    again = prepare(source, world)
    train, val = (truth_of(paths[0]) for paths in (again.train, again.validate))
    assert np.array_equal(train, only(truth, slice(10, 150), slice(90, 150)))
    assert np.array_equal(val, only(truth, slice(10, 150), slice(10, 70)))


def test_the_eastern_strip_validates_and_does_not_train(world: Path, kit: SimpleNamespace) -> None:
    kit.write_polygons(world / "splits.geojson", [kit.box_of(slice(0, 160), slice(50, 150))], split=["train"])
    source = whole(images="images/a.tif", areas="splits.geojson", train=("train",), validate_east=0.2)
    prepared, (_, truth) = prepare(source, world), kit.squares(0)
    train, val = (truth_of(paths[0]) for paths in (prepared.train, prepared.validate))
    assert np.array_equal(train, only(truth, slice(None), slice(50, 130)))
    assert np.array_equal(val, only(truth, slice(None), slice(130, 150)))


def test_the_western_strip_validates_and_does_not_train(world: Path, kit: SimpleNamespace) -> None:
    kit.write_polygons(world / "splits.geojson", [kit.box_of(slice(0, 160), slice(50, 150))], split=["train"])
    source = whole(images="images/a.tif", areas="splits.geojson", train=("train",), validate_west=0.3)
    prepared, (_, truth) = prepare(source, world), kit.squares(0)
    train, val = (truth_of(paths[0]) for paths in (prepared.train, prepared.validate))
    assert np.array_equal(val, only(truth, slice(None), slice(50, 80)))
    assert np.array_equal(train, only(truth, slice(None), slice(80, 150)))


def test_incomplete_labels_make_background_unsure_and_buildings_stay(world: Path, kit: SimpleNamespace) -> None:
    _, truth = kit.squares(0)
    pixels = PreparedScene(prepare(whole(complete=False), world).train[0]).pixels
    assert np.array_equal(pixels[..., 3], np.where(truth == 1, 1, UNSURE))


def test_nodata_has_no_truth(world: Path, kit: SimpleNamespace) -> None:
    image, _ = kit.squares(0)
    image[:, :30] = 0
    kit.write_tif(world / "images" / "a.tif", image, nodata=0)
    scene = PreparedScene(prepare(whole(), world).train[0])
    mask = scene.read(scene.window)["mask"]
    assert (mask[:30] == IGNORED).all()
    assert (mask[30:] != IGNORED).all()


def test_painted_scenes_train_with_their_true_footprints(world: Path) -> None:
    source = Source(name="painted", paint_seeds=(5, 7), paint_size_px=128, validate_scenes=("painted_6",))
    prepared = prepare(source, world, gsd_m=0.3)
    assert [len(prepared.train), len(prepared.validate)] == [1, 1]
    pixels = PreparedScene(prepared.train[0]).pixels
    assert pixels.shape == (128, 128, 4)
    assert 0.02 < (pixels[..., 3] == 1).mean() < 0.9


def test_dense_scenes_are_painted_where_the_source_says_so(world: Path) -> None:
    source = Source(name="painted", paint_seeds=(5, 7), paint_size_px=128, validate_scenes=("painted_6",))
    plain, dense = (prepare(replace(source, paint_kind=kind), world, gsd_m=0.3).train[0] for kind in ("plain", "dense"))
    scene = paint_scene(5, size_px=128, kind="dense")
    assert plain != dense
    np.testing.assert_array_equal(PreparedScene(dense).pixels[..., :3], scene.image.transpose(1, 2, 0))
    np.testing.assert_array_equal(PreparedScene(dense).pixels[..., 3], label_raster(scene))


def test_what_is_prepared_is_not_prepared_again_until_the_image_changes(world: Path, kit: SimpleNamespace) -> None:
    first = prepare(whole(), world).train
    stamp = first[0].stat().st_mtime_ns
    assert prepare(whole(weight=2.0, distill=True), world).train == first
    assert first[0].stat().st_mtime_ns == stamp
    kit.write_tif(world / "images" / "a.tif", kit.squares(9, size=176)[0])
    kit.write_tif(world / "labels" / "a.tif", kit.squares(9, size=176)[1][None])
    assert prepare(whole(), world).train[0] != first[0]


OTHER = {
    "gsd_m": 1.0,
    "bands": ("blue", "green", "red"),
    "pixel_max": 1.0,
    "classes": ("ground", "building"),
    "target": "roof",
    "colors": {"building": "#FFFFFF"},
    "chip_px": 128,
    "halo_px": 8,
    "options": {"encoder_depth": 4},
    "unscored": ("building",),
    "seed": 4,
}
ALIKE = {"unscored", "seed"}
OF_VALIDATION = {"chip_px", "halo_px", "options"}


def test_pixels_prepared_for_another_target_or_of_files_changed_since_are_not_used(world: Path) -> None:
    source = whole(validate_scenes=("b",), images="images/[ab].tif")
    first = prepare(source, world)
    for key, value in OTHER.items():
        classes = {"classes": ("roof",)} if key == "target" else {}
        other = prepare(source, world, **{key: value}, **classes)
        assert (other.train == first.train) == (key in ALIKE | OF_VALIDATION), key
        assert (other.validate == first.validate) == (key in ALIKE), key
    for file in (world / "images" / "a.tif", world / "labels" / "a.tif"):
        before = prepare(source, world).train
        os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))  # of the same size, written since
        assert prepare(source, world).train != before


def test_an_image_without_labels_is_named(world: Path) -> None:
    (world / "labels" / "b.tif").unlink()
    with pytest.raises(LabelError, match=r"no labels for 1 of 3 images \(.*b\.tif\)"):
        prepare(whole(), world)


def test_a_pattern_that_finds_nothing_is_named(world: Path) -> None:
    with pytest.raises(RecipeError, match=r"pictures/\*\.tif"):
        prepare(whole(images="pictures/*.tif"), world)


def test_a_source_that_only_validates_cannot_train(world: Path) -> None:
    with pytest.raises(RecipeError, match="no training scene: of 3 images, 3 for validation"):
        prepare(whole(validate_scenes=("*",)), world)


def write_picture(path: Path, values: NDArray[Any]) -> None:
    """Write a picture without georeference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".png": "PNG", ".jpg": "JPEG", ".tif": "GTiff"}[path.suffix]
    count, height, width = values.shape
    profile = {"driver": driver, "count": count, "height": height, "width": width, "dtype": values.dtype}
    with allow_no_georeference(), rasterio.open(path, "w", **profile) as file:
        file.write(values)


@pytest.fixture
def pictures(tmp_path: Path, kit: SimpleNamespace) -> Path:
    """Two areas of two pictures each, with masks in colors: black ground, white squares."""
    for area in "pq":
        for seed in (0, 1):
            image, truth = kit.squares(seed, size=96)
            write_picture(tmp_path / "data" / area / "images" / f"{seed}.png", image)
            write_picture(tmp_path / "data" / area / "masks" / f"{seed}.png", np.stack([255 * truth] * 3))
    return tmp_path / "data"


WHITE = {"building": "#FFFFFF", "ground": "#000000"}
GROUND = ("ground", "building")


def test_pictures_with_masks_in_colors_keep_their_pixels(pictures: Path, kit: SimpleNamespace) -> None:
    source = Source(name="s", layout="areas", validate_scenes=("q/*",))
    prepared = prepare(source, pictures, classes=GROUND, colors=WHITE, gsd_m=0.1)
    assert [p.name[:3] for p in (*prepared.train, *prepared.validate)] == ["p_0", "p_1", "q_0", "q_1"]
    image, truth = kit.squares(0, size=96)
    pixels = PreparedScene(prepared.train[0]).pixels
    assert np.array_equal(pixels[..., :3], image.transpose(1, 2, 0))
    assert np.array_equal(pixels[..., 3], truth)


def test_pictures_of_a_known_gsd_are_brought_to_the_recipes(pictures: Path) -> None:
    source = Source(name="s", layout="areas", gsd_m=0.25, colors=WHITE)
    pixels = PreparedScene(prepare(source, pictures, classes=GROUND).train[0]).pixels
    assert pixels.shape == (48, 48, 4)
    assert set(np.unique(pixels[..., 3])) == {0, 1}


def test_a_sources_colors_go_before_the_networks(pictures: Path) -> None:
    table = {"building": "#000000", "ground": "#FFFFFF"}
    source = Source(name="s", layout="areas", colors=table)
    turned = PreparedScene(prepare(source, pictures, classes=GROUND, colors=WHITE).train[0]).pixels
    plain = PreparedScene(prepare(replace(source, colors={}), pictures, classes=GROUND, colors=WHITE).train[0]).pixels
    assert np.array_equal(turned[..., 3], 1 - plain[..., 3])


def test_further_colors_and_values_mean_what_the_source_says(pictures: Path, world: Path, kit: SimpleNamespace) -> None:
    source = Source(name="s", layout="areas", colors={"building": "#FFFFFF"}, also={"#000000": "unknown"})
    pixels = PreparedScene(prepare(source, pictures, classes=GROUND).train[0]).pixels
    assert np.array_equal(pixels[..., 3], np.where(kit.squares(0, size=96)[1] == 1, 1, IGNORED))
    numbers = whole(images="images/a.tif", values={"0": "building", "1": "unknown"})
    truth = truth_of(prepare(numbers, world).train[0])
    assert np.array_equal(truth, np.where(kit.squares(0)[1] == 0, 1, IGNORED))


def test_a_column_names_the_class_of_each_polygon(world: Path, kit: SimpleNamespace) -> None:
    shapes = [kit.box_of(slice(10, 30), slice(40, 70)), kit.box_of(slice(80, 90), slice(0, 60))]
    kit.write_polygons(world / "b.geojson", shapes, use=["building", "water"])
    source = whole(images="images/a.tif", labels="b.geojson", label_column="use")
    truth = truth_of(prepare(source, world, classes=("ground", "building", "water")).train[0])
    expected = np.full((160, 160), IGNORED, np.uint8)
    expected[10:30, 40:70], expected[80:90, :60] = 1, 2
    assert np.array_equal(truth, expected)


def test_the_middle_of_an_image_validates(world: Path, kit: SimpleNamespace) -> None:
    prepared = prepare(whole(images="images/[ab].tif", validate_scenes=("b",), validate_px=40), world)
    middle = slice(60, 100)
    assert np.array_equal(truth_of(prepared.validate[0]), only(kit.squares(1)[1], middle, middle))
    assert np.array_equal(truth_of(prepared.train[0]), kit.squares(0)[1])


def test_every_mask_with_an_unknown_color_counts_before_training(pictures: Path) -> None:
    source = Source(name="s", layout="areas", colors={"building": "#FFFFFF"})
    with pytest.raises(LabelError, match=r"4 of 4 images cannot be used: .*0\.png has #000000 \(\d+ px\).*and 1 more"):
        prepare(source, pictures, classes=GROUND)


def test_sizes_that_differ_are_named(pictures: Path) -> None:
    write_picture(pictures / "p" / "masks" / "1.png", np.zeros((3, 96, 90), np.uint8))
    with pytest.raises(LabelError, match=r"p/masks/1\.png have 90 x 96 px, their image 96 x 96"):
        prepare(Source(name="s", layout="areas"), pictures, classes=GROUND, colors=WHITE)


def test_shares_split_by_file_and_test_is_held_out(pictures: Path) -> None:
    source = Source(name="s", layout="areas", split=(0.5, 0.25, 0.25))
    prepared = prepare(source, pictures, classes=GROUND, colors=WHITE)
    assert [len(prepared.train), len(prepared.validate), len(prepared.test)] == [2, 1, 0]


def test_a_split_file_is_written_once_and_read_thereafter(pictures: Path) -> None:
    source = Source(name="s", layout="areas", split=(0.5, 0.5), split_file="split.json")
    first = prepare(source, pictures, classes=GROUND, colors=WHITE)
    kept = json.loads((pictures / "split.json").read_text())
    assert sorted(kept["train"] + kept["validate"]) == ["p/0", "p/1", "q/0", "q/1"]
    assert prepare(source, pictures, classes=GROUND, colors=WHITE, seed=9) == first
    with pytest.raises(RecipeError, match=r"split_file = 'none\.json' is not in .*; expected the file, or split ="):
        prepare(replace(source, split=(), split_file="none.json"), pictures, classes=GROUND, colors=WHITE)


def test_a_split_that_cannot_be_kept_beside_the_data_is_kept_beside_the_results(pictures: Path) -> None:
    (pictures / "kept").touch()  # no folder: nothing can be written into it
    source = Source(name="s", layout="areas", split=(0.5, 0.5), split_file="kept/split.json")
    prepare(source, pictures, classes=GROUND, colors=WHITE)
    assert (pictures / "out" / "kept" / "split.json").exists()


def test_a_layouts_own_folders_split(tmp_path: Path, kit: SimpleNamespace) -> None:
    for folder, seed in (("train", 0), ("val", 1), ("test", 2)):
        image, truth = kit.squares(seed)
        kit.write_tif(tmp_path / "tiff" / folder / "a.tiff", image)
        kit.write_tif(tmp_path / "tiff" / f"{folder}_labels" / "a.tif", 255 * truth[None])
    source = Source(name="s", layout="split-folders", root="tiff", values={"255": "building"})
    prepared = prepare_source(source, target(), data=tmp_path, cache=tmp_path / "p", test=True)
    for paths, seed in ((prepared.train, 0), (prepared.validate, 1), (prepared.test, 2)):
        assert np.array_equal(truth_of(paths[0]), kit.squares(seed)[1])


def test_a_geopackage_of_buildings_is_enough(world: Path, kit: SimpleNamespace) -> None:
    frame = geopandas.GeoDataFrame(geometry=[kit.box_of(slice(10, 30), slice(40, 60))], crs="EPSG:32631")
    frame.to_crs(4326).to_file(world / "b.gpkg", layer="buildings")
    frame.head(0).to_file(world / "b.gpkg", layer="nothing")
    source = whole(images="images/a.tif", labels="b.gpkg", layer="buildings")
    truth = truth_of(prepare(source, world).train[0])
    assert truth[10:30, 40:60].all()
    assert truth.sum() == 400
    with pytest.raises(LabelError, match=r"layers buildings, nothing; name one of them"):
        prepare(replace(source, layer=""), world)


def test_polygons_of_another_place_are_refused_unless_an_empty_image_is_meant(
    world: Path, kit: SimpleNamespace
) -> None:
    far = shapely.affinity.translate(kit.box_of(slice(10, 30), slice(40, 60)), 5_000)
    kit.write_polygons(world / "b.geojson", [far])
    source = whole(images="images/a.tif", labels="b.geojson")
    with pytest.raises(
        LabelError, match=r"no polygon of .*b\.geojson touches the image: .*3\.04568.*EPSG:4326.*2\.99996.*in the same"
    ):
        prepare(source, world)
    assert not truth_of(prepare(replace(source, empty_ok=True), world).train[0]).any()


def test_bands_are_chosen_and_counted(world: Path, kit: SimpleNamespace) -> None:
    image, truth = kit.squares(0)
    kit.write_tif(world / "many" / "a.tif", np.concatenate([image, 7 * truth[None], image[:1]]))
    source = whole(images="many/a.tif", labels="labels/a.tif", bands=(4, 1))
    pixels = PreparedScene(prepare(source, world, bands=("nir", "red")).train[0]).pixels
    assert pixels.shape[-1] == 3
    assert np.array_equal(pixels[..., 0], 7 * truth)
    assert np.array_equal(pixels[..., 1], image[0])
    with pytest.raises(RecipeError, match=r"has 5 bands \(1, 2, 3, 4, 5 of 5\); expected 6"):
        prepare(replace(source, bands=()), world, bands=tuple("abcdef"))


def test_what_counts_as_data_may_be_said(world: Path, kit: SimpleNamespace) -> None:
    image, _ = kit.squares(0)
    image[:, :, :20] = 7
    alpha = np.where(np.arange(160) < 80, 255, np.zeros_like(image[:1]))
    kit.write_tif(world / "many" / "a.tif", np.concatenate([image, alpha.astype(np.uint8)]))
    with rasterio.open(world / "many" / "a.tif", "r+") as file:
        file.colorinterp = [*file.colorinterp[:3], ColorInterp.alpha]
    source = whole(images="many/a.tif", labels="labels/a.tif")
    for told, last in (({}, 80), ({"alpha": True}, 80), ({"alpha": False}, 160)):
        for nodata, first in ((None, 0), (7.0, 20)):
            known = truth_of(prepare(replace(source, nodata=nodata, **told), world).train[0]) <= 1
            expected = np.tile((np.arange(160) >= first) & (np.arange(160) < last), (160, 1))
            if nodata and told.get("alpha") is False:
                expected[:, :20] = True  # alpha, a band like the others, has another value there
            assert np.array_equal(known, expected), (told, nodata)
    with pytest.raises(RecipeError, match=r"^sources\.s\.nodata cannot be used: a has pixels of type uint8"):
        prepare(replace(source, nodata=-9999.0), world)
    sources = (replace(source, nodata=7.0, alpha=False), replace(source, name="t"))
    told, untold = tomllib.loads(recipe_text(target(sources=sources)))["sources"]
    assert (told["nodata"], told["alpha"]) == (7.0, False)
    assert not {"nodata", "alpha"} & set(untold)


def test_16_bit_imagery_is_stretched_as_inference_does_or_kept(world: Path) -> None:
    values = np.random.default_rng(0).integers(100, 3000, (3, 160, 160)).astype(np.uint16)
    write_picture(world / "deep" / "a.tif", values)
    source = whole(images="deep/a.tif", labels="labels/a.tif")
    stretched = PreparedScene(prepare(source, world).train[0])
    expected = open_scene(world / "deep" / "a.tif").with_levels().read(Window(0, 0, 160, 160)).values
    assert np.array_equal(stretched.pixels[..., :3], expected.transpose(1, 2, 0))
    kept = PreparedScene(prepare(source, world, pixel_max=1.0).train[0])
    assert np.array_equal(kept.pixels[..., :3], values.transpose(1, 2, 0))
    sample = kept.read(Window(3, 4, 5, 6))
    assert sample["image"].dtype == torch.float32
    assert sample["mask"].dtype == torch.uint8


def test_a_class_that_no_training_scene_holds_is_named(
    world: Path, write_recipe: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    three = ("[network]", '[network]\nclasses = ["ground", "building", "water"]')
    loss = ("bce", "ce")
    recipe = load_recipe(write_recipe(loss, three))
    with pytest.raises(LabelError, match=r"the class water is not in the training data \(ground \d+ px, .*water 0 px"):
        prepare_sources(recipe, data=world, cache=world / "cache")
    unscored = load_recipe(write_recipe(loss, three, ("[fit]", '[fit]\nunscored = ["water"]')))
    prepare_sources(unscored, data=world, cache=world / "cache")
    assert "the class water is not in the training data; it is in fit.unscored" in caplog.text


def test_a_source_whose_ground_is_unknown_is_refused(
    world: Path, write_recipe: Callable[..., Path], kit: SimpleNamespace
) -> None:
    for seed, name in enumerate("abc"):
        labels = np.where(kit.squares(seed)[1] == 1, 1, 255).astype(np.uint8)
        kit.write_tif(world / "labels" / f"{name}.tif", labels[None], nodata=255, east_m=100 * seed)
    with pytest.raises(LabelError, match=r"sources\.squares: the labels have no background, only .* values = "):
        prepare_sources(load_recipe(write_recipe()), data=world, cache=world / "cache")
    said = ('labels = "labels"', 'labels = "labels"\nvalues = { 255 = "background", 1 = "building" }')
    assert prepare_sources(load_recipe(write_recipe(said)), data=world, cache=world / "cache")


def test_masks_of_255_alone_say_how_to_read_them(
    world: Path, write_recipe: Callable[..., Path], kit: SimpleNamespace
) -> None:
    for seed, name in enumerate("abc"):
        kit.write_tif(world / "labels" / f"{name}.tif", 255 * kit.squares(seed)[1][None], east_m=100 * seed)
    with pytest.raises(
        LabelError,
        match=r'building is not in .*masks of 0 and 255 need values = \{"255" = "building"\}',
    ):
        prepare_sources(load_recipe(write_recipe()), data=world, cache=world / "cache")
    said = ('labels = "labels"', 'labels = "labels"\nvalues = { 255 = "building" }')
    assert prepare_sources(load_recipe(write_recipe(said)), data=world, cache=world / "cache")


def test_a_recipe_that_trains_on_nothing_is_refused(world: Path, write_recipe: Callable[..., Path]) -> None:
    recipe = load_recipe(write_recipe(('labels = "labels"', 'labels = "labels"\nweight = 0')))
    with pytest.raises(RecipeError, match="no source has a weight above 0"):
        prepare_sources(recipe, data=world, cache=world / "cache")
