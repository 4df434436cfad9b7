"""What a file says of its bands: which are red, green and blue, and which alpha is a mask.

Names in descriptions are trusted before color interpretation, as somebody wrote them: GDAL marks the first three of
several 8-bit bands red, green and blue, and a fourth alpha, unless it is told otherwise
(https://gdal.org/en/stable/drivers/raster/gtiff.html, PHOTOMETRIC and ALPHA).
"""

import re
from collections.abc import Sequence
from itertools import product

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterWindow

COLORS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}

BESIDE_COLORS = {"b", "band", "channel", "reflectance", "sr", "toa", "boa", "surface"}
"""Words that may stand beside a color in a description, such as `Band 3 (Red)`; `red edge` is another color."""

IMAGE_WORDS = {*COLORS, "nir", "infrared", "rededge", "swir"}
"""Words in the name of a band that is no mask, however it is marked."""

ALPHA_SAMPLE_PX = 128
"""Side of each of nine samples of an alpha band."""

MASK_VALUES = 16
"""Most values of a mask between transparent and opaque: more are an image, or the soft edges of a mask."""


def colors_of(src: rasterio.DatasetReader, *, has_alpha: bool = True) -> tuple[ColorInterp, ...]:
    """Return what each band shows: as descriptions name it, else as the file marks it.

    Args:
        src: The raster.
        has_alpha: Whether a band that is marked alpha is a mask; if not, it is a band like the others.
    """
    named, colors = name_colors(src.descriptions), []
    for band, marked in enumerate(src.colorinterp):
        if marked == ColorInterp.alpha and has_alpha:
            colors.append(marked)
        elif marked == ColorInterp.alpha or (named and marked in COLORS.values()):
            colors.append(named.get(band, ColorInterp.undefined))
        else:
            colors.append(named.get(band, marked))
    return tuple(colors)


def name_colors(descriptions: Sequence[str | None]) -> dict[int, ColorInterp]:
    """Return the colors of bands, from 0, if the descriptions name one band red, one green and one blue."""
    found: dict[ColorInterp, list[int]] = {color: [] for color in COLORS.values()}
    for band, text in enumerate(descriptions):
        words = re.findall("[a-z]+", (text or "").lower())
        left = [word for word in words if word not in BESIDE_COLORS] or words
        for name, color in COLORS.items():
            if left in ([name], [name[0]]):
                found[color].append(band)
    if any(len(bands) != 1 for bands in found.values()):
        return {}
    return {bands[0]: color for color, bands in found.items()}


def order_bands(colors: Sequence[ColorInterp]) -> tuple[int, ...]:
    """Return the one-based bands that are not alpha: red, green, blue first where they are known."""
    meaning = list(colors)
    rgb = tuple(COLORS.values())
    first = [meaning.index(color) + 1 for color in rgb] if all(color in meaning for color in rgb) else []
    others = [i for i, m in enumerate(meaning, 1) if m != ColorInterp.alpha and i not in first]
    return (*first, *others)


def is_mask(src: rasterio.DatasetReader) -> bool:
    """Return False if a band that is marked alpha is an image: by its name, or by its values in nine samples."""
    for band, color in enumerate(src.colorinterp, 1):
        if color == ColorInterp.alpha:
            words = set(re.findall("[a-z]+", (src.descriptions[band - 1] or "").lower()))
            if words & IMAGE_WORDS or _has_many_values(src, band):
                return False
    return True


def _has_many_values(src: rasterio.DatasetReader, band: int) -> bool:
    """Return True if most pixels of a band are neither transparent nor opaque, and have many values."""
    height, width = (min(ALPHA_SAMPLE_PX, n) for n in src.shape)
    tops, lefts = ({(n - side) * i // 2 for i in range(3)} for n, side in zip(src.shape, (height, width), strict=True))
    places = product(sorted(tops), sorted(lefts))
    samples = [src.read(band, window=RasterWindow(left, top, width, height)).ravel() for top, left in places]
    values = np.concatenate(samples)
    opaque = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else values.max()
    seen = values[values != 0]
    between = seen[seen != opaque]
    return bool(2 * between.size > seen.size and np.unique(between).size > MASK_VALUES)
