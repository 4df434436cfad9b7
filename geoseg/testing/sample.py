"""Write painted scenes to disk: the committed sample, and scenes with labels to train on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.grid import Grid
from geoseg.io.aside import write_aside, write_text
from geoseg.testing.painter import PaintedScene, paint_scene

SAMPLE_SEED = 2026
"""Never used for training, which uses seeds 1 to 999."""
SAMPLE_REGION = "old_town"
SAMPLE_DATE = "2026-01-01T00:00:00Z"

_README = """# Sample scene

A painted aerial scene and the truth about it, for the first try and for tests. No real place, no real imagery.

| file | what |
|---|---|
| `scene.tif` | {size} x {size} px, RGB, 8 bit, {gsd} m per pixel, {crs} |
| `buildings.gpkg` | layer `buildings`: the {count} true roof outlines, {holes} of them with a courtyard |

Made by geoseg's own generator, `geoseg.testing`, from seed {seed}; the default network was never trained on this seed.
To make it again: `{command}`. A test compares the committed files with the generator's.

License: Apache-2.0, as geoseg.
"""


def write_sample(
    folder: str | Path, *, seed: int = SAMPLE_SEED, size_px: int = 1024, gsd_m: float = 0.3, kind: str = "plain"
) -> list[Path]:
    """Write `scene.tif`, `buildings.gpkg` and `README.md` into a folder; returns their paths.

    A plain scene shows the sample's region, a dense one (`kind`, as of `paint_scene`) a region drawn from the seed.
    """
    home = Path(folder)
    region = SAMPLE_REGION if kind == "plain" else None
    scene = paint_scene(seed, size_px=size_px, gsd_m=gsd_m, region=region, kind=kind)
    write_raster(home / "scene.tif", scene.image, scene.grid)
    write_footprints(home / "buildings.gpkg", scene)
    holes = sum(bool(footprint.interiors) for footprint in scene.footprints)
    count, crs = len(scene.footprints), scene.grid.crs.to_string() if scene.grid.crs else "no CRS"
    command = "python -m geoseg.testing sample_data"
    command += ("" if seed == SAMPLE_SEED else f" --seed {seed}") + ("" if kind == "plain" else f" --kind {kind}")
    readme = _README.format(size=size_px, gsd=gsd_m, crs=crs, count=count, holes=holes, seed=seed, command=command)
    write_text(home / "README.md", readme)
    return [home / "scene.tif", home / "buildings.gpkg", home / "README.md"]


def write_training_scenes(
    folder: str | Path, seeds: Iterable[int], *, size_px: int = 1024, gsd_m: float = 0.3, region: str | None = None
) -> list[tuple[Path, Path]]:
    """Write scenes and their labels.

    Args:
        folder: Where the files go.
        seeds: One scene each.
        size_px: Rows and columns.
        gsd_m: Meters per pixel.
        region: Fixes the style; drawn from each seed when None.

    Returns:
        Pairs of `painted_<seed>.tif` (RGB uint8) and `painted_<seed>_labels.tif` (one band, uint8, 0/1).

    Raises:
        ValueError: If a seed is the sample's, which must not be trained on.
    """
    written = []
    for seed in seeds:
        if seed == SAMPLE_SEED:
            raise ValueError(f"seed {seed} is the sample scene's and must not be trained on: use seeds 1 to 999")
        scene = paint_scene(seed, size_px=size_px, gsd_m=gsd_m, region=region)
        image, labels = Path(folder) / f"painted_{seed:04d}.tif", Path(folder) / f"painted_{seed:04d}_labels.tif"
        write_raster(image, scene.image, scene.grid)
        write_raster(labels, label_raster(scene)[None], scene.grid)
        written.append((image, labels))
    return written


def label_raster(scene: PaintedScene) -> NDArray[np.uint8]:
    """Rasterize the true footprints: (y, x) uint8, 1 where a pixel's center lies in a building."""
    from rasterio.features import rasterize

    burnt: NDArray[np.uint8] = rasterize(
        scene.footprints, out_shape=scene.grid.shape, transform=scene.grid.transform, dtype="uint8"
    )
    return burnt


def write_raster(path: Path, values: NDArray[np.uint8], grid: Grid) -> None:
    """Write (band, y, x) values as a tiled, deflated GeoTIFF."""
    options = {"driver": "GTiff", "count": len(values), "dtype": "uint8", "height": grid.height, "width": grid.width}
    options |= {"crs": grid.crs, "transform": grid.transform, "compress": "deflate", "zlevel": 9, "predictor": 2}
    if min(grid.shape) >= 256:
        options |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as part, rasterio.open(part, "w", **options) as target:
        target.write(values)


def write_footprints(path: Path, scene: PaintedScene) -> None:
    """Write the true footprints as a GeoPackage; its date is fixed, so that a scene always gives the same file."""
    import geopandas
    import pyogrio

    frame = geopandas.GeoDataFrame(
        {"id": range(1, len(scene.footprints) + 1)}, geometry=scene.footprints, crs=scene.grid.crs
    )
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": SAMPLE_DATE})
    try:
        with write_aside(path) as part:
            frame.to_file(part, layer="buildings", driver="GPKG", engine="pyogrio")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
