"""Tables of colors and values: what they mean, and what they may not say."""

import pytest

from geoseg.datasets.coding import BINARY, IGNORED, class_indices, plan_coding
from geoseg.errors import RecipeError


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
