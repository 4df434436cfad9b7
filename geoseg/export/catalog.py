"""Models as a person reads them: a table of the shipped ones, a page about one."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from geoseg.bundle import Bundle, list_models, load_bundle
from geoseg.io.tables import align_columns
from geoseg.model_file import BUNDLE_KEY, MLM_KEY, ModelFormat, file_sha256, model_files

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch normalization keeps beside its parameters."""


def describe_models() -> list[dict[str, Any]]:
    """Return the facts of every shipped model."""
    return [describe_model(load_bundle(name)) for name in list_models()]


def describe_model(bundle: Bundle) -> dict[str, Any]:
    """Return the facts of one model: where and what it is, and its whole specification."""
    return {
        "name": bundle.spec.name,
        "version": bundle.spec.version,
        "path": str(bundle.path),
        "format": str(bundle.format),
        "bytes": sum(path.stat().st_size for path in model_files(bundle.path, bundle.format)),
        "key": bundle.key,
        "sha256": file_sha256(bundle.path, bundle.format),
        "exported_from": bundle.header.get(BUNDLE_KEY),
        "parameters": count_parameters(bundle),
        "figure": headline(bundle.spec.metrics),
        "spec": bundle.spec.to_dict(),
    }


def headline(metrics: Mapping[str, Any]) -> str:
    """Return one score of a model for a table: IoU on test areas, else on validation areas."""
    for split in ("test", "validation"):
        inner = metrics.get(split)
        numbers = list(_numbers(metrics.get(f"{split}_iou", inner.get("iou") if isinstance(inner, Mapping) else None)))
        if numbers:
            return f"IoU {fmean(numbers):.3f} ({split}{f', mean of {len(numbers)}' if len(numbers) > 1 else ''})"
    return "-"


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, int | float):
        yield float(value)


def count_parameters(bundle: Bundle) -> int:
    """Return the number of parameters, without statistics of batch normalization; 0 if an export does not say."""
    if bundle.format is not ModelFormat.SAFETENSORS:
        properties = json.loads(bundle.header.get(MLM_KEY, "{}"))
        return int(properties.get("mlm:total_parameters", 0))
    from safetensors import safe_open

    with safe_open(bundle.path, framework="np") as file:
        names = [name for name in file.keys() if not name.endswith(STATISTICS)]  # noqa: SIM118 (no mapping)
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def format_models(models: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of models."""
    if not models:
        return "No model is shipped."
    rows: list[Sequence[str]] = [("name", "version", "GSD", "bands", "classes", "size", "license", "figure")]
    for model in models:
        spec, size = model["spec"], f"{model['bytes'] / 1e6:.1f} MB"
        names, gsd = (" ".join(spec["bands"]), " ".join(spec["classes"])), f"{spec['gsd_m']:g} m"
        rows.append((model["name"], model["version"], gsd, *names, size, spec["license"] or "-", model["figure"]))
    return align_columns(rows)


def format_model(model: Mapping[str, Any]) -> str:
    """Return a page about one model."""
    spec = model["spec"]
    auxiliary = {"auxiliary": " ".join(spec["auxiliary"])} if spec.get("auxiliary") else {}
    depth = f", {spec['split_depth']:g} of probability between two" if spec.get("split_depth") else ""
    origin = {"exported from": model["exported_from"]} if model["exported_from"] else {}
    facts = {
        "file": f"{model['path']} ({model['format']}, {model['bytes'] / 1e6:.1f} MB)",
        "sha256": model["sha256"],
        "key": model["key"],
        **origin,
        "network": spec["network"],
        "options": spec["network_options"],
        "parameters": f"{model['parameters']:,}" if model["parameters"] else "unknown",
        "bands": f"{' '.join(spec['bands'])}, values 0 to {spec['pixel_max']:g}, at {spec['gsd_m']:g} m",
        "mean": spec["mean"],
        "std": spec["std"],
        "classes": f"{' '.join(spec['classes'])}; {spec['target']} from {spec['threshold']:g}",
        **auxiliary,
        "chips": f"{spec['chip_px']} px, halo {spec['halo_px']} px, multiples of {spec['stride_px']} px",
        "footprints": f"from {spec['min_area_m2']:g} m2{depth}",
        "license": spec["license"] or "not said",
        "figures": spec["metrics"],
        "training": spec["training"],
    }
    title = f"{model['name']} {model['version']}"
    return "\n".join([f"{title}: {spec['description']}" if spec["description"] else title, *_lines(facts)])


def _lines(values: Mapping[str, Any], depth: int = 1) -> Iterator[str]:
    """Yield nested values as indented lines."""
    indent = "  " * depth
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}"
            yield from _lines(value, depth + 1)
        elif isinstance(value, list | tuple) and any(isinstance(item, str | Mapping) for item in value):
            yield f"{indent}{name}"
            yield from (f"{indent}  {item}" for item in value)
        else:
            yield f"{indent}{name}: {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
