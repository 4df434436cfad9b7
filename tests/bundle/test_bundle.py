"""Bundles: what goes in comes out, and nothing else is taken for one."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from geoseg import bundle as bundle_module
from geoseg.bundle import FORMAT, ModelSpec, choose_colors, load_bundle, save_bundle
from geoseg.errors import BundleError, UnknownModelError

SPEC = ModelSpec(
    name="tiny",
    network="unet",
    network_options={"encoder": "resnet18", "decoder_channels": [32, 16]},
    bands=("red", "green", "blue"),
    gsd_m=0.3,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.2, 0.1),
    classes=("ground", "building"),
    training={"areas": ["a", "b"]},
    metrics={"iou": 0.5},
    license="CC-BY-4.0",
)

OTHER: dict[str, Any] = {
    "name": "me/other",
    "version": "7",
    "network": "unet-plain",
    "network_options": {"depth": 3, "filters": [8, 16, 16, 16], "dropout": 0.25},
    "bands": ("nir", "red", "green"),
    "gsd_m": 0.25,
    "mean": (0.1, 0.2, 0.3),
    "std": (0.3, 0.4, 0.5),
    "pixel_max": 4095.0,
    "classes": ("ground", "building", "pool"),
    "target": "ground",
    "auxiliary": ("edge", "contact"),
    "colors": {"building": "#0102fE"},
    "chip_px": 320,
    "halo_px": 0,
    "stride_px": 64,
    "threshold": 0.35,
    "min_area_m2": 0.0,
    "split_depth": 0.25,
    "confidence": {"constant": -1.5, "probability_mean": 4.0, "area_log": 0.5},
    "training": {"areas": {"a": 3}, "date": "2026-03-04"},
    "metrics": {"test": {"iou": 0.75}},
    "license": "CC0-1.0",
    "description": "Dächer, infrared.",
}
"""Another value for every field of a specification, each of which may be changed alone."""

DEFAULTS: dict[str, Any] = {
    "version": "1",
    "network_options": {},
    "pixel_max": 255.0,
    "classes": ("building",),
    "target": "building",
    "auxiliary": (),
    "colors": {},
    "chip_px": 512,
    "halo_px": 32,
    "stride_px": 32,
    "threshold": 0.5,
    "min_area_m2": 5.0,
    "split_depth": None,
    "confidence": {},
    "training": {},
    "metrics": {},
    "license": "",
    "description": "",
}
"""What a field means that a file does not have; bundles that are out there rely on it."""


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """Weights of three types."""
    torch.manual_seed(0)
    counts = torch.tensor(7)
    return {
        "a.weight": torch.randn(4, 3, 3),
        "a.bias": torch.randn(4) * 1e-3,
        "steps": counts,
        "many": torch.arange(5) + 2**40,
    }


@pytest.fixture
def saved(tmp_path: Path, weights: dict) -> Path:
    """A bundle on disk."""
    return save_bundle(tmp_path / "sub" / "tiny.safetensors", SPEC, weights)


def rewrite(path: Path, *, header: dict | None = None, tensors: dict | None = None, drop: tuple[str, ...] = ()) -> None:
    """Write a bundle again with something changed in it, past `save_bundle`."""
    texts = {key: text for key, text in header_of(path).items() if key not in drop}
    save_file(tensors or load_file(path), path, metadata=texts | (header or {}))


def respecify(path: Path, **values: object) -> None:
    """Change fields of a bundle's specification, past `save_bundle`."""
    rewrite(path, header={"geoseg_spec": json.dumps(json.loads(header_of(path)["geoseg_spec"]) | values)})


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="np") as file:
        return dict(file.metadata())


def test_every_field_of_a_specification_comes_back(tmp_path: Path, weights: dict) -> None:
    assert OTHER.keys() == {each.name for each in fields(ModelSpec)}
    spec = replace(SPEC, **OTHER)
    found = load_bundle(str(save_bundle(tmp_path / "a.safetensors", spec, weights))).spec
    for name, value in OTHER.items():
        assert getattr(found, name) == value != getattr(SPEC, name), name
        assert type(getattr(found, name)) is type(value), name


def test_every_field_of_a_specification_and_every_weight_is_in_the_key(tmp_path: Path, weights: dict) -> None:
    specs = [SPEC, *(replace(SPEC, **{name: value}) for name, value in OTHER.items())]
    saved = [save_bundle(tmp_path / f"{number}.safetensors", spec, weights) for number, spec in enumerate(specs)]
    saved += [
        save_bundle(tmp_path / f"{name}.safetensors", SPEC, weights | {name: weights[name] + 1}) for name in weights
    ]
    assert len({load_bundle(path).key for path in saved}) == len(OTHER) + len(weights) + 1
    again = save_bundle(tmp_path / "elsewhere" / "copy.safetensors", SPEC, dict(reversed(weights.items())))
    assert load_bundle(again).key == load_bundle(saved[0]).key


