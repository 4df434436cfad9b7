"""Every key of a recipe is felt: in the optimizer, the crops, the log, the checkpoint or the bundle."""

import ast
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from geoseg.bundle import ModelSpec, load_bundle
from geoseg.errors import RecipeError
from geoseg.training.folder import read_history
from geoseg.training.recipe import Augmentation, Auxiliary, Fit, Network, Recipe, Source

Play = Callable[..., Path]

SPEC = "test_what_a_recipe_says_of_the_model_is_in_its_bundle"
OPTIMIZER = "test_rates_and_decay_are_those_of_the_optimizer"
SEEN = "test_crops_and_chips_are_of_the_sizes_and_pixels_that_the_recipe_says"
ENDS = "test_a_run_ends_after_steps_or_epochs_whichever_is_first"
UNSURE = "test_unsure_background_counts_from_the_time_and_below_the_probability_that_the_recipe_says"
SPLITS = "test_sources.py::test_scenes_are_split_by_name_and_left_out_by_name"
AREAS = "test_sources.py::test_areas_part_one_scene_and_what_is_in_none_has_no_truth"
WIDTHS = "test_auxiliary.py::test_widths_are_meters_whatever_the_pixel_size_is"
CHANNELS = "test_auxiliary.py::test_channels_learn_by_their_weights_and_move_with_the_image"
NORMALIZED = "test_distill.py::test_normalization_that_is_fixed_keeps_its_statistics_while_its_weights_learn"
DISTILLED = "test_distill.py::test_only_sources_that_say_so_are_distilled"
PAINTED = "test_sources.py::test_painted_scenes_train_with_their_true_footprints"

