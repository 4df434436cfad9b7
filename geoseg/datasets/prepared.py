"""Scenes prepared for training: image and labels at one GSD in a memory-mapped array, so that a crop is a slice.

The coordinates of a prepared scene are pixels (x = column, y = row): torchgeo's samplers work in whole numbers.
"""

import json
from functools import cached_property
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

from geoseg.datasets.labels import IGNORED, UNSURE, Labels
from geoseg.datasets.scenes import fill_invalid
from geoseg.grid import Window, reflect_indices
from geoseg.io.aside import write_all_aside

__all__ = ["NO_PIXEL", "PreparedScene", "is_known", "is_prepared", "keep_labels", "write_prepared"]

NO_PIXEL = 253
"""In the stored labels: neither label nor image. A crop's mask is `IGNORED` there, and its image is filled."""

_LEAST_KNOWN = 0.5
"""Share of a box's pixels that must have labels."""

_WHEN = pd.Interval(pd.Timestamp(1970, 1, 1), pd.Timestamp(2100, 1, 1), closed="both")


class PreparedScene(GeoDataset):
    """Crops of one prepared scene, by torchgeo's queries or by window.

    The index has a box for every place where a crop of `crop_px` has enough labels; `RandomGeoSampler` samples them.
    """

    def __init__(self, path: Path, *, crop_px: int = 0) -> None:
        """Open a scene that `write_prepared` wrote.

        Args:
            path: The .npy file.
            crop_px: Side of the crops that will be sampled; 0 for one box over the whole scene.
        """
        self.path = path
        self._pixels: NDArray[Any] | None = None
        self._res = (1.0, 1.0)
        boxes = sampling_boxes(self.pixels[..., -1], crop_px, _LEAST_KNOWN) if crop_px else [self.window]
        shapes = [shapely.box(b.cols.start, b.rows.start, b.cols.stop, b.rows.stop) for b in boxes]
        when = pd.IntervalIndex([_WHEN] * len(shapes), closed="both", name="datetime")
        self.index = geopandas.GeoDataFrame({"filepath": [str(path)] * len(shapes)}, index=when, geometry=shapes)

    @property
    def pixels(self) -> NDArray[Any]:
        """The memory-mapped (y, x, band + auxiliary + 1) array; the labels are the last plane."""
        if self._pixels is None:
            self._pixels = np.load(self.path, mmap_mode="r")
        return self._pixels

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Names of the auxiliary planes before the labels."""
        return tuple(self.about.get("auxiliary", ()))

    @property
    def window(self) -> Window:
        """The window of what is stored."""
        return Window(0, 0, *self.pixels.shape[:2])

    @cached_property
    def about(self) -> dict[str, Any]:
        """The content of the .json."""
        return dict(json.loads(self.path.with_suffix(".json").read_text()))

    @property
    def scene_shape(self) -> tuple[int, int]:
        """Height and width of the whole scene, of which this may be a part."""
        height, width = self.about.get("scene_shape", self.window.shape)
        return height, width

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the scene where the stored part begins."""
        row, col = self.about.get("origin", (0, 0))
        return row, col

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the memory map."""
        return {**self.__dict__, "_pixels": None}

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """Return the image and the mask of a torchgeo query on the pixel plane, as `read` does."""
        x, y, _ = self._disambiguate_slice(query)
        row, col = round(y.start), round(x.start)
        return self.read(Window(row, col, round(y.stop) - row, round(x.stop) - col))

    def read(self, window: Window) -> dict[str, Tensor]:
        """Read a window of the stored part.

        Returns:
            `image` (band, y, x), uint8 or float32, filled where there are no pixels; `mask` (y, x) uint8; `auxiliary`
            (channel, y, x) uint8, if there are such planes.
        """
        return _sample(np.array(self.pixels[window.slices], order="C"), len(self.auxiliary))

    def read_chip(self, window: Window) -> dict[str, Tensor]:
        """Read a window of the whole scene, mirrored beyond its border, where the mask is `IGNORED`.

        The image is that of `SceneDataset.read_chip`, which inference uses.
        """
        rows, cols = (
            reflect_indices(side.start, side.stop, size) - first
            for side, size, first in zip(window.slices, self.scene_shape, self.origin, strict=True)
        )
        top, left = int(rows.min()), int(cols.min())
        stored = np.array(self.pixels[top : int(rows.max()) + 1, left : int(cols.max()) + 1])
        sample = _sample(stored[(rows - top)[:, None], cols - left], len(self.auxiliary))
        inside = window.intersect(Window(0, 0, *self.scene_shape))
        return keep_labels(sample, inside and inside.relative_to(window))


def keep_labels(sample: dict[str, Tensor], part: Window | None) -> dict[str, Tensor]:
    """Return a sample whose labels are `IGNORED` outside a window of it, or everywhere if that is None."""
    kept = dict(sample)
    for key in ("mask", "auxiliary"):
        if key in sample:
            kept[key] = torch.full_like(sample[key], IGNORED)
            if part is not None:
                own = (..., *part.slices)
                kept[key][own] = sample[key][own]
    return kept


def _sample(stored: NDArray[Any], auxiliary: int) -> dict[str, Tensor]:
    """Make a sample of stored (y, x, band + auxiliary + 1) pixels."""
    planes, truth = stored[..., :-1].transpose(2, 0, 1), stored[..., -1].astype(np.uint8)
    image, further = planes[: len(planes) - auxiliary], planes[len(planes) - auxiliary :].astype(np.uint8)
    missing = truth == NO_PIXEL
    if missing.any():
        image, truth = fill_invalid(image, ~missing), np.where(missing, np.uint8(IGNORED), truth)
    image = image if image.dtype == np.uint8 else image.astype(np.float32)
    sample = {"image": torch.from_numpy(image), "mask": torch.from_numpy(truth)}
    return sample | ({"auxiliary": torch.from_numpy(further)} if auxiliary else {})


def is_known(truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Return True where stored labels have a class or are `UNSURE`."""
    return np.asarray((truth < NO_PIXEL) | (truth == UNSURE))


