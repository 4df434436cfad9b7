"""Several scenes of different CRS and GSD as one image on one grid."""

from geoseg.mosaic.composite import Composite, CountedMask, compose
from geoseg.mosaic.grid import (
    MAX_PIXELS,
    check_size,
    choose_grid,
    crop_grid,
    find_meeting,
    overlap,
    place,
    shares_lattice,
    sheet_windows,
    utm_zone,
)
from geoseg.mosaic.warp import Warped

__all__ = [
    "MAX_PIXELS",
    "Composite",
    "CountedMask",
    "Warped",
    "check_size",
    "choose_grid",
    "compose",
    "crop_grid",
    "find_meeting",
    "overlap",
    "place",
    "shares_lattice",
    "sheet_windows",
    "utm_zone",
]
