"""Names are unique, safe for files, and the same each time."""

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import SourceError
from geoseg.sources.location import identity
from geoseg.sources.source import MAX_BYTES, MAX_NAME, Found, name_sources, safe_name


def names(*paths: str) -> list[str]:
    return [source.name for source in name_sources([Found(path) for path in paths])]


def test_stems_are_names_and_clashes_keep_their_suffix() -> None:
    assert names("x/a.tif", "x/b.tif", "x/b.png") == ["a", "b_tif", "b_png"]


def test_further_clashes_are_told_apart_by_folder() -> None:
    assert names("x/a.tif", "y/a.tif", "y/a.png") == ["x_a", "y_a", "a_png"]
    assert names("s3://bucket/a.tif", "https://host/y/a.tif") == ["bucket_a", "y_a"]
    assert names("x/a.tif", "x/a.png", "y/a.tif", "y/a.png") == ["x_a_tif", "x_a_png", "y_a_tif", "y_a_png"]


def test_a_name_that_is_taken_is_not_given_again() -> None:
    assert names("x/a.tif", "y/a.tif", "z/x_a.tif") == ["x_a_tif", "y_a", "x_a"]


def test_letter_case_alone_tells_nothing_apart() -> None:
    assert names("x/A.tif", "y/a.tif") == ["x_A", "y_a"]


def test_scenes_that_cannot_be_told_apart_are_an_error() -> None:
    with pytest.raises(SourceError, match=r"x/a\.tif and x/a\.tif would share the name a_tif.*manifest"):
        name_sources([Found("x/a.tif", bands=(1,)), Found("x/a.tif", bands=(2,))])


def test_folders_further_up_tell_scenes_apart_too() -> None:
    assert names("d/1/x/a.tif", "d/2/x/a.tif") == ["1_x_a", "2_x_a"]
    assert names("s3://one/x/a.tif", "s3://two/x/a.tif") == ["one_x_a", "two_x_a"]


def test_dots_in_names_are_kept() -> None:
    assert names("ortho_2023.05.tif", "ortho_2023.06.tif") == ["ortho_2023.05", "ortho_2023.06"]


def test_what_macOS_takes_for_one_name_is_one() -> None:
    assert names("x/\u00fc.tif", "x/u\u0308.png") == ["\u00fc_tif", "u\u0308_png"]


def test_scenes_keep_the_names_that_they_had() -> None:
    known = {identity("x/b.tif"): "b", identity("x/c.tif"): "c_tif", identity("x/e.tif"): "another"}
    found = [Found(f"x/{name}") for name in ("b.tif", "b.png", "c.tif", "e.tif")]
    assert [one.name for one in name_sources(found, known)] == ["b", "b_png", "c_tif", "e"]
    taken = {identity("x/a.tif"): "x_a"}
    assert [one.name for one in name_sources([Found("x/a.tif"), Found("z/x_a.tif")], taken)] == ["x_a", "x_a_tif"]


def test_a_given_name_comes_first_and_its_collection_tells_it_apart() -> None:
    found = [Found("p/i.tif", name="7", parent="north"), Found("p/j.tif", name="7", parent="south"), Found("p/k.tif")]
    assert [source.name for source in name_sources(found)] == ["north_7", "south_7", "k"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b\\c:d*e", "a_b_c_d_e"),
        (".geoseg", "_geoseg"),
        ("..", "scene"),
        ("", "scene"),
        (" Zürich 2023. ", "Zürich 2023"),
        ("line\nbreak", "line_break"),
    ],
)
def test_names_are_safe_for_files(text: str, expected: str) -> None:
    assert safe_name(text) == expected


def test_long_names_are_cut_and_stay_different() -> None:
    one, other = safe_name("x" * 300 + "1"), safe_name("x" * 300 + "2")
    assert len(one) == len(other) == MAX_NAME
    assert one != other
    assert len(safe_name("\u4e2d" * 100).encode()) <= MAX_BYTES


@given(
    st.sets(st.tuples(st.sampled_from("xyz"), st.sampled_from(["a", "b", "x_a", "A"]), st.sampled_from(["tif", "png"])))
)
def test_names_do_not_depend_on_the_order(parts: set[tuple[str, str, str]]) -> None:
    paths = [f"{folder}/{stem}.{suffix}" for folder, stem, suffix in sorted(parts)]
    try:
        given_names = dict(zip(paths, names(*paths), strict=True))
    except SourceError:
        return
    assert len({name.casefold() for name in given_names.values()}) == len(paths)
    shuffled = random.Random(1).sample(paths, len(paths))
    assert dict(zip(shuffled, names(*shuffled), strict=True)) == given_names


PIECES = st.text(st.sampled_from("aAB._ \u00fc\u0308u\u00df/"), max_size=4)


@given(
    st.lists(st.tuples(PIECES, PIECES, st.sampled_from([".tif", ".png", ".v2.tif", ""])), max_size=8),
    st.dictionaries(st.integers(0, 7), st.sampled_from(["a", "A_tif", "b", "u\u0308"])),
)
def test_no_two_scenes_share_a_folder(parts: list[tuple[str, str, str]], before: dict[int, str]) -> None:
    paths = list(dict.fromkeys(f"x/{folder}/{stem}{suffix}" for folder, stem, suffix in parts))
    known = {identity(path): before[i] for i, path in enumerate(paths) if i in before}
    try:
        found = [one.name for one in name_sources([Found(path) for path in paths], known)]
    except SourceError:
        return
    on_macos = {unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()) for name in found}
    on_windows = {name.upper().rstrip(". ") for name in found}
    assert len(set(found)) == len(on_macos) == len(on_windows) == len(paths)
    assert not any("/" in name or name.startswith(".") for name in found)
