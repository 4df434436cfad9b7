"""What a region looks like: ground, roofs, streets, light. Colors were chosen beside real drone and aerial imagery."""

from dataclasses import dataclass, replace

import numpy as np

RGB = tuple[int, int, int]
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Material:
    """A roof covering.

    Attributes:
        kind: `metal`, `tile`, `shingle`, `concrete` or `membrane`, which decides the texture.
        colors: RGB choices, 0-255.
        roofs: Kinds of roof it comes with.
        weight: How common it is.
        rust: Share of rusted sheets, 0-1 (metal).
        wear: Strength of stains and mottling.
    """

    kind: str
    colors: tuple[RGB, ...]
    roofs: tuple[str, ...]
    weight: float
    rust: float = 0.0
    wear: float = 1.0


@dataclass(frozen=True, slots=True)
class Style:
    """A region's palette, street plan and light; lengths in meters, angles in degrees, colors RGB 0-255."""

    name: str
    grass: tuple[RGB, ...]
    soil: tuple[RGB, ...]
    paved: tuple[RGB, ...]
    road: tuple[RGB, ...]
    leaf: tuple[RGB, ...]
    materials: tuple[Material, ...]
    plot_ground: tuple[float, float, float]
    block_kinds: dict[str, float]
    block_m: Range
    road_m: Range
    setback_m: Range
    frontage_m: Range
    depth_m: Range
    fill: Range
    gap_m: float
    rows: int
    row_step_m: float
    eaves_m: Range
    pitch: Range
    court: float
    infill_per_ha: float
    trees_per_ha: Range
    clutter_per_ha: float
    cars: float
    shadow: Range
    elevation: Range
    walls: float
    markings: bool = False
    leaf_off: float = 0.0
    brightness: Range = (0.92, 1.08)
    warmth: Range = (-0.03, 0.03)
    haze: Range = (0.0, 0.1)
    sun_azimuth: float = 0.0
    sun_elevation: float = 45.0
    bend: float = 1.0
    tallest_m: float = 14.0


_GRAY_SHINGLE: tuple[RGB, ...] = (
    (92, 92, 96), (70, 72, 78), (118, 116, 116), (140, 138, 136), (58, 58, 64), (104, 92, 84), (126, 108, 92),
    (84, 70, 62),
    (160, 158, 156), (112, 76, 64), (86, 92, 104), (178, 176, 172), (75, 82, 75),
)  # fmt: skip
_TILE_RED: tuple[RGB, ...] = (
    (150, 96, 78), (138, 86, 70), (164, 110, 88), (126, 82, 70), (172, 126, 104), (122, 88, 78), (148, 112, 96),
    (112, 72, 62),
)  # fmt: skip
_RUST: tuple[RGB, ...] = (
    (112, 66, 46), (96, 56, 42), (126, 80, 54), (102, 70, 54), (86, 52, 42), (134, 92, 64), (116, 84, 66), (98, 46, 36),
)  # fmt: skip
_RUSTED_GRAY: tuple[RGB, ...] = (
    (138, 100, 90), (150, 118, 108), (124, 92, 84), (160, 134, 124), (142, 122, 116), (116, 96, 92), (168, 150, 142),
)  # fmt: skip
_TAN: tuple[RGB, ...] = (
    (176, 142, 96), (188, 160, 116), (160, 128, 90), (196, 176, 138), (150, 132, 106), (204, 190, 158),
)  # fmt: skip
_GRAY_METAL: tuple[RGB, ...] = (
    (128, 118, 104), (112, 106, 98), (144, 140, 132), (164, 160, 152), (186, 184, 180), (98, 92, 86), (214, 212, 206),
)  # fmt: skip
_CONCRETE: tuple[RGB, ...] = (
    (150, 144, 136), (166, 160, 152), (134, 128, 122), (178, 174, 166), (122, 116, 112), (160, 148, 138),
    (190, 186, 180), (142, 126, 116), (110, 108, 106),
)  # fmt: skip
_BLUE: tuple[RGB, ...] = ((52, 108, 170), (70, 130, 186), (110, 168, 204), (44, 84, 136), (126, 150, 170))
_RED: tuple[RGB, ...] = ((160, 58, 52), (178, 74, 66), (138, 48, 46), (190, 98, 88), (124, 62, 68))
_GREEN: tuple[RGB, ...] = ((58, 108, 84), (74, 122, 98), (96, 132, 112), (52, 84, 62))
_DARK_ROOF: tuple[RGB, ...] = ((66, 66, 70), (84, 84, 88), (54, 55, 60), (104, 102, 102))
_WHITE: tuple[RGB, ...] = ((214, 212, 206), (228, 228, 226), (196, 194, 190), (204, 200, 188))

