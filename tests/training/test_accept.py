"""A fine-tuned model is accepted only if it is better on held-out ground, and its threshold moves only for a gain."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.features import geometry_mask

from geoseg.bundle import ModelSpec, load_bundle, save_bundle
from geoseg.errors import GeosegError
from geoseg.networks import build_network
from geoseg.training.finetune import FinetuneSettings, Finetuning, finetune

Tune = Callable[..., Finetuning]
SHORT = {"fit.steps": 2, "fit.validate_every": 1, "fit.batch": 1, "fit.precision": "32-true"}


@pytest.fixture
def tune(tmp_path: Path, scripted: None, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """Fine-tune a scripted model on scenes of 256 px, whose cut before and after training is given.

    Buildings begin at a brightness of 130 / 255 = 0.51, but for one pixel in 500 of 0.486.
    """
    monkeypatch.setenv("GEOSEG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("geoseg.training.finetune.FEW_STEPS", 1)
    for number, name in enumerate(("p", "q")):
        image, truth = (np.tile(part, (4, 4)) for part in (kit.street()[0][0], kit.street()[1]))
        image[10::64, 30::64] = image[11::64, 30::64] = image[10::64, 31::64] = image[11::64, 31::64] = 124
        image = np.stack([np.roll(image, 11 * number, axis=1)] * 3)
        kit.write_tif(tmp_path / f"{name}.tif", image)
        kit.write_tif(tmp_path / "labels" / f"{name}.tif", truth[None], nodata=255)

    def run(before: float, after: float, scenes: str = "p", **changes: Any) -> Finetuning:
        options = {"cuts": [before, after], "pull": 0.0}
        network = build_network("scripted", bands=3, classes=1, **options)
        about: dict[str, Any] = {"name": "base", "network": "scripted", "network_options": options}
        about |= {"bands": ("red", "green", "blue"), "mean": (0, 0, 0), "std": (1, 1, 1), "stride_px": 8}
        spec = ModelSpec(**about, gsd_m=0.5, chip_px=96, halo_px=16)
        base = tmp_path / f"base{before}-{after}.safetensors"
        if not base.exists():
            save_bundle(base, spec, network.state_dict())
        given = {"labels": tmp_path / "labels", "model": base, "out": tmp_path / "out", "overrides": SHORT}
        return finetune([tmp_path / f"{name}.tif" for name in scenes], FinetuneSettings(**{**given, **changes}))

    return run


def test_a_model_is_kept_only_if_it_is_better(tune: Tune, tmp_path: Path) -> None:
    better = tune(0.7, 0.52, out=tmp_path / "better")
    assert better.gain > 0.3
    assert better.bundle is not None
    assert int(load_bundle(better.bundle).weights()["step"]) >= 1
    for out, before, after in (("equal", 0.5, 0.5), ("worse", 0.6, 0.8)):
        kept = tune(before, after, out=tmp_path / out)
        assert kept.gain <= 0
        assert kept.bundle is None
        assert kept.verdict().startswith("base is kept: the new weights are not better on")
        assert not list((tmp_path / out).glob("*.safetensors"))
        assert json.loads((tmp_path / out / "finetune.json").read_text())["better"] is False


def test_the_threshold_moves_for_a_clear_gain_alone(tune: Tune, tmp_path: Path) -> None:
    # the first cut misses only the few pixels that are darker, the second a tenth of all
    little = tune(0.9, 0.498, out=tmp_path / "little")
    figures = json.loads((tmp_path / "little" / "training" / "metrics.json").read_text())
    assert 0 < figures["iou_at_best_threshold"]["p"] - figures["iou"]["p"] < 0.005
    assert figures["best_threshold"] < 0.5
    assert little.new["threshold"] == 0.5
    clear = tune(0.9, 0.56, out=tmp_path / "clear")
    assert clear.new["threshold"] < 0.5
    assert clear.bundle is not None
    assert load_bundle(clear.bundle).spec.threshold == clear.new["threshold"]


def test_few_steps_and_little_gain_are_no_better_model(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.training.finetune.LEAST_GAIN", 0.9)
    assert tune(0.7, 0.52, out=tmp_path / "little").bundle is None
    monkeypatch.setattr("geoseg.training.finetune.LEAST_GAIN", 0.005)
    monkeypatch.setattr("geoseg.training.finetune.FEW_STEPS", 50)
    assert tune(0.9, 0.56, out=tmp_path / "few").new["threshold"] == 0.5  # moves after more steps, see above


def test_held_out_blocks_are_scored_without_their_strip_and_pooled_over_scenes(tune: Tune, tmp_path: Path) -> None:
    result = tune(0.8, 0.65, "pq")
    inset_m = 0.5 * result.blocks["inset_px"]
    both = union = 0
    for name in "pq":
        areas = geopandas.read_file(tmp_path / "out" / "blocks" / f"{name}.gpkg")
        whole = areas[areas["split"] == "hidden"].geometry
        held = areas[areas["split"] == "held"].geometry
        assert sorted(held.area) == pytest.approx(sorted(whole.buffer(-inset_m, join_style="mitre").area))
        with (
            rasterio.open(tmp_path / f"{name}.tif") as image,
            rasterio.open(tmp_path / "labels" / f"{name}.tif") as file,
        ):
            scored = geometry_mask(held, image.shape, image.transform, invert=True)
            found, true = image.read(1) / 255 > 0.8, file.read(1) == 1
        both, union = both + (found & true & scored).sum(), union + ((found | true) & scored).sum()
    assert result.old["iou"] == pytest.approx(both / union, abs=0.01)


def test_a_folder_of_other_settings_is_refused(tune: Tune, tmp_path: Path, kit: SimpleNamespace) -> None:
    (tmp_path / "more").mkdir()
    kit.write_tif(tmp_path / "more" / "p.tif", np.tile(kit.street()[1], (4, 4))[None], nodata=255)
    area = kit.write_polygons(tmp_path / "area.geojson", [kit.box_of(slice(0, 256), slice(0, 256))], use=["a"])
    others: dict[str, Any] = {
        "name": "another",
        "overrides": {**SHORT, "fit.learning_rate": 0.5},
        "labels": tmp_path / "more",
        "aoi": area,
        "codes": (("0", "background"), ("1", "building")),
        "column": "use",
        "layer": "houses",
        "instances": True,
        "elsewhere": True,
        "nodata": 7.0,
        "alpha": True,
        "seed": 1,
    }
    free = {"model": "given below", "aoi_where": "given below", "out": "another folder", "minutes": "a run continues"}
    assert {f.name for f in fields(FinetuneSettings)} == {*others, *free}
    tune(0.7, 0.6)
    for key, value in others.items():
        if key not in ("name", "overrides"):  # are in the recipe; all others are refused before it is looked at
            shutil.rmtree(tmp_path / "out" / "training" / "checkpoints", ignore_errors=True)
        with pytest.raises(GeosegError, match="`out`"):
            tune(0.7, 0.6, **{key: value})
    with pytest.raises(GeosegError, match="`out`"):
        tune(0.8, 0.6)
    with pytest.raises(GeosegError, match="`out`"):
        tune(0.7, 0.6, "pq")
    part = {"aoi": area, "out": tmp_path / "part"}
    tune(0.7, 0.6, **part)
    with pytest.raises(GeosegError, match="`out`"):
        tune(0.7, 0.6, **part, aoi_where="use = 'a'")
    labels = tmp_path / "labels" / "p.tif"
    os.utime(labels, ns=(1, labels.stat().st_mtime_ns + 1))  # of the same size, written since
    with pytest.raises(GeosegError, match="`out`"):
        tune(0.7, 0.6)
