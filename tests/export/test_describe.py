"""Models described: the table, the page, JSON, STAC; and on the command line."""

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pystac
import pytest
from pystac.extensions.mlm import MLMExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from typer.testing import CliRunner

from geoseg.bundle import list_models, load_bundle
from geoseg.cli import app
from geoseg.engines import ONNX_CACHE_ENV
from geoseg.export import describe_item, describe_model, format_model, format_models
from geoseg.export.catalog import headline
from geoseg.export.stac import MLM_SCHEMA, mlm_name
from geoseg.networks import load_segmenter

REQUIRED = {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"}
"""By https://github.com/stac-extensions/mlm (v1.3.0 and v1.4.0), as is the rest that `assert_is_mlm` holds."""

FIELDS = REQUIRED | {
    "mlm:framework",
    "mlm:total_parameters",
    "mlm:accelerator",
    "mlm:accelerator_constrained",
    "mlm:hyperparameters",
}
SCALINGS = {"z-score": {"type", "mean", "stddev"}}


def assert_is_mlm(item: dict) -> None:
    """Hold an Item to what the extension's schema asks for; the schema itself cannot be fetched in a test."""
    properties = item["properties"]
    found = {name for name in properties if name.startswith("mlm:")}
    assert REQUIRED <= found <= FIELDS  # the schema allows no mlm: field that it does not know
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    assert isinstance(properties["mlm:total_parameters"], int)
    assert properties["bands"]  # named bands must be described by STAC 1.1's own `bands`
    for end, kind in ((properties["mlm:input"], "input"), (properties["mlm:output"], "result")):
        for one in end:
            structure = one[kind]
            assert {"name", kind} <= one.keys()
            assert len(structure["shape"]) == len(set(structure["dim_order"])) == 4
            assert all(isinstance(side, int) and side >= -1 for side in structure["shape"])
            assert structure["data_type"] == "float32"
    assert properties["mlm:input"][0]["bands"] == [band["name"] for band in properties["bands"]]
    for scaling in properties["mlm:input"][0]["value_scaling"] or []:
        assert scaling.keys() == SCALINGS[scaling["type"]]
    assert all({"value", "name"} <= one.keys() for one in properties["mlm:output"][0]["classification:classes"])
    models = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert len(models) == 1
    assert models[0]["mlm:artifact_type"]
    assert MLM_SCHEMA in item["stac_extensions"]


def assert_is_item(item: dict) -> pystac.Item:
    """Hold an Item to STAC 1.1's own schema, which pystac brings along, and read it with pystac's extension."""
    read = pystac.Item.from_dict(json.loads(json.dumps(item)))
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
    return read


@pytest.mark.parametrize("model", ["onnx", "openvino", "pt2", "half", "three onnx"])
def test_the_STAC_Item_beside_an_export_is_valid(exports, model: str) -> None:
    path = exports.files[model]
    item = json.loads(path.with_name(f"{path.name}.stac.json").read_text())
    assert_is_mlm(item)
    read = assert_is_item(item)
    extension = MLMExtension.ext(read)
    assert extension.mlm_name == item["properties"]["mlm:name"]
    assert extension.input[0].bands == ["red", "green", "blue"]
    assert extension.input[0].to_dict()["value_scaling"] is None  # normalization is inside
    assert extension.output[0].result.shape == [-1, 5 if "three" in model else 1, -1, -1]
    assert item["assets"]["model"]["href"] == f"./{path.name}"
    assert item["assets"]["model"]["file:size"] == path.stat().st_size
    assert item["assets"]["model"]["file:checksum"].startswith("1220")


def test_an_OpenVINO_pair_is_two_assets(exports) -> None:
    path = exports.files["openvino"]
    item = json.loads(path.with_name(f"{path.name}.stac.json").read_text())
    assert {asset["href"] for asset in item["assets"].values()} == {f"./{path.name}", f"./{path.stem}.bin"}


def test_a_bundles_Item_says_how_to_normalize(exports) -> None:
    item = describe_item(exports.bundle)
    assert_is_mlm(item)
    assert_is_item(item)
    scaling = item["properties"]["mlm:input"][0]["value_scaling"]
    assert scaling[1] == {"type": "z-score", "mean": 0.5 * 255, "stddev": 0.25 * 255}
    assert item["properties"]["datetime"] == "2026-03-04T00:00:00Z"
    assert item["properties"]["license"] == "CC-BY-4.0"
    odd = replace(exports.bundle, spec=replace(exports.bundle.spec, license="ask me", training={}))
    assert describe_item(odd)["properties"]["license"] == "other"
    assert_is_item(describe_item(odd))


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2026-03-04T10:00:00", "2026-03-04T10:00:00Z"),
        ("2026-03-04T10:00:00+02:00", "2026-03-04T08:00:00+00:00"),
        (None, "2026-01-02T03:04:05+00:00"),
    ],
)
def test_the_datetime_of_an_Item_is_in_UTC_and_that_of_the_file_where_no_day_of_training_is_known(
    exports, tmp_path: Path, date: str | None, expected: str
) -> None:
    path = shutil.copy(exports.bundle.path, tmp_path)
    made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    os.utime(path, (made, made))
    spec = replace(exports.bundle.spec, training={"date": date} if date else {})
    item = describe_item(replace(exports.bundle, spec=spec, path=Path(path)))
    assert item["properties"]["datetime"] == expected


