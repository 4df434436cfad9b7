"""geoseg: building footprints from georeferenced imagery."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geoseg._version import __version__

if TYPE_CHECKING:
    from geoseg.inference import predict_scene
    from geoseg.run import RunSettings, run_each, run_inputs, run_scene

__all__ = ["RunSettings", "__version__", "predict_scene", "run_each", "run_inputs", "run_scene"]

_HOMES = {
    "RunSettings": "geoseg.run",
    "predict_scene": "geoseg.inference",
    "run_each": "geoseg.run",
    "run_inputs": "geoseg.run",
    "run_scene": "geoseg.run",
}
"""Where the names live: they are imported when they are used, so that `import geoseg` costs nothing."""


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