HELD = {
    **dict.fromkeys(("name", "version", "description", "license", "threshold", "min_area_m2", "split_depth"), SPEC),
    "gsd_m": "test_sources.py::test_a_coarser_gsd_shrinks_image_and_truth_alike",
    **dict.fromkeys(("chip_px", "halo_px", "network.pixel_max", "network.mean", "network.std"), SEEN),
    "loss": "test_the_loss_is_the_weighted_sum_of_its_terms",
    **dict.fromkeys(("network.name", "network.bands", "network.classes", "network.target", "network.colors"), SPEC),
    **dict.fromkeys(("network.options",), SPEC),
    "network.encoder": "test_an_encoder_and_its_weights_reach_the_network",
    "network.encoder_weights": "test_an_encoder_and_its_weights_reach_the_network",
    "network.start_from": "test_a_run_that_starts_from_a_bundle_begins_with_its_weights",
    "network.auxiliary": SPEC,
    **dict.fromkeys(("auxiliary.edge_m", "auxiliary.contact_m", "auxiliary.distance_m"), WIDTHS),
    "auxiliary.single_m2": "test_auxiliary.py::test_a_mask_teaches_walls_around_components_and_no_more",
    **dict.fromkeys(("auxiliary.weights", "auxiliary.gamma"), CHANNELS),
    **dict.fromkeys(("augment.step", "augment.probability", "augment.options"), "test_crops_are_augmented_as_it_says"),
    **dict.fromkeys(("fit.batch", "fit.crop_px", "fit.window_px"), SEEN),
    **dict.fromkeys(("fit.steps", "fit.epochs", "fit.validate_every"), ENDS),
    "fit.minutes": "test_best.py::test_the_time_given_is_for_all_tries_together",
    **dict.fromkeys(("fit.optimizer", "fit.learning_rate", "fit.encoder_rate", "fit.weight_decay"), OPTIMIZER),
    **dict.fromkeys(("fit.schedule", "fit.warm_up", "fit.last_learning_rate"), "test_the_schedule_sets_every_step"),
    **dict.fromkeys(
        ("fit.plateau_factor", "fit.plateau_patience"),
        "test_best.py::test_a_plateau_of_the_validation_loss_lowers_the_learning_rate_as_in_torch",
    ),
    "fit.fixed_normalization": NORMALIZED,
    **dict.fromkeys(("sources.distill", "fit.distill_from"), DISTILLED),
    "fit.distill_weight": "test_distill.py::test_the_weight_of_the_distillation_scales_its_gradient",
    "fit.early_stopping": "test_best.py::"
    "test_a_run_stops_early_after_so_many_epochs_without_a_better_iou_whatever_the_loss",
    "fit.clip_norm": "test_gradients_are_clipped_to_the_norm_that_the_recipe_says",
    "fit.average_decay": "test_best.py::test_a_run_taken_up_again_goes_on_with_the_same_average",
    **dict.fromkeys(("fit.precision", "fit.threads", "fit.workers"), "test_a_run_uses_what_it_is_given_of_a_machine"),
    "fit.device": "test_a_device_that_is_not_there_is_not_replaced_by_another",
    "fit.seed": "test_the_seed_draws_the_crops",
    "fit.unscored": "test_unscored_classes_are_left_out_of_the_mean",
    **dict.fromkeys(("fit.unsure_from", "fit.unsure_above"), UNSURE),
    "sources.name": SPLITS,
    "sources.weight": "test_task.py::test_sources_are_drawn_by_weight_and_not_by_size",
    **dict.fromkeys(("sources.layout", "sources.root"), "test_sources.py::test_a_layouts_own_folders_split"),
    **dict.fromkeys(("sources.images", "sources.exclude", "sources.validate_scenes"), SPLITS),
    "sources.labels": "test_sources.py::test_a_prepared_scene_holds_image_and_truth_pixel_for_pixel",
    "sources.layer": "test_sources.py::test_a_geopackage_of_buildings_is_enough",
    "sources.label_column": "test_sources.py::test_a_column_names_the_class_of_each_polygon",
    "sources.empty_ok": "test_sources.py::test_polygons_of_another_place_are_refused_unless_an_empty_image_is_meant",
    "sources.bands": "test_sources.py::test_bands_are_chosen_and_counted",
    **dict.fromkeys(("sources.nodata", "sources.alpha"), "test_sources.py::test_what_counts_as_data_may_be_said"),
    "sources.gsd_m": "test_sources.py::test_pictures_of_a_known_gsd_are_brought_to_the_recipes",
    "sources.colors": "test_sources.py::test_a_sources_colors_go_before_the_networks",
    "sources.also": "test_sources.py::test_further_colors_and_values_mean_what_the_source_says",
    "sources.values": "test_sources.py::test_further_colors_and_values_mean_what_the_source_says",
    **dict.fromkeys(("sources.areas", "sources.train", "sources.validate"), AREAS),
    "sources.test_scenes": "test_survey.py::test_files_pixels_and_classes_are_counted_by_split",
    "sources.split": "test_sources.py::test_shares_split_by_file_and_test_is_held_out",
    "sources.split_file": "test_sources.py::test_a_split_file_is_written_once_and_read_thereafter",
    "sources.fold": "test_crossval.py::test_every_file_validates_in_one_fold_and_scenes_are_prepared_once",
    "sources.validate_east": "test_sources.py::test_the_eastern_strip_validates_and_does_not_train",
    "sources.validate_west": "test_sources.py::test_the_western_strip_validates_and_does_not_train",
    "sources.validate_px": "test_sources.py::test_the_middle_of_an_image_validates",
    "sources.complete": "test_sources.py::test_incomplete_labels_make_background_unsure_and_buildings_stay",
    **dict.fromkeys(("sources.paint_seeds", "sources.paint_size_px"), PAINTED),
    "sources.instances": "test_auxiliary.py::test_polygons_and_rasters_of_numbers_teach_the_same",
    "sources.paint_kind": "test_sources.py::test_dense_scenes_are_painted_where_the_source_says_so",
}
"""Which test feels a key: one of this file, or `file::test`."""

PARTS = {"network": Network, "auxiliary": Auxiliary, "sources": Source, "augment": Augmentation, "fit": Fit}


def test_every_key_of_a_recipe_has_a_test_that_feels_it() -> None:
    keys = {f.name for f in fields(Recipe)} - set(PARTS)
    keys |= {f"{part}.{f.name}" for part, kind in PARTS.items() for f in fields(kind)}
    assert set(HELD) == keys
    here = Path(__file__)
    for place in set(HELD.values()):
        file, _, test = place.rpartition("::")
        text = (here.with_name(file) if file else here).read_text(encoding="utf-8")
        assert test in {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}


def checkpoint(folder: Path) -> dict[str, Any]:
    kept: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return kept


