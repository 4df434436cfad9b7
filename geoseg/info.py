"""Versions, devices and models, for a bug report."""

import importlib.util
import platform
from typing import Any

from geoseg._version import __version__
from geoseg.bundle import list_models, load_bundle
from geoseg.engines import usable_cores
from geoseg.run.report import package_versions


def describe_installation() -> dict[str, Any]:
    """Return what a bug report needs."""
    import rasterio

    return {
        "geoseg": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "gdal": rasterio.__gdal_version__,
        "packages": package_versions(),
        "devices": _devices(),
        "models": {name: _describe_model(name) for name in list_models()},
    }


def _describe_model(name: str) -> dict[str, Any]:
    bundle = load_bundle(name)
    spec = bundle.spec
    return {
        "version": spec.version,
        "gsd_m": spec.gsd_m,
        "bands": spec.bands,
        "key": bundle.key,
        "what": spec.description,
    }


def _devices() -> dict[str, str]:
    engine = "OpenVINO" if importlib.util.find_spec("openvino") else "torch"
    devices = {"cpu": f"{usable_cores()} cores, {engine}"}
    import torch

    if torch.cuda.is_available():
        devices["cuda"] = torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices


def format_installation(facts: dict[str, Any]) -> str:
    """Return the facts as lines."""
    lines = [
        f"geoseg {facts['geoseg']}, Python {facts['python']}, GDAL {facts['gdal']}",
        facts["system"],
        "",
        "packages",
    ]
    lines += [f"  {name} {version or 'missing'}" for name, version in facts["packages"].items()]
    lines += ["", "devices", *(f"  {name}: {what}" for name, what in facts["devices"].items()), "", "models"]
    lines += [
        f"  {name} {m['version']} ({m['gsd_m']:g} m, {' '.join(m['bands'])}): {m['what']}"
        for name, m in facts["models"].items()
    ] or ["  none is shipped"]
    return "\n".join(lines)
