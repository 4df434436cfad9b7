"""Every setting of an evaluation does something that a user sees, in figures or in files; a new one needs a case."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from scipy.ndimage import binary_erosion

from geoseg.bundle import ModelSpec, save_bundle
from geoseg.errors import ExistingResultError, LabelError, UnknownLabelError, UsageError
from geoseg.evaluate import EvaluateSettings, Evaluation, LabelSettings, evaluate_scenes
from geoseg.inference import EngineRecipe

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
SPEC = ModelSpec(
    name="fake", network="unet", bands=("gray",), gsd_m=0.3, mean=(0.5,), std=(0.2,), chip_px=64, halo_px=8
)
SIZE = 60
HOUSE, FAINT, MISSED = (slice(5, 25), slice(5, 25)), (slice(5, 25), slice(35, 55)), (slice(35, 55), slice(5, 25))
LAND = ("land", "road", "roof")


@dataclass(frozen=True)
class Column:
    """A network that finds buildings where a chip's columns begin: figures tell how chips were laid."""

    first: int = 12
    name: str = "column"
    batch_size: int = 4
    threads: int = 1

    def predict(self, chips: np.ndarray) -> np.ndarray:
        """Return 1 in the first columns of `(n, band, y, x)` chips."""
        return np.broadcast_to(np.arange(chips.shape[-1]) < self.first, (len(chips), 1, *chips.shape[2:])) * 1.0


@dataclass(frozen=True)
class Bench:
    """A scene with a sure house and a faint one (values 200 and 140); one of the truth's two is missed."""

    folder: Path
    write: Callable[..., Path]
    model: Path
    patch: pytest.MonkeyPatch

    @property
    def scene(self) -> Path:
        """The scene."""
        values = np.full((SIZE, SIZE), 10)
        values[HOUSE], values[FAINT] = 200, 140
        return self.write(self.folder / "scene.tif", values)

    @property
    def truth(self) -> np.ndarray:
        """The true pixels."""
        truth = np.zeros((SIZE, SIZE), int)
        truth[HOUSE] = truth[MISSED] = 1
        return truth

    def raster(self, name: str, values: np.ndarray, **options: Any) -> Path:
        """Write a raster on the scene's pixels."""
        return self.write(self.folder / name, values, **options)

    def vector(self, name: str, *places: tuple[slice, slice], layer: str | None = None, **columns: list) -> Path:
        """Write the ground of some pixels."""
        ground = [shapely.box(*(PLACE @ (c.start, r.stop)), *(PLACE @ (c.stop, r.start))) for r, c in places]
        frame = geopandas.GeoDataFrame(columns, geometry=ground, crs="EPSG:32630")
        frame.to_file(self.folder / name, layer=layer)
        return self.folder / name

    def score(self, scenes: Path | list[Path] | None = None, /, **options: Any) -> Evaluation:
        """Score the model on the scene, or what the options say."""
        files = options.get("mask") or options.get("footprints")
        usual = {"labels": self.raster("labels.tif", self.truth), "buildings": False}
        usual |= {} if files else {"model": self.model}
        scenes = scenes if scenes is not None else [] if files else self.scene
        return evaluate_scenes(scenes, EvaluateSettings(**usual | options))

    def counts(self, *scenes: Path, **options: Any) -> tuple[int, int, int]:
        """Return hits, false alarms and misses of the target, in squares of 20 px."""
        total = self.score(*scenes, **options).total
        counts, i = total.confusion.counts, total.confusion.classes.index(total.target)
        hits = counts[i, i]
        return tuple((np.array([hits, counts[:, i].sum() - hits, counts[i].sum() - hits]) / 400).tolist())

    def bundle(self, **spec: Any) -> Path:
        """Save another model."""
        import torch

        return save_bundle(self.folder / "other.safetensors", replace(SPEC, **spec), {"unused": torch.zeros(1)})


@pytest.fixture
def bench(tmp_path: Path, write: Callable[..., Path], model: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, write, model, monkeypatch)


def labels(b: Bench) -> None:
    assert b.counts() == (1, 1, 1)
    assert b.counts(labels=b.vector("t.gpkg", HOUSE)) == (1, 1, 0)


def model(b: Bench) -> None:
    other = b.score(model=b.bundle(name="strict", threshold=0.7))
    assert (other.threshold, other.facts["scene"]["model"]) == (0.7, "strict")
    assert other.total.confusion.of_class("building")["precision"] == 1


def mask(b: Bench) -> None:
    assert b.counts(mask=b.raster("m.tif", b.truth)) == (2, 0, 0)


