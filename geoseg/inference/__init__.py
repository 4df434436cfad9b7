"""Chips of one block -> stitched probabilities; a whole scene as one lazy array."""

from geoseg.inference.aoi import AOI, Area, read_aoi, read_aoi_bounds
from geoseg.inference.array import LayerChoice, open_probability, predict_scene
from geoseg.inference.block import NODATA, PROBABILITY_ONE, BlockPixels, Stopwatch, predict_block, stored_threshold
from geoseg.inference.mosaic import RULES, Rule, plan_mosaic
from geoseg.inference.plan import (
    BLOCK_PX,
    EngineRecipe,
    GridChoice,
    InferenceOptions,
    Plan,
    ViewChoice,
    check_options,
    choose_bands,
    fit_scene,
    plan_inference,
)

__all__ = [
    "AOI",
    "Area",
    "BLOCK_PX",
    "NODATA",
    "PROBABILITY_ONE",
    "BlockPixels",
    "EngineRecipe",
    "GridChoice",
    "InferenceOptions",
    "LayerChoice",
    "Plan",
    "RULES",
    "Rule",
    "Stopwatch",
    "ViewChoice",
    "check_options",
    "choose_bands",
    "fit_scene",
    "open_probability",
    "plan_inference",
    "plan_mosaic",
    "predict_block",
    "predict_scene",
    "read_aoi",
    "read_aoi_bounds",
    "stored_threshold",
]