def sampling_boxes(truth: Labels, crop_px: int, least_known: float) -> list[Window]:
    """Cover the labels (y, x) of a scene with boxes, half a crop apart and one to one and a half crops wide.

    Boxes with labels on less than the share `least_known` of their pixels are left out.
    """
    step = max(1, crop_px // 2)
    size = crop_px + step
    rows = range(0, max(1, truth.shape[0] - crop_px + 1), step)
    cols = range(0, max(1, truth.shape[1] - crop_px + 1), step)
    whole = Window(0, 0, *truth.shape)
    boxes = [box for r in rows for c in cols if (box := Window(r, c, size, size).intersect(whole)) is not None]
    return [b for b in boxes if min(b.shape) >= crop_px and is_known(truth[b.slices]).mean() >= least_known]


def is_prepared(path: Path) -> bool:
    """Return True if a prepared scene is complete."""
    return path.is_file() and path.with_suffix(".json").is_file()


def write_prepared(
    path: Path,
    image: NDArray[Any],
    truth: Labels,
    *,
    about: dict[str, Any],
    valid: NDArray[np.bool_] | None = None,
    auxiliary: NDArray[np.uint8] | None = None,
) -> Path:
    """Write a prepared scene, aside and renamed.

    Args:
        path: The .npy file; `about` goes into a .json beside it.
        image: (band, y, x) uint8, uint16 or float32.
        truth: (y, x) labels.
        about: Facts; `origin` and `scene_shape` say which part of a scene it is, `auxiliary` names these planes.
        valid: (y, x), False where the image has no pixels; all are valid by default.
        auxiliary: (channel, y, x) values of auxiliary channels, and `IGNORED`; none by default.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = truth if valid is None else np.where(valid, truth, np.uint8(NO_PIXEL))
    further = np.zeros((0, *truth.shape), np.uint8) if auxiliary is None else auxiliary
    further = further if valid is None else np.where(valid, further, np.uint8(IGNORED))
    planes = (image, further.astype(image.dtype), stored[None].astype(image.dtype))
    values = np.concatenate(planes).transpose(1, 2, 0)
    with write_all_aside([path, path.with_suffix(".json")], shared=True) as (pixels, document):
        np.save(pixels, np.ascontiguousarray(values))
        document.write_text(json.dumps(about, indent=1))
    return path
