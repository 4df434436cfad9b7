"""Real QGIS opens the project of a result: every layer resolves, lies in its place and is drawn as it should be."""

import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS
from rasterio.enums import ColorInterp

from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ClassSegmenter, ThresholdSegmenter
from geoseg.grid import fit_lattice
from geoseg.inference import Plan, plan_mosaic
from geoseg.outputs.project import MOST_SCENES, link_to, write_project
from geoseg.run import RunResult, RunSettings, run_plan
from geoseg.scene import open_scene
from geoseg.sources import SceneSource

SIDE, PICTURE_PX = 200, 400
HOSTILE = """a<b> & "c" 'd' ]]> é %41 #1"""
GROUND, ROOF = (40, 90, 60), (230, 220, 210)
HOUSE = slice(60, 140), slice(40, 90)
UTM = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
TURNED = Affine.translation(9.3, 27.5) @ Affine.rotation(30) @ Affine.scale(3e-6, -3e-6)
CLASSES = ("land <1>", "building", "water & reed")
LAYERS = {"Building outlines by confidence": True, "Probability of building": True, "Mask: building or not": False}


def paint(*, house: bool = True) -> NDArray[np.uint8]:
    """One roof on the ground, `(band, y, x)`."""
    pixels = np.empty((3, SIDE, SIDE), np.uint8)
    pixels[:] = np.array(GROUND, np.uint8)[:, None, None]
    if house:
        pixels[:, *HOUSE] = np.array(ROOF, np.uint8)[:, None, None]
    return pixels


def write(path: Path, pixels: NDArray[Any], transform: Affine = UTM, crs: str = "EPSG:32630") -> Path:
    """Write a scene; a fourth band is alpha."""
    profile = {"dtype": pixels.dtype, "count": len(pixels), "height": SIDE, "width": SIDE}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **profile) as file:
        file.write(pixels)
        if len(pixels) == 4:
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return path


