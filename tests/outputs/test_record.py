import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from geoseg.errors import OutputError
from geoseg.outputs import write_run_json


def test_record_is_sorted_indented_and_knows_numpy(tmp_path):
    record = {"b": np.float32(0.5), "a": {"n": np.int64(3), "xs": np.arange(2), "ok": np.True_}, "c": (1, None)}
    path = write_run_json(tmp_path / "run.json", record)
    assert json.loads(path.read_text()) == {"a": {"n": 3, "ok": True, "xs": [0, 1]}, "b": 0.5, "c": [1, None]}
    assert path.read_text().startswith('{\n  "a": {\n    "n": 3')
    assert path.read_text().endswith("}\n")


def test_what_is_not_finite_is_null(tmp_path):
    path = write_run_json(tmp_path / "run.json", {"a": float("nan"), "b": [np.inf], "c": np.float32("-inf")})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"a": None, "b": [None], "c": None}


def test_paths_dates_and_accents_are_text(tmp_path):
    path = write_run_json(tmp_path / "run.json", {"a": Path("x.tif"), "b": date(2025, 1, 2), "c": "Białowieża"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "x.tif", "b": "2025-01-02", "c": "Białowieża"}
    assert "Białowieża" in path.read_text(encoding="utf-8")


def test_full_disk_is_an_error_and_leaves_the_older_record(tmp_path, full_disk):
    path = write_run_json(tmp_path / "run.json", {"a": 1})
    with full_disk(1000), pytest.raises(OutputError, match="Make room"):
        write_run_json(path, {"a": "x" * 5000})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
