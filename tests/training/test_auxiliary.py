"""Auxiliary channels from the labels to the bundle: what they learn, when, and what a model without them becomes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from geoseg.bundle import Bundle, ModelSpec, load_bundle, save_bundle
from geoseg.datasets.auxiliary import FULL
from geoseg.datasets.labels import IGNORED
from geoseg.datasets.prepared import NO_PIXEL, PreparedScene
from geoseg.errors import BundleError, RecipeError
from geoseg.evaluate import EvaluateSettings, LabelSettings, evaluate_scenes
from geoseg.inference import predict_scene
from geoseg.networks import Segmenter, build_network
from geoseg.training import load_recipe, train_recipe
from geoseg.training.crossval import cross_validate
from geoseg.training.finetune import FinetuneSettings, finetune
from geoseg.training.folder import read_history
from geoseg.training.recipe import Recipe
from geoseg.training.sources import prepare_source

pytestmark = pytest.mark.usefixtures("scripted")

Play = Callable[..., Path]
Planes = dict[str, NDArray[np.uint8]]

SIZE = 160
HOUSES = [(slice(20, 60), slice(20, 60)), (slice(20, 60), slice(60, 100)), (slice(100, 140), slice(100, 140))]
"""Rows and columns of 0.5 m: two share a wall, the third stands alone."""

CHANNELS = ["edge", "contact", "distance"]


@pytest.fixture
def town(tmp_path: Path, kit: SimpleNamespace) -> Path:
    """A data folder with a scene of three houses; their labels as polygons, as a raster of numbers, and as a mask."""
    numbers = np.zeros((SIZE, SIZE), np.uint16)
    for number, place in zip((7, 300, 255), HOUSES, strict=True):
        numbers[place] = number
    image = np.random.default_rng(0).integers(20, 60, (3, SIZE, SIZE)) + 160 * (numbers > 0)
    kit.write_tif(tmp_path / "data" / "town.tif", image.astype(np.uint8))
    kit.write_tif(tmp_path / "data" / "numbers.tif", numbers[None], nodata=0)
    kit.write_tif(tmp_path / "data" / "mask.tif", (numbers > 0).astype(np.uint8)[None], nodata=255)
    kit.write_polygons(tmp_path / "data" / "houses.geojson", [kit.box_of(*place) for place in HOUSES])
    return tmp_path / "data"


@pytest.fixture
def plan(write_script: Callable[..., Path]) -> Callable[..., Recipe]:
    """Make a recipe of the scripted network whose only source is the town."""

    def make(labels: str = "houses.geojson", *, keys: dict[str, Any] | None = None, **source: Any) -> Recipe:
        table = {"name": "town", "images": "town.tif", "labels": labels, **source}
        return load_recipe(write_script(), {"network.auxiliary": CHANNELS, "sources": [table], **(keys or {})})

    return make


def planes_of(recipe: Recipe, data: Path, part: str = "train") -> Planes:
    """Prepare the source of a recipe; return its auxiliary planes and `mask` by name, `where` its window begins."""
    prepared = prepare_source(recipe.sources[0], recipe, data=data, cache=data.parent / "out" / "prepared")
    (path,) = getattr(prepared, part)
    scene = PreparedScene(path)
    sample = scene.read(scene.window)
    assert scene.auxiliary == recipe.network.auxiliary
    assert sample["image"].shape[0] == 3
    names = dict(zip(scene.auxiliary, sample["auxiliary"].numpy(), strict=True))
    return {**names, "mask": sample["mask"].numpy(), "where": np.array(scene.origin)}


def ring(place: tuple[slice, slice], width: int) -> NDArray[np.bool_]:
    """Mark a band inside a house."""
    rows, cols = place
    out = np.zeros((SIZE, SIZE), bool)
    out[place] = True
    out[rows.start + width : rows.stop - width, cols.start + width : cols.stop - width] = False
    return out


def test_polygons_and_rasters_of_numbers_teach_the_same(town: Path, plan: Callable[..., Recipe]) -> None:
    keys = {"auxiliary.edge_m": 1.0, "auxiliary.contact_m": 3.0}
    expected = planes_of(plan(keys=keys), town)
    np.testing.assert_array_equal(expected["edge"] == 1, np.any([ring(place, 2) for place in HOUSES], axis=0))
    np.testing.assert_array_equal(expected["contact"][25:55, 55:65], np.tile([0, 0, *[1] * 6, 0, 0], (30, 1)))
    assert not expected["contact"][70:].any()
    assert expected["distance"][120, 120] == FULL
    found = planes_of(plan("numbers.tif", keys=keys, instances=True), town)
    for name in (*CHANNELS, "mask"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_widths_are_meters_whatever_the_pixel_size_is(town: Path, plan: Callable[..., Recipe]) -> None:
    widths = {"auxiliary.edge_m": 2.0, "auxiliary.contact_m": 4.0, "auxiliary.distance_m": 8.0}
    for gsd_m in (0.25, 0.5, 1.0):
        planes = planes_of(plan(keys={**widths, "gsd_m": gsd_m}), town)
        step = round(1 / gsd_m)  # pixels per meter
        house = (slice(50 * step, 70 * step), slice(50 * step, 70 * step))
        edge = (planes["edge"][house] == 1).sum() / step**2
        assert edge == pytest.approx(20**2 - 16**2)
        wall = (planes["contact"][20 * step] == 1).sum() / step
        assert wall == pytest.approx(4)
        middle = planes["distance"][60 * step, house[1]].astype(float) * 8 / FULL
        depth = (np.arange(20 * step) + 0.5) / step
        assert np.abs(middle - np.minimum(8, np.minimum(depth, 20 - depth))).max() <= 8 / FULL


def test_other_widths_are_drawn_anew_and_those_of_no_channel_change_nothing(
    town: Path, plan: Callable[..., Recipe]
) -> None:
    def path(**keys: Any) -> Path:
        given = {key.replace("__", "."): value for key, value in keys.items()}
        recipe = plan(keys=given)
        cache = town.parent / "out" / "prepared"
        return prepare_source(recipe.sources[0], recipe, data=town, cache=cache).train[0]

    first = path()
    assert path(auxiliary__weights={"edge": 2.0}, auxiliary__gamma=2.0) == first
    others = [path(**{f"auxiliary__{key}": 7.0}) for key in ("edge_m", "contact_m", "distance_m", "single_m2")]
    assert len({first, *others}) == 5
    none = path(network__auxiliary=[])
    assert none not in {first, *others}
    assert path(network__auxiliary=[], auxiliary__edge_m=7.0) == none
    assert PreparedScene(none).pixels.shape[-1] == 4


def test_a_mask_teaches_walls_around_components_and_no_more(town: Path, plan: Callable[..., Recipe]) -> None:
    keys = {"auxiliary.edge_m": 1.0, "auxiliary.contact_m": 3.0, "auxiliary.single_m2": 450.0}
    planes = planes_of(plan("mask.tif", keys=keys), town)
    pair = (slice(20, 60), slice(20, 100))  # 800 m2: one component, perhaps several houses
    np.testing.assert_array_equal(planes["edge"] == 1, ring(pair, 2) | ring(HOUSES[2], 2))
    assert (planes["edge"][22:58, 22:98] == IGNORED).all()
    assert (planes["contact"][pair] == IGNORED).all()
    for name in ("edge", "contact"):
        assert (planes[name][102:138, 102:138] == 0).all()  # 400 m2 are one house
    several = planes_of(plan("mask.tif", keys={**keys, "auxiliary.single_m2": 350.0}), town)
    assert (several["contact"][HOUSES[2]] == IGNORED).all()


def test_nothing_is_known_outside_the_areas_and_walls_of_incomplete_labels_only_inside(
    town: Path, plan: Callable[..., Recipe], kit: SimpleNamespace
) -> None:
    kit.write_polygons(town / "areas.geojson", [kit.box_of(slice(0, 160), slice(0, 70))], split=["west"])
    half = planes_of(plan(areas="areas.geojson", train=["west"]), town)
    whole = planes_of(plan(), town)
    for name in CHANNELS:
        np.testing.assert_array_equal(half[name][:, :70], whole[name][:, :70])
        assert (half[name][:, 70:] == IGNORED).all()
    partial = planes_of(plan(complete=False), town)
    ground = whole["mask"] == 0
    for name in CHANNELS:
        kept = whole[name][ground]
        np.testing.assert_array_equal(partial[name][ground], np.where(kept > 0, kept, IGNORED))
    assert (partial["edge"][~ground] == whole["edge"][~ground]).all()


def test_the_chips_of_a_validation_part_have_the_planes_of_the_scene(town: Path, plan: Callable[..., Recipe]) -> None:
    whole = planes_of(plan(), town)
    part = planes_of(plan(validate_east=0.5), town, "validate")
    row, col = part["where"]
    assert col > 0
    for name in CHANNELS:
        np.testing.assert_array_equal(part[name][:, 80 - col :], whole[name][row : row + len(part[name]), 80:])
        assert (part[name][:, : 80 - col] == IGNORED).all()


def test_painted_scenes_know_walls_and_contacts_but_those_at_their_border(
    plan: Callable[..., Recipe], town: Path
) -> None:
    recipe = plan(
        keys={
            "gsd_m": 0.3,
            "sources": [{"name": "painted", "paint_seeds": [3, 4], "paint_kind": "dense", "paint_size_px": 256}],
        }
    )
    planes = planes_of(recipe, town)
    inside = planes["mask"] == 1
    known = planes["edge"] != IGNORED
    assert not (planes["edge"] == 1)[~inside].any()
    assert known[2:-2, 2:-2].all()
    assert not known[0][inside[0]].any()
    assert 0.1 < (planes["edge"] == 1).sum() / inside.sum() < 0.9
    assert (planes["contact"] == 1).sum() > 100


AUXILIARY: dict[str, Any] = {"network__auxiliary": ["edge", "contact"]}
BAND = {"auxiliary__edge_m": 2.0, "auxiliary__contact_m": 3.0}
SIGNS = {"network__options__signs": [0.0, 1.0, 0.0], "network__options__pull": 0.0}


@pytest.fixture
def walled(tmp_path: Path, kit: SimpleNamespace) -> list[dict[str, Any]]:
    """Two scenes that are bright where the edges of their houses are; the sources of a recipe."""
    shapes, image = [], np.full((64, 64), 20, np.uint8)
    for rows, cols in ((slice(8, 28), slice(8, 32)), (slice(8, 28), slice(32, 56)), (slice(40, 56), slice(10, 30))):
        shapes.append(kit.box_of(rows, cols))
        image[rows, cols] = 240
        image[rows.start + 4 : rows.stop - 4, cols.start + 4 : cols.stop - 4] = 20
    for name in "ab":
        kit.write_tif(tmp_path / "data" / "walled" / f"{name}.tif", np.stack([image] * 3))
    kit.write_polygons(tmp_path / "data" / "walled.geojson", shapes)
    source = {"name": "walled", "images": "walled/*.tif", "labels": "walled.geojson", "validate_scenes": ["b"]}
    return [source]


def test_channels_learn_by_their_weights_and_move_with_the_image(play: Play, walled: list[dict[str, Any]]) -> None:
    given = {**AUXILIARY, **BAND, **SIGNS, "sources": walled, "augment": [{"step": "dihedral"}]}
    history = read_history(play("plain", **given) / "history.csv")
    for part in ("train", "validation"):  # the network says where it is bright, and 1/2 of everything else
        terms = {name: history[f"{part}_{name}"][0] for name in ("bce", "edge", "contact", "loss")}
        assert terms["edge"] < 0.01
        assert terms["contact"] > np.log(2)
        assert terms["bce"] == pytest.approx(np.log(2), rel=1e-4)
        assert terms["loss"] == pytest.approx(terms["bce"] + 0.5 * terms["edge"] + 0.5 * terms["contact"], rel=1e-4)
    assert history["edge_iou"] == [1.0]
    assert history["edge_f1"] == [1.0]
    assert 0 < history["contact_iou"][0] < 0.2
    weighed = {"auxiliary__weights": {"contact": 3.0}, "auxiliary__gamma": 2.0}
    focused = read_history(play("weighed", **given, **weighed) / "history.csv")
    assert focused["train_contact"][0] == pytest.approx(history["train_contact"][0] - 0.75 * np.log(2), rel=1e-3)
    total = focused["train_bce"][0] + 0.5 * focused["train_edge"][0] + 3 * focused["train_contact"][0]
    assert focused["train_loss"][0] == pytest.approx(total, rel=1e-4)


def test_a_bundle_names_its_channels_and_runs(play: Play, walled: list[dict[str, Any]], tmp_path: Path) -> None:
    out = play(**AUXILIARY, **BAND, **SIGNS, sources=walled)
    bundle = load_bundle(out / "play.safetensors")
    assert bundle.spec.auxiliary == ("edge", "contact")
    assert bundle.spec.channels == ("building", "edge", "contact")
    assert bundle.spec.training["auxiliary"]["edge_m"] == 2.0
    scores = json.loads((out / "metrics.json").read_text())["auxiliary"]
    assert scores["edge"]["walled"]["iou"] == 1.0
    assert bundle.spec.metrics["validation"]["auxiliary"] == scores
    assert "| edge | walled | 1.000 |" in (out / "model-card.md").read_text()
    image = tmp_path / "data" / "walled" / "b.tif"
    with rasterio.open(image) as file:
        pixels = file.read()
    network = build_network("scripted", bands=3, classes=3, **bundle.spec.network_options)
    network.load_state_dict(bundle.weights())
    with torch.inference_mode():
        channels = Segmenter(network, bundle.spec).eval()(torch.from_numpy(pixels)[None].float())[0].numpy()
    np.testing.assert_array_equal(channels[1] > 0.5, pixels[0] == 240)
    interior = predict_scene(image, model=bundle.path, layer="interior").values
    assert interior[pixels[0] == 240].max() < interior[pixels[0] == 20].min()


def write_bundle(
    path: Path, name: str, auxiliary: Sequence[str], options: dict[str, Any], classes: Sequence[str] = ("building",)
) -> Bundle:
    """Write a bundle of a network that is not trained."""
    torch.manual_seed(1)
    network = build_network(name, bands=3, classes=len(classes) + len(auxiliary), **options)
    spec = ModelSpec(
        name="old",
        network=name,
        network_options=options,
        bands=("red", "green", "blue"),
        gsd_m=0.5,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        classes=tuple(classes),
        auxiliary=tuple(auxiliary),
        stride_px=8,
        chip_px=64,
        halo_px=0,
    )
    return load_bundle(save_bundle(path, spec, network.state_dict()))


SMALL = {"encoder": "mobilenet_v2", "encoder_depth": 3, "decoder_channels": [32, 16, 8]}


@pytest.mark.parametrize(
    ("name", "head", "options"), [("scripted", "head", {}), ("unet", "segmentation_head.0", SMALL)]
)
def test_a_head_that_is_widened_keeps_its_channels_and_begins_new_ones_small(
    play: Play, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, head: str, options: dict[str, Any]
) -> None:
    caplog.set_level("INFO")
    old = write_bundle(tmp_path / "old.safetensors", name, (), options)
    rates = {"fit__learning_rate": 1e-8, "fit__weight_decay": 0.0, "fit__average_decay": 0.0}
    extra = {"network__encoder": options["encoder"]} if "encoder" in options else {}
    given = {"network__name": name, "network__options": {k: v for k, v in options.items() if k != "encoder"}}
    out = play(**AUXILIARY, **given, **extra, **rates, network__start_from=str(old.path))
    before, after = old.weights(), load_bundle(out / "play.safetensors").weights()
    for kind in ("weight", "bias"):
        was, now = before[f"{head}.{kind}"].float(), after[f"{head}.{kind}"].float()
        assert len(now) == 3
        torch.testing.assert_close(now[:1], was, atol=1e-5, rtol=1e-3)
    assert after[f"{head}.bias"][1:].tolist() == pytest.approx([-3.0, -3.0], abs=1e-3)
    new = after[f"{head}.weight"][1:].float().abs()
    fan_in = before[f"{head}.weight"][0].numel()
    assert 0 < float(new.max()) < 0.3 * fan_in**-0.5 * 3**0.5  # a tenth of what layers begin with
    assert not torch.equal(new[0], new[1])
    assert "has no channels for edge, contact; they start untrained" in caplog.text


def test_channels_are_matched_by_name_when_others_are_asked_for(play: Play, tmp_path: Path) -> None:
    old = write_bundle(tmp_path / "old.safetensors", "scripted", ("edge", "contact"), {})
    rates = {"fit__learning_rate": 1e-8, "fit__weight_decay": 0.0, "fit__average_decay": 0.0}
    before = old.weights()["head.weight"].float()
    for wanted, origin in (
        (["contact", "edge"], [0, 2, 1]),
        (["distance", "edge"], [0, None, 1]),
        ([], [0]),
        (["edge", "distance", "contact"], [0, 1, None, 2]),
    ):
        keys = {**rates, "network__auxiliary": wanted, "network__start_from": str(old.path)}
        weights = load_bundle(play("-".join(wanted) or "none", **keys) / "play.safetensors").weights()
        assert len(weights["head.weight"]) == len(origin)
        for channel, source in enumerate(origin):
            own = weights["head.weight"][channel].float()
            if source is None:
                assert weights["head.bias"][channel].item() == pytest.approx(-3.0, abs=1e-3)
            else:
                torch.testing.assert_close(own, before[source], atol=1e-5, rtol=1e-3)
    more = {"network__classes": ["ground", "building"], "loss": {"ce": 1.0}}
    with pytest.raises(BundleError, match="do not fit"):
        play("more", **more, **AUXILIARY, network__start_from=str(old.path))


def test_a_run_taken_up_again_goes_on_with_its_channels_and_refuses_others(play: Play) -> None:
    for steps in (2, 4):
        out = play("halves", **AUXILIARY, fit__steps=steps)
    history = read_history(out / "history.csv")
    assert history["step"] == [1, 2, 3, 4]
    assert len([loss for loss in history["train_edge"] if loss > 0]) == 4
    assert not list(out.glob("history-*.csv"))
    for keys in ({"network__auxiliary": ["edge"]}, {**AUXILIARY, "auxiliary__edge_m": 0.7}):
        with pytest.raises(RecipeError, match=r"auxiliary.*`out`"):
            play("halves", **keys, fit__steps=6)


def test_channels_of_several_classes_are_those_of_the_target(play: Play, walled: list[dict[str, Any]]) -> None:
    source = [{**walled[0], "label_column": ""}]
    keys = {"network__classes": ["ground", "building"], "loss": {"ce": 1.0}, "network__options__pull": 0.0}
    out = play(**keys, **AUXILIARY, **BAND, sources=source, network__options__signs=[-1.0, 1.0, 1.0, 1.0])
    history = read_history(out / "history.csv")
    assert history["edge_iou"] == [1.0]
    assert history["iou"][0] < 0.9
    assert load_bundle(out / "play.safetensors").spec.channels == ("ground", "building", "edge", "contact")


FEW = {"fit.steps": 2, "fit.validate_every": 2, "fit.batch": 1, "fit.precision": "32-true"}


@pytest.fixture
def village(tmp_path: Path, kit: SimpleNamespace) -> Path:
    """A scene of bright houses in pairs that share a wall; `houses.geojson` and `numbers.tif` have their labels."""
    numbers, shapes = np.zeros((288, 288), np.uint16), []
    for row in range(8, 270, 40):
        for col in range(8, 260, 20):
            if col % 60 != 48:
                numbers[row : row + 24, col : col + 20] = len(shapes) + 1
                shapes.append(kit.box_of(slice(row, row + 24), slice(col, col + 20)))
    image = 40 + 160 * (numbers > 0)
    kit.write_polygons(tmp_path / "houses.geojson", shapes)
    kit.write_tif(tmp_path / "numbers.tif", numbers[None] + 300 * (numbers > 0)[None].astype(np.uint16))
    return Path(kit.write_tif(tmp_path / "village.tif", np.stack([image] * 3).astype(np.uint8)))


@pytest.mark.parametrize("labels", ["houses.geojson", "numbers.tif"])
def test_a_model_with_channels_is_fine_tuned_with_them(village: Path, labels: str) -> None:
    options = {"cuts": [0.9, 0.5], "signs": [1.0, 1.0, 1.0]}
    base = write_bundle(village.parent / "base.safetensors", "scripted", ("edge", "contact"), options)
    widths = {"edge_m": 1.0, "contact_m": 2.0, "weights": {"edge": 0.25}}
    save_bundle(base.path, replace(base.spec, training={"auxiliary": widths}), base.weights())
    told = FinetuneSettings(
        labels=village.parent / labels,
        model=base.path,
        out=village.parent / "out",
        instances=labels.endswith(".tif"),
        overrides=FEW,
    )
    result = finetune([village], told)
    assert result.gain > 0.2
    assert result.bundle is not None
    tuned = load_bundle(result.bundle).spec
    assert tuned.auxiliary == ("edge", "contact")
    assert tuned.training["auxiliary"]["contact_m"] == 2.0
    assert load_recipe(village.parent / "out" / "recipe.toml").losses["edge"] == 0.25
    (path,) = (village.parent / "out" / "prepared" / "village").glob("*-train-*.npy")
    scene = PreparedScene(path)
    sample = scene.read(scene.window)
    edge, contact = sample["auxiliary"].numpy()
    assert (edge == 1).sum() > 1000
    assert (contact == 1).sum() > 100
    hidden = scene.pixels[..., -1] == NO_PIXEL
    assert hidden.mean() > 0.1
    assert (edge[hidden] == IGNORED).all()
    assert (contact[hidden] == IGNORED).all()


def test_fine_tuning_on_numbers_that_are_not_said_to_be_such_is_refused(village: Path) -> None:
    base = write_bundle(village.parent / "base.safetensors", "scripted", (), {})
    with pytest.raises(Exception, match=r"numbers\.tif has 301"):
        finetune([village], FinetuneSettings(labels=village.parent / "numbers.tif", model=base.path, overrides=FEW))


def test_an_evaluation_counts_the_buildings_of_a_raster_of_numbers(village: Path) -> None:
    truth = village.parent / "houses.geojson"
    found = [
        evaluate_scenes(
            village,
            EvaluateSettings(
                labels=village.parent / labels,
                label_settings=LabelSettings(instances=labels.endswith(".tif")),
                footprints=truth,
            ),
        ).total
        for labels in ("numbers.tif", "houses.geojson")
    ]
    assert found[0].buildings is not None
    assert found[0].metrics()["iou"] == found[1].metrics()["iou"] == 1.0
    assert found[0].buildings.metrics()["f1"] == 1.0


def test_folds_of_blocks_hide_the_channels_of_what_validates(village: Path, write_script: Callable[..., Path]) -> None:
    overrides = {
        "network.auxiliary": ["contact"],
        "auxiliary.contact_m": 2.0,
        "sources": [{"name": "village", "images": "village.tif", "labels": "numbers.tif", "instances": True}],
    }
    out = village.parent / "cv"
    found = cross_validate(write_script(), folds=2, data=village.parent, out=out, overrides=overrides)
    assert len(found.folds) == 2
    for path in (out / "prepared" / "village").glob("*-train-*.npy"):
        scene = PreparedScene(path)
        (contact,) = scene.read(scene.window)["auxiliary"].numpy()
        hidden = scene.pixels[..., -1] == NO_PIXEL
        assert 0.2 < hidden.mean() < 0.8
        assert (contact[hidden] == IGNORED).all()
        assert (contact[~hidden] == 1).any()
    history = read_history(out / "fold-0" / "history.csv")
    assert {"train_contact", "validation_contact", "contact_iou"} <= set(history)


def test_a_small_network_learns_where_houses_touch(village: Path, write_recipe: Callable[..., Path]) -> None:
    """A house is darker along its walls, which the sum of the losses needs to see."""
    with rasterio.open(village) as file:
        pixels, place = file.read(), file.profile
    with rasterio.open(village.parent / "numbers.tif") as file:
        numbers = file.read(1)
    walls = (numbers[:, :-1] != numbers[:, 1:]) & (numbers[:, :-1] > 0) & (numbers[:, 1:] > 0)
    pixels[:, :, 1:][:, walls] = pixels[:, :, :-1][:, walls] = 110
    with rasterio.open(village, "w", **place) as file:
        file.write(pixels)
    source = {"name": "village", "images": "village.tif", "labels": "houses.geojson", "validate_east": 0.3}
    keys = {"network.auxiliary": ["contact"], "auxiliary.contact_m": 2.0, "sources": [source]}
    keys |= {"fit.steps": 90, "fit.validate_every": 45, "fit.schedule": "constant"}
    path = train_recipe(write_recipe(), data=village.parent, out=village.parent / "out", overrides=keys)
    history = read_history(path.parent / "history.csv")
    assert history["contact_iou"][-1] > 0.6
    assert history["iou"][-1] > 0.8