def test_a_file_that_lacks_a_field_means_the_default_of_when_it_was_written(saved: Path) -> None:
    needed = {each.name for each in fields(ModelSpec)} - DEFAULTS.keys()
    spec = json.loads(header_of(saved)["geoseg_spec"])
    text = json.dumps({name: spec[name] for name in needed})
    rewrite(saved, header={"geoseg_spec": text}, drop=("geoseg_sha256",))
    found = load_bundle(saved).spec
    assert {name: getattr(found, name) for name in DEFAULTS} == DEFAULTS
    assert {name: getattr(found, name) for name in needed} == {name: getattr(SPEC, name) for name in needed}


def test_weights_come_back_in_full_precision_when_asked_for(tmp_path: Path, weights: dict) -> None:
    path = save_bundle(tmp_path / "full.safetensors", SPEC, weights, half=False)
    for name, tensor in load_bundle(path).weights().items():
        assert torch.equal(tensor, weights[name])


def test_weights_are_halved_on_disk_and_float32_in_memory(saved: Path, weights: dict) -> None:
    assert load_file(saved)["a.weight"].dtype == torch.float16
    loaded = load_bundle(saved).weights()
    assert loaded["a.weight"].dtype == torch.float32
    assert torch.equal(loaded["a.weight"], weights["a.weight"].half().float())
    assert torch.equal(loaded["many"], weights["many"])
    assert loaded["steps"].item() == 7


def test_a_weight_too_large_for_half_precision_stays_what_it_is(tmp_path: Path) -> None:
    large = torch.tensor([1.0, 1e6])
    path = save_bundle(tmp_path / "a.safetensors", SPEC, {"running_var": large})
    assert torch.equal(load_bundle(path).weights()["running_var"], large)


def test_a_view_of_shared_or_strided_memory_is_saved_too(tmp_path: Path) -> None:
    base = torch.randn(6, 6)
    path = save_bundle(tmp_path / "a.safetensors", SPEC, {"a": base.T, "b": base, "c": base[::2]}, half=False)
    assert torch.equal(load_bundle(path).weights()["a"], base.T)


def test_saving_leaves_nothing_but_the_bundle_which_everyone_may_read(saved: Path) -> None:
    assert [p.name for p in saved.parent.iterdir()] == ["tiny.safetensors"]
    assert saved.stat().st_mode & 0o777 == 0o644


def test_saving_that_fails_or_is_killed_leaves_the_bundle_that_was_there(
    saved: Path, weights: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def write_half(tensors: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(before[:100])
        assert saved.read_bytes() == before  # what a kill would leave
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", write_half)
    with pytest.raises(OSError, match="no space"):
        save_bundle(saved, SPEC, weights)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


CHANGES = {
    "a value": lambda tensors: tensors | {"a.weight": tensors["a.weight"] + 1},
    "a name": lambda tensors: {"b" if name == "a.bias" else name: tensor for name, tensor in tensors.items()},
    "a name that sorts alike": lambda tensors: {"a.biaz" if n == "a.bias" else n: t for n, t in tensors.items()},
    "a shape": lambda tensors: tensors | {"a.weight": tensors["a.weight"].reshape(3, 3, 4)},
    "a type": lambda tensors: tensors | {"a.weight": tensors["a.weight"].view(torch.bfloat16)},
    "a missing tensor": lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "a.bias"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_were_tampered_with_are_refused_by_their_checksum(saved: Path, change: str) -> None:
    rewrite(saved, tensors=CHANGES[change](load_file(saved)))
    bundle = load_bundle(saved)
    with pytest.raises(BundleError, match=r"is damaged: its weights have checksum .*train it again"):
        bundle.weights()


def test_a_specification_that_was_tampered_with_is_refused_by_its_checksum(saved: Path) -> None:
    spec = json.loads(header_of(saved)["geoseg_spec"])
    rewrite(saved, header={"geoseg_spec": json.dumps(spec | {"threshold": 0.9})})
    with pytest.raises(BundleError, match=r"is damaged: its specification and weights have checksum .*train it again"):
        load_bundle(saved)


def test_a_bundle_of_before_that_checksum_still_loads(saved: Path, weights: dict) -> None:
    rewrite(saved, drop=("geoseg_sha256",))
    assert load_bundle(saved).spec == SPEC
    assert load_bundle(saved).weights().keys() == weights.keys()


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "x" * 101])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=r"its name is .*expected a printable name"):
        replace(SPEC, name=name)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("buildings-30cm", "buildings-30cm"),
        ("me/houses v2", "me-houses-v2"),
        ("../../etc/passwd", "etc-passwd"),
        (".hidden", "hidden"),
        ("C:\\nul", "C-nul"),
        ("Häuser", "H-user"),
        ("家", "model"),
    ],
)
def test_any_name_becomes_part_of_a_file_name(name: str, slug: str) -> None:
    assert replace(SPEC, name=name).slug == slug


