"""Where images lie: ground that both trains and validates, and pictures that viewers turn."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from geoseg.errors import RecipeError
from geoseg.training.places import check_places
from geoseg.training.recipe import Source
from geoseg.training.source_files import SourcePart

SOURCE = Source(name="s", images="images/*.tif", labels="labels")


def parts_at(folder: Path, kit: SimpleNamespace, *places: tuple[str, float]) -> list[SourcePart]:
    """Write images of 40 m at some meters to the east; what each is for."""
    parts = []
    for n, (part, east_m) in enumerate(places):
        image = kit.write_tif(folder / f"{n}.tif", np.zeros((1, 80, 80)), east_m=east_m)
        parts.append(SourcePart(SOURCE, part, f"{n}", image, None, None))
    return parts


def test_a_drawn_split_of_images_that_overlap_is_refused(
    tmp_path: Path, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    parts = parts_at(tmp_path, kit, ("train", 0), ("validate", 20), ("train", 40), ("validate", 400))
    for drawn in ({"split": (0.5, 0.5)}, {"fold": (0, 2)}):
        with pytest.raises(RecipeError, match=rf"50 % of the ground of 2 validation images .* {next(iter(drawn))} = "):
            check_places(replace(SOURCE, **drawn), parts)
    assert not caplog.records
    check_places(replace(SOURCE, validate_scenes=("1", "3")), parts)
    assert "50 % of the ground of 2 validation images is also that of training images" in caplog.text
    check_places(replace(SOURCE, areas="a.gpkg", train=("a",)), parts)
    assert len(caplog.records) == 1


def test_neighbors_that_share_a_margin_are_split_without_a_word(
    tmp_path: Path, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    parts = parts_at(tmp_path, kit, ("train", 0), ("validate", 39), ("test", 39))
    check_places(replace(SOURCE, split=(0.5, 0.5)), parts)
    assert not caplog.records


def test_pictures_that_viewers_turn_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, orientation in (("upright", 1), ("turned", 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.jpg", exif=exif)
    parts = [SourcePart(SOURCE, "train", p.stem, p, None, None) for p in sorted(tmp_path.glob("*.jpg"))]
    check_places(SOURCE, parts)
    assert "1 picture (turned) have an EXIF orientation, such as 6" in caplog.text
