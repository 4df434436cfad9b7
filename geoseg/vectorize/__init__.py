"""From a mask to building footprints: outlines of blocks, seams joined exactly, attributes and areas."""

from geoseg.vectorize.blocks import BlockPolygons, polygonize_block
from geoseg.vectorize.footprints import finish_footprints
from geoseg.vectorize.seams import join_seams

__all__ = ["BlockPolygons", "finish_footprints", "join_seams", "polygonize_block"]