def footprints(b: Bench) -> None:
    found = b.vector("f.gpkg", HOUSE, FAINT, MISSED)
    assert b.counts(footprints=found) == (2, 1, 0)
    beside = b.score(footprints=found, mask=b.raster("m.tif", b.truth), buildings=True).total.metrics()
    assert (beside["iou"], beside["buildings"]["predicted"]) == (1, 3)


def mask_codes(b: Bench) -> None:
    values = np.where(b.truth, 7, 3)
    values[FAINT] = 9
    codes = (("7", "building"), ("3", "background"), ("9", "unknown"))
    found = b.score(mask=b.raster("m.tif", values), mask_codes=codes).total.confusion
    assert found.counts.tolist() == [[SIZE**2 - 3 * 400, 0], [0, 800]]


def confidence(b: Bench) -> None:
    found = b.vector("f.gpkg", HOUSE, FAINT, MISSED, score=[0.9, 0.2, 0.8], sure=[0.1, 0.9, 0.8])
    ap50 = [
        b.score(footprints=found, confidence=c, buildings=True).total.metrics()["buildings"]["ap50"]
        for c in (None, "sure")
    ]
    assert ap50 == pytest.approx([1, 2 / 3])  # the wrong one last; first


def classes(b: Bench) -> None:
    values = np.where(b.truth, 2, 0)
    values[FAINT] = 1
    path = b.raster("m.tif", values)
    found = b.score(mask=path, labels=path, classes=LAND).total
    assert (found.confusion.classes, found.target) == (LAND, "roof")
    assert np.diag(found.confusion.counts).tolist() == [SIZE**2 - 1200, 400, 800]


def target(b: Bench) -> None:
    values = np.where(b.truth, 2, 0)
    values[FAINT] = 1
    path = b.raster("m.tif", values)
    assert b.counts(mask=path, labels=path, classes=LAND, target="road") == (1, 0, 0)
    assert b.counts(mask=path, labels=path, classes=LAND) == (2, 0, 0)


def target_only(b: Bench) -> None:
    path = b.raster("m.tif", np.where(b.truth, 2, 1))
    found = b.score(mask=path, classes=LAND, target_only=True).total  # the truth says 0 and 1
    assert found.confusion.classes == ("background", "roof")
    assert found.confusion.counts.tolist() == [[SIZE**2 - 800, 0], [0, 800]]


def unscored(b: Bench) -> None:
    names = ("land", "unlabelled", "building")
    predicted, truth = np.where(b.truth, 2, 0), np.where(b.truth, 2, 0)
    truth[FAINT] = 1  # where nothing is found
    files = {"mask": b.raster("m.tif", predicted), "labels": b.raster("t.tif", truth), "classes": names}
    land = (SIZE**2 - 1200) / (SIZE**2 - 800)
    means = [b.score(**files, unscored=left).total.metrics()["mean_iou"] for left in (None, (), ("building",))]
    assert means == pytest.approx([(land + 1) / 2, (land + 0 + 1) / 3, (land + 0) / 2])


def aoi(b: Bench) -> None:
    west = b.vector("a.gpkg", (slice(0, 60), slice(0, 30)))
    assert b.counts(aoi=west) == (1, 0, 1)
    assert b.counts(aoi=west, mask=b.raster("m.tif", 1 - b.truth)) == (0, (30 * 60 - 800) / 400, 2)


def aoi_where(b: Bench) -> None:
    parts = b.vector("a.gpkg", (slice(0, 60), slice(0, 30)), (slice(0, 60), slice(30, 60)), year=[2020, 2024])
    assert b.counts(aoi=parts, aoi_where="year = 2024") == (0, 1, 0)
    assert b.counts(aoi=parts, aoi_where="year < 2024") == (1, 0, 1)


def threshold(b: Bench) -> None:
    assert b.counts(threshold=0.7) == (1, 0, 1)
    assert b.counts(threshold=140 / 254) == (1, 1, 1)
    assert b.counts(threshold=141 / 254) == (1, 0, 1)


def boundary_m(b: Bench) -> None:
    check_boundary(b, 7, boundary_m=2.1)


def boundary_px(b: Bench) -> None:
    check_boundary(b, 5, boundary_px=5)


