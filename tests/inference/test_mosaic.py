"""Several scenes planned as one: what comes out of the blocks."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject, transform
from scipy.ndimage import label, uniform_filter

from geoseg.bundle import Bundle, ModelSpec, load_bundle, save_bundle
from geoseg.engines import ClassSegmenter, IdentitySegmenter, ThresholdSegmenter
from geoseg.errors import AOIError, MissingCRSError, MissingDatetimeError, UsageError
from geoseg.grid import Window
from geoseg.inference import NODATA, InferenceOptions, Plan, plan_inference, plan_mosaic, predict_block, predict_scene
from geoseg.mosaic import Composite
from geoseg.scene import close_readers
from geoseg.sources import SceneSource
from geoseg.testing import paint_scene

PLACE = (811_200.0, 618_900.0)
GSD = 0.3
NORTH_UP = Affine(GSD, 0, PLACE[0], 0, -GSD, PLACE[1])
CHIPS: dict[str, Any] = {"chip_px": 64, "halo_px": 8}
SMALL = InferenceOptions(**CHIPS)


@pytest.fixture(autouse=True)
def _closed_readers() -> Iterator[None]:
    yield
    close_readers()


@dataclass(frozen=True)
class Counting:
    """Looks at the whole chip and its pixels' neighbors, and remembers the chips."""

    name: str = "counting"
    batch_size: int = 3
    threads: int = 1
    seen: list[np.ndarray] = field(default_factory=list, compare=False)

    def predict(self, chips: np.ndarray) -> np.ndarray:
        self.seen.extend(chips)
        values = chips[:, :1].astype(np.float32) / 255
        return 0.3 * values.mean((2, 3), keepdims=True) + 0.7 * uniform_filter(values, (0, 0, 7, 7), mode="nearest")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of one gray band at 0.3 m; it is never loaded."""
    spec = ModelSpec(
        name="fake", network="unet", bands=("gray",), gsd_m=GSD, mean=(0.5,), std=(0.2,), chip_px=64, halo_px=8
    )
    return load_bundle(save_bundle(tmp_path_factory.mktemp("model") / "fake.safetensors", spec, {}))


def write(
    path: Path,
    pixels: np.ndarray,
    place: Affine = NORTH_UP,
    crs: str | None = "EPSG:32630",
    *,
    valid: np.ndarray | None = None,
    taken: datetime | None = None,
    **options: Any,
) -> SceneSource:
    """Write `(band, y, x)` or `(y, x)` pixels as a scene."""
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    profile = {"driver": "GTiff", "dtype": pixels.dtype, "count": len(pixels), "crs": crs, "transform": place}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=pixels.shape[1], width=pixels.shape[2], **profile, **options) as dst,
    ):
        dst.write(pixels)
        if valid is not None:
            dst.write_mask(valid)
    return SceneSource(path.stem, (str(path),), taken)


def at(col: float, row: float) -> Affine:
    """The place of a scene that begins some pixels further right and down."""
    return NORTH_UP @ Affine.translation(col, row)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width), np.uint8)


def gray(value: int, height: int = 100, width: int = 150) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def predict_all(plan: Plan, block_px: int = 100, what: str = "probability") -> np.ndarray:
    """Predict block by block."""
    out = np.full(plan.scene.grid.shape, NODATA, np.uint8)
    for block in plan.blocks(block_px):
        out[block.window.slices] = getattr(predict_block(plan, block), what)
    return out


def identity(plan: Plan) -> Plan:
    return replace(plan, engine=IdentitySegmenter())


def outline_of(array: np.ndarray) -> np.ndarray:
    """Without the rows and columns around it that hold nothing."""
    rows, cols = np.nonzero(array != NODATA)
    return array[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]


# Sheets of one orthophoto


def write_sheets(
    folder: Path, pixels: np.ndarray, px: float, rows: int, cols: int
) -> tuple[SceneSource, list[SceneSource]]:
    """One file, and the same pixels in several."""
    place = Affine(px, 0, PLACE[0], 0, -px, PLACE[1])
    whole = write(folder / "whole.tif", pixels, place)
    height, width = pixels.shape
    sheets = [
        write(
            folder / f"sheet_{i}_{j}.tif",
            pixels[i * height // rows : (i + 1) * height // rows, j * width // cols : (j + 1) * width // cols],
            place @ Affine.translation(j * width // cols, i * height // rows),
        )
        for i in range(rows)
        for j in range(cols)
    ]
    return whole, sheets


@pytest.mark.parametrize(
    ("rule", "px", "blend"), [("first", 0.3, False), ("first", 0.17, True), ("mean", 0.4, False), ("mean", 0.17, True)]
)
def test_sheets_of_one_file_are_what_the_file_is(
    tmp_path: Path, bundle: Bundle, rule: Any, px: float, blend: bool
) -> None:
    whole, sheets = write_sheets(tmp_path, noise(211, 243), px, 2, 3)
    direct = plan_inference(whole.paths, bundle, InferenceOptions(blend=blend, **CHIPS))
    mosaic = plan_mosaic(sheets, bundle, InferenceOptions(blend=blend, **CHIPS), rule=rule)
    assert not isinstance(mosaic.scene, Composite)
    assert mosaic.scene.grid == direct.scene.grid
    assert mosaic.lattice == direct.lattice
    engine = Counting()
    for block in direct.blocks(80):
        mine, theirs = (predict_block(replace(plan, engine=engine), block) for plan in (mosaic, direct))
        np.testing.assert_array_equal(mine.probability, theirs.probability)
        np.testing.assert_array_equal(mine.valid, theirs.valid)


def test_sheets_that_overlap_show_the_first_or_the_latest(tmp_path: Path, bundle: Bundle) -> None:
    old, new = datetime(2024, 1, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 3)  # without a time zone it is UTC
    one = write(tmp_path / "one.tif", gray(50), taken=old)
    two = write(tmp_path / "two.tif", gray(200), at(100, 0), taken=new)
    for sources, rule, expected in (
        ([one, two], "first", 50),
        ([two, one], "first", 200),
        ([one, two], "latest", 200),
        ([two, one], "latest", 200),
    ):
        plan = plan_mosaic(sources, bundle, SMALL, rule=rule)
        assert not isinstance(plan.scene, Composite)
        found = predict_all(identity(plan))
        assert (found[:, 100:150] == expected).all()
        assert (found[:, :100] == 50).all()
        assert (found[:, 150:] == 200).all()


def test_of_scenes_of_the_same_time_the_first_given_is_on_top(tmp_path: Path, bundle: Bundle) -> None:
    taken = datetime(2024, 1, 1, tzinfo=UTC)
    one = write(tmp_path / "one.tif", gray(50, 40, 40), taken=taken)
    two = write(tmp_path / "two.tif", gray(200, 40, 40), taken=taken)
    for first, second, value in ((one, two, 50), (two, one, 200)):
        plan = plan_mosaic([first, second], bundle, SMALL, rule="latest")
        assert (predict_all(identity(plan)) == value).all()


def test_the_latest_is_the_latest_on_every_computer(tmp_path: Path, bundle: Bundle, local_time: str) -> None:
    """A moment without a zone is UTC, wherever the run is; two hours lie between the scenes."""
    old, new = datetime(2024, 1, 1, 11), datetime(2024, 1, 1, 13)
    for name, moments in {"a": (old, new.replace(tzinfo=UTC)), "b": (old.replace(tzinfo=UTC), new)}.items():
        sources = [
            write(tmp_path / f"{name}{taken.hour}.tif", gray(taken.hour, 40, 40), taken=taken) for taken in moments
        ]
        for order in (sources, sources[::-1]):
            assert (predict_all(identity(plan_mosaic(order, bundle, SMALL, rule="latest"))) == 13).all()


def test_one_scene_is_that_scene(tmp_path: Path, bundle: Bundle) -> None:
    source = write(tmp_path / "one.tif", noise(90, 80))
    assert plan_mosaic([source], bundle) == plan_inference(source.paths, bundle)


# Rules, where every scene has a grid of its own


@pytest.fixture
def pair(tmp_path: Path) -> list[SceneSource]:
    """50 and 200, sharing columns 100 to 150, half a pixel off each other's grid."""
    taken = [datetime(2024, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)]
    return [
        write(tmp_path / "one.tif", gray(50), at(0, 0), taken=taken[0]),
        write(tmp_path / "two.tif", gray(200), at(100.5, 0.5), taken=taken[1]),
    ]


