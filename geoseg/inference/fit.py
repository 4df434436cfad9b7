"""A scene made ready for a model: its bands, its pixels' range, its grid."""

import logging
from collections.abc import Sequence
from typing import Literal

from geoseg.bundle import ModelSpec
from geoseg.errors import BandMismatchError
from geoseg.scene import Scene

log = logging.getLogger(__name__)

GridChoice = Literal["model", "scene"]
"""`model` resamples a scene to the model's GSD; `scene` keeps the scene's own pixels."""

COARSE_FACTOR = 3.0
"""A scene whose pixels are this much larger than the model's deserves a warning."""


def fit_scene(
    scene: Scene, spec: ModelSpec, *, bands: Sequence[int] | None = None, grid: GridChoice = "model"
) -> Scene:
    """Return the scene as a model wants it.

    The rule for bands: `bands` if given; else red, green and blue as the file marks them, then its other bands in their
    order, never alpha. One band serves all of the model's (a panchromatic scene). More bands than the model has are
    left out, from the end.

    Args:
        scene: The scene as it was opened.
        spec: The model's specification.
        bands: One-based bands to use.
        grid: `model` for the model's GSD, `scene` for the scene's own pixels.

    Raises:
        BandMismatchError: If the bands do not serve.
    """
    scene = scene.with_bands(choose_bands(scene, spec, bands))
    if spec.pixel_max == 255:
        scene = scene.with_levels()
        if scene.levels:
            levels = ", ".join(f"{low:.6g}-{high:.6g}" for low, high in scene.levels)
            log.info("%s pixels are stretched to 8 bits, per band: %s", scene.dtype, levels)
    _warn_of_coarse(scene, spec)
    return scene.at_gsd(spec.gsd_m) if grid == "model" else scene


def choose_bands(scene: Scene, spec: ModelSpec, bands: Sequence[int] | None) -> tuple[int, ...]:
    """Return the scene's band for each of the model's."""
    wanted, found = len(spec.bands), tuple(bands) if bands else scene.bands
    if not bands and wanted > len(found):
        found = scene.data_bands if len(scene.data_bands) >= wanted else found
    if len(found) == 1 and wanted > 1:
        log.warning("One band serves as %s of the model %s.", ", ".join(spec.bands), spec.name)
        return found * wanted
    if len(found) < wanted or (bands and len(found) != wanted):
        raise BandMismatchError(
            f"{scene.name} gives {len(found)} bands ({', '.join(map(str, found))} of {scene.band_count}); the model "
            f"{spec.name} wants {wanted}: {', '.join(spec.bands)}. Name them in this order, such as --bands "
            f"{','.join(map(str, range(1, wanted + 1)))}, or give one band for all."
        )
    return found[:wanted]


def _warn_of_coarse(scene: Scene, spec: ModelSpec) -> None:
    gsd_m = scene.native.gsd_m
    if gsd_m and max(gsd_m) > COARSE_FACTOR * spec.gsd_m:
        log.warning(
            "%s has pixels of %.2g m; the model %s was trained at %.2g m and may see too little.",
            scene.name,
            max(gsd_m),
            spec.name,
            spec.gsd_m,
        )
