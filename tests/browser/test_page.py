"""The page of a result in a real browser (Chromium): what it draws, what it says, and that it asks no network."""

import io
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ClassSegmenter
from geoseg.grid import fit_lattice
from geoseg.inference import Plan
from geoseg.outputs import page as page_module
from geoseg.run import RunSettings, run_plan
from geoseg.scene import open_scene

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking")
FLAGS += ("--disable-component-update", "--disable-sync")
SIDE = 300
HOUSES = {"sure": (slice(60, 140), slice(40, 90)), "unsure": (slice(180, 240), slice(180, 260))}
GROUND, ROOF = (40, 90, 60), (235, 225, 215)
HOSTILE = "a<img src=x onerror='window.hacked=1'> & \"b\""
CLASSES = ("land </script><script>window.hacked=1</script>", "water <!--", "building")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; the gate requires it, a laptop may do without."""
    sync_api = pytest.importorskip("playwright.sync_api") if os.environ.get("GEOSEG_REQUIRE_CHROMIUM") != "1" else None
    if sync_api is None:
        from playwright import sync_api
    if not Path(CHROMIUM).exists():
        missing = f"there is no {CHROMIUM}: apt-get install chromium"
        if os.environ.get("GEOSEG_REQUIRE_CHROMIUM") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Open]:
    """Open a page as a file; no script may fail, and nothing else may be asked for."""
    contexts, troubles = [], list[str]()

    def open_page(path: Path, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("request", lambda request: request.url.startswith("data:") or asked.append(request.url))
        asked: list[str] = []
        page.goto(path.as_uri())
        page.wait_for_selector("canvas[data-drawn]")
        page.wait_for_timeout(200)
        assert asked == [path.as_uri()]
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def write_scene(path: Path) -> Path:
    """A scene with a sure and an unsure house."""
    pixels = np.empty((3, SIDE, SIDE), np.uint8)
    pixels[:] = np.array(GROUND, np.uint8)[:, None, None]
    for rows, cols in HOUSES.values():
        pixels[:, rows, cols] = np.array(ROOF, np.uint8)[:, None, None]
    pixels[0, *HOUSES["unsure"]] = 180  # the first band is the probability
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": SIDE, "width": SIDE, "crs": "EPSG:32630"}
    with rasterio.open(path, "w", transform=Affine(0.3, 0, 500_000, 0, -0.3, 600_000), **profile) as file:
        file.write(pixels)
    return path


class BrightSegmenter(ClassSegmenter):
    """The last class has the probability of the first band."""

    def predict(self, chips: NDArray[Any]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        share = chips[:, :1].astype(np.float32) / 255
        return np.concatenate([(1 - share) / 2, (1 - share) / 2, share], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result folder of a scene, and of classes, with hostile names."""
    folder = tmp_path_factory.mktemp("page")
    return run(write_scene(folder / f"{HOSTILE}.tif"), folder / "out")


def run(scene: Path, out: Path, **settings: Any) -> Path:
    bands = ("red", "green", "blue")
    spec = ModelSpec("fake", "none", bands, 0.3, (0.0,) * 3, (1.0,) * 3, classes=CLASSES, min_area_m2=0.0)
    opened = open_scene(scene)
    lattice = fit_lattice(opened.grid.shape, chip_px=512, halo_px=0)
    plan = Plan(opened, lattice, BrightSegmenter(), spec.target_index, classes=spec.classes)
    return run_plan(plan, Bundle(spec, Path("none"), "0"), RunSettings(out=out, **settings), quiet=True).folder


def spot(page: Any, name: str) -> tuple[float, float]:
    """Return where the middle of a house lies on the canvas, in CSS pixels, while all of the scene is shown."""
    box = page.locator("canvas").bounding_box()
    rows, cols = HOUSES[name]
    scale = min(box["width"], box["height"]) / SIDE
    left, top = (box["width"] - SIDE * scale) / 2, (box["height"] - SIDE * scale) / 2
    return left + (cols.start + cols.stop) / 2 * scale, top + (rows.start + rows.stop) / 2 * scale


def click(page: Any, name: str) -> None:
    x, y = spot(page, name)
    page.locator("canvas").click(position={"x": x, "y": y})


def color(page: Any, name: str) -> NDArray[np.int_]:
    """Return the color that is drawn in the middle of a house."""
    page.wait_for_timeout(150)
    x, y = spot(page, name)
    with Image.open(io.BytesIO(page.locator("canvas").screenshot())) as picture:
        return np.asarray(picture.convert("RGB"))[int(y) + 12, int(x) + 12].astype(int)


def attributes(page: Any) -> dict[str, str]:
    rows = page.locator("#attributes tr").all()
    return {row.locator("th").inner_text(): row.locator("td").inner_text() for row in rows}