@pytest.mark.parametrize(
    ("rule", "order", "expected"),
    [("first", 1, 50), ("first", -1, 200), ("latest", 1, 50), ("latest", -1, 50), ("mean", 1, 125), ("mean", -1, 125)],
)
@pytest.mark.parametrize("blend", [False, True])
def test_the_rule_says_what_counts_where_scenes_overlap(
    pair: list[SceneSource], bundle: Bundle, rule: Any, order: int, expected: int, blend: bool
) -> None:
    plan = plan_mosaic(
        pair[::order], bundle, InferenceOptions(blend=blend, **CHIPS), rule=rule, target_crs="EPSG:32630"
    )
    assert isinstance(plan.scene, Composite)
    found = outline_of(predict_all(identity(plan)))
    assert found.shape == (101, 251)
    rows = slice(2, 98)
    assert (found[rows, 102:148] == expected).all()
    assert (found[rows, :100] == 50).all()
    assert (found[rows, 152:] == 200).all()
    assert set(np.unique(found)) <= {50, 200, expected, NODATA}


def test_the_mean_of_three_is_rounded_once(tmp_path: Path, bundle: Bundle) -> None:
    sources = [write(tmp_path / f"{v}.tif", gray(v), at(v / 1000, 0.2)) for v in (100, 101, 101)[:2]]
    sources.append(write(tmp_path / "third.tif", gray(101), at(0.7, 0.4)))
    found = predict_all(identity(plan_mosaic(sources, bundle, SMALL, rule="mean")))
    assert (found[5:-5, 5:-5] == 101).all()  # 100.67


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> dict[tuple[str, bool], Plan]:
    """Three scenes under two rules, blended and not."""
    sources = three(tmp_path_factory.mktemp("three"))
    both = [(rule, blend) for rule in ("first", "mean") for blend in (False, True)]
    return {
        (rule, blend): replace(
            plan_mosaic(sources, bundle, InferenceOptions(blend=blend, **CHIPS), rule=rule), engine=Counting()
        )
        for rule, blend in both
    }