def hide_half(path: Path, copy: Path) -> Path:
    """Copy a scene with a mask in the file: its lower half has no data."""
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[SIDE // 2 :] = 0
    with (
        rasterio.open(path) as src,
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(copy, "w", **src.profile) as file,
    ):
        file.write(src.read())
        file.write_mask(mask)
    return copy


def run(scene: Path, out: Path, *, engine: Any = None, spec: ModelSpec | None = None, **settings: Any) -> RunResult:
    """Run a scene by an engine that calls bright pixels buildings."""
    spec = spec or ModelSpec("fake", "none", ("red", "green", "blue"), 0.3, (0.0,) * 3, (1.0,) * 3, min_area_m2=0.0)
    opened = open_scene(scene, nodata=settings.get("nodata")).with_levels()
    lattice = fit_lattice(opened.grid.shape, chip_px=256, halo_px=0)
    names = {"classes": spec.classes, "auxiliary": spec.auxiliary}
    plan = Plan(opened, lattice, engine or ThresholdSegmenter(145), spec.target_index, **names)
    return run_plan(plan, Bundle(spec, Path("none"), "0"), RunSettings(out=out, **settings), quiet=True)


def run_mosaic(scenes: list[Path], out: Path) -> RunResult:
    """Run several scenes as one."""
    spec = ModelSpec("fake", "none", ("red", "green", "blue"), 0.3, (0.0,) * 3, (1.0,) * 3, min_area_m2=0.0)
    bundle, sources = Bundle(spec, Path("none"), "0"), [SceneSource(path.stem, (str(path),)) for path in scenes]
    plan = replace(plan_mosaic(sources, bundle), engine=ThresholdSegmenter(145))
    return run_plan(plan, bundle, RunSettings(out=out, mosaic="first"), quiet=True)


def write_results(folder: Path) -> dict[str, Path]:
    """Make results of all kinds of scenes; return their projects by name."""
    (folder / "scenes").mkdir()
    scenes = folder / "scenes"
    Image.fromarray(paint().transpose(1, 2, 0)).save(scenes / "picture.png")
    alpha = np.full((1, SIDE, SIDE), 255, np.uint8)
    alpha[0, :, 150:] = 0
    collar = paint().astype(np.uint16) * 40
    collar[:, :, 150:] = 7777
    outs = {
        "utm": run(write(scenes / f"{HOSTILE}.tif", paint()), folder / "utm").folder,
        "turned": run(write(scenes / "turned.tif", paint(), TURNED, "EPSG:4326"), folder / "turned").folder,
        "picture": run(scenes / "picture.png", folder / "picture").folder,
        "alpha": run(write(scenes / "alpha.tif", np.concatenate([paint(), alpha])), folder / "alpha").folder,
        "collar": run(write(scenes / "collar.tif", collar), folder / "collar", nodata=7777.0).folder,
    }
    spec = ModelSpec("f", "none", ("gray",), 0.3, (0.0,), (1.0,), classes=CLASSES, auxiliary=("edge",))
    gray = write(scenes / "gray.tif", paint()[:1])
    outs["classes"] = run(gray, folder / "classes", engine=ClassSegmenter(3, auxiliary=1), spec=spec).folder
    east = Affine.translation(30, 0) @ UTM  # half of it lies under the first scene, on other ground
    sheets = [write(scenes / "west.tif", paint()), write(scenes / "east.tif", paint(house=False) // 2, east)]
    outs["sheets"] = run_mosaic(sheets, folder / "sheets").folder
    outs["masked"] = run_mosaic(
        [hide_half(path, scenes / f"{path.stem}_masked.tif") for path in sheets], folder / "masked"
    ).folder
    far = write(scenes / "far.tif", paint(house=False) // 3, Affine.translation(45.1, 30) @ UTM)
    outs["mosaic"] = run_mosaic([*sheets, far], folder / "mosaic").folder
    return {name: out / "project.qgz" for name, out in outs.items()}


@dataclass(frozen=True)
class Seen:
    """What QGIS saw of projects, and the folder of its pictures."""

    facts: dict[str, dict[str, Any]]
    pictures: Path

    def layer(self, project: str, name: str) -> dict[str, Any]:
        """Return the facts of a layer."""
        (found,) = [layer for layer in self.facts[project]["layers"] if layer["name"] == name]
        return found

    def picture(self, project: str, layer: str = "") -> NDArray[np.uint8]:
        """Return the picture of what is visible, or of a layer alone, as `(y, x, color)`."""
        title = f"{project}-{layer}" if layer else project
        with Image.open(self.pictures / f"{title.replace('/', '_')}.png") as picture:
            return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module")
def seen(ask_qgis: Any, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All projects as QGIS sees them after everything was moved together."""
    made, pictures = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("pictures")
    projects = write_results(made)
    moved = tmp_path_factory.mktemp("elsewhere") / "deep" / "er"
    shutil.copytree(made, moved)
    shutil.rmtree(made)
    request = {name: str(moved / path.relative_to(made)) for name, path in projects.items()}
    return Seen(ask_qgis("look_at_project.py", {"projects": request, "pictures": str(pictures)}, pictures), pictures)


PROJECTS = {
    "utm": "EPSG:32630",
    "turned": "EPSG:4326",
    "picture": "",
    "alpha": "EPSG:32630",
    "collar": "EPSG:32630",
    "classes": "EPSG:32630",
    "sheets": "EPSG:32630",
    "masked": "EPSG:32630",
    "mosaic": "EPSG:32630",
}


@pytest.mark.parametrize("name", PROJECTS)
def test_every_layer_resolves_after_the_folders_were_moved_together(seen: Seen, name: str) -> None:
    layers = seen.facts[name]["layers"]
    assert [layer["name"] for layer in layers if not layer["resolves"]] == []
    assert seen.facts[name]["groups"] == ["Result", "Scenes" if name in ("sheets", "masked", "mosaic") else "Scene"]
    assert {layer["name"]: layer["visible"] for layer in layers if layer["name"] in LAYERS} == LAYERS
    assert {layer["group"] for layer in layers[:3]} == {"Result"}
    assert "made" not in "".join(layer["source"] for layer in layers)


@pytest.mark.parametrize(("name", "crs"), PROJECTS.items())
def test_the_project_and_its_layers_have_the_crs_of_the_scene(seen: Seen, name: str, crs: str) -> None:
    assert seen.facts[name]["crs"] == crs
    assert {layer["crs"] for layer in seen.facts[name]["layers"]} == {crs}


def test_the_project_opens_with_the_extent_of_the_scene(seen: Seen) -> None:
    assert seen.facts["utm"]["extent"] == pytest.approx([500_000, 599_940, 500_060, 600_000])
    assert seen.facts["picture"]["extent"] == [0, -SIDE, SIDE, 0]
    corners = np.array([TURNED @ xy for xy in ((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE))])
    expected = [*corners.min(axis=0), *corners.max(axis=0)]
    assert seen.facts["turned"]["extent"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["utm", "picture"])
def test_the_ground_shows_as_it_is_and_the_house_in_color(seen: Seen, name: str) -> None:
    picture = seen.picture(name)
    assert tuple(picture[20, 20]) == GROUND
    assert tuple(picture[200, 300]) == GROUND
    house = picture[200, 130].astype(int)
    assert np.abs(house - ROOF).max() > 40
    alone = seen.picture(name, "scene" if name == "scene" else HOSTILE if name == "utm" else "picture")
    assert tuple(alone[200, 130]) == ROOF


@pytest.mark.parametrize("name", ["utm", "picture", "turned", "sheets", "mosaic"])
def test_polygons_and_rasters_lie_on_the_roof(seen: Seen, name: str) -> None:
    scene = {"utm": HOSTILE, "sheets": "west", "mosaic": "west"}.get(name, name)
    roof = seen.picture(name, scene).astype(int)[..., 0]
    roof = (roof > 200) & (seen.picture(name, scene)[..., 2] < 230)
    for layer in ("Probability of building", "Building outlines by confidence"):
        drawn = (seen.picture(name, layer) != 255).any(axis=2)
        assert (drawn & roof).sum() > 0.93 * (drawn | roof).sum() > 1000, layer


def test_the_outlines_are_styled_by_confidence_in_plain_words(seen: Seen) -> None:
    layer = seen.layer("utm", "Building outlines by confidence")
    assert layer["renderer"] == "graduatedSymbol"
    assert layer["legend"] == ["unsure (below 0.6)", "likely (0.6 to 0.8)", "sure (above 0.8)"]
    legend = seen.layer("utm", "Probability of building")["legend"]
    assert (legend[0], legend[-1]) == ("0: no building", "1: surely building")


def test_alpha_and_a_nodata_value_that_was_given_are_not_drawn(seen: Seen) -> None:
    for name in ("alpha", "collar"):
        picture = seen.picture(name)
        assert (picture[:, 305:] == 255).all(), name
        assert (picture[20:40, 20:40] != 255).any(), name


def test_16_bit_pixels_are_drawn_in_the_levels_of_the_run(seen: Seen) -> None:
    picture = seen.picture("collar", "collar")
    assert tuple(picture[20, 20]) == (0, 0, 0)
    assert tuple(picture[200, 130]) == (255, 255, 255)


def test_classes_have_their_names_and_colors(seen: Seen) -> None:
    assert seen.layer("classes", "Classes")["legend"] == list(CLASSES)
    assert not seen.layer("classes", "Classes")["visible"]
    assert seen.layer("classes", "Probability of building interior")["resolves"]


def test_the_first_scene_of_a_mosaic_lies_over_the_others(seen: Seen) -> None:
    for name, scenes in (("sheets", ["west", "east"]), ("mosaic", ["west", "east", "far"])):
        layers = seen.facts[name]["layers"]
        assert [layer["name"] for layer in layers if layer["group"] == "Scenes"] == scenes
    picture = seen.picture("sheets")  # 90 m wide, 60 m of them west
    for east_m, color in ((45, GROUND), (80, tuple(value // 2 for value in GROUND))):
        assert tuple(picture[200, round(east_m / 90 * PICTURE_PX)]) == color


def test_sheets_with_masks_are_not_drawn_where_they_have_no_data(seen: Seen) -> None:
    picture = seen.picture("masked")
    middle = PICTURE_PX // 2
    assert (picture[middle + 20 :, 20:-20] == 255).all()
    assert (picture[middle - 20, 20:-20] != 255).any(axis=1).all()


def test_a_crs_without_a_code_is_the_projects_too(ask_qgis: Any, tmp_path: Path) -> None:
    own = "+proj=laea +lat_0=27.6 +lon_0=85.5 +datum=WGS84 +units=m"
    out = run(write(tmp_path / "own.tif", paint(), Affine(0.3, 0, 0, 0, -0.3, 0), own), tmp_path / "out").folder
    request = {"projects": {"own": str(out / "project.qgz")}, "pictures": str(tmp_path)}
    seen = Seen(ask_qgis("look_at_project.py", request, tmp_path), tmp_path)
    found = CRS.from_wkt(seen.facts["own"]["wkt"])
    assert found.coordinate_operation is not None
    assert {parameter.value for parameter in found.coordinate_operation.params} >= {27.6, 85.5}
    assert tuple(seen.picture("own")[20, 20]) == GROUND


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    scene = write(tmp_path / "scene.tif", paint())
    first, second = (run(scene, tmp_path / name).folder / "project.qgz" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as file:
        assert [entry.date_time for entry in file.infolist()] == [(1980, 1, 1, 0, 0, 0)]


@pytest.mark.parametrize(
    ("location", "link"),
    [
        ("https://me:secret@host/a%20b.tif?X-Amz-Signature=secret#secret", "/vsicurl/https://host/a%20b.tif"),
        ("/vsicurl/https://host/a.tif?sig=secret", "/vsicurl/https://host/a.tif"),
        (
            "/vsicurl?header.Authorization=secret&url=https%3A%2F%2Fhost%2Fa.tif%3Fsig%3Dsecret",
            "/vsicurl/https://host/a.tif",
        ),
        ("s3://bucket/a?b#c.tif", "/vsis3/bucket/a?b#c.tif"),
        ("/vsizip//data/a.zip/a.tif", "/vsizip//data/a.zip/a.tif"),
    ],
)
def test_remote_scenes_are_linked_without_secrets(location: str, link: str, tmp_path: Path) -> None:
    assert link_to(location, tmp_path) == link


def test_local_scenes_are_linked_relatively(tmp_path: Path) -> None:
    assert link_to(str(tmp_path / "a.tif"), tmp_path / "out") == "../a.tif"
    assert link_to(str(tmp_path / "out" / "a.tif"), tmp_path / "out") == "./a.tif"


def test_of_a_mosaic_of_very_many_scenes_some_become_layers_and_the_group_says_so(tmp_path: Path) -> None:
    report = run(write(tmp_path / "west.tif", paint()), tmp_path / "out").report
    report["scene"]["paths"] *= MOST_SCENES * 2
    write_project(report, ["mask.tif"], tmp_path, tmp_path)
    with zipfile.ZipFile(tmp_path / "project.qgz") as file:
        text = file.read("project.qgs").decode()
    assert 'name="Scenes (the first 100 of 200)"' in text
    assert text.count("west.tif") == MOST_SCENES