HALL_ROOFS = (
    Material("membrane", ((206, 204, 200), (176, 174, 170), (120, 120, 122), (84, 84, 88)), ("flat",), 3.0, wear=0.8),
    Material(
        "metal",
        ((150, 150, 150), (178, 178, 174), (66, 112, 168), (142, 78, 66), (98, 124, 110)),
        ("gable",),
        3.0,
        rust=0.05,
    ),
)
ESTATE_ROOFS = (
    Material("membrane", ((196, 194, 190), (128, 126, 124), (92, 92, 96), (150, 146, 140)), ("flat",), 3.0, wear=0.9),
    Material("concrete", ((158, 152, 146), (176, 172, 164)), ("flat",), 1.0),
    Material("tile", ((150, 84, 64), (128, 86, 74)), ("hip", "gable"), 1.5),
)

_COMPOUNDS = Style(
    name="compounds",
    grass=((84, 96, 48), (98, 104, 56), (72, 84, 42)),
    soil=((146, 106, 70), (156, 118, 82), (132, 98, 68), (158, 94, 56), (140, 116, 88)),
    paved=((140, 124, 102), (150, 138, 118), (126, 112, 94)),
    road=((128, 108, 84), (118, 106, 90), (142, 108, 74), (104, 98, 90)),
    leaf=((52, 70, 34), (64, 82, 40), (44, 58, 32), (80, 94, 46)),
    materials=(
        Material("metal", _RUST, ("gable", "shed", "gable", "hip"), 5.0, rust=0.5, wear=1.3),
        Material("metal", _TAN, ("gable", "hip", "shed"), 2.4, rust=0.12),
        Material("metal", _GRAY_METAL, ("gable", "shed", "hip"), 2.6, rust=0.2, wear=1.2),
        Material("metal", _WHITE, ("shed", "gable"), 0.6, rust=0.05),
        Material("metal", _BLUE + _GREEN + _RED, ("gable", "hip", "shed"), 1.0, rust=0.03, wear=0.7),
        Material("concrete", _CONCRETE, ("flat",), 0.6, wear=1.5),
    ),
    plot_ground=(0.06, 0.62, 0.32),
    block_kinds={"houses": 13.0, "lot": 0.4, "halls": 0.6, "park": 0.25, "forest": 0.1, "pitch": 0.15, "rows": 0.7},
    block_m=(36.0, 84.0),
    road_m=(2.4, 9.0),
    setback_m=(0.2, 1.6),
    frontage_m=(4.5, 13.0),
    depth_m=(4.5, 11.0),
    fill=(0.9, 1.03),
    gap_m=0.2,
    rows=9,
    row_step_m=6.2,
    eaves_m=(2.4, 4.2),
    pitch=(0.12, 0.36),
    court=0.05,
    infill_per_ha=260.0,
    trees_per_ha=(5.0, 22.0),
    clutter_per_ha=90.0,
    cars=0.7,
    shadow=(0.55, 0.85),
    elevation=(42.0, 68.0),
    walls=0.4,
    warmth=(0.0, 0.1),
    haze=(0.0, 0.1),
)
_HILL_TOWN = Style(
    name="hill_town",
    grass=((84, 100, 62), (96, 110, 70), (72, 88, 54), (110, 112, 76)),
    soil=((146, 126, 104), (158, 138, 114), (132, 112, 94), (138, 98, 76)),
    paved=((136, 130, 124), (148, 142, 134), (120, 114, 108)),
    road=((104, 102, 100), (118, 114, 110), (130, 118, 104), (96, 95, 95)),
    leaf=((56, 76, 42), (70, 90, 50), (46, 64, 38), (86, 100, 58)),
    materials=(
        Material("concrete", _CONCRETE, ("flat",), 6.5, wear=1.5),
        Material("metal", _BLUE, ("shed", "gable", "shed"), 1.1, wear=0.7),
        Material("metal", _RED, ("gable", "hip", "shed"), 0.8, wear=0.7),
        Material("metal", _GRAY_METAL, ("shed", "gable"), 1.6, rust=0.15),
        Material("tile", _TILE_RED, ("gable", "hip"), 0.7),
        Material("metal", _RUST, ("shed", "gable"), 0.5, rust=0.4),
    ),
    plot_ground=(0.34, 0.28, 0.38),
    block_kinds={
        "houses": 11.0,
        "rows": 1.6,
        "lot": 0.5,
        "halls": 0.6,
        "park": 0.6,
        "field": 0.7,
        "estate": 0.4,
        "forest": 0.2,
    },
    block_m=(38.0, 84.0),
    road_m=(2.6, 7.5),
    setback_m=(0.3, 2.2),
    frontage_m=(6.5, 13.0),
    depth_m=(7.0, 13.5),
    fill=(0.86, 1.02),
    gap_m=0.25,
    rows=6,
    row_step_m=9.0,
    eaves_m=(5.5, 12.0),
    pitch=(0.15, 0.45),
    court=0.07,
    infill_per_ha=110.0,
    trees_per_ha=(12.0, 45.0),
    clutter_per_ha=35.0,
    cars=0.5,
    shadow=(0.5, 0.8),
    elevation=(40.0, 64.0),
    walls=0.45,
    haze=(0.0, 0.14),
)
_SUBURB = Style(
    name="suburb",
    grass=((74, 92, 50), (86, 104, 58), (98, 106, 66), (110, 112, 72), (64, 84, 44)),
    soil=((124, 104, 82), (138, 118, 94), (112, 94, 76)),
    paved=((142, 140, 136), (118, 117, 116), (156, 152, 146), (100, 100, 101)),
    road=((104, 104, 106), (116, 116, 117), (90, 91, 94), (126, 124, 122)),
    leaf=((48, 64, 36), (58, 76, 42), (70, 84, 48), (40, 54, 34), (84, 92, 54)),
    materials=(
        Material("shingle", _GRAY_SHINGLE, ("gable", "gable", "hip", "cross"), 8.0, wear=0.8),
        Material("tile", _TILE_RED, ("gable", "hip"), 0.5),
        Material("membrane", _WHITE + _DARK_ROOF, ("flat",), 0.8, wear=0.8),
    ),
    plot_ground=(0.88, 0.06, 0.06),
    block_kinds={
        "houses": 14.0,
        "rows": 1.0,
        "forest": 1.0,
        "park": 0.6,
        "halls": 0.8,
        "estate": 0.6,
        "pitch": 0.4,
        "field": 0.3,
    },
    block_m=(52.0, 100.0),
    road_m=(6.0, 11.0),
    setback_m=(4.0, 9.0),
    frontage_m=(13.0, 22.0),
    depth_m=(8.0, 12.5),
    fill=(0.55, 0.8),
    gap_m=1.2,
    rows=1,
    row_step_m=18.0,
    eaves_m=(3.0, 6.5),
    pitch=(0.45, 0.9),
    court=0.05,
    infill_per_ha=7.0,
    trees_per_ha=(40.0, 150.0),
    clutter_per_ha=10.0,
    cars=1.0,
    shadow=(0.3, 0.5),
    elevation=(30.0, 58.0),
    walls=0.12,
    markings=True,
    brightness=(0.66, 1.06),
    leaf_off=0.35,
    haze=(0.0, 0.08),
)
_OLD_TOWN = Style(
    name="old_town",
    grass=((88, 104, 60), (104, 114, 72), (78, 92, 54)),
    soil=((150, 130, 106), (140, 122, 100)),
    paved=((150, 146, 138), (138, 134, 128), (162, 154, 142)),
    road=((112, 111, 111), (124, 121, 117), (140, 134, 126)),
    leaf=((52, 70, 38), (66, 84, 46), (46, 60, 36)),
    materials=(
        Material("tile", _TILE_RED, ("gable", "gable", "hip", "cross"), 7.0),
        Material("shingle", _GRAY_SHINGLE, ("gable", "hip"), 1.6),
        Material("concrete", _CONCRETE, ("flat",), 1.0),
        Material("membrane", _WHITE + _DARK_ROOF, ("flat",), 0.8),
    ),
    plot_ground=(0.46, 0.12, 0.42),
    block_kinds={
        "houses": 6.5,
        "rows": 4.5,
        "park": 0.7,
        "halls": 0.6,
        "estate": 0.8,
        "lot": 0.3,
        "forest": 0.3,
        "pitch": 0.2,
    },
    block_m=(44.0, 92.0),
    road_m=(5.0, 10.0),
    setback_m=(0.5, 4.0),
    frontage_m=(9.0, 18.0),
    depth_m=(8.0, 13.0),
    fill=(0.75, 1.0),
    gap_m=0.8,
    rows=2,
    row_step_m=15.0,
    eaves_m=(4.5, 10.0),
    pitch=(0.4, 0.8),
    court=0.16,
    infill_per_ha=14.0,
    trees_per_ha=(18.0, 80.0),
    clutter_per_ha=14.0,
    cars=1.0,
    shadow=(0.34, 0.6),
    elevation=(34.0, 60.0),
    walls=0.3,
    markings=True,
)