@settings(max_examples=12, deadline=None)
@given(
    rule=st.sampled_from(["first", "mean"]),
    blocks=st.tuples(st.integers(20, 260), st.integers(20, 260)),
    blend=st.booleans(),
)
def test_blocks_change_nothing(
    plans: dict[tuple[str, bool], Plan], rule: str, blocks: tuple[int, int], blend: bool
) -> None:
    first, second = (predict_all(plans[rule, blend], px) for px in blocks)
    np.testing.assert_array_equal(first, second)


def three(folder: Path, seed: int = 0) -> list[SceneSource]:
    """Three noisy scenes with holes, of three CRSs, that overlap."""
    rng = np.random.default_rng(seed)
    holes = [np.kron(rng.random((6, 8)) < 0.7, np.ones((15, 13), bool)).astype(bool) for _ in range(3)]
    there = place_in("EPSG:4326", 2.7e-6)
    return [
        write(folder / "a.tif", noise(90, 104, seed), NORTH_UP, valid=holes[0]),
        write(
            folder / "b.tif", noise(90, 104, seed + 1), there @ Affine.translation(40, 20), "EPSG:4326", valid=holes[1]
        ),
        write(folder / "c.tif", noise(90, 104, seed + 2), at(70.3, -10.8) @ Affine.rotation(7), valid=holes[2]),
    ]


def place_in(crs: str, px: float) -> Affine:
    x, y = transform("EPSG:32630", crs, [PLACE[0]], [PLACE[1]])
    return Affine(px, 0, x[0], 0, -px, y[0])


