"""How sure a building is: the probability that it matches a true building at IoU 0.5.

The mean probability of a building's pixels says how sure the network is of its pixels, not whether it is one building:
two houses that are outlined as one have a high mean and match neither. A logistic regression on a few columns of each
building says that. Its coefficients belong to a model (`ModelSpec.confidence`), are fitted to buildings whose outcome
is known (`geoseg.evaluate.calibration`), and are applied here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.bundle import CONFIDENCE_TERMS
from geoseg.grid import Grid
from geoseg.inference import PROBABILITY_ONE
from geoseg.vectorize.blocks import BlockPolygons
from geoseg.vectorize.ground import pixel_area_m2

Floats = NDArray[np.float64]

DECIMALS = 6
"""Confidences are rounded, as the last bits of an exponential differ from machine to machine."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the confidence of buildings is made of; a column that is not known is None.

    Attributes:
        probability_mean: Mean probability of the pixels inside the outline before it is simplified, 0 to 1,
            `(building,)`.
        area_m2: Area of these pixels on the ground, square meters, `(building,)`.
        probability_min: Smallest probability of these pixels, 0 to 1, `(building,)`.
        touches: True where a building has a pixel beside one of another building, `(building,)`.
    """

    probability_mean: Floats
    area_m2: Floats
    probability_min: Floats | None = None
    touches: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Refuse columns of different length."""
        sizes = {name: len(column) for name, column in self._known().items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"columns must have the same length, got {sizes}")

    def __len__(self) -> int:
        """Return the number of buildings."""
        return len(self.probability_mean)

    def __add__(self, other: Self) -> Self:
        """Add the buildings of another area; a column that one of them lacks is lost."""
        own, more = self._known(), other._known()
        return type(self)(**{name: np.concatenate((own[name], more[name])) for name in own if name in more})

    def take(self, index: NDArray[Any]) -> Self:
        """Return the buildings of an index or a boolean array."""
        return type(self)(**{name: column[index] for name, column in self._known().items()})

    def terms(self) -> dict[str, Floats]:
        """Return the terms of the regression that are known, each `(building,)`, in the order of `CONFIDENCE_TERMS`.

        The logarithm of the area is that of at least one square meter; a building off the map, whose area is not a
        number, counts as one of these.
        """
        found = {
            "constant": np.ones(len(self)),
            "probability_mean": self.probability_mean,
            "probability_min": self.probability_min,
            "area_log": np.log(np.fmax(self.area_m2, 1.0)),
            "touches": self.touches,
        }
        return {name: np.asarray(found[name], np.float64) for name in CONFIDENCE_TERMS if found[name] is not None}

    def _known(self) -> dict[str, NDArray[Any]]:
        columns = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: column for name, column in columns.items() if column is not None}


def gather_evidence(polygons: BlockPolygons, grid: Grid) -> Evidence:
    """Return what the confidence of polygons is made of.

    Args:
        polygons: Whole buildings, in pixels and not simplified.
        grid: Grid of the whole scene's pixels.
    """
    left, top, right, bottom = shapely.bounds(polygons.polygons).reshape(-1, 4).T
    count = np.maximum(polygons.pixel_count, 1)
    return Evidence(
        probability_mean=polygons.probability_sum / count * (1 / PROBABILITY_ONE),
        area_m2=polygons.pixel_count * pixel_area_m2(grid, (left + right) / 2, (top + bottom) / 2),
        probability_min=polygons.probability_min.astype(np.float64) * (1 / PROBABILITY_ONE),
        touches=polygons.touches,
    )


def calibrate(evidence: Evidence, coefficients: Mapping[str, float] | None = None) -> Floats:
    """Return the confidence of each building, 0 to 1, `(building,)`.

    It is `1 / (1 + exp(-sum of coefficient x term))`, computed building by building in the order of the terms, so that
    it does not depend on which buildings are computed together. Without coefficients it is the mean probability.

    Args:
        evidence: The buildings.
        coefficients: By name of the term (`CONFIDENCE_TERMS`), as in `ModelSpec.confidence`; others count as 0.

    Raises:
        ValueError: If a coefficient's term is not known of these buildings.
    """
    if not coefficients:
        return evidence.probability_mean
    terms = evidence.terms()
    if unknown := coefficients.keys() - terms.keys():
        raise ValueError(f"coefficients of {', '.join(sorted(unknown))}; these buildings have {', '.join(terms)}")
    total = np.zeros(len(evidence))
    for name, term in terms.items():
        if name in coefficients:
            total += coefficients[name] * term
    return np.round(1 / (1 + np.exp(-np.clip(total, -700, 700))), DECIMALS)