# Four regions whose houses share walls, chosen beside Banepa, Dhaka and Zanzibar at 0.3 m
_TERRACES = replace(
    _OLD_TOWN,
    name="terraces",
    block_kinds={"terrace": 9.0, "houses": 1.0, "park": 0.4, "estate": 0.4, "halls": 0.4, "shops": 1.5},
    block_m=(38.0, 84.0),
    road_m=(5.5, 10.0),
    plot_ground=(0.62, 0.1, 0.28),
    eaves_m=(4.6, 8.0),
    pitch=(0.4, 0.85),
    materials=(
        Material("tile", _TILE_RED, ("gable", "gable", "hip"), 4.0),
        Material("shingle", _GRAY_SHINGLE, ("gable", "gable", "hip"), 4.0),
        Material("membrane", _WHITE + _DARK_ROOF, ("flat",), 1.2, wear=0.8),
        Material("concrete", _CONCRETE, ("flat",), 0.6),
    ),
    infill_per_ha=8.0,
    trees_per_ha=(10.0, 50.0),
    clutter_per_ha=30.0,
    bend=0.2,
)
_COURTYARDS = replace(
    _OLD_TOWN,
    name="courtyards",
    block_kinds={"perimeter": 10.0, "packed": 1.5, "shops": 1.0, "park": 0.4, "lot": 0.3},
    block_m=(36.0, 72.0),
    road_m=(3.5, 11.0),
    plot_ground=(0.24, 0.2, 0.56),
    eaves_m=(6.0, 14.0),
    pitch=(0.25, 0.7),
    materials=(
        Material("tile", _TILE_RED, ("gable", "gable", "hip", "shed"), 4.0),
        Material("metal", _GRAY_METAL, ("gable", "shed"), 1.6, rust=0.12),
        Material("shingle", _GRAY_SHINGLE, ("gable", "hip"), 1.4),
        Material("concrete", _CONCRETE, ("flat",), 2.4, wear=1.3),
        Material("membrane", _WHITE + _DARK_ROOF, ("flat",), 1.4, wear=0.8),
    ),
    trees_per_ha=(4.0, 24.0),
    clutter_per_ha=40.0,
    bend=0.25,
    tallest_m=20.0,
)
_PACKED_TOWN = replace(
    _HILL_TOWN,
    name="packed_town",
    block_kinds={"packed": 8.0, "shops": 3.0, "perimeter": 1.2, "houses": 0.8, "lot": 0.4, "halls": 0.4, "field": 0.3},
    block_m=(28.0, 62.0),
    road_m=(1.8, 6.5),
    plot_ground=(0.16, 0.4, 0.44),
    eaves_m=(3.1, 18.0),
    pitch=(0.1, 0.4),
    materials=(
        Material("concrete", _CONCRETE, ("flat",), 7.0, wear=1.6),
        Material("metal", _GRAY_METAL, ("shed", "gable"), 2.2, rust=0.2, wear=1.2),
        Material("metal", _RUST, ("shed", "gable"), 0.9, rust=0.4),
        Material("metal", _BLUE, ("shed", "gable"), 1.0, wear=0.8),
        Material("metal", _RED, ("gable", "shed"), 0.7, wear=0.8),
        Material("tile", _TILE_RED, ("gable",), 0.3),
    ),
    trees_per_ha=(6.0, 26.0),
    clutter_per_ha=110.0,
    shadow=(0.42, 0.75),
    bend=0.3,
    tallest_m=26.0,
)
_INFORMAL = replace(
    _COMPOUNDS,
    name="informal",
    block_kinds={"shanty": 10.0, "packed": 0.8, "lot": 0.3, "park": 0.1},
    soil=((150, 136, 120), (160, 144, 126), (138, 122, 106), (150, 118, 92), (126, 116, 108)),
    block_m=(28.0, 84.0),
    road_m=(1.0, 4.2),
    plot_ground=(0.02, 0.56, 0.42),
    eaves_m=(2.1, 4.6),
    pitch=(0.06, 0.26),
    materials=(
        Material("metal", _GRAY_METAL, ("shed", "gable", "shed"), 4.0, rust=0.22, wear=1.4),
        Material("metal", (*_RUST, *_RUSTED_GRAY), ("shed", "gable"), 3.0, rust=0.5, wear=1.5),
        Material("metal", _WHITE, ("shed", "gable"), 1.6, rust=0.06),
        Material("metal", _TAN, ("shed", "gable"), 0.8, rust=0.2),
        Material("metal", _BLUE + _GREEN + _RED, ("shed", "gable"), 0.5, rust=0.03, wear=0.7),
        Material("concrete", _CONCRETE, ("flat",), 0.9, wear=1.7),
    ),
    trees_per_ha=(1.0, 10.0),
    clutter_per_ha=150.0,
    brightness=(0.92, 1.22),
    warmth=(-0.02, 0.05),
    bend=0.5,
    court=0.0,
)