def test_the_mean_is_that_of_each_scene_on_top_of_the_others(tmp_path: Path, bundle: Bundle) -> None:
    sources, total, count = three(tmp_path), 0.0, 0
    mean = plan_mosaic(sources, bundle, SMALL, rule="mean")
    for k in range(3):
        others = [s for i, s in enumerate(sources) if i != k]
        on_top = replace(plan_mosaic(sources, bundle, SMALL, rule="mean"), engine=Counting())
        scene = plan_mosaic(sources, bundle, SMALL, rule="mean").scene
        assert isinstance(scene, Composite)
        order = [scene.parts[k], *(p for p in scene.parts if p is not scene.parts[k])]
        image = replace(on_top, scene=replace(scene, parts=tuple(order), mean=False))
        own = np.zeros(scene.grid.shape, bool)
        own[scene.parts[k].window.slices] = scene.parts[k].read_valid(scene.parts[k].window)
        total = total + np.where(own, predict_all(image).astype(float), 0)
        count = count + own
        assert len(others) == 2
    found = predict_all(replace(mean, engine=Counting()))
    np.testing.assert_array_equal(found == NODATA, count == 0)
    seen = np.asarray(count) > 0
    off = np.abs(found[seen] - (np.asarray(total)[seen] / np.asarray(count)[seen]))
    assert (np.asarray(count) > 1).sum() > 2_000
    assert off.max() <= 1


def test_chips_see_the_neighboring_scene(tmp_path: Path, bundle: Bundle) -> None:
    pixels = np.maximum(noise(100, 200), 8)
    left = write(tmp_path / "left.tif", pixels[:, :110])
    right = write(tmp_path / "right.tif", pixels[:, 110:], at(110, 0), nodata=7)
    direct = plan_inference(write(tmp_path / "all.tif", pixels).paths, bundle, SMALL)
    plan = plan_mosaic([left, right], bundle, SMALL)
    assert isinstance(plan.scene, Composite)  # the nodata values differ, so no VRT holds both
    found, expected = (predict_all(replace(p, engine=Counting())) for p in (plan, direct))
    np.testing.assert_array_equal(found, expected)


def test_a_pass_for_a_scene_predicts_only_chips_with_its_pixels(pair: list[SceneSource], bundle: Bundle) -> None:
    counts = {}
    for rule in ("first", "mean"):
        engine = Counting()
        plan = replace(plan_mosaic(pair, bundle, SMALL, rule=rule, target_crs="EPSG:32630"), engine=engine)
        predict_all(plan, 1_000)
        counts[rule] = len(engine.seen)
    rows, cols = plan.lattice.counts
    assert counts["first"] == rows * cols
    core = plan.lattice.core[1]
    shared = 150 // core - 100 // core + 1
    assert counts["mean"] == rows * (cols + shared)


def test_classes_are_chosen_from_the_mean(tmp_path: Path) -> None:
    names = ("a", "building", "c", "d")
    spec = ModelSpec(
        name="m", network="unet", bands=("gray",), gsd_m=GSD, mean=(0.5,), std=(0.2,), classes=names, target="building"
    )
    bundle = load_bundle(save_bundle(tmp_path / "m.safetensors", spec, {}))
    values = (0, 128, 130)  # classes 0, 2, 2
    sources = [write(tmp_path / f"{v}.tif", gray(v), at(v / 500, 0.1)) for v in values]
    plan = replace(plan_mosaic(sources, bundle, SMALL, rule="mean"), engine=ClassSegmenter())
    assert (predict_all(plan, what="classes")[3:-3, 3:-3] == 2).all()
    assert (predict_all(plan)[3:-3, 3:-3] == round(254 * 0.25 / 3)).all()


# Places


@pytest.fixture(scope="module")
def painted() -> Any:
    return paint_scene(3, size_px=400)


CUTS = {
    "utm and utm": ("EPSG:32631", GSD, "EPSG:32630", GSD),
    "degrees and mercator": ("EPSG:4326", 2.71e-6, "EPSG:3857", 0.301),
    "finer and coarser": ("EPSG:32631", 0.2, "EPSG:4326", 3.6e-6),
}


