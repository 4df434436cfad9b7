"""Versions, devices and models, for a bug report."""

import importlib.util
import platform
from typing import Any

from geoseg._version import __version__
from geoseg.bundle import list_models, load_bundle
from geoseg.engines import native_precisions, usable_cores
from geoseg.run.report import package_versions


def describe_installation() -> dict[str, Any]:
    """Return what a bug report needs."""
    import rasterio
    import torch

    library = "OpenVINO" if importlib.util.find_spec("openvino") else "torch"
    devices = {"cpu": f"{usable_cores()} cores, {library}, {' and '.join(native_precisions())}"}
    if torch.cuda.is_available():
        devices["cuda"] = torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    bundles = {name: load_bundle(name) for name in list_models()}
    return {
        "geoseg": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "gdal": rasterio.__gdal_version__,
        "packages": package_versions(),
        "devices": devices,
        "models": {
            name: {
                "version": bundle.spec.version,
                "gsd_m": bundle.spec.gsd_m,
                "bands": bundle.spec.bands,
                "key": bundle.key,
                "what": bundle.spec.description,
            }
            for name, bundle in bundles.items()
        },
    }


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