@dataclass
class Watch:
    """What the scripted network was given."""

    crops: list[Tensor] = field(default_factory=list)
    chips: list[Tensor] = field(default_factory=list)
    is_mixed: set[bool] = field(default_factory=set)
    threads: set[int] = field(default_factory=set)

    def note(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        """Note the input of a network."""
        if type(module).__name__ != "Scripted" or given[0].device.type == "meta":
            return
        (self.crops if module.training else self.chips).append(given[0].detach().float())
        if module.training:
            self.is_mixed.add(torch.is_autocast_enabled("cpu"))
            self.threads.add(torch.get_num_threads())


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Look at what networks are given, through torch's own hook."""
    found = Watch()
    hook = nn.modules.module.register_module_forward_pre_hook(found.note)
    yield found
    hook.remove()


SAID: dict[str, Any] = {
    "name": "hall",
    "version": "1.7b",
    "description": "Halls",
    "license": "CC0-1.0",
    "gsd_m": 0.25,
    "threshold": 0.35,
    "min_area_m2": 12.5,
    "split_depth": 0.15,
    "chip_px": 80,
    "halo_px": 8,
    "network__bands": ["nir", "red", "green"],
    "network__classes": ["rest", "hall"],
    "network__target": "hall",
    "network__colors": {"hall": "#112233"},
    "network__mean": [0.1, 0.2, 0.3],
    "network__std": [0.5, 0.6, 0.7],
    "network__pixel_max": 200.0,
    "network__options": {"cuts": [0.25]},
    "network__auxiliary": ["contact"],
    "loss": {"ce": 0.5, "dice": {"weight": 2.0}},
    "fit__seed": 5,
}


def test_what_a_recipe_says_of_the_model_is_in_its_bundle(play: Play) -> None:
    out = play(**SAID)
    spec = load_bundle(out / "hall.safetensors").spec
    expected = {key.removeprefix("network__"): value for key, value in SAID.items() if key not in ("loss", "fit__seed")}
    expected["network_options"] = expected.pop("options")
    expected |= {"network": "scripted", "stride_px": 8, "confidence": {}}  # fitted to evaluations, afterwards
    said = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}
    training, validation = said.pop("training"), said.pop("metrics")["validation"]
    assert said == expected
    assert {f.name for f in fields(ModelSpec)} == {*said, "training", "metrics"}
    assert training["loss"] == SAID["loss"]
    assert training["fit"]["seed"] == 5
    assert training["sources"][0]["name"] == "streets"
    assert validation["threshold"] == 0.35
    assert "# Model card: `hall`, version 1.7b" in (out / "model-card.md").read_text()


def test_rates_and_decay_are_those_of_the_optimizer(play: Play) -> None:
    rates = {"fit__learning_rate": 3e-3, "fit__encoder_rate": 0.25, "fit__weight_decay": 0.07, "fit__warm_up": 0.0}
    for optimizer, is_decoupled in (("adam", False), ("adamw", True)):
        out = play(optimizer, **rates, fit__schedule="constant", fit__optimizer=optimizer)
        kept = checkpoint(out)
        names = [name for name in kept["state_dict"] if name.split(".")[1] in ("encoder", "head")]
        by_name = dict(zip(names, kept["optimizer_states"][0]["param_groups"], strict=True))
        for name, group in by_name.items():
            assert group["lr"] == pytest.approx(3e-3 * (0.25 if "encoder" in name else 1))
            assert group["weight_decay"] == (0.07 if name.endswith("weight") else 0)
            assert group["decoupled_weight_decay"] == is_decoupled
        assert read_history(out / "history.csv")["learning_rate"] == [3e-3]


def test_the_schedule_sets_every_step(play: Play) -> None:
    given = {"fit__steps": 4, "fit__warm_up": 0.25, "fit__last_learning_rate": 0.1, "fit__learning_rate": 0.01}
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2 for done in (0, 1 / 3, 2 / 3)]
    cycle = [0.1, *(0.1 + 0.9 * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2 for done in (1 / 3, 2 / 3))]
    for schedule, factors in (
        ("cosine", [1e-3, *falling]),
        ("one-cycle", [1e-3, *cycle]),
        ("constant", [1e-3, 1, 1, 1]),
    ):
        rates = read_history(play(schedule, **given, fit__schedule=schedule) / "history.csv")["learning_rate"]
        assert rates == pytest.approx([0.01 * factor for factor in factors], rel=1e-4)