@pytest.mark.parametrize("end", [3, 100, -50])
def test_a_bundle_that_was_cut_short_is_refused(saved: Path, end: int) -> None:
    saved.write_bytes(saved.read_bytes()[:end])
    with pytest.raises(BundleError, match=r"tiny\.safetensors"):
        load_bundle(saved).weights()


@pytest.mark.parametrize("content", [b"", b"hello" * 50])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_bundle(path)


@pytest.mark.parametrize("header", [None, {"format": "pt"}, {"format": FORMAT}])
def test_safetensors_of_others_are_refused(tmp_path: Path, header: dict | None) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors", metadata=header)
    with pytest.raises(BundleError, match=f"without a geoseg specification .*{FORMAT}"):
        load_bundle(tmp_path / "a.safetensors")


def test_specification_keys_of_a_later_geoseg_are_named(saved: Path) -> None:
    spec = json.loads(header_of(saved)["geoseg_spec"])
    rewrite(saved, header={"geoseg_spec": json.dumps(spec | {"warp": 9})})
    with pytest.raises(BundleError, match=r"unknown specification keys warp.*Update geoseg"):
        load_bundle(saved)


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"name": "a"}', '{"name": 1, "network": "unet", "bands": 3}'])
def test_a_specification_that_cannot_be_read_is_refused(saved: Path, text: str) -> None:
    rewrite(saved, header={"geoseg_spec": text})
    with pytest.raises(BundleError, match=r"tiny\.safetensors"):
        load_bundle(saved)


FACTS = {
    "means": {"mean": (0.1,)},
    "0 means": {"bands": (), "mean": (), "std": ()},
    "standard deviations": {"std": (0.1, 0.0, 0.1)},
    "gsd_m": {"gsd_m": 0},
    "pixel_max": {"pixel_max": 0},
    "2 standard deviations": {"std": (0.1, 0.2)},
    "halo_px": {"halo_px": -1},
    "chip_px 64 with halo_px 32": {"chip_px": 64, "halo_px": 32},
    "chip_px is 500": {"chip_px": 500},
    "stride_px": {"stride_px": 0},
    "threshold": {"threshold": 1.0},
    "threshold is 0": {"threshold": 0.0},
    "split_depth is 0": {"split_depth": 0.0},
    "split_depth is 1.5": {"split_depth": 1.5},
    "target": {"target": "road"},
    "classes and auxiliary channels are building, building": {"classes": ("building", "building")},
    "auxiliary channels are ground, building, building": {"auxiliary": ("building",)},
    "auxiliary channels are ground, building, edge, edge": {"auxiliary": ("edge", "edge")},
    "there are 255 classes": {"classes": ("building", *map(str, range(254)))},
    "colors are": {"colors": {"road": "#FF0000"}},
    "colors are .*orange": {"colors": {"building": "orange"}},
    "coefficients of the confidence are .*height": {"confidence": {"height": 1.0}},
    "coefficients of the confidence are .*nan": {"confidence": {"constant": float("nan")}},
}


@pytest.mark.parametrize("fact", FACTS)
def test_a_specification_that_contradicts_itself_is_refused(fact: str) -> None:
    with pytest.raises(BundleError, match=f"'tiny' does not fit: .*{fact}.*expected"):
        replace(SPEC, **FACTS[fact])


def test_channels_are_those_of_the_classes_then_the_auxiliary_ones() -> None:
    assert replace(SPEC, auxiliary=["edge", "contact"]).channels == ("ground", "building", "edge", "contact")
    assert SPEC.channels == SPEC.classes


def test_the_target_is_found_among_the_classes() -> None:
    assert replace(SPEC, classes=("ground", "building")).target_index == 1
    assert replace(SPEC, target="ground").target_index == 0


EDGES: tuple[dict[str, Any], ...] = (
    {"name": "x" * 100},
    {"halo_px": 0},
    {"chip_px": 96, "halo_px": 47},
    {"threshold": 0.001},
    {"threshold": 0.999},
    {"min_area_m2": 0.0},
    {"split_depth": 1.0},
    {"classes": ("building", *map(str, range(253)))},
)


