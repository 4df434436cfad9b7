"""All counts of one scene; scenes add up."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geoseg.evaluate.boundary import BoundaryCounts
from geoseg.evaluate.buildings import BuildingCounts, vertex_likeness
from geoseg.evaluate.confusion import Confusion
from geoseg.evaluate.levels import Levels


@dataclass(frozen=True, slots=True, eq=False)
class SceneScores:
    """Counts of a scene, or of several together.

    Attributes:
        confusion: Pixels by true and predicted class.
        boundary: Pixels near outlines.
        target: Name of the class whose figures come first.
        unscored: Classes that means leave out.
        levels: Pixels by probability of the target, or None.
        buildings: Buildings, or None where they are not scored.
    """

    confusion: Confusion
    boundary: BoundaryCounts
    target: str
    unscored: tuple[str, ...] = ()
    levels: Levels | None = None
    buildings: BuildingCounts | None = None

    def __add__(self, other: "SceneScores") -> "SceneScores":
        """Pool two areas; what one of them lacks is lost."""
        return SceneScores(
            self.confusion + other.confusion,
            self.boundary + other.boundary,
            self.target,
            self.unscored,
            self.levels + other.levels if self.levels is not None and other.levels is not None else None,
            self.buildings + other.buildings if self.buildings is not None and other.buildings is not None else None,
        )

    def metrics(self) -> dict[str, Any]:
        """Return every figure; NaN where one does not exist."""
        found = self.confusion.metrics(target=self.target, unscored=self.unscored)
        rims = dict(zip(self.confusion.classes, self.boundary.iou(), strict=True))
        for name, value in rims.items():
            found["classes"][name]["boundary_iou"] = value
        found["boundary_iou"] = rims[self.target]
        found["mean_boundary_iou"] = mean([value for name, value in rims.items() if name not in self.unscored])
        if self.levels is not None:
            found["calibration_error"] = self.levels.calibration_error()
            found["reliability"] = [asdict(row) for row in self.levels.bins()]
        if self.buildings is not None:
            found["buildings"] = self.buildings.metrics() | {"c_iou_scene": self._scene_c_iou(found["iou"])}
        return found

    def _scene_c_iou(self, iou: float) -> float:
        """Return C-IoU as PolyWorld's own code takes it: pixels and vertices of the whole picture at once."""
        counts = self.buildings
        if counts is None or counts.true_vertices + counts.found_vertices == 0:
            return float("nan")
        return float(iou * vertex_likeness(counts.true_vertices, counts.found_vertices))


def pool(scores: Sequence[SceneScores]) -> SceneScores:
    """Return the counts of several scenes together."""
    total = scores[0]
    for more in scores[1:]:
        total = total + more
    return total


def mean(values: Sequence[float]) -> float:
    """Return the mean of the figures that exist, NaN where none does."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