def check_boundary(b: Bench, px: int, **width: Any) -> None:
    moved = np.roll(b.truth, 2, axis=1)
    found = b.score(mask=b.raster("m.tif", moved), **width)
    rims = [m & ~binary_erosion(m, np.ones((3, 3)), iterations=px) for m in (moved == 1, b.truth == 1)]
    assert found.total.metrics()["boundary_iou"] == pytest.approx((rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum())
    assert found.facts["m"]["boundary_px"] == px


def buildings(b: Bench) -> None:
    figures = b.score(buildings=True).total.metrics()["buildings"]
    assert [figures[key] for key in ("right", "wrong", "missed")] == [1, 1, 1]
    assert "buildings" not in b.score(buildings=False).total.metrics()


def curve(b: Bench) -> None:
    found = {round(row["threshold"] * 254): row for row in b.score(curve=True).curve}
    assert [found[level]["precision"] for level in (10, 140, 141, 200)] == [800 / SIZE**2, 0.5, 1, 1]
    assert b.score().curve == []


def out(b: Bench) -> None:
    found = b.score(out=b.folder / "out")
    written = json.loads((b.folder / "out" / "metrics.json").read_text())
    assert written["total"]["confusion"] == found.total.confusion.counts.tolist()
    assert (written["threshold"], written["target"]) == (0.5, "building")
    before = sorted(b.folder.rglob("*"))
    b.score()
    assert sorted(b.folder.rglob("*")) == before


def pictures(b: Bench) -> None:
    for asked, found in ((False, {"metrics.json"}), (True, {"metrics.json", "reliability.png", "pictures/scene.png"})):
        folder = b.folder / str(asked)
        b.score(out=folder, pictures=asked)
        assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == found


def overwrite(b: Bench) -> None:
    b.score(out=b.folder, pictures=False)
    with pytest.raises(ExistingResultError):
        b.score(out=b.folder, pictures=False, threshold=0.7)
    b.score(out=b.folder, pictures=False, threshold=0.7, overwrite=True)
    assert json.loads((b.folder / "metrics.json").read_text())["threshold"] == 0.7


def lattice(b: Bench, chip: int, halo: int, **options: Any) -> None:
    """Hold that every chip keeps its core: its columns from `halo` on, `chip - 2 halo` of them."""
    b.patch.setattr(EngineRecipe, "open", lambda recipe: Column())
    place = halo + np.arange(SIZE) % (chip - 2 * halo)  # where a column of the scene lies in its chip
    truth = (place < Column.first)[None] & np.ones((SIZE, 1), bool)
    assert truth.any()
    found = b.score(labels=b.raster("c.tif", truth), **options).total.confusion
    assert found.counts.tolist() == [[(~truth).sum(), 0], [0, truth.sum()]]


def chip_px(b: Bench) -> None:
    lattice(b, 64, 8)
    lattice(b, 32, 8, chip_px=32)
    with pytest.raises(UsageError):
        b.score(chip_px=0)


def halo_px(b: Bench) -> None:
    lattice(b, 64, 4, halo_px=4)
    lattice(b, 32, 0, chip_px=32, halo_px=0)


def blend(b: Bench) -> None:
    b.patch.setattr(EngineRecipe, "open", lambda recipe: Column())
    cut, blended = (b.score(blend=asked).total.levels.counts.sum(axis=0) for asked in (False, True))
    assert cut[1:-1].sum() == 0
    assert blended[1:-1].sum() > 0


def engine(b: Bench, **options: Any) -> EngineRecipe:
    """Return what is asked of the engine."""
    asked: list[EngineRecipe] = []
    b.patch.setattr(EngineRecipe, "open", lambda recipe: asked.append(recipe) or Column())
    b.score(**options)
    return asked[0]


def device(b: Bench) -> None:
    assert [engine(b).device, engine(b, device="cuda").device] == ["auto", "cuda"]


def precision(b: Bench) -> None:
    b.patch.setattr("geoseg.engines.registry.native_precisions", lambda: ("f32", "bf16"))
    assert [engine(b).precision, engine(b, precision="f32").precision] == ["bf16", "f32"]
    for asked, found in (("auto", "bf16"), ("f32", "f32")):
        b.score(precision=asked, out=b.folder / asked)
        written = json.loads((b.folder / asked / "metrics.json").read_text())
        assert written["inference_precision"] == written["scenes"]["scene"]["inference_precision"] == found


def tta(b: Bench) -> None:
    assert [engine(b).tta, engine(b, tta="d4").tta] == [None, "d4"]
    b.score(tta="d4", out=b.folder / "views")
    assert json.loads((b.folder / "views" / "metrics.json").read_text())["scenes"]["scene"]["tta"] == "d4"


def threads(b: Bench) -> None:
    assert [engine(b).threads, engine(b, threads=3).threads] == [None, 3]


def crs(b: Bench) -> None:
    bare = b.folder / "bare.tif"
    with rasterio.open(bare, "w", width=SIZE, height=SIZE, count=1, dtype="uint8", transform=PLACE) as file:
        file.write(np.full((1, SIZE, SIZE), 200, np.uint8))
    assert b.score(bare).facts["bare"]["unit"] == "px"
    assert b.score(bare, crs="EPSG:32630").facts["bare"]["unit"] == "m"
    tool = {"footprints": b.vector("f.gpkg", HOUSE)}
    assert [b.score(bare, **tool, crs=named).facts["f"]["unit"] for named in (None, "EPSG:32630")] == ["px", "m"]


def nodata(b: Bench) -> None:
    assert b.counts(nodata=140) == (1, 0, 1)  # the faint house


def alpha(b: Bench) -> None:
    bands = np.stack([np.full((SIZE, SIZE), 200), np.arange(SIZE**2).reshape(SIZE, SIZE) % 251])
    path = b.folder / "infrared.tif"
    profile = {"count": 2, "height": SIZE, "width": SIZE, "dtype": "uint8", "transform": PLACE, "crs": "EPSG:32630"}
    with rasterio.open(path, "w", alpha="yes", **profile) as file:
        file.write(bands.astype(np.uint8))
    pixels = [b.score(path, alpha=given).total.confusion.pixels for given in (None, False, True)]
    assert pixels == [SIZE**2, SIZE**2, SIZE**2 - int((bands[1] == 0).sum())]


def codes(b: Bench) -> None:
    values = np.where(b.truth, 7, 3)
    values[FAINT], values[40:50, 40:50] = 255, 9
    path = b.raster("t.tif", values)
    house, other = ("7", "building"), ("3", "background")
    found = b.counts(labels=path, label_settings=LabelSettings(codes=(house, other, ("9", "background"))))
    assert found == (1, 0, 1)  # 255 is unknown unless another number is said to be
    with pytest.raises(LabelError, match=r"255 \(400 px\)"):
        b.counts(labels=path, label_settings=LabelSettings(codes=(house, other, ("9", "unknown"))))
    both = LabelSettings(codes=(house, other, ("9", "unknown"), ("255", "unknown")))
    assert b.score(labels=path, label_settings=both).total.confusion.pixels == SIZE**2 - 400 - 100


def layer(b: Bench) -> None:
    b.vector("t.gpkg", HOUSE, layer="old")
    path = b.vector("t.gpkg", HOUSE, FAINT, layer="new")
    found = [b.counts(labels=path, label_settings=LabelSettings(layer=name)) for name in ("old", "new")]
    assert found == [(1, 1, 0), (2, 0, 0)]


def column(b: Bench) -> None:
    kinds = {"use": ["building", "unknown", "building"], "kind": ["background", "building", "background"]}
    path = b.vector("t.gpkg", HOUSE, FAINT, MISSED, **kinds)
    found = [b.counts(labels=path, label_settings=LabelSettings(column=name)) for name in ("use", "kind", "")]
    assert found == [(1, 0, 1), (1, 1, 0), (2, 0, 1)]


def elsewhere(b: Bench) -> None:
    path = b.vector("t.gpkg", (slice(900, 910), slice(900, 910)))
    with pytest.raises(LabelError):
        b.counts(labels=path)
    assert b.counts(labels=path, label_settings=LabelSettings(elsewhere=True)) == (0, 2, 0)


def instances(b: Bench) -> None:
    numbers = np.zeros((SIZE, SIZE))
    numbers[5:25, 5:15], numbers[5:25, 15:25], numbers[MISSED] = 255, 200, 7  # two share a wall
    path = b.write(b.folder / "numbers.tif", numbers)
    with pytest.raises(UnknownLabelError, match="has 7"):
        b.counts(labels=path)
    assert b.counts(labels=path, label_settings=LabelSettings(instances=True)) == (1, 1, 1)
    codes = (("200", "background"),)
    assert b.counts(labels=path, label_settings=LabelSettings(instances=True, codes=codes)) == (0.5, 1.5, 1)
    with pytest.raises(UsageError, match="Give one of them"):
        LabelSettings(instances=True, column="use")


CASES = (
    *(labels, model, mask, footprints, mask_codes, confidence, classes, target, target_only, unscored, aoi, aoi_where),
    *(threshold, boundary_m, boundary_px, buildings, curve, out, pictures, blend, device, threads, overwrite, crs),
    *(nodata, alpha, precision, tta),
    *(chip_px, halo_px, codes, layer, column, elsewhere, instances),
)


def test_every_setting_has_a_case() -> None:
    names = {f.name for options in (EvaluateSettings, LabelSettings) for f in fields(options)} - {"label_settings"}
    assert {case.__name__ for case in CASES} == names


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_setting_is_seen(bench: Bench, case: Callable[[Bench], None]) -> None:
    case(bench)
