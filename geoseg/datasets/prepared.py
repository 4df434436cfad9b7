"""Scenes made ready for training: image and truth at one GSD in a memory-mapped array, so that a crop is a slice.

A prepared scene lives on its own pixel plane (x = column, y = row, one unit per pixel): training needs neither
degrees nor a rotation any more, and torchgeo's samplers work in whole numbers.
"""

import json
import os
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchgeo.datasets import GeoDataset

from geoseg.datasets.labels import IGNORED, Labels
from geoseg.grid import Window

__all__ = ["PreparedScene", "is_prepared", "write_prepared"]

_WHEN = pd.Interval(pd.Timestamp(1970, 1, 1), pd.Timestamp(2100, 1, 1), closed="both")


class PreparedScene(GeoDataset):
    """Crops of one prepared scene, by torchgeo's queries or by window.

    The index holds one box for every place where a crop of `crop_px` finds enough truth; `RandomGeoSampler` takes
    crops from them.
    """

    def __init__(self, path: Path, *, crop_px: int = 0, least_known: float = 0.5) -> None:
        """Open a scene that `write_prepared` wrote.

        Args:
            path: the .npy file.
            crop_px: side of the crops that will be sampled; 0 for one box over the whole scene.
            least_known: share of a box's pixels that must have truth.
        """
        self.path = path
        self._pixels: NDArray[np.uint8] | None = None
        self._res = (1.0, 1.0)
        boxes = sampling_boxes(self.pixels[..., -1], crop_px, least_known) if crop_px else [self.window]
        shapes = [shapely.box(b.cols.start, b.rows.start, b.cols.stop, b.rows.stop) for b in boxes]
        when = pd.IntervalIndex([_WHEN] * len(shapes), closed="both", name="datetime")
        self.index = geopandas.GeoDataFrame({"filepath": [str(path)] * len(shapes)}, index=when, geometry=shapes)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The memory-mapped (y, x, band + 1) uint8 array; truth is the last plane."""
        if self._pixels is None:
            self._pixels = np.load(self.path, mmap_mode="r")
        return self._pixels

    @property
    def window(self) -> Window:
        """The whole scene."""
        return Window(0, 0, *self.pixels.shape[:2])

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the memory map."""
        return {**self.__dict__, "_pixels": None}

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """Return the image (band, y, x) uint8 and the mask (y, x) uint8 of a torchgeo query on the pixel plane."""
        x, y, _ = self._disambiguate_slice(query)
        row, col = round(y.start), round(x.start)
        return self.read(Window(row, col, round(y.stop) - row, round(x.stop) - col))

    def read(self, window: Window) -> dict[str, Tensor]:
        """Return the image (band, y, x) uint8 and the mask (y, x) uint8 of a window that lies inside the scene."""
        crop = torch.from_numpy(np.array(self.pixels[window.slices], order="C"))
        return {"image": crop[..., :-1].permute(2, 0, 1), "mask": crop[..., -1]}


def sampling_boxes(truth: Labels, crop_px: int, least_known: float) -> list[Window]:
    """Cover a scene with boxes, half a crop apart, from which crops find truth.

    Args:
        truth: (y, x) labels.
        crop_px: side of a crop; a box is at most one and a half crops wide and at least one.
        least_known: share of a box's pixels that must not be `IGNORED`.

    Returns:
        Boxes inside the scene; none when the scene is smaller than a crop.
    """
    step = max(1, crop_px // 2)
    size = crop_px + step
    rows = range(0, max(1, truth.shape[0] - crop_px + 1), step)
    cols = range(0, max(1, truth.shape[1] - crop_px + 1), step)
    whole = Window(0, 0, *truth.shape)
    boxes = [box for r in rows for c in cols if (box := Window(r, c, size, size).intersect(whole)) is not None]
    return [b for b in boxes if min(b.shape) >= crop_px and (truth[b.slices] != IGNORED).mean() >= least_known]


def is_prepared(path: Path) -> bool:
    """Tell whether a prepared scene is already there and whole."""
    return path.is_file() and path.with_suffix(".json").is_file()


def write_prepared(path: Path, image: NDArray[np.uint8], truth: Labels, *, about: dict[str, Any]) -> Path:
    """Write a prepared scene, aside and renamed.

    Args:
        path: the .npy file; a .json beside it says what it is.
        image: (band, y, x) uint8.
        truth: (y, x) labels.
        about: what the .json says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.part")
    with aside.open("wb") as file:
        np.save(file, np.ascontiguousarray(np.concatenate([image, truth[None]]).transpose(1, 2, 0)))
    aside.replace(path)
    path.with_suffix(".json").write_text(json.dumps(about, indent=1, sort_keys=True))
    return path
