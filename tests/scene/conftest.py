"""Tiny rasters of every kind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from geoseg.scene import close_readers

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _closed_readers() -> object:
    """Close what a test has read, as its files go away."""
    yield
    close_readers()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `(band, y, x)` pixels at 0.3 m in UTM 30N; creation options and profile as keywords."""

    def write_raster(
        name: str,
        pixels: NDArray,
        *,
        mask: NDArray | None = None,
        colors: tuple[str, ...] = (),
        overviews: tuple[int, ...] = (),
        crs: str | None = "EPSG:32630",
        transform: Affine | None = PLACE,
        **profile: object,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = pixels.shape
        options = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
        options |= {"crs": crs, "transform": transform} if transform is not None else {}
        options |= {"crs": crs} if "gcps" in profile else {}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **(options | profile)) as dst:
            if colors:
                dst.colorinterp = [getattr(rasterio.enums.ColorInterp, c) for c in colors]
            dst.write(pixels)
            if mask is not None:
                dst.write_mask(mask)
            if overviews:
                dst.build_overviews(overviews, rasterio.enums.Resampling.average)
        return path

    def quiet(*args: object, **kwargs: object) -> Path:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # rasterio warns while it writes a plain picture
            return write_raster(*args, **kwargs)

    return quiet


@pytest.fixture
def noise() -> Callable[..., NDArray]:
    """Random pixels over the range of the type."""

    def make(bands: int, height: int, width: int, dtype: str = "uint8", seed: int = 1) -> NDArray:
        rng = np.random.default_rng(seed)
        if np.issubdtype(dtype, np.floating):
            return rng.normal(100, 50, (bands, height, width)).astype(dtype)
        return rng.integers(1, np.iinfo(dtype).max, (bands, height, width), dtype, endpoint=True)

    return make
