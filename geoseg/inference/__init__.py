"""Chips of one block -> stitched probabilities; a whole scene as one lazy array."""

from geoseg.inference.aoi import AOI, read_aoi
from geoseg.inference.block import NODATA, PROBABILITY_ONE, BlockPixels, predict_block
from geoseg.inference.plan import EngineRecipe, Plan, plan_inference
from geoseg.inference.scene import predict_scene

__all__ = [
    "AOI",
    "NODATA",
    "PROBABILITY_ONE",
    "BlockPixels",
    "EngineRecipe",
    "Plan",
    "plan_inference",
    "predict_block",
    "predict_scene",
    "read_aoi",
]
