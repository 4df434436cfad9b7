"""Evaluation of models, runs and other tools against reference labels: pixels and buildings."""

from geoseg.evaluate.compare import CompareSettings, Comparison, compare_with_map
from geoseg.evaluate.evaluate import Evaluation, evaluate_scenes
from geoseg.evaluate.pixels import Confusion, Levels
from geoseg.evaluate.review import Answers, Review, ReviewSettings, count_answers, review_run
from geoseg.evaluate.scores import SceneScores
from geoseg.evaluate.settings import EvaluateSettings, LabelSettings

__all__ = [
    "Answers",
    "CompareSettings",
    "Comparison",
    "Confusion",
    "EvaluateSettings",
    "Evaluation",
    "LabelSettings",
    "Levels",
    "Review",
    "ReviewSettings",
    "SceneScores",
    "compare_with_map",
    "count_answers",
    "evaluate_scenes",
    "review_run",
]
