"""One tiny network with random weights, and its exports to every format, made once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from geoseg.bundle import Bundle, ModelSpec, load_bundle, save_bundle
from geoseg.engines import ONNX_CACHE_ENV
from geoseg.export import export_model
from geoseg.networks import build_network

SPEC = ModelSpec(
    name="me/tiny houses",
    version="3",
    network="unet-plain",
    network_options={"depth": 2, "filters": 8, "convolutions": 1},
    bands=("red", "green", "blue"),
    gsd_m=0.3,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.2),
    chip_px=96,
    halo_px=8,
    stride_px=4,
    min_area_m2=0.5,
    license="CC-BY-4.0",
    description="Tiny houses.",
    training={"date": "2026-03-04", "areas": ["a", "b"]},
    metrics={"validation_iou": {"here": 0.5, "there": 0.7}},
)


def make_bundle(path: Path, spec: ModelSpec = SPEC, seed: int = 0) -> Bundle:
    """A small network with random weights, away from one half and from symmetry."""
    torch.manual_seed(seed)
    options = spec.network_options
    network = build_network(spec.network, bands=len(spec.bands), classes=len(spec.channels), **options)
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.normal_(std=0.3)
        if name == "head.weight":
            tensor.mul_(4)
    return load_bundle(save_bundle(path, spec, state))


@dataclass(frozen=True)
class Exports:
    """A bundle of one class and one of three with two auxiliary channels, and the exported files by format."""

    bundle: Bundle
    several: Bundle
    files: dict[str, Path]


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exports]:
    """Every format of the tiny model; three classes as ONNX and .pt2."""
    folder = tmp_path_factory.mktemp("exports")
    classes = replace(
        SPEC,
        name="three",
        classes=("ground", "building", "road"),
        target="road",
        auxiliary=("edge", "contact"),
        confidence={"constant": -1.0, "probability_mean": 2.0},
        colors={"road": "#11aaFF"},
        pixel_max=250.0,
        threshold=0.25,
        split_depth=0.3,
    )
    bundle, several = make_bundle(folder / "a.safetensors"), make_bundle(folder / "b.safetensors", classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ONNX_CACHE_ENV, str(folder / "cache"))
        files = {to: export_model(bundle.path, to, out=folder).paths[0] for to in ("onnx", "openvino", "pt2")}
        half = export_model(bundle.path, "openvino", out=folder / "half.xml", weights="f16")
        files |= {"half": half.paths[0]}
        files |= {f"three {to}": export_model(several.path, to, out=folder).paths[0] for to in ("onnx", "pt2")}
        yield Exports(bundle, several, files)
