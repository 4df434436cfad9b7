"""Tables of colors and values: what they mean, and what they may not say."""

import numpy as np
import pytest

from geoseg.datasets.coding import BINARY, IGNORED, class_indices, plan_coding
from geoseg.errors import RecipeError, UnknownLabelError


def test_one_class_stands_against_background() -> None:
    assert class_indices(["roof"]) == {"unknown": IGNORED, "background": 0, "roof": 1}
    assert class_indices(["road", "roof"]) == {"unknown": IGNORED, "road": 0, "roof": 1}
    assert BINARY.values == {0: 0, 1: 1, 255: IGNORED}


def test_the_target_is_building_else_the_last_class() -> None:
    assert plan_coding(["building", "other"]).target == (0, 1)
    assert plan_coding(["background", "roof"]).target == (1, 0)
    assert plan_coding(["roof"]).target == (1, 0)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"colors": {"roof": "red"}}, r"s\.colors: 'red' is not a color; expected"),
        ({"colors": {"roof": "#12345G"}}, "not a color"),
        ({"colors": {"rooof": "#123456"}}, "no class 'rooof'; expected one of background, roof, unknown"),
        ({"also": {"#000000": "water"}}, "no class 'water'"),
        ({"colors": {"roof": "#123456"}, "also": {"#123456": "background"}}, "is that of roof and of background"),
        ({"values": {"white": "roof"}}, "'white' is not a whole number"),
        ({"values": {"255": "rooof"}}, "no class 'rooof'"),
    ],
)
def test_what_a_table_may_not_say(tables: dict[str, dict[str, str]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan_coding(["roof"], where="s.", **tables)  # type: ignore[arg-type]


def test_numbers_of_single_buildings_are_of_the_target_but_for_those_with_a_class() -> None:
    numbers = np.array([[0, 1, 255, 70_000, 9, 8]], np.int32)
    known = np.array([[True] * 5 + [False]])
    coding = plan_coding(["roof"], values={"9": "unknown"}, instances=True)
    assert coding.of_values(numbers, known).tolist() == [[0, 1, 1, 1, IGNORED, IGNORED]]
    other_way = plan_coding(["building", "other"], instances=True)
    assert other_way.of_values(numbers[:, :2], known[:, :2]).tolist() == [[1, 0]]
    for number, name in ((-1, "-1"), (2.5, "2.5")):
        with pytest.raises(UnknownLabelError, match=rf"{name} \(1 px\); expected 0 or whole numbers above 0"):
            plan_coding(["roof"], instances=True).of_values(np.array([[number]]), np.array([[True]]))


def test_single_buildings_of_several_classes_are_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"s\.instances: buildings have no class, and the classes are land, roof, sea"
    ):
        plan_coding(["land", "roof", "sea"], instances=True, where="s.")
