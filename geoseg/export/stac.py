"""A model as a STAC Item with the fields of the Machine Learning Model extension.

https://github.com/stac-extensions/mlm, version 1.4.0; the version whose fields pystac knows.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoseg.bundle import Bundle, ModelSpec
from geoseg.export.catalog import count_parameters
from geoseg.model_file import ModelFormat, file_sha256
from geoseg.outputs.stac import EXTENSIONS, SHA256_MULTIHASH, VERSION

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
TASK = "semantic-segmentation"

HYPERPARAMETERS = (
    *("gsd_m", "pixel_max", "mean", "std", "chip_px", "halo_px", "stride_px", "threshold", "min_area_m2"),
    *("split_depth", "network_options"),
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """How STAC names a format.

    Attributes:
        media_type: Of the file.
        artifact_type: What wrote it, as `mlm:artifact_type`.
        compile_method: `aot` where the network was compiled ahead of time.
    """

    media_type: str
    artifact_type: str
    compile_method: str | None = None


ARTIFACTS = {
    "safetensors": Artifact("application/octet-stream; framework=pytorch; format=safetensors", "safetensors.save_file"),
    "onnx": Artifact("application/octet-stream; framework=onnx", "onnx.save"),
    "openvino": Artifact("application/xml; framework=openvino", "openvino.save_model"),
    "pt2": Artifact("application/octet-stream; framework=pytorch; format=pt2", "torch.export.save", "aot"),
    "tensorrt": Artifact("application/octet-stream; framework=tensorrt", "tensorrt.serialize", "aot"),
}


def describe_properties(bundle: Bundle, *, is_exported: bool) -> dict[str, Any]:
    """Return the `mlm:` fields of a model.

    Args:
        bundle: The model.
        is_exported: Whether normalization and activation are part of the network, as in every exported file.
    """
    spec, values = bundle.spec, bundle.spec.to_dict()
    return {
        "mlm:name": mlm_name(spec.name),
        "mlm:architecture": spec.network,
        "mlm:tasks": [TASK],
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": count_parameters(bundle),
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:hyperparameters": {name: values[name] for name in HYPERPARAMETERS if name in values},
        "mlm:input": [_input(spec, is_exported=is_exported)],
        "mlm:output": [_output(spec)],
    }


def mlm_name(name: str) -> str:
    """Return a name that the extension allows: letters, digits, dots, dashes, spaces; a letter first."""
    text = re.sub(r"[^A-Za-z0-9_.\- ]+", "-", name).strip("-_. ")
    return text if re.fullmatch(r"[A-Za-z].+", text) else f"geoseg-{text or 'model'}"


def _input(spec: ModelSpec, *, is_exported: bool) -> dict[str, Any]:
    statistics = zip(spec.mean, spec.std, strict=True)
    scaling = [
        {"type": "z-score", "mean": mean * spec.pixel_max, "stddev": std * spec.pixel_max} for mean, std in statistics
    ]
    where = "inside the network" if is_exported else "as value_scaling says, band by band"
    return {
        "name": "pixels",
        "bands": list(spec.bands),
        "input": {
            "shape": [-1, len(spec.bands), -1, -1],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "description": (
            f"Pixel values 0 to {spec.pixel_max:g} at {spec.gsd_m:g} m; height and width are multiples of "
            f"{spec.stride_px}. They are normalized {where}."
        ),
        "value_scaling": None if is_exported else scaling,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(spec: ModelSpec) -> dict[str, Any]:
    is_binary = len(spec.classes) == 1
    activation = "sigmoid" if is_binary else "softmax"
    names = ("background", *spec.classes) if is_binary else spec.classes  # by their values in a class raster
    colors = dict(zip(spec.classes, spec.class_colors, strict=True))
    classes = [
        {"value": value, "name": re.sub(r"[^0-9A-Za-z-_]+", "-", name), "description": name}
        | ({"color_hint": colors[name].removeprefix("#").upper()} if name in colors else {})
        for value, name in enumerate(names)
    ]
    description = f"Probabilities 0 to 1 ({activation}); {spec.target} from {spec.threshold:g}."
    if spec.auxiliary:
        description += (
            f" Channels: {', '.join(spec.channels)}. Those after the {'class' if is_binary else 'classes'} are "
            "auxiliary, a sigmoid each."
        )
    return {
        "name": "probabilities",
        "tasks": [TASK],
        "result": {
            "shape": [-1, len(spec.channels), -1, -1],
            "dim_order": ["batch", "channel" if spec.auxiliary else "class", "height", "width"],
            "data_type": "float32",
        },
        "description": description,
        "classification:classes": classes,
        "post_processing_function": None,
    }


def describe_item(
    bundle: Bundle, *, model_format: str | None = None, assets: dict[Path, str] | None = None
) -> dict[str, Any]:
    """Return a model as a STAC Item.

    Args:
        bundle: The model.
        model_format: Its format, a key of `ARTIFACTS`; that of the bundle's file by default.
        assets: SHA-256 by file, the network first; the bundle's own file by default.
    """
    model_format = model_format or str(bundle.format)
    if assets is None:
        assets = {bundle.path: file_sha256(bundle.path, ModelFormat.SAFETENSORS)}
    spec = bundle.spec
    bands = [{"name": name} for name in spec.bands]
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [MLM_SCHEMA, EXTENSIONS["file"]],
        "id": spec.slug,
        "geometry": None,
        "properties": {
            "datetime": _date(bundle),
            "title": f"{spec.name} {spec.version}",
            "description": spec.description or f"{spec.target} at {spec.gsd_m:g} m",
            "license": spec.license if re.fullmatch(r"[\w.+-]+", spec.license) else "other",
            "gsd": spec.gsd_m,
            "bands": bands,
            "geoseg:version": spec.version,
            "geoseg:key": bundle.key,
            "geoseg:channels": list(spec.channels),
            "geoseg:metrics": spec.metrics,
            **describe_properties(bundle, is_exported=model_format != ModelFormat.SAFETENSORS),
        },
        "links": [],
        "assets": _assets(model_format, assets, bands),
    }


def _date(bundle: Bundle) -> str:
    """Return the day of training where it is known, else when the file was made."""
    try:
        day = datetime.fromisoformat(str(bundle.spec.training.get("date")))
    except ValueError:
        day = datetime.fromtimestamp(int(bundle.path.stat().st_mtime), UTC)
    return day.astimezone(UTC).isoformat() if day.tzinfo else f"{day.isoformat()}Z"


def _assets(model_format: str, files: dict[Path, str], bands: list[dict[str, str]]) -> dict[str, Any]:
    """Return the files; the network has bands: MLM asks for them in the Item, and STAC 1.1 then in an asset too."""
    kind = ARTIFACTS[model_format]
    assets: dict[str, Any] = {}
    for number, (path, sha256) in enumerate(files.items()):
        is_network = number == 0
        assets["model" if is_network else "weights"] = {
            "href": f"./{path.name}",
            "type": kind.media_type if is_network else "application/octet-stream",
            "roles": ["mlm:model"] if is_network else ["mlm:weights"],
            "mlm:artifact_type": kind.artifact_type,
            "mlm:compile_method": kind.compile_method,
            "file:size": path.stat().st_size,
            "file:checksum": SHA256_MULTIHASH + sha256,
            **({"bands": bands} if is_network else {}),
        }
    return assets