@pytest.mark.parametrize("cut", CUTS)
def test_one_ground_in_two_CRSs_is_found_where_it_is(tmp_path: Path, bundle: Bundle, painted: Any, cut: str) -> None:
    spec = replace(bundle.spec, bands=("red", "green", "blue"), mean=(0.5,) * 3, std=(0.2,) * 3)
    rgb = load_bundle(save_bundle(tmp_path / "rgb.safetensors", spec, {}))
    truth, shape = painted.image, painted.image.shape
    crs_a, px_a, crs_b, px_b = CUTS[cut]
    sources = [
        photograph(tmp_path / "a.tif", painted, crs_a, px_a, (0, 0, 230, 400)),
        photograph(tmp_path / "b.tif", painted, crs_b, px_b, (170, 0, 400, 400)),
    ]
    plan = plan_mosaic(sources, rgb, SMALL, target_crs="EPSG:32630")
    grid = plan.scene.grid
    col, row = ~painted.grid.transform @ (grid.transform.c, grid.transform.f)
    assert abs(col - round(col)) < 1e-6  # both are whole pixels of 0.3 m
    top, left = -round(row), -round(col)
    found = plan.scene.read(grid.window)
    cut_out = (slice(top + 4, top + shape[1] - 4), slice(left + 4, left + shape[2] - 4))
    assert found.valid[cut_out].all()
    mine, inner = found.values[:, *cut_out].astype(float), truth[:, 4:-4, 4:-4].astype(float)
    assert np.abs(mine - inner).mean() < 0.5 * roughness(inner)
    shift = best_shift(mine.mean(0), inner.mean(0))
    assert np.abs(shift).max() < 0.1


def photograph(path: Path, painted: Any, crs: str, px: float, part: tuple[int, int, int, int]) -> SceneSource:
    """The painted ground between columns and rows, as another scene would show it."""
    here = painted.grid.crop(window_of(part))
    x, y = transform(painted.grid.crs, crs, *zip(*here.corners, strict=True))
    place = Affine(px, 0, min(x), 0, -px, max(y))
    shape = (round((max(y) - min(y)) / px), round((max(x) - min(x)) / px))
    out = np.zeros((3, *shape), np.uint8)
    grids = {"src_transform": painted.grid.transform, "src_crs": painted.grid.crs}
    reproject(painted.image, out, **grids, dst_transform=place, dst_crs=crs, resampling=Resampling.cubic, tolerance=0)
    valid = np.zeros(shape, np.uint8)
    source = np.zeros(painted.image.shape[1:], np.uint8)
    source[part[1] : part[3], part[0] : part[2]] = 1
    reproject(source, valid, **grids, dst_transform=place, dst_crs=crs, resampling=Resampling.nearest, tolerance=0)
    return write(path, out, place, crs, valid=valid.astype(bool))


def window_of(part: tuple[int, int, int, int]) -> Any:
    return Window(part[1], part[0], part[3] - part[1], part[2] - part[0])


def roughness(image: np.ndarray) -> float:
    """Mean difference of a picture and itself one pixel further."""
    return float(np.abs(np.diff(image, axis=2)).mean())


