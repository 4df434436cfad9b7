"""Scenes in several CRSs over one place, in the corner of two UTM zones."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform
from scipy.ndimage import gaussian_filter

from geoseg.scene import Scene, close_readers, open_scene

PLACE = (811_200.0, 618_900.0)
"""Easting and northing in EPSG:32630, 2 degrees east of its meridian."""

PLACES = {"EPSG:32630": 0.3, "EPSG:32631": 0.3, "EPSG:3857": 0.3, "EPSG:4326": 2.7e-6, "EPSG:2136": 1.0}
"""Pixel in units of the CRS; EPSG:2136 is in Gold Coast feet."""

WriteScene = Callable[..., Scene]


@pytest.fixture(autouse=True)
def _closed_readers() -> Iterator[None]:
    yield
    close_readers()


@pytest.fixture(scope="session")
def write_scene(tmp_path_factory: pytest.TempPathFactory) -> WriteScene:
    """Writes `(band, y, x)` pixels and opens them: `crs`, `px`, `shift` (pixels), `turn` (degrees), `valid`, `name`."""

    def write(
        pixels: np.ndarray,
        crs: str = "EPSG:32630",
        *,
        px: float | None = None,
        shift: tuple[float, float] = (0, 0),
        turn: float = 0,
        valid: np.ndarray | None = None,
        name: str = "scene",
        **options: object,
    ) -> Scene:
        px, (x, y) = px or PLACES[crs], transform("EPSG:32630", crs, [PLACE[0]], [PLACE[1]])
        place = Affine(px, 0, x[0], 0, -px, y[0]) @ Affine.translation(*shift) @ Affine.rotation(turn)
        path = tmp_path_factory.mktemp("scenes") / f"{name}.tif"
        count, height, width = pixels.shape
        profile = {"driver": "GTiff", "dtype": pixels.dtype, "count": count, "height": height, "width": width}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", crs=crs, transform=place, **profile, **options) as dst,
        ):
            dst.write(pixels)
            if valid is not None:
                dst.write_mask(valid)
        return open_scene(path)

    return write


@pytest.fixture(scope="session")
def smooth() -> Callable[..., np.ndarray]:
    """Makes `(band, y, x)` uint8 hills without hard edges."""

    def make(height: int, width: int, *, bands: int = 3, seed: int = 0, sigma: float = 6) -> np.ndarray:
        rng = np.random.default_rng(seed)
        hills = [gaussian_filter(rng.normal(size=(height, width)), sigma) * 150 * sigma + 128 for _ in range(bands)]
        return np.clip(np.stack(hills), 0, 255).astype(np.uint8)

    return make
