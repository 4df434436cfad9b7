"""Export a bundle: write aside, check against torch, then rename; a STAC Item beside it."""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geoseg.bundle import Bundle, load_bundle
from geoseg.errors import ExistingResultError, ExportError, UsageError
from geoseg.export.stac import describe_item, describe_properties
from geoseg.io.aside import output_error, write_all_aside
from geoseg.model_file import BUNDLE_KEY, MLM_KEY, SPEC_KEY, ModelFormat

log = logging.getLogger(__name__)

TARGETS = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "pt2": (".pt2",), "tensorrt": (".engine",)}
"""Suffixes of the files of each format, the network first."""

HALF_TARGETS = ("openvino", "tensorrt")
"""Formats whose weights can be stored in half precision."""


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """What an export wrote.

    Attributes:
        paths: The files, the network first, the STAC Item last.
        check: How far the network is from torch; see `geoseg.export.check.Check`.
    """

    paths: list[Path]
    check: dict[str, Any]


def export_model(
    model: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    weights: str = "f32",
    overwrite: bool = False,
) -> ExportedModel:
    """Export a model for another runtime: raw pixels in, probabilities out, any batch and size.

    Args:
        model: Name of a shipped model, or path of a bundle.
        to: `onnx`, `openvino`, `pt2` or `tensorrt`.
        out: File or folder; a new folder ends in `/`. The model's name in the working folder by default.
        weights: `f32`, or `f16` for OpenVINO and TensorRT.
        overwrite: Replace existing files.

    Raises:
        UsageError: If the format does not exist or has no such weights.
        ExportError: If the network cannot be exported, or its export gives other results; nothing is written then.
        MissingPackageError: If TensorRT is needed and not installed.
        ExistingResultError: If a file exists already.
    """
    if to not in TARGETS:
        raise UsageError(f"There is no format {to!r}. Choose one of {', '.join(TARGETS)}.")
    if weights not in ("f32", "f16"):
        raise UsageError(f"There are no weights {weights!r}. Choose f32 or f16.")
    if weights == "f16" and to not in HALF_TARGETS:
        raise UsageError(f"`weights='f16'` is for {' and '.join(HALF_TARGETS)}; {to} keeps f32. Omit `weights`.")
    if to == "tensorrt":
        from geoseg.export.tensorrt import require_tensorrt

        require_tensorrt()
    bundle = load_bundle(model)
    if bundle.format is not ModelFormat.SAFETENSORS:
        raise ExportError(f"{bundle.path} is an export itself. Give the .safetensors bundle that it was made from.")
    targets = _plan_targets(bundle, to, out)
    there = [str(path) for path in targets if path.exists()]
    if there and not overwrite:
        raise ExistingResultError(f"{there[0]} is already there. Choose another `out`, or give `overwrite=True`.")
    try:
        targets[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise output_error(targets[0], str(err)) from err
    with write_all_aside(targets[::-1]) as aside:  # the network last: it names the others
        item_path, *weight_files, network = aside
        check = _write_network(bundle, to, network, weights)
        files = [network, *weight_files[::-1]]
        checksums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        item = describe_item(bundle, model_format=to, assets=checksums)
        item["properties"] |= {"geoseg:weights": weights, "geoseg:check": check}
        if to == "tensorrt":  # an engine cannot hold metadata
            item["properties"]["geoseg:spec"] = bundle.spec.to_dict()
        item_path.write_text(json.dumps(item, indent=1) + "\n", encoding="utf-8")
    return ExportedModel(targets, check)


def _plan_targets(bundle: Bundle, to: str, out: str | Path | None) -> list[Path]:
    """Return the files that an export makes: the network first, the STAC Item last."""
    suffixes = TARGETS[to]
    first = Path(out) if out is not None else Path(bundle.spec.slug + suffixes[0])
    if first.is_dir() or str(out or "").endswith(("/", os.sep)):
        first = first / (bundle.spec.slug + suffixes[0])
    if first.suffix.lower() != suffixes[0]:
        raise UsageError(
            f"`out={str(out)!r}` does not end in {suffixes[0]}, as {to} files do. Give such a name, an "
            "existing folder, or a new folder with a / at its end."
        )
    return [*(first.with_suffix(suffix) for suffix in suffixes), first.with_name(f"{first.name}.stac.json")]


def _write_network(bundle: Bundle, to: str, path: Path, weights: str) -> dict[str, Any]:
    """Write the network with its metadata and check it; return the figures of the check."""
    from geoseg.export import writers

    properties = describe_properties(bundle, is_exported=True)
    metadata = {
        SPEC_KEY: json.dumps(bundle.spec.to_dict(), sort_keys=True),
        BUNDLE_KEY: bundle.key,
        MLM_KEY: json.dumps(properties, sort_keys=True),
    }
    if to != "tensorrt":
        write = {"onnx": writers.write_onnx, "openvino": writers.write_openvino, "pt2": writers.write_pt2}[to]
        return asdict(write(bundle, path, metadata, weights))
    from geoseg.export.tensorrt import build_engine

    onnx = path.with_suffix(".onnx")
    check = writers.write_onnx(bundle, onnx, metadata, "f32")
    build_engine(bundle, onnx.read_bytes(), path, weights=weights)
    log.warning("The ONNX network was checked against torch; the TensorRT engine made of it was not run.")
    return asdict(check) | {"engine": "not run"}
