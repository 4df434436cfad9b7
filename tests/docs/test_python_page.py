"""The examples of docs/python.md run as they stand, in their order."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import geoseg

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_examples_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scene.tif", "buildings.gpkg"):
        shutil.copy(REPOSITORY / "sample_data" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs" / "python.md").read_text(), re.M | re.S)
    assert len(blocks) >= 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    written = names["result"].footprints
    assert len(written) > 20
    assert names["evaluation"].total.metrics()["iou"] > 0.5
    # The same threshold, smallest area and pixels: the same footprints, in memory and on disk, where they are sorted.
    least = geoseg.load_model().spec.min_area_m2
    interior = geoseg.predict_scene("scene.tif", layer="interior")
    found = geoseg.polygonize(names["result"].probability, threshold=0.5, min_area_m2=least, interior=interior)
    found, written = found.sort_values("id"), written.sort_values("id")
    assert found.geometry.to_wkb().tolist() == written.geometry.to_wkb().tolist()
    assert found["area_m2"].tolist() == written["area_m2"].tolist()
    assert found["edge"].tolist() == written["edge"].tolist()


def test_public_names_are_listed_and_found() -> None:
    assert {"polygonize", "predict_scene", "run_scene", "RunSettings"} <= set(dir(geoseg))
    for name in dir(geoseg):
        assert getattr(geoseg, name) is not None
    with pytest.raises(AttributeError, match="predict_all"):
        _ = geoseg.predict_all  # type: ignore[attr-defined]
