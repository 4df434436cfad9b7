"""Which pixels of a raster are valid, by all that it says of them: mask band, alpha band, nodata values.

Where there are nodata values, GDAL forgets the alpha band, and rasterio's `dataset_mask` asks of four bands the last
alone, be it alpha or infrared (https://github.com/rasterio/rasterio, `DatasetReader.dataset_mask`).
"""

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NodataShadowWarning
from rasterio.windows import Window as RasterWindow

from geoseg.silence import quiet


def read_valid(reader: rasterio.DatasetReader, window: RasterWindow) -> NDArray[np.bool_]:
    """Return the `(y, x)` valid mask of a window.

    With nodata values a pixel is valid where any band but alpha holds another one, unless alpha hides it.
    """
    if not any(MaskFlags.nodata in flags for flags in reader.mask_flag_enums):
        return np.asarray(reader.dataset_mask(window=window) > 0)
    alpha = [
        band for band, colour in zip(reader.indexes, reader.colorinterp, strict=True) if colour == ColorInterp.alpha
    ]
    valid = np.zeros((window.height, window.width), bool)
    with quiet(NodataShadowWarning):
        for band in set(reader.indexes) - set(alpha):
            valid |= reader.read_masks(band, window=window) > 0
    for band in alpha:
        valid &= reader.read(band, window=window) > 0
    return valid
