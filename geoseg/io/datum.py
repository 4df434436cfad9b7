"""How well the shift from one datum to another is known.

PROJ takes the best operation for which it has the grids, which may be meters off, and does not say so.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import pyproj.aoi
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from pyproj.transformer import TransformerGroup

from geoseg.gdal import name_crs
from geoseg.grid import Grid
from geoseg.third_party import ignore_warnings

__all__ = ["DatumShift", "check_shift", "collect_shifts", "warn_once"]

log = logging.getLogger(__name__)

_Operation = tuple[str, float | None, float | None, tuple[str, ...]]
"""Its name, accuracy, the accuracy of a better one, and the files which that one needs."""

ROUGH_PX, AVOIDABLE_PX = 2.0, 1.0
"""Pixels; operations that are less accurate than this get a warning: the second, where a better one is known."""

NEARBY = 0.01
"""Degrees around the middle of a scene: operations that are for other regions do not count."""


@dataclass(frozen=True, slots=True)
class DatumShift:
    """The operation by which coordinates come from one CRS into another at a place.

    Attributes:
        what: What is moved: "AOI a.gpkg".
        source: The CRS that they are in.
        target: The CRS that they are brought to.
        operation: PROJ's name of the operation.
        accuracy_m: Meters by which it may be off; None if that is unknown, as of a ballpark one.
        best_accuracy_m: That of a better operation, which cannot be used; None if there is none.
        missing_grids: The files that the better operation needs.
    """

    what: str
    source: str
    target: str
    operation: str
    accuracy_m: float | None
    best_accuracy_m: float | None = None
    missing_grids: tuple[str, ...] = ()

    def is_rough(self, gsd_m: float) -> bool:
        """Return True if polygons may be off by more than `ROUGH_PX`, or `AVOIDABLE_PX` if there is a better one."""
        limit_px = ROUGH_PX if self.best_accuracy_m is None else AVOIDABLE_PX
        return self.accuracy_m is None or self.accuracy_m > limit_px * gsd_m

    def describe(self) -> dict[str, Any]:
        """Return it as plain types."""
        return asdict(self) | {"missing_grids": list(self.missing_grids)}


_collected: ContextVar[list[DatumShift] | None] = ContextVar("collected", default=None)


@contextmanager
def collect_shifts() -> Iterator[list[DatumShift]]:
    """Yield a list to which the operations are added that `check_shift` finds within, each once."""
    shifts: list[DatumShift] = []
    token = _collected.set(shifts)
    try:
        yield shifts
    finally:
        _collected.reset(token)


def check_shift(what: str, crs: Any, grid: Grid) -> DatumShift | None:
    """Find the operation from a CRS to a grid's, and warn if it is a rough one.

    Args:
        what: What is moved, for messages: "AOI a.gpkg".
        crs: The CRS that it is in.
        grid: The grid on which it is placed.

    Returns:
        The operation; None if one has no CRS, both have the same, or PROJ knows none.
    """
    if crs is None or grid.crs is None:
        return None
    source, target = CRS.from_user_input(crs), CRS.from_wkt(grid.crs.to_wkt())
    if source == target:
        return None
    found = _find(source, target, grid.transform @ (grid.width / 2, grid.height / 2))
    if found is None:
        return None
    shift, gsd_m = DatumShift(what, name_crs(source), name_crs(target), *found), max(grid.gsd_m or (0.0,))
    if shift.is_rough(gsd_m):
        warn_once(_describe(shift, gsd_m))
    collected = _collected.get()
    if collected is not None and shift not in collected:
        collected.append(shift)
    return shift


@lru_cache(maxsize=1024)
def warn_once(message: str) -> None:
    """Log a warning once per process; a file is often read window by window, and by several steps."""
    log.warning("%s", message)


@lru_cache(maxsize=256)
def _find(source: CRS, target: CRS, place: tuple[float, float]) -> _Operation | None:
    """Return the operation that PROJ uses at a place in `target`, and what a better one needs."""
    try:
        lon, lat = Transformer.from_crs(target, 4326, always_xy=True).transform(*place)
        area = pyproj.aoi.AreaOfInterest(lon - NEARBY, lat - NEARBY, lon + NEARBY, lat + NEARBY)
        forward = Transformer.from_crs(source, target, always_xy=True)  # not shared: it keeps what was used last
        forward.transform(*Transformer.from_crs(target, source, always_xy=True).transform(*place))
        with ignore_warnings(UserWarning):  # that the best is not available: geoseg says it with what to do
            group = TransformerGroup(source, target, always_xy=True, area_of_interest=area)  # type: ignore[arg-type]  # its own dataclass
    except ProjError:
        return None
    try:
        used = forward.get_last_used_operation()
    except ProjError:  # there is only one
        used = forward
    accuracy = used.accuracy if used.accuracy >= 0 else None
    better = [
        op for op in group.unavailable_operations if op.accuracy >= 0 and (accuracy is None or op.accuracy < accuracy)
    ]
    best = min(better, key=lambda op: op.accuracy, default=None)
    if best is None:
        return used.description, accuracy, None, ()
    return used.description, accuracy, best.accuracy, tuple(g.short_name for g in best.grids if not g.available)


def _describe(shift: DatumShift, gsd_m: float) -> str:
    """Return the warning about a rough operation."""
    if shift.accuracy_m is None:
        found = "whose accuracy is unknown"
    else:
        pixels = f" ({shift.accuracy_m / gsd_m:.1f} pixels)" if gsd_m else ""
        found = f"that is accurate to {shift.accuracy_m:g} m{pixels}"
    ways = f"from {shift.source} to {shift.target}, PROJ uses an operation {found}"
    said = f"The {shift.what}: {ways}: {shift.operation}."
    if shift.best_accuracy_m is None:
        return f"{said} No better one is known. Compare the result with the image."
    grids = ", ".join(shift.missing_grids) or "a file"
    fetch = "; ".join(f"projsync --file {name}" for name in shift.missing_grids) or "projsync"
    return (
        f"{said} One that is accurate to {shift.best_accuracy_m:g} m needs {grids}, which PROJ does not have here. Set "
        f"PROJ_NETWORK=ON, or install it with: {fetch}"
    )