REGIONS: dict[str, Style] = {style.name: style for style in (_COMPOUNDS, _HILL_TOWN, _SUBURB, _OLD_TOWN)}
DENSE_REGIONS: dict[str, Style] = {style.name: style for style in (_TERRACES, _COURTYARDS, _PACKED_TOWN, _INFORMAL)}
KINDS = {"plain": REGIONS, "dense": DENSE_REGIONS}
"""Regions by the kind of scene; a trained model's card may name seeds, so what a kind holds stays as it is."""


def draw_style(rng: np.random.Generator, region: str | None = None, kind: str = "plain") -> Style:
    """Draw a region of a kind (unless named), and within it this scene's sun, density and mixture of land."""
    regions = KINDS[kind]
    names = sorted(regions)
    style = regions[region or names[int(rng.integers(len(names)))]]
    low, high = int(style.elevation[0]), int(style.elevation[1])
    loose = rng.uniform(0.0, 1.0)
    kinds = {
        land: weight * (1.0 if land == "houses" else rng.uniform(0.3, 1.7))
        for land, weight in sorted(style.block_kinds.items())
    }
    return replace(
        style,
        sun_azimuth=float(rng.integers(0, 360)),
        sun_elevation=float(rng.integers(low, high)),
        gap_m=style.gap_m * (0.7 + 2.2 * loose * loose),
        fill=(style.fill[0] - 0.15 * loose, style.fill[1] - 0.1 * loose),
        row_step_m=style.row_step_m * (0.9 + 0.4 * loose),
        block_kinds=kinds,
    )
