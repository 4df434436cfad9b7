"""Layouts: each image finds its own mask, and what has no partner is named."""

from pathlib import Path

import pytest

from geoseg.datasets.layouts import LAYOUTS, Rule, find_pairs, match_files
from geoseg.errors import LabelError, RecipeError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, layout: str, **options: object) -> list[tuple[str, str, str, str]]:
    pairs = find_pairs(root, LAYOUTS[layout], **options)  # type: ignore[arg-type]
    where = [(p.image.relative_to(root), p.labels.relative_to(root) if p.labels else "") for p in pairs]
    return [(p.split, p.name, str(image), str(labels)) for p, (image, labels) in zip(pairs, where, strict=True)]


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.tiff", "train_labels/a.tif", "val/a.tiff", "val_labels/a.tif", "test/b.tiff")
    touch(tmp_path, "test_labels/b.tif", "train/a.tiff.aux.xml")
    assert found(tmp_path, "split-folders") == [
        ("train", "a", "train/a.tiff", "train_labels/a.tif"),
        ("validate", "a", "val/a.tiff", "val_labels/a.tif"),
        ("test", "b", "test/b.tiff", "test_labels/b.tif"),
    ]


def test_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "images/images/a.jpg", "images/images/b_2.PNG")
    touch(tmp_path, "label/label/a_label.tif", "label/label/b_2_label.tif")
    assert [f[1:] for f in found(tmp_path, "suffix")] == [
        ("a", "images/images/a.jpg", "label/label/a_label.tif"),
        ("b_2", "images/images/b_2.PNG", "label/label/b_2_label.tif"),
    ]


@pytest.mark.parametrize("folder", ["masks", "labels"])
def test_paired(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "images/a.tif", f"{folder}/a.png")
    assert found(tmp_path, "paired") == [("", "a", "images/a.tif", f"{folder}/a.png")]


def test_numbered_in_the_order_of_the_numbers_and_the_test_images_without_masks(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/images/img_{n}.tif" for n in (1, 2, 10)), "test/test_image_7.tif")
    touch(tmp_path, *(f"train/masks/mask_{n}.tif" for n in (1, 2, 10)))
    assert found(tmp_path, "numbered") == [
        ("", "1", "train/images/img_1.tif", "train/masks/mask_1.tif"),
        ("", "2", "train/images/img_2.tif", "train/masks/mask_2.tif"),
        ("", "10", "train/images/img_10.tif", "train/masks/mask_10.tif"),
        ("test", "7", "test/test_image_7.tif", ""),
    ]


def test_areas_repeat_names_and_are_left_out_by_name(tmp_path: Path) -> None:
    for area in ("Tile 1", "Tile 2"):
        touch(tmp_path, f"{area}/images/p_1.jpg", f"{area}/masks/p_1.png")
    assert [f[1:] for f in found(tmp_path, "areas")] == [
        ("Tile 1/p_1", "Tile 1/images/p_1.jpg", "Tile 1/masks/p_1.png"),
        ("Tile 2/p_1", "Tile 2/images/p_1.jpg", "Tile 2/masks/p_1.png"),
    ]
    assert [f[1] for f in found(tmp_path, "areas", exclude=["Tile 1/*"])] == ["Tile 2/p_1"]
    touch(tmp_path, "Tile 2/images/p_2.jpg", "Tile 2/masks/p_2.png")
    assert [f[1] for f in found(tmp_path, "areas", exclude=["p_1"])] == ["Tile 2/p_2"]


def test_a_template_of_ones_own_may_repeat_a_word(tmp_path: Path) -> None:
    touch(tmp_path, "x/a/a_rgb.tif", "x/b/c_rgb.tif", "y/a.tif")
    pairs = find_pairs(tmp_path, [Rule("x/{name}/{name}_rgb.tif", ("y/{name}.tif",))])
    assert [(p.name, p.image.name) for p in pairs] == [("a", "a_rgb.tif")]


def test_templates_and_patterns_may_be_absolute(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "masks/a.tif")
    rule = Rule(str(tmp_path / "images/{n}.tif"), (str(tmp_path / "masks/{n}.tif"),))
    for root in (tmp_path, tmp_path / "elsewhere"):
        (pair,) = find_pairs(root, [rule])
        assert (pair.name, pair.image, pair.labels) == ("a", tmp_path / "images/a.tif", tmp_path / "masks/a.tif")
        assert match_files(root, str(tmp_path / "images/*.tif")) == [tmp_path / "images/a.tif"]
    with pytest.raises(RecipeError, match=r"'a\*\*/b' is no pattern of paths"):
        match_files(tmp_path, "a**/b")


def test_images_without_masks_are_named_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{n}.tif" for n in "abcdef"), "masks/a.tif")
    with pytest.raises(LabelError, match=r"5 of 6 images \(.*b\.tif, .*c\.tif, .*d\.tif and 2 more\) have no mask at"):
        found(tmp_path, "paired")
    assert len(found(tmp_path, "paired", exclude=["[b-f]"])) == 1


def test_masks_without_images_are_named_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "masks/a.tif", "masks/b.tif")
    with pytest.raises(LabelError, match=r"1 of 2 masks \(.*b\.tif\) have no image at"):
        found(tmp_path, "paired")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "images/a.png", "masks/a.tif")
    with pytest.raises(LabelError, match=r"a\.png and .*a\.tif are both named a"):
        found(tmp_path, "paired")
