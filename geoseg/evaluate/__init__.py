"""How good a model, a run or another tool is: pixels and buildings against labels."""

from geoseg.evaluate.evaluate import Evaluation, evaluate_scenes
from geoseg.evaluate.labels import LabelSettings
from geoseg.evaluate.pixels import Confusion, Levels
from geoseg.evaluate.scores import SceneScores
from geoseg.evaluate.settings import EvaluateSettings

__all__ = ["Confusion", "EvaluateSettings", "Evaluation", "LabelSettings", "Levels", "SceneScores", "evaluate_scenes"]