@pytest.mark.parametrize("values", EDGES, ids=str)
def test_a_specification_at_the_edge_of_what_is_allowed_is_allowed(values: dict[str, Any]) -> None:
    for name, value in values.items():
        assert getattr(replace(SPEC, **values), name) == value


def test_colors_come_back_and_classes_without_one_get_colors_of_their_own(tmp_path: Path, weights: dict) -> None:
    spec = replace(SPEC, classes=("building", "road", "pool", "tent", "silo"), colors={"pool": "#0102fE"})
    found = load_bundle(save_bundle(tmp_path / "a.safetensors", spec, weights)).spec
    assert found.colors == {"pool": "#0102fE"}
    assert found.class_colors[2] == "#0102fE"
    assert found.class_colors[0] == choose_colors(["building"], {})[0]
    assert len(set(found.class_colors)) == 5
    usual = replace(SPEC, classes=("building", "road"), colors={"road": "#0102FE"}).class_colors
    assert usual == (found.class_colors[0], "#0102FE")


def test_what_a_specification_lacks_is_written_as_before_there_was_any(saved: Path) -> None:
    assert not {"auxiliary", "colors", "split_depth", "confidence"} & json.loads(header_of(saved)["geoseg_spec"]).keys()


def test_an_unknown_model_lists_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict) -> None:
    monkeypatch.setattr(bundle_module, "ZOO", tmp_path)
    with pytest.raises(UnknownModelError, match=r"no model 'houses'.*none is shipped"):
        load_bundle("houses")
    save_bundle(tmp_path / "first.safetensors", SPEC, weights)
    save_bundle(tmp_path / "second.safetensors", SPEC, weights)
    with pytest.raises(UnknownModelError, match=r"Shipped: first, second\."):
        load_bundle("houses")
    assert load_bundle("first").path == tmp_path / "first.safetensors"


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError):
        load_bundle(tmp_path)


def test_keys_in_British_spelling_are_still_read(tmp_path: Path) -> None:
    header = {"format": FORMAT, "geoseg_weights_sha256": "0" * 64}
    values = SPEC.to_dict()
    values["licence"], values["colours"] = values.pop("license"), {"building": "#010203"}
    save_file({"w": torch.zeros(1)}, tmp_path / "old.safetensors", {**header, "geoseg_spec": json.dumps(values)})
    spec = load_bundle(tmp_path / "old.safetensors").spec
    assert (spec.license, spec.colors) == ("CC-BY-4.0", {"building": "#010203"})


ABSURD: dict[str, Any] = {
    "name": 7,
    "network": None,
    "network_options": [1, 2],
    "bands": "rgb",
    "gsd_m": 1e-6,
    "mean": ("a", "b", "c"),
    "std": (0.1, math.inf, 0.1),
    "version": 1,
    "pixel_max": "255",
    "classes": (1, 2),
    "target": ["building"],
    "auxiliary": "edge",
    "colors": ["#FFFFFF"],
    "chip_px": 1 << 20,
    "halo_px": 1.5,
    "stride_px": True,
    "threshold": math.nan,
    "min_area_m2": "large",
    "split_depth": "deep",
    "confidence": {"constant": "a"},
    "training": "long",
    "metrics": [0.5],
    "license": 1,
    "description": {},
}
"""A value for every field that no model can have."""


@pytest.mark.parametrize("name", [field.name for field in fields(ModelSpec)])
def test_an_absurd_value_of_any_field_is_refused_when_the_bundle_is_opened(saved: Path, name: str) -> None:
    respecify(saved, **{name: ABSURD[name]})
    with pytest.raises(BundleError, match=rf"does not fit: .*(?i:{name}|standard deviations).*expected"):
        load_bundle(saved)


@pytest.mark.parametrize(
    "options",
    [
        {"encoder_depth": 10**6},
        {"decoder_channels": [10**6]},
        {"decoder_channels": [1] * 10_000},
        {"encoder_options": {"a": {"depths": [math.inf]}}},
        {"dropout": math.nan},
    ],
    ids=str,
)
def test_options_with_which_no_network_could_be_built_are_refused_when_the_bundle_is_opened(
    saved: Path, options: dict[str, Any]
) -> None:
    respecify(saved, network_options=options)
    with pytest.raises(BundleError, match=r"does not fit: the network.* option"):
        load_bundle(saved)


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan, -1.0, 1e5])
def test_a_pixel_size_that_no_image_has_is_refused(value: float) -> None:
    with pytest.raises(BundleError, match=r"gsd_m is .*expected"):
        replace(SPEC, gsd_m=value)