def test_classes_are_numbered_as_in_a_class_raster(exports) -> None:
    def classes(bundle) -> list:
        return describe_item(bundle)["properties"]["mlm:output"][0]["classification:classes"]

    assert [(c["value"], c["name"]) for c in classes(exports.bundle)] == [(0, "background"), (1, "building")]
    several = classes(exports.several)
    assert [(c["value"], c["name"]) for c in several] == [(0, "ground"), (1, "building"), (2, "road")]
    assert several[2]["color_hint"] == "11AAFF"


def test_auxiliary_channels_are_named_in_their_order(exports) -> None:
    properties = describe_item(exports.several)["properties"]
    (output,) = properties["mlm:output"]
    assert properties["geoseg:channels"] == ["ground", "building", "road", "edge", "contact"]
    assert output["result"]["shape"] == [-1, 5, -1, -1]
    assert output["result"]["dim_order"] == ["batch", "channel", "height", "width"]
    assert (
        "Channels: ground, building, road, edge, contact. Those after the classes are auxiliary"
        in output["description"]
    )
    (plain,) = describe_item(exports.bundle)["properties"]["mlm:output"]
    assert plain["description"] == "Probabilities 0 to 1 (sigmoid); building from 0.5."


@pytest.mark.parametrize(
    ("name", "found"), [("a-b 2", "a-b 2"), ("2m", "geoseg-2m"), ("me/you", "me-you"), ("家", "geoseg-model")]
)
def test_a_name_becomes_one_that_the_extension_allows(name: str, found: str) -> None:
    assert mlm_name(name) == found


def test_parameters_are_those_of_the_network(exports) -> None:
    expected = sum(p.numel() for p in load_segmenter(exports.bundle).parameters())
    assert describe_model(exports.bundle)["parameters"] == expected
    for model in ("onnx", "openvino", "pt2"):
        assert describe_model(load_bundle(exports.files[model]))["parameters"] == expected


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"validation_iou": {"a": 0.5, "b": 0.7}}, "IoU 0.600 (validation, mean of 2)"),
        ({"validation": {"iou": {"a": 0.5}}, "test": {"iou": 0.25}}, "IoU 0.250 (test)"),
        ({"validation": {"iou": "?"}, "loss": 3}, "-"),
        ({}, "-"),
    ],
)
def test_the_table_shows_test_areas_before_validation(metrics: dict, expected: str) -> None:
    assert headline(metrics) == expected


def test_the_page_of_a_model_holds_everything(exports) -> None:
    page = format_model(describe_model(exports.bundle))
    for fact in (
        "me/tiny houses 3: Tiny houses.",
        exports.bundle.key,
        "depth: 2",
        "red green blue, values 0 to 255, at 0.3 m",
        "mean: 0.4 0.5 0.6",
        "building from 0.5",
        "96 px, halo 8 px, multiples of 4 px",
        "CC-BY-4.0",
        "there: 0.7",
        "date: 2026-03-04",
    ):
        assert fact in page
    assert "auxiliary" not in page
    assert "auxiliary: edge contact" in format_model(describe_model(exports.several))
    assert f"exported from: {exports.bundle.key}" in format_model(describe_model(load_bundle(exports.files["pt2"])))


def test_the_table_has_a_row_per_model(exports) -> None:
    table = format_models([describe_model(exports.bundle), describe_model(exports.several)]).splitlines()
    assert [line.split()[0] for line in table] == ["name", "me/tiny", "three"]
    assert len({line.index("CC-BY") for line in table[1:]}) == 1
    assert format_models([]) == "No model is shipped."


def invoke(*args: object) -> str:
    result = CliRunner().invoke(app, ["models", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_lists_the_shipped_models() -> None:
    assert [model["name"] for model in json.loads(invoke("list", "--json"))] == list_models()
    table = invoke("list")
    for name in list_models():
        assert name in table
        assert name in invoke("show", name)


def test_the_command_shows_a_model(exports) -> None:
    assert json.loads(invoke("show", exports.files["onnx"], "--json"))["format"] == "onnx"
    assert_is_mlm(json.loads(invoke("show", exports.bundle.path, "--stac")))


def test_the_command_exports_a_model(exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONNX_CACHE_ENV, str(tmp_path / "cache"))
    lines = invoke("export", exports.bundle.path, "--to", "onnx", "--out", tmp_path).splitlines()
    assert lines[-2:] == [str(tmp_path / f"me-tiny-houses.onnx{suffix}") for suffix in ("", ".stac.json")]
    assert load_bundle(lines[-2]).spec == exports.bundle.spec
