"""From a mask to building footprints: outlines of blocks, seams joined exactly, attributes and areas."""

from geoseg.vectorize.blocks import BlockPolygons, polygonize_block
from geoseg.vectorize.footprints import Footprints, Limits
from geoseg.vectorize.generalize import KINDS, Generalizer, Outlines
from geoseg.vectorize.instances import Links
from geoseg.vectorize.polygonize import polygonize
from geoseg.vectorize.regular import Regularize
from geoseg.vectorize.scene import (
    INTERIOR_DEPTH,
    SPLIT_DEPTH,
    Outline,
    OutlineOptions,
    Split,
    Spread,
    StoredPixels,
    choose_depth,
    choose_generalizer,
    choose_limits,
    cut_grid,
    in_threads,
    outline_scene,
    polygonize_window,
)
from geoseg.vectorize.seams import BlockOutlines, Pending, SeamSweep, finish_block, join_seams
from geoseg.vectorize.simplify import Simplify

__all__ = [
    "BlockOutlines",
    "BlockPolygons",
    "Footprints",
    "Generalizer",
    "INTERIOR_DEPTH",
    "KINDS",
    "Limits",
    "Links",
    "Outline",
    "OutlineOptions",
    "Outlines",
    "Pending",
    "Regularize",
    "SPLIT_DEPTH",
    "SeamSweep",
    "Simplify",
    "Split",
    "Spread",
    "StoredPixels",
    "choose_depth",
    "choose_generalizer",
    "choose_limits",
    "cut_grid",
    "finish_block",
    "in_threads",
    "join_seams",
    "outline_scene",
    "polygonize",
    "polygonize_block",
    "polygonize_window",
]