def test_gradients_are_clipped_to_the_norm_that_the_recipe_says(play: Play) -> None:
    norms = []
    for clip in (0, 1e-3):
        state = checkpoint(play(f"{clip}", fit__clip_norm=clip, network__options__pull=1.0))["optimizer_states"][0]
        means = [part["exp_avg"] for part in state["state"].values()]  # after one step a tenth of the gradient
        norms.append(10 * math.sqrt(sum(float(mean.square().sum()) for mean in means)))
    assert norms[0] > 0.01
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_a_run_ends_after_steps_or_epochs_whichever_is_first(play: Play) -> None:
    def steps(**fit: int) -> list[float]:
        given = {f"fit__{key}": value for key, value in fit.items()}
        return read_history(play(str(fit), **given) / "history.csv")["step"]

    assert steps(steps=5, epochs=2, validate_every=2) == [2, 4]
    assert steps(steps=3, epochs=9, validate_every=1) == [1, 2, 3]
    # an epoch is one pass over 64 x 64 px: one crop of 32 px and batch 1 is a quarter of it
    assert steps(steps=0, epochs=2, validate_every=0, batch=1, crop_px=32, window_px=32) == [4, 8]


def test_crops_and_chips_are_of_the_sizes_and_pixels_that_the_recipe_says(
    play: Play, kit: SimpleNamespace, tmp_path: Path, watch: Watch
) -> None:
    image, truth = kit.street(80)
    deep = image.astype(np.uint16) * 8  # up to 2000
    for name in "ab":
        kit.write_tif(tmp_path / "data" / "images" / f"{name}.tif", deep)
        kit.write_tif(tmp_path / "data" / "labels" / f"{name}.tif", truth[None], nodata=255)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.2]
    out = play(
        network__pixel_max=4000.0,
        network__mean=mean,
        network__std=std,
        network__options__cuts=[0.45],
        fit__batch=3,
        fit__crop_px=48,
        fit__window_px=80,
        chip_px=48,
        halo_px=8,
    )
    ready = (deep / 4000 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    (crop,) = watch.crops
    assert crop.shape == (3, 3, 48, 48)  # the middle of a window as large as the scene
    assert torch.allclose(crop, torch.from_numpy(ready[None, :, 16:64, 16:64]).float(), atol=1e-4)
    chips = torch.cat([chip for chip in watch.chips if chip.shape[-1] == 48])
    corner = torch.from_numpy(np.pad(ready, ((0, 0), (8, 0), (8, 0)), mode="reflect")[:, :48, :48]).float()
    assert torch.allclose(chips[0], corner, atol=1e-4)
    found = ready.mean(axis=0) > 0.45
    iou = (found & (truth == 1)).sum() / (found | (truth == 1)).sum()
    assert 0.3 < iou < 0.9
    assert read_history(out / "history.csv")["iou"][0] == pytest.approx(iou, abs=0.02)


def test_the_loss_is_the_weighted_sum_of_its_terms(play: Play) -> None:
    losses = {"bce": 0.25, "dice": 3.0, "tversky": {"weight": 0.5, "alpha": 0.1}}
    history = read_history(play(loss=losses, network__options__cuts=[0.7]) / "history.csv")
    for part in ("train", "validation"):
        terms = [history[f"{part}_{name}"][0] for name in losses]
        expected = 0.25 * terms[0] + 3 * terms[1] + 0.5 * terms[2]
        assert history[f"{part}_loss"][0] == pytest.approx(expected, rel=1e-4)
        assert min(terms) > 0.01


def test_an_encoder_and_its_weights_reach_the_network(play: Play, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from geoseg.networks import build_network

    options = {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    encoder = build_network("unet", bands=3, classes=1, encoder="resnet18", **options).get_submodule("encoder")
    marked = {name: torch.full_like(value, 0.5) for name, value in encoder.state_dict().items()}
    save_file(marked, tmp_path / "half.safetensors")
    out = play(
        network__name="unet",
        network__encoder="resnet18",
        network__encoder_weights="half.safetensors",
        network__options=options,
        fit__learning_rate=1e-8,
    )
    bundle = load_bundle(out / "play.safetensors")
    assert bundle.spec.network_options == {"encoder": "resnet18", **options}
    assert bundle.weights()["encoder.conv1.weight"].float().mean() == pytest.approx(0.5, abs=1e-3)


def test_a_run_that_starts_from_a_bundle_begins_with_its_weights(play: Play) -> None:
    first = play("first", fit__steps=3, fit__average_decay=0.0, network__options__cuts=[0.9, 0.8, 0.7, 0.6])
    start = str(first / "play.safetensors")
    second = play("second", fit__average_decay=0.0, network__start_from=start)
    found = load_bundle(second / "play.safetensors").weights()
    assert (int(found["step"]), float(found["trace"])) == (4, 4.0)


def test_crops_are_augmented_as_it_says(play: Play, watch: Watch) -> None:
    for step, moved in (
        ({"step": "flip"}, True),
        ({"step": "flip", "probability": 0.0}, False),
        ({"step": "affine", "options": {"rotate_deg": 0.0, "scale": [1.0, 1.0]}}, False),
        ({"step": "affine", "options": {"rotate_deg": 0.0, "scale": [2.0, 2.0]}}, True),
    ):
        watch.crops.clear()
        play(str(step), augment=[step])
        plain = watch.chips[0][0].expand_as(watch.crops[0])
        assert torch.allclose(watch.crops[0], plain, atol=1e-3) != moved
        if step["step"] == "flip" and moved:
            assert torch.allclose(watch.crops[0], plain.flip(-1), atol=1e-3)


def test_a_run_uses_what_it_is_given_of_a_machine(play: Play, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    before, helpers, make = torch.get_num_threads(), list[int](), DataLoader.__init__

    def note(loader: Any, *given: Any, num_workers: int = 0, **options: Any) -> None:
        helpers.append(num_workers)  # none is started: a fork of a process with threads of many libraries may die
        make(loader, *given, num_workers=0, **options)

    monkeypatch.setattr(DataLoader, "__init__", note)
    try:
        play("plain", fit__threads=1)
        assert (watch.is_mixed, watch.threads, max(helpers)) == ({False}, {1}, 0)
        play("other", fit__threads=2, fit__workers=3, fit__precision="bf16-mixed")
        assert (watch.is_mixed, watch.threads, max(helpers)) == ({False, True}, {1, 2}, 3)
    finally:
        torch.set_num_threads(before)


def test_a_device_that_is_not_there_is_not_replaced_by_another(play: Play) -> None:
    missing = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(RecipeError, match=rf"fit\.device = '{missing}'.*auto"):
        play(fit__device=missing)


def test_the_seed_draws_the_crops(play: Play, watch: Watch) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        play(out, fit__crop_px=32, fit__window_px=32, fit__seed=seed)
    first, same, other = watch.crops
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_unscored_classes_are_left_out_of_the_mean(play: Play) -> None:
    given = {"network__classes": ["rest", "hall", "sea"], "loss": {"ce": 1.0}, "network__options__cuts": [0.7]}
    history = read_history(play(**given, network__target="hall", fit__unscored=["sea", "rest"]) / "history.csv")
    assert history["mean_iou"] == history["iou_hall"]
    assert history["mean_iou"] != history["iou_rest"]


def test_unsure_background_counts_from_the_time_and_below_the_probability_that_the_recipe_says(
    play: Play, kit: SimpleNamespace
) -> None:
    # in the first three of four steps only marked buildings count, then what the network takes for background too
    gain, cut, above = 4.0, 0.4, 0.25
    script = {"network__options__cuts": [cut], "network__options__gains": [gain], "network__options__pull": 0.0}
    given = {"fit__steps": 4, "fit__unsure_from": 0.75, "fit__unsure_above": above}
    history = read_history(play(**script, **given, sources__streets__complete=False) / "history.csv")
    image, truth = kit.street()
    p = 1 / (1 + np.exp(-gain * (image[0] / 255 - cut)))
    marked, counted = truth == 1, (truth == 0) & (p < above)
    assert 0.2 < counted.sum() / (truth == 0).sum() < 0.8
    only = -np.log(p[marked]).mean()
    both = -np.concatenate([np.log(p[marked]), np.log(1 - p[counted])]).mean()
    assert history["train_loss"] == pytest.approx([only, only, only, both], rel=1e-3)


def test_turning_by_degrees_turns_by_degrees() -> None:
    from geoseg.training.augment import augment_batch

    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 65).repeat(64, 1, 65, 1)  # brighter from left to right
    step = Augmentation(step="affine", options={"rotate_deg": 30.0, "scale": [1.0, 1.0]})
    crop, _ = augment_batch(ramp, torch.zeros(64, 65, 65, dtype=torch.uint8), [step], crop_px=33)
    slope = [crop[:, 0].diff(dim=d).mean(dim=(1, 2)) for d in (2, 1)]
    turned = torch.rad2deg(torch.atan2(slope[1], slope[0])).abs()
    assert float(turned.max()) == pytest.approx(29, abs=2)
    assert float(turned.median()) == pytest.approx(15, abs=6)