def test_a_click_on_a_building_shows_its_attributes_and_one_beside_hides_them(result: Path, show: Open) -> None:
    page = show(result / "index.html")
    buildings = geopandas.read_parquet(result / "buildings.parquet").sort_values("confidence", ascending=False)
    assert page.locator("#building").is_hidden()
    for name, row in zip(HOUSES, buildings.itertuples(), strict=True):
        click(page, name)
        found = attributes(page)
        assert found["area, m²"] == f"{row.area_m2:,.0f}"
        assert found["confidence"] == f"{row.confidence:.2f}"
        assert found["id"] == row.id
        assert found["cut by the edge of the data"] == "no"
    page.locator("canvas").click(position={"x": spot(page, "sure")[0], "y": 20})
    assert page.locator("#building").is_hidden()


def test_the_slider_leaves_the_surer_buildings(result: Path, show: Open) -> None:
    page = show(result / "index.html")
    page.locator("#swipe").press("Home")
    buildings = geopandas.read_parquet(result / "buildings.parquet").sort_values("confidence", ascending=False)
    areas = buildings.area_m2.to_list()
    assert page.locator("#kept").inner_text() == f"2 of 2 buildings, {sum(areas):,.0f} m²"
    drawn = color(page, "unsure")
    page.locator("#least").fill("80")
    assert page.locator("#kept").inner_text() == f"1 of 2 buildings, {areas[0]:,.0f} m²"
    assert page.locator("#value").inner_text() == "0.80"
    roof = np.array((180, *ROOF[1:]))
    assert np.abs(color(page, "unsure") - roof).max() < 12  # the image as it is
    assert np.abs(drawn - roof).max() > 25
    click(page, "unsure")
    assert page.locator("#building").is_hidden()
    click(page, "sure")
    assert attributes(page)["confidence"] == "0.92"


def test_left_of_the_line_the_image_is_bare(result: Path, show: Open) -> None:
    page = show(result / "index.html")
    assert np.abs(color(page, "sure") - ROOF).max() < 12  # in the left half
    box = page.locator("canvas").bounding_box()
    line = page.locator("#swipe").bounding_box()
    page.mouse.move(line["x"] + line["width"] / 2, line["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 4, line["y"] + 60, steps=4)
    page.mouse.up()
    assert np.abs(color(page, "sure") - ROOF).max() > 25
    page.locator("#swipe").press("End")
    assert np.abs(color(page, "unsure") - (180, *ROOF[1:])).max() < 12


def test_zooming_keeps_the_place_below_the_pointer_and_dragging_moves_it_along(result: Path, show: Open) -> None:
    page = show(result / "index.html")
    box = page.locator("canvas").bounding_box()
    x, y = spot(page, "unsure")
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(150)
    assert page.evaluate("view.scale / view.fit") == pytest.approx(math.exp(1.5))
    page.mouse.down()
    page.mouse.move(box["x"] + x + 70, box["y"] + y + 30, steps=4)
    page.mouse.up()
    assert page.locator("#building").is_hidden()  # that was no click
    page.mouse.click(box["x"] + x + 70, box["y"] + y + 30)
    assert attributes(page)["confidence"] == "0.70"
    page.locator("#all").click()
    line = page.locator("#swipe").bounding_box()
    page.mouse.move(line["x"] + line["width"] / 2, line["y"] + 50)
    page.mouse.wheel(0, -600)
    assert page.evaluate("view.scale > 2 * view.fit")  # also above the line
    page.locator("#all").click()
    click(page, "sure")
    assert attributes(page)["confidence"] == "0.92"


def test_names_are_text_and_no_markup(result: Path, show: Open) -> None:
    page = show(result / "index.html")
    assert page.title() == HOSTILE
    assert page.locator("h1").inner_text() == HOSTILE
    assert all(name in page.locator("aside").inner_text() for name in CLASSES)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def test_a_phone_shows_all_without_scrolling_sideways_and_takes_taps(result: Path, show: Open) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
    page = show(result / "index.html", **phone)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    x, y = spot(page, "unsure")
    page.locator("canvas").tap(position={"x": x, "y": y})
    assert attributes(page)["confidence"] == "0.70"
    assert page.locator("#least").bounding_box()["width"] > 90


def test_a_dark_theme_has_a_dark_page_and_light_text(result: Path, show: Open) -> None:
    page = show(result / "index.html", color_scheme="dark")
    colors = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    back, text = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
    assert back < 150
    assert text > 600


def test_very_many_buildings_become_a_picture_of_the_probability_and_the_page_says_so(
    show: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "MOST_BUILDINGS", 1)
    page = show(run(write_scene(tmp_path / "scene.tif"), tmp_path / "out") / "index.html")
    page.locator("#swipe").press("Home")
    assert "2 buildings are too many" in page.locator("#hint").inner_text()
    assert np.abs(color(page, "sure") - ROOF).max() > 25
    assert np.abs(color(page, "sure") - color(page, "unsure")).max() > 25
    page.locator("#least").fill("80")
    assert page.locator("#kept").inner_text().startswith("1 of 2 buildings, 360")
    click(page, "sure")
    assert page.locator("#building").is_hidden()
