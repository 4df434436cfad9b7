"""From a mask to building footprints: outlines of blocks, seams joined exactly, attributes and areas."""

from geoseg.vectorize.blocks import BlockPolygons, polygonize_block
from geoseg.vectorize.footprints import Footprints
from geoseg.vectorize.generalize import Generalizer, Simplify
from geoseg.vectorize.polygonize import polygonize
from geoseg.vectorize.seams import BlockOutlines, Pending, SeamSweep, finish_block, join_seams

__all__ = [
    "BlockOutlines",
    "BlockPolygons",
    "Footprints",
    "Generalizer",
    "Pending",
    "SeamSweep",
    "Simplify",
    "finish_block",
    "join_seams",
    "polygonize",
    "polygonize_block",
]
