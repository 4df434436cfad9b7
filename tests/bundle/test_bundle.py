"""Bundles: what goes in comes out, and nothing else is taken for one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from geoseg import bundle as bundle_module
from geoseg.bundle import FORMAT, ModelSpec, choose_colours, load_bundle, save_bundle
from geoseg.errors import BundleError, UnknownModelError

SPEC = ModelSpec(
    name="tiny",
    network="unet",
    network_options={"encoder": "resnet18", "decoder_channels": [32, 16]},
    bands=("red", "green", "blue"),
    gsd_m=0.3,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.2, 0.1),
    training={"areas": ["a", "b"]},
    metrics={"iou": 0.5},
    licence="CC-BY-4.0",
)


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


def rewrite(path: Path, *, header: dict | None = None, tensors: dict | None = None) -> None:
    """Write a bundle again with something changed in it, past `save_bundle`."""
    with safe_open(path, framework="np") as file:
        old = dict(file.metadata())
    save_file(tensors or load_file(path), path, metadata=old | (header or {}))


def test_the_specification_comes_back_equal(saved: Path) -> None:
    assert load_bundle(saved).spec == SPEC
    assert load_bundle(str(saved)).spec.bands == ("red", "green", "blue")


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


def test_saving_leaves_nothing_but_the_bundle(saved: Path) -> None:
    assert [p.name for p in saved.parent.iterdir()] == ["tiny.safetensors"]


def test_the_key_changes_with_specification_and_weights_only(saved: Path, tmp_path: Path, weights: dict) -> None:
    key = load_bundle(saved).key
    assert load_bundle(save_bundle(tmp_path / "copy.safetensors", SPEC, weights)).key == key
    other_spec = save_bundle(tmp_path / "b.safetensors", replace(SPEC, threshold=0.4), weights)
    other_weights = save_bundle(tmp_path / "c.safetensors", SPEC, weights | {"a.bias": weights["a.bias"] + 1})
    assert len({key, load_bundle(other_spec).key, load_bundle(other_weights).key}) == 3


def test_weights_that_were_tampered_with_are_refused_by_their_checksum(saved: Path) -> None:
    tensors = load_file(saved)
    tensors["a.weight"][0, 0, 0] += 1
    rewrite(saved, tensors=tensors)
    bundle = load_bundle(saved)
    with pytest.raises(BundleError, match=r"is damaged: its weights have checksum .*train it again"):
        bundle.weights()


def test_weights_that_were_renamed_are_refused_by_their_checksum(saved: Path) -> None:
    tensors = load_file(saved)
    tensors["b.weight"] = tensors.pop("a.weight")
    rewrite(saved, tensors=tensors)
    with pytest.raises(BundleError, match="checksum"):
        load_bundle(saved).weights()


def test_a_specification_that_was_tampered_with_is_refused_by_its_checksum(saved: Path) -> None:
    with safe_open(saved, framework="np") as file:
        spec = json.loads(file.metadata()["geoseg_spec"])
    rewrite(saved, header={"geoseg_spec": json.dumps(spec | {"threshold": 0.9})})
    with pytest.raises(BundleError, match=r"is damaged: its specification and weights have checksum .*train it again"):
        load_bundle(saved)


def test_a_bundle_of_before_that_checksum_still_loads(saved: Path, weights: dict) -> None:
    with safe_open(saved, framework="np") as file:
        old = {key: value for key, value in file.metadata().items() if key != "geoseg_sha256"}
    save_file(load_file(saved), saved, metadata=old)
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
    with pytest.raises(BundleError, match="no safetensors file"):
        load_bundle(path)


@pytest.mark.parametrize("header", [None, {"format": "pt"}, {"format": FORMAT}])
def test_safetensors_of_others_are_refused(tmp_path: Path, header: dict | None) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors", metadata=header)
    with pytest.raises(BundleError, match=f"without a geoseg specification .*{FORMAT}"):
        load_bundle(tmp_path / "a.safetensors")


def test_specification_keys_of_a_later_geoseg_are_named(saved: Path) -> None:
    with safe_open(saved, framework="np") as file:
        spec = json.loads(file.metadata()["geoseg_spec"])
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
    "halo_px": {"halo_px": -1},
    "chip_px 64 with halo_px 32": {"chip_px": 64, "halo_px": 32},
    "chip_px is 500": {"chip_px": 500},
    "stride_px": {"stride_px": 0},
    "threshold": {"threshold": 1.0},
    "target": {"target": "road"},
    "classes are building, building": {"classes": ("building", "building")},
    "there are 300 classes": {"classes": ("building", *map(str, range(299)))},
    "colours are": {"colours": {"road": "#FF0000"}},
    "colours are .*orange": {"colours": {"building": "orange"}},
}


@pytest.mark.parametrize("fact", FACTS)
def test_a_specification_that_contradicts_itself_is_refused(fact: str) -> None:
    with pytest.raises(BundleError, match=f"'tiny' does not fit: .*{fact}.*expected"):
        replace(SPEC, **FACTS[fact])


def test_the_target_is_found_among_the_classes() -> None:
    assert replace(SPEC, classes=("ground", "building")).target_index == 1


def test_colours_come_back_and_classes_without_one_get_colours_of_their_own(tmp_path: Path, weights: dict) -> None:
    spec = replace(SPEC, classes=("building", "road", "pool", "tent", "silo"), colours={"pool": "#0102fE"})
    found = load_bundle(save_bundle(tmp_path / "a.safetensors", spec, weights)).spec
    assert found.colours == {"pool": "#0102fE"}
    assert found.class_colours[2] == "#0102fE"
    assert found.class_colours[0] == choose_colours(["building"], {})[0]
    assert len(set(found.class_colours)) == 5


def test_a_specification_without_colours_is_written_as_before_there_were_any(saved: Path) -> None:
    with safe_open(saved, framework="np") as file:
        assert "colours" not in json.loads(file.metadata()["geoseg_spec"])


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
