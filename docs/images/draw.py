"""Draw footprints over their scene: python docs/images/draw.py SCENE RESULT_FOLDER OUT.png --window ROW COL H W.

The window is in pixels of the result. Half of the picture shows the image alone, half the footprints by confidence.
"""

import argparse
from pathlib import Path

import geopandas
import matplotlib as mpl
import numpy as np
import rasterio
from matplotlib import pyplot as plt

from geoseg.grid import Grid, Window
from geoseg.scene import open_scene

mpl.use("Agg")


def main() -> None:
    """Draw one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--window", type=int, nargs=4, default=[0, 0, 512, 768])
    args = parser.parse_args()
    with rasterio.open(args.result / "mask.tif") as mask:
        grid = Grid(mask.crs, mask.transform, mask.shape)
    window = Window(*args.window)
    image = np.moveaxis(open_scene(args.scene).at_shape(grid.shape).read(window).values, 0, 2)
    footprints = geopandas.read_file(args.result / "buildings.gpkg", layer="buildings")
    inverse = (~grid.crop(window).transform).to_shapely()
    footprints = footprints.set_geometry(footprints.geometry.affine_transform(inverse), crs=None)
    figure, axes = plt.subplots(1, 2, figsize=(2 * window.width / 100, window.height / 100), dpi=100)
    for axis in axes:
        axis.imshow(image, interpolation="nearest", extent=(0, window.width, window.height, 0))
        axis.set_axis_off()
    footprints.plot("confidence", ax=axes[1], cmap="plasma", vmin=0, vmax=1, alpha=0.45, aspect=None)
    footprints.boundary.plot(ax=axes[1], color="white", linewidth=0.8, aspect=None)
    for axis in axes:
        axis.set_xlim(0, window.width)
        axis.set_ylim(window.height, 0)
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0)
    figure.savefig(args.out, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
