"""Fine-tuning: better on held-out ground or nothing, and no pixel of that ground in training."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import torch
from numpy.typing import NDArray

from geoseg.bundle import ModelSpec, load_bundle, save_bundle
from geoseg.datasets.prepared import NO_PIXEL, PreparedScene
from geoseg.errors import BundleError, GeosegError, LabelError, RecipeError, UnknownModelError, UsageError
from geoseg.evaluate import EvaluateSettings, evaluate_scenes
from geoseg.networks import build_network
from geoseg.training import load_recipe
from geoseg.training.finetune import FinetuneSettings, Finetuning, finetune
from geoseg.training.folder import read_history

pytestmark = pytest.mark.usefixtures("scripted")

OPTIONS = {"cuts": [0.9, 0.5]}  # finds nothing; after a step all squares
FEW = {"fit.steps": 2, "fit.validate_every": 2, "fit.batch": 1, "fit.precision": "32-true"}
CORNER = (500_000, 1_000_000)


def write_base(folder: Path) -> Path:
    """Write a bundle that knows nothing yet."""
    torch.manual_seed(4)
    network = build_network("scripted", bands=3, classes=1, **OPTIONS)
    spec = ModelSpec(
        name="base",
        network="scripted",
        network_options=OPTIONS,
        bands=("red", "green", "blue"),
        gsd_m=0.5,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        stride_px=8,
        chip_px=96,
        halo_px=16,
        threshold=0.45,
        min_area_m2=0.25,
        split_depth=0.2,
        license="CC0-1.0",
    )
    return save_bundle(folder / "base.safetensors", spec, network.state_dict())


def write_scene(folder: Path, kit: SimpleNamespace) -> Path:
    """Paint bright squares on 288 px, with their truth as a raster of the same name in `labels`."""
    image, truth = kit.squares(7, size=288)
    kit.write_tif(folder / "labels" / "town.tif", truth[None], nodata=255)
    return Path(kit.write_tif(folder / "town.tif", image))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path)


@pytest.fixture
def scene(tmp_path: Path, kit: SimpleNamespace) -> Path:
    return write_scene(tmp_path, kit)


def run(scene: Path, base: Path, labels: Path | None = None, **changes: Any) -> Finetuning:
    given = {"out": scene.parent / "out", "minutes": 5.0, "overrides": FEW, **changes}
    return finetune([scene], FinetuneSettings(labels=labels or scene.parent / "labels", model=base, **given))


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, module_kit: SimpleNamespace, scripted: None
) -> tuple[Path, Finetuning]:
    """A scene, and the base fine-tuned on it."""
    scene = write_scene(tmp_path_factory.mktemp("tuned"), module_kit)
    return scene, run(scene, write_base(scene.parent))


def test_a_model_that_becomes_better_on_held_out_blocks_is_written_under_a_new_name(
    tuned: tuple[Path, Finetuning],
) -> None:
    scene, result = tuned
    assert result.gain > 0.2
    assert result.bundle == scene.parent / "out" / "base-town.safetensors"
    spec, base = load_bundle(result.bundle).spec, load_bundle(scene.parent / "base.safetensors")
    assert base.spec.name == "base"
    assert (spec.name, spec.license) == ("base-town", "CC0-1.0")
    assert spec.training["based_on"] == {"name": "base", "version": "1", "key": base.key}
    assert spec.metrics["held_out"]["new"]["iou"] == result.new["iou"]
    assert str(scene.parent) not in json.dumps(spec.to_dict())
    recipe = load_recipe(scene.parent / "out" / "recipe.toml")
    for key in ("gsd_m", "threshold", "min_area_m2", "split_depth", "chip_px", "halo_px", "license"):
        assert getattr(recipe, key) == getattr(base.spec, key), key
    assert f"better by {result.gain:.4f} IoU" in result.verdict()
    assert "| better by |" in result.table()


def test_the_figures_are_those_of_evaluate_on_the_same_blocks(tuned: tuple[Path, Finetuning]) -> None:
    scene, result = tuned
    assert result.bundle is not None
    areas = scene.parent / "out" / "blocks" / "town.gpkg"
    for model, found in ((scene.parent / "base.safetensors", result.old), (result.bundle, result.new)):
        settings = EvaluateSettings(labels=scene.parent / "labels", model=model, aoi=areas, aoi_where="split = 'held'")
        assert evaluate_scenes(scene, settings).total.metrics()["iou"] == found["iou"]


def hidden_pixels(areas: Path) -> NDArray[np.bool_]:
    """Mark the pixels of the scene whose center lies in a block that is held out."""
    frame = geopandas.read_file(areas)
    shape = frame[frame["split"] == "hidden"].union_all()
    steps = 0.5 * (np.arange(288) + 0.5)
    return np.asarray(shapely.contains_xy(shape, *np.meshgrid(CORNER[0] + steps, CORNER[1] - steps)))


def test_blocks_that_are_held_out_lie_apart_all_over_the_scene(tuned: tuple[Path, Finetuning]) -> None:
    frame = geopandas.read_file(tuned[0].parent / "out" / "blocks" / "town.gpkg")
    hidden = frame[frame["split"] == "hidden"].geometry
    assert len(hidden) == 4
    assert len(hidden.sindex.query(hidden, predicate="intersects")[0]) == len(hidden)  # each meets itself alone
    assert hidden.centroid.x.nunique() == 4


def test_no_held_out_pixel_is_in_what_is_trained_on(tuned: tuple[Path, Finetuning]) -> None:
    out = tuned[0].parent / "out"
    train = PreparedScene(next((out / "prepared" / "town").glob("*-train-*.npy")))
    areas = geopandas.read_file(out / "blocks" / "town.gpkg").dissolve("split").geometry
    assert areas["held"].within(areas["hidden"])
    assert areas["hidden"].buffer(-1e-6).disjoint(areas["train"])
    assert areas["choose"].buffer(-1e-6).disjoint(areas["train"].union(areas["hidden"]))
    (row, col), (height, width) = train.origin, train.window.shape
    inside = hidden_pixels(out / "blocks" / "town.gpkg")[row : row + height, col : col + width]
    assert inside.mean() > 0.1
    assert (train.pixels[..., -1][inside] == NO_PIXEL).all()
    assert (train.pixels[..., :-1][inside] == 0).all()
    assert (train.pixels[..., :-1][~inside] > 0).all()


def test_the_same_call_resumes_and_repeats_nothing(tuned: tuple[Path, Finetuning]) -> None:
    scene, first = tuned
    kept = [scene.parent / "out" / name for name in ("training/checkpoints/last.ckpt", "blocks/town.gpkg")]
    stamps = [path.stat().st_mtime_ns for path in kept]
    again = run(scene, scene.parent / "base.safetensors")
    assert [path.stat().st_mtime_ns for path in kept] == stamps
    assert again.new["iou"] == first.new["iou"]


def test_a_fine_tuning_of_less_time_continues(scene: Path, base: Path) -> None:
    run(scene, base, minutes=4.0)
    run(scene, base, minutes=6.0, overrides={**FEW, "fit.steps": 4})
    assert read_history(scene.parent / "out" / "training" / "history.csv")["step"] == [2, 4]


def test_polygons_are_truth_only_in_the_areas_asked_for(scene: Path, base: Path, kit: SimpleNamespace) -> None:
    shapes = [kit.box_of(slice(r, r + 24), slice(c, c + 24)) for r in range(8, 270, 48) for c in range(8, 270, 48)]
    polygons = kit.write_polygons(scene.parent / "houses.geojson", shapes)
    area = kit.write_polygons(scene.parent / "area.geojson", [kit.box_of(slice(0, 288), slice(0, 200))])
    run(scene, base, polygons, aoi=area)
    areas = geopandas.read_file(scene.parent / "out" / "blocks" / "town.gpkg")
    assert areas.total_bounds[2] == pytest.approx(500_000 + 0.5 * 200, abs=0.5)
    assert areas.total_bounds[0] == pytest.approx(500_000, abs=0.5)


def test_a_scene_without_any_polygon_is_left_out_unless_it_has_no_buildings(
    scene: Path, base: Path, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    shapes = [kit.box_of(slice(r, r + 24), slice(c, c + 24)) for r in range(8, 270, 48) for c in range(8, 270, 48)]
    polygons = kit.write_polygons(scene.parent / "houses.geojson", shapes)
    bare = kit.write_tif(scene.parent / "bare.tif", kit.squares(8, size=288)[0], east_m=1000)
    used = []
    for elsewhere in (False, True):
        out = scene.parent / f"out-{elsewhere}"
        told = FinetuneSettings(labels=polygons, model=base, out=out, overrides=FEW, elsewhere=elsewhere)
        finetune([scene, bare], told)
        used.append([source.name for source in load_recipe(out / "recipe.toml").sources])
    assert used == [["town"], ["town", "bare"]]
    assert "bare: no polygon of" in caplog.text
    assert "is left out. If it has no buildings, give `elsewhere=True`" in caplog.text


def test_too_few_labels_say_how_much_is_needed(
    scene: Path, base: Path, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    polygons = kit.write_polygons(scene.parent / "one.geojson", [kit.box_of(slice(10, 30), slice(10, 30))])
    with pytest.raises(LabelError, match=r"1 of these have 64 px of building. At least 4 labeled blocks are needed"):
        run(scene, base, polygons)
    assert "give the labeled areas as `aoi`" in caplog.text


def test_a_shipped_models_name_is_never_taken(scene: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="never replaced"):
        run(scene, base, name="buildings-30cm")
    with pytest.raises(UnknownModelError, match="Shipped"):
        run(scene, Path("roofs"))
    with pytest.raises(UsageError, match="not on this machine"):
        finetune(["https://example.org/a.tif"], FinetuneSettings(labels=scene, model=base))


def test_a_damaged_model_is_refused_before_any_work(scene: Path, base: Path) -> None:
    content = bytearray(base.read_bytes())
    content[-1] ^= 255
    base.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        run(scene, base)
    assert not (scene.parent / "out" / "prepared").exists()


def test_paths_may_be_strings_and_one_scene_needs_no_list(scene: Path, base: Path) -> None:
    out = scene.parent / "out"
    settings = FinetuneSettings(labels=str(scene.parent / "labels"), model=str(base), out=str(out), overrides=FEW)
    assert finetune(str(scene), settings).folder == out


def test_a_filter_without_areas_is_refused(base: Path) -> None:
    with pytest.raises(UsageError, match=r"`aoi_where` chooses features of `aoi`, which is not given. Give both"):
        FinetuneSettings(labels=Path("houses.gpkg"), model=base, aoi_where="split = 'train'")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"name": "a b"}, RecipeError, "name = 'a b'; expected letters"),
        ({"overrides": {"fit.stepz": 2}}, RecipeError, "unknown key fit.stepz"),
        ({"overrides": {"fit.crop_px": 33}}, RecipeError, "fit.crop_px = 33"),
        ({"overrides": {"fit.device": "cuda"}}, GeosegError, "cuda"),
    ],
)
def test_a_refused_call_leaves_nothing_behind(
    scene: Path, base: Path, changes: dict[str, Any], error: type[GeosegError], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        run(scene, base, **changes)
    assert not (scene.parent / "out").exists()


def test_polygons_of_another_place_or_none_are_named_with_both_extents(
    scene: Path, base: Path, kit: SimpleNamespace
) -> None:
    far = kit.write_polygons(scene.parent / "far.geojson", [kit.box_of(slice(200_000, 200_024), slice(0, 24))])
    with pytest.raises(LabelError, match=r"No polygon of the labels .*far.geojson touches the scene: its extent is \("):
        run(scene, base, far)
    none = scene.parent / "none.gpkg"
    geopandas.GeoDataFrame(geometry=[], crs=32631).to_file(none)
    with pytest.raises(LabelError, match=r"none.gpkg touches the scene: it contains no polygon\. Check"):
        run(scene, base, none)


def test_only_minutes_that_were_too_few_are_called_too_few(
    scene: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(scene, base)
    assert "more `minutes`" not in caplog.text
    run(scene, base, minutes=0.01, out=scene.parent / "short", overrides={**FEW, "fit.steps": 1000, "fit.batch": 64})
    assert re.search(r"There was time for \d+ steps? only in 0.01 minutes. Continue .* more `minutes`", caplog.text)
