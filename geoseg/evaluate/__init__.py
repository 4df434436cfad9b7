"""Evaluation of models, runs and other tools against reference labels: pixels and buildings."""

from geoseg.evaluate.compare import CompareSettings, Comparison, compare_with_map
from geoseg.evaluate.evaluate import Evaluation, evaluate_scenes
from geoseg.evaluate.pixels import Confusion, Levels
from geoseg.evaluate.scores import SceneScores
from geoseg.evaluate.settings import EvaluateSettings, LabelSettings

__all__ = [
    "CompareSettings",
    "Comparison",
    "Confusion",
    "EvaluateSettings",
    "Evaluation",
    "LabelSettings",
    "Levels",
    "SceneScores",
    "compare_with_map",
    "evaluate_scenes",
]
