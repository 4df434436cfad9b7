"""Sources: which pixels of which scene train, validate or do neither."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geoseg.datasets.labels import IGNORED, UNSURE
from geoseg.datasets.prepared import PreparedScene
from geoseg.errors import LabelError, RecipeError
from geoseg.training.demand import Demand
from geoseg.training.recipe import Source
from geoseg.training.sources import PreparedSource, prepare_source


def demand(**wanted: Any) -> Demand:
    usual: dict[str, Any] = {
        "gsd_m": 0.5,
        "bands": ("red", "green", "blue"),
        "stretched": True,
        "classes": ("building",),
        "target": "building",
        "colours": {},
        "unscored": (),
        "chip_px": 96,
        "halo_px": 16,
        "stride_px": 32,
        "seed": 0,
    }
    return Demand(**{**usual, **wanted})


def prepare(source: Source, world: Path, **wanted: Any) -> PreparedSource:
    return prepare_source(source, data=world, cache=world / "out" / "prepared", demand=demand(**wanted))


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


def test_the_eastern_strip_validates_and_does_not_train(world: Path, kit: SimpleNamespace) -> None:
    kit.write_polygons(world / "splits.geojson", [kit.box_of(slice(0, 160), slice(0, 100))], split=["train"])
    source = whole(images="images/a.tif", areas="splits.geojson", train=("train",), validate_east=0.2)
    prepared, (_, truth) = prepare(source, world), kit.squares(0)
    train, val = (truth_of(paths[0]) for paths in (prepared.train, prepared.validate))
    assert np.array_equal(train, only(truth, slice(None), slice(0, 80)))
    assert np.array_equal(val, only(truth, slice(None), slice(80, 100)))


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


def test_what_is_prepared_is_not_prepared_again_until_the_image_changes(world: Path, kit: SimpleNamespace) -> None:
    first = prepare(whole(), world).train
    stamp = first[0].stat().st_mtime_ns
    assert prepare(whole(weight=2.0), world).train == first
    assert first[0].stat().st_mtime_ns == stamp
    kit.write_tif(world / "images" / "a.tif", kit.squares(9, size=176)[0])
    kit.write_tif(world / "labels" / "a.tif", kit.squares(9, size=176)[1][None])
    assert prepare(whole(), world).train[0] != first[0]


def test_an_image_without_labels_is_named(world: Path) -> None:
    (world / "labels" / "b.tif").unlink()
    with pytest.raises(LabelError, match=r"1 of 3 images .*b\.tif.* have no labels in"):
        prepare(whole(), world)


def test_a_pattern_that_finds_nothing_is_named(world: Path) -> None:
    with pytest.raises(RecipeError, match=r"pictures/\*\.tif"):
        prepare(whole(images="pictures/*.tif"), world)


def test_a_source_that_only_validates_cannot_train(world: Path) -> None:
    with pytest.raises(RecipeError, match="no training scene; 3 validate"):
        prepare(whole(validate_scenes=("*",)), world)
