"""Several scenes as one image on one grid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from geoseg.errors import BandMismatchError, SceneMismatchError
from geoseg.grid import Grid, Window
from geoseg.mosaic.grid import place
from geoseg.mosaic.warp import Warped
from geoseg.scene import Pixels, Scene


@dataclass(frozen=True, slots=True)
class Composite(Scene):
    """A scene made of scenes: every pixel is that of the first one that is valid there.

    Attributes:
        parts: The scenes on the grid, in the order of their rank.
        mean: Predict each scene on top of the others in turn, and average the probabilities.
        top: Number of the scene that lies over all others, whatever its rank: the one that this pass is about.
    """

    parts: tuple[Warped, ...] = ()
    mean: bool = False
    top: int | None = None

    @property
    def counted(self) -> Warped | None:
        """The scene whose pixels alone this pass predicts; the others are context."""
        return self.parts[self.top] if self.top is not None else None

    def passes(self, window: Window) -> tuple["Composite", ...]:
        """Return what has to be predicted for a window: the image, or one for each scene that meets the window."""
        meeting = [k for k, part in enumerate(self.parts) if self.mean and _meet(part.window, window)]
        return tuple(replace(self, top=k) for k in meeting) or (self,)

    def read(self, window: Window) -> Pixels:
        """Read a window: from the first scene, then from each next one what is still missing."""
        values, valid = np.zeros((len(self.bands), *window.shape), self.dtype), np.zeros(window.shape, bool)
        for part in self._ranked(window):
            here = _missing(valid, window, part.window)
            if here is not None:
                found, place_ = part.read(here), here.relative_to(window).slices
                fresh = found.valid & ~valid[place_]
                np.copyto(values[:, *place_], found.values, where=fresh)
                valid[place_] |= fresh
        return Pixels(values, valid)

    def read_valid(self, window: Window) -> NDArray[np.bool_]:
        """Read the `(y, x)` valid mask of a window."""
        valid = np.zeros(window.shape, bool)
        for part in self._ranked(window):
            here = _missing(valid, window, part.window)
            if here is not None:
                valid[here.relative_to(window).slices] |= part.read_valid(here)
        return valid

    def may_hold_data(self, window: Window) -> bool:
        """Return False where no scene has anything valid in a window, as far as their masks tell."""
        shared = ((part, part.window.intersect(window)) for part in self.parts if _meet(part.window, window))
        return any(here is not None and part.may_hold_data(here) for part, here in shared)

    def _ranked(self, window: Window) -> Iterator[Warped]:
        """Yield the scenes that meet a window, the one on top first."""
        if self.counted is not None:
            yield self.counted
        yield from (p for p in self.parts if p is not self.counted and _meet(p.window, window))

    def absolute(self) -> "Composite":
        """See `Scene.absolute`."""
        parts = tuple(replace(part, scene=part.scene.absolute()) for part in self.parts)
        return replace(self, parts=parts, paths=tuple(path for part in parts for path in part.scene.paths))

    def at_gsd(self, gsd_m: float) -> "Composite":
        """Return the mosaic on the grid of the same extent nearest to `gsd_m` meters per pixel on the ground."""
        return self.at_shape(self.native.resampled(gsd_m).shape)

    def at_shape(self, shape: tuple[int, int]) -> "Composite":
        """Return the mosaic on the grid of the same extent with this height and width."""
        if shape == self.grid.shape:
            return self
        grid = self.native.reshaped(shape) if shape != self.native.shape else self.native
        placed = (place(part.scene, grid) for part in self.parts)
        return replace(self, grid=grid, parts=tuple(part for part in placed if part is not None), top=None)

    def with_bands(self, bands: Sequence[int]) -> "Composite":
        """Return the mosaic as it is: bands are chosen scene by scene.

        Raises:
            BandMismatchError: If others are requested.
        """
        if tuple(bands) != self.bands:
            raise BandMismatchError(f"A mosaic has bands {self.bands}; choose others when the mosaic is planned.")
        return self

    def with_levels(self) -> "Composite":
        """Return the mosaic as it is: levels are measured scene by scene."""
        return self


def compose(scenes: Sequence[Scene], grid: Grid, *, mean: bool = False, name: str = "mosaic") -> Composite:
    """Put scenes on a grid.

    Args:
        scenes: The scenes by rank, with their bands and levels.
        grid: The mosaic's grid.
        mean: See `Composite`.
        name: File-safe name.

    Raises:
        SceneMismatchError: If the scenes differ in bands or type, or none of them meets the grid.
    """
    crs_of: dict[str, CRS] = {}

    def shared(grid: Grid) -> Grid:
        """Make equal CRSs one object, so that a thousand scenes pickle with one."""
        return replace(grid, crs=crs_of.setdefault(grid.crs.to_wkt(), grid.crs)) if grid.crs is not None else grid

    placed = (place(replace(s, native=shared(s.native), grid=shared(s.grid)), grid) for s in scenes)
    parts = tuple(part for part in placed if part is not None)
    if not parts:
        raise SceneMismatchError(f"None of {len(scenes)} scenes meets the mosaic's grid {grid.bounds} in {grid.crs}.")
    types = {"uint8" if p.scene.levels else p.scene.dtype: p.scene.name for p in reversed(parts)}
    if len(types) > 1:
        found = ", ".join(f"{dtype} ({name})" for dtype, name in sorted(types.items()))
        raise SceneMismatchError(
            f"The scenes have pixels of types {found}; the model takes them as they are, so a mosaic needs one type. "
            "Convert them with `gdal_translate -ot`, or run each on its own."
        )
    bands = tuple(range(1, len(parts[0].scene.bands) + 1))
    return Composite(
        name=name,
        paths=tuple(path for part in parts for path in part.scene.paths),
        source=name,
        native=grid,
        grid=grid,
        bands=bands,
        band_count=len(bands),
        dtype=next(iter(types)),
        nodata=None,
        has_mask=True,
        data_bands=bands,
        parts=parts,
        mean=mean,
    )


def _meet(a: Window, b: Window) -> bool:
    """Return True where two windows share a pixel; called for every scene and window, so it creates no objects."""
    rows = a.row < b.row + b.height and b.row < a.row + a.height
    return rows and a.col < b.col + b.width and b.col < a.col + a.width


def _missing(valid: NDArray[np.bool_], window: Window, part: Window) -> Window | None:
    """Return the smallest window within a part's that holds every pixel of it that is not valid yet."""
    here = part.intersect(window)
    if here is None:
        return None
    missing = ~valid[here.relative_to(window).slices]
    rows, cols = np.flatnonzero(missing.any(axis=1)), np.flatnonzero(missing.any(axis=0))
    if not rows.size:
        return None
    height, width = int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1
    return Window(here.row + int(rows[0]), here.col + int(cols[0]), height, width)


class CountedMask:
    """Where one scene of a mosaic is valid: what a pass about it gives."""

    def __init__(self, part: Warped, reach: Window) -> None:
        """Remember a scene and a window, which may hang over the mosaic's border; nothing is read yet."""
        self.part, self.reach = part, reach

    def read_valid(self, window: Window) -> NDArray[np.bool_]:
        """Return the `(y, x)` mask of a window inside the reach; False where the scene is not."""
        return self._mask[window.relative_to(self.reach).slices]

    @cached_property
    def _mask(self) -> NDArray[np.bool_]:
        mask = np.zeros(self.reach.shape, bool)
        here = self.part.window.intersect(self.reach)
        if here is not None:
            mask[here.relative_to(self.reach).slices] = self.part.read_valid(here)
        return mask