def best_shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By how many pixels one picture lies off another, to first order: least squares on its slopes."""
    slopes = np.stack([s[5:-5, 5:-5].ravel() for s in np.gradient(uniform_filter(b, 3))], 1)
    off = (uniform_filter(a, 3) - uniform_filter(b, 3))[5:-5, 5:-5].ravel()
    return np.linalg.lstsq(slopes, off, rcond=None)[0]


def test_a_building_across_a_seam_is_one(tmp_path: Path, bundle: Bundle) -> None:
    ground = np.full((120, 200), 60, np.uint8)
    ground[40:80, 70:130] = 220
    left = write(tmp_path / "left.tif", ground[:, :100])
    x, y = transform("EPSG:32630", "EPSG:4326", [PLACE[0]], [PLACE[1]])
    place = Affine(2.71e-6, 0, x[0] + 95 * GSD / 111_000, 0, -2.71e-6, y[0])
    right = np.zeros((120, 110), np.uint8)
    grids = {"src_transform": NORTH_UP, "src_crs": "EPSG:32630", "dst_transform": place, "dst_crs": "EPSG:4326"}
    reproject(ground, right, **grids, resampling=Resampling.bilinear, dst_nodata=0, src_nodata=0)
    plan = plan_mosaic([left, write(tmp_path / "right.tif", right, place, "EPSG:4326", nodata=0)], bundle, SMALL)
    found = predict_all(replace(plan, engine=ThresholdSegmenter(140)))
    count, pixels = label(found == 254)[1], (found == 254).sum()
    assert count == 1
    assert pixels == pytest.approx(40 * 60, rel=0.03)


def test_a_rotated_scene_lies_under_a_straight_one(tmp_path: Path, bundle: Bundle) -> None:
    straight = write(tmp_path / "straight.tif", gray(50, 60, 60))
    turned = write(tmp_path / "turned.tif", gray(200, 100, 100), at(30.2, -40.3) @ Affine.rotation(45))
    found = outline_of(predict_all(identity(plan_mosaic([straight, turned], bundle, SMALL))))
    assert (found == 50).sum() == 3_600
    side = np.sqrt(0.5) * 100
    corners = [(0, 0), (side, side), (0, 2 * side), (-side, side)]
    square = shapely.Polygon([(30.2 + x, -40.3 + y) for x, y in corners])
    assert (found == 200).sum() == pytest.approx(square.difference(shapely.box(0, 0, 60, 60)).area, rel=0.01)


# AOI, gaps, size


def write_area(path: Path, bounds: tuple[float, float, float, float]) -> Path:
    """An area between columns and rows of the scenes, as GeoJSON in degrees."""
    import geopandas

    left, top, right, bottom = bounds
    box = shapely.box(PLACE[0] + left * GSD, PLACE[1] - bottom * GSD, PLACE[0] + right * GSD, PLACE[1] - top * GSD)
    geopandas.GeoDataFrame(geometry=[box], crs="EPSG:32630").to_file(path, driver="GPKG")
    return path


def test_an_area_clips_the_grid_and_moves_no_pixel(tmp_path: Path, bundle: Bundle) -> None:
    sources = three(tmp_path)
    area = write_area(tmp_path / "area.gpkg", (20.3, 11.2, 95.9, 70.1))
    whole, cut = (plan_mosaic(sources, bundle, InferenceOptions(aoi=a, **CHIPS)) for a in (None, area))
    assert cut.scene.grid.height < whole.scene.grid.height
    col, row = ~whole.scene.grid.transform @ (cut.scene.grid.transform.c, cut.scene.grid.transform.f)
    top, left = round(row), round(col)
    height, width = cut.scene.grid.shape
    there = (slice(top, top + height), slice(left, left + width))
    np.testing.assert_allclose((row, col), (top, left), atol=1e-6)
    mine, theirs = (plan.scene.read(plan.scene.grid.window) for plan in (cut, whole))
    np.testing.assert_array_equal(mine.values, theirs.values[:, *there])
    np.testing.assert_array_equal(mine.valid, theirs.valid[there])
    found = predict_all(identity(cut))
    everywhere = predict_all(identity(whole))[there]
    assert ((found == everywhere) | (found == NODATA)).all()
    assert 0.9 < (found != NODATA).sum() / (everywhere != NODATA).sum() < 1


def test_an_area_beside_the_mosaic_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    area = write_area(tmp_path / "area.gpkg", (5_000, 0, 5_100, 100))
    with pytest.raises(AOIError):
        plan_mosaic(three(tmp_path), bundle, InferenceOptions(aoi=area, **CHIPS))


def test_blocks_in_gaps_are_not_planned(tmp_path: Path, bundle: Bundle) -> None:
    sources = [
        write(tmp_path / "a.tif", gray(50)),
        write(tmp_path / "b.tif", gray(200), at(2_000.5, 1_500.5)),
    ]
    plan = identity(plan_mosaic(sources, bundle, SMALL, target_crs="EPSG:32630"))
    every, some = plan.lattice.plan_blocks(200), plan.blocks(200)
    assert len(some) <= 8 < len(every) / 8
    found = predict_all(plan, 200)
    assert (found != NODATA).sum() == pytest.approx(2 * 100 * 150, rel=0.02)
    lazy = predict_scene(plan, block_px=600).values
    np.testing.assert_array_equal(np.isnan(lazy), found == NODATA)


def test_blocks_between_sheets_are_not_planned_either(tmp_path: Path, bundle: Bundle) -> None:
    sheets = [
        write(tmp_path / "a.tif", gray(50), nodata=0),
        write(tmp_path / "b.tif", gray(200), at(1_500, 900), nodata=0),
    ]
    plan = identity(plan_mosaic(sheets, bundle, SMALL))
    assert not isinstance(plan.scene, Composite)
    assert len(plan.blocks(200)) <= 8 < len(plan.lattice.plan_blocks(200)) / 4
    everywhere = predict_all(replace(plan, covered=()), 200)
    np.testing.assert_array_equal(predict_all(plan, 200), everywhere)


def test_scenes_far_apart_are_refused_unless_an_area_cuts_them(tmp_path: Path, bundle: Bundle) -> None:
    near = write(tmp_path / "near.tif", gray(50))
    far = write(tmp_path / "far.tif", gray(200), Affine(3e-6, 0, 8.5, 0, -3e-6, 47.4), "EPSG:4326")
    with pytest.raises(UsageError, match=r"near and far lie far apart"):
        plan_mosaic([near, far], bundle, SMALL)
    area = write_area(tmp_path / "area.gpkg", (10, 10, 90, 90))
    plan = identity(plan_mosaic([near, far], bundle, InferenceOptions(aoi=area, **CHIPS)))
    assert (outline_of(predict_all(plan)) == 50).all()
    assert plan.scene.paths == near.paths


# What is said of sources


def test_the_latest_needs_every_datetime(tmp_path: Path, bundle: Bundle) -> None:
    sources = [write(tmp_path / f"{i}.tif", gray(i), at(i + 0.5, 0)) for i in range(7)]
    sources[3] = replace(sources[3], datetime=datetime(2020, 1, 1))
    with pytest.raises(MissingDatetimeError, match=r"datetime: 6 of 7 \(0, 1, 2, 4, 5 and 1 more\)\. .*manifest"):
        plan_mosaic(sources, bundle, SMALL, rule="latest")


def test_a_CRS_is_taken_where_the_file_has_none(tmp_path: Path, bundle: Bundle, recwarn: Any) -> None:
    own = write(tmp_path / "own.tif", gray(50))
    none = write(tmp_path / "none.tif", gray(200), at(100.5, 0), None)
    with pytest.raises(MissingCRSError, match="none"):
        plan_mosaic([own, none], bundle, SMALL)
    for sources, crs in (([own, replace(none, crs="EPSG:32630")], None), ([own, none], "EPSG:32630")):
        found = outline_of(predict_all(identity(plan_mosaic(sources, bundle, InferenceOptions(crs=crs, **CHIPS)))))
        assert found.shape[1] == 251
        assert (found[50, 50], found[50, 200]) == (50, 200), "each scene where its file and its CRS put it"
    both = plan_mosaic([own, replace(none, crs="EPSG:32630")], bundle, InferenceOptions(crs="EPSG:4326", **CHIPS))
    assert both.scene.grid.crs == CRS.from_epsg(32630)


def test_bands_are_chosen_scene_by_scene(tmp_path: Path, bundle: Bundle) -> None:
    one = write(tmp_path / "one.tif", np.stack([gray(1), gray(50)]))
    two = write(tmp_path / "two.tif", np.stack([gray(200), gray(2), gray(3)]), at(100.5, 0.5))
    sources = [replace(one, bands=(2,)), two]
    found = outline_of(predict_all(identity(plan_mosaic(sources, bundle, SMALL))))
    assert set(np.unique(found)) == {50, 200, NODATA}
    found = outline_of(predict_all(identity(plan_mosaic([one, two], bundle, InferenceOptions(bands=(2,), **CHIPS)))))
    assert set(np.unique(found)) == {50, 2, NODATA}


def test_levels_are_measured_scene_by_scene(tmp_path: Path, bundle: Bundle) -> None:
    ramp = np.tile(np.linspace(0, 1, 150), (100, 1))
    one = write(tmp_path / "one.tif", (ramp * 1_000).astype(np.uint16))
    two = write(tmp_path / "two.tif", (ramp * 60_000).astype(np.uint16), at(149.5, 0.5))
    plan = identity(plan_mosaic([one, two], bundle, SMALL))
    found = outline_of(predict_all(plan))
    assert max(found[50, 2], found[50, 152]) <= 1
    assert found[50, 147] == found[50, 297] == 254
    pickle.loads(pickle.dumps(plan))


def test_what_cannot_be_is_refused(pair: list[SceneSource], bundle: Bundle) -> None:
    newest: Any = "newest"
    with pytest.raises(UsageError, match="rule newest for overlaps is unknown"):
        plan_mosaic(pair, bundle, rule=newest)
    with pytest.raises(UsageError, match="10 px"):
        plan_mosaic(pair, bundle, InferenceOptions(chip_px=10))
    with pytest.raises(UsageError, match="No scene was named"):
        plan_mosaic([], bundle)
