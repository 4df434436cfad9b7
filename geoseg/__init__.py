"""geoseg: building footprints from georeferenced imagery."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geoseg import redaction  # noqa: F401 - the loggers of all modules pass through it
from geoseg._version import __version__

if TYPE_CHECKING:
    from geoseg.bundle import load_bundle as load_model
    from geoseg.evaluate import (
        CompareSettings,
        EvaluateSettings,
        ReviewSettings,
        compare_with_map,
        count_answers,
        evaluate_scenes,
        review_run,
    )
    from geoseg.inference import predict_scene
    from geoseg.run import (
        MergeSettings,
        RunSettings,
        VectorizeSettings,
        merge_results,
        run_each,
        run_inputs,
        run_mosaic,
        run_scene,
        vectorize_raster,
        write_report,
    )
    from geoseg.scene import open_scene
    from geoseg.training.finetune import FinetuneSettings, finetune
    from geoseg.vectorize import Simplify, polygonize

__all__ = [
    "CompareSettings",
    "EvaluateSettings",
    "FinetuneSettings",
    "MergeSettings",
    "ReviewSettings",
    "RunSettings",
    "Simplify",
    "VectorizeSettings",
    "__version__",
    "compare_with_map",
    "count_answers",
    "evaluate_scenes",
    "finetune",
    "load_model",
    "merge_results",
    "open_scene",
    "polygonize",
    "predict_scene",
    "review_run",
    "run_each",
    "run_inputs",
    "run_mosaic",
    "run_scene",
    "vectorize_raster",
    "write_report",
]

_HOMES = {
    "CompareSettings": "geoseg.evaluate",
    "EvaluateSettings": "geoseg.evaluate",
    "FinetuneSettings": "geoseg.training.finetune",
    "MergeSettings": "geoseg.run",
    "ReviewSettings": "geoseg.evaluate",
    "RunSettings": "geoseg.run",
    "Simplify": "geoseg.vectorize",
    "VectorizeSettings": "geoseg.run",
    "compare_with_map": "geoseg.evaluate",
    "count_answers": "geoseg.evaluate",
    "evaluate_scenes": "geoseg.evaluate",
    "finetune": "geoseg.training.finetune",
    "load_model": "geoseg.bundle",
    "merge_results": "geoseg.run",
    "open_scene": "geoseg.scene",
    "polygonize": "geoseg.vectorize",
    "predict_scene": "geoseg.inference",
    "review_run": "geoseg.evaluate",
    "run_each": "geoseg.run",
    "run_inputs": "geoseg.run",
    "run_mosaic": "geoseg.run",
    "run_scene": "geoseg.run",
    "vectorize_raster": "geoseg.run",
    "write_report": "geoseg.run",
}
"""Where the names live: they are imported when they are used, so that `import geoseg` costs nothing."""

_OTHER_NAMES = {"load_model": "load_bundle"}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), _OTHER_NAMES.get(name, name))


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
