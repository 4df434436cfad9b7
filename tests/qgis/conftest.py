"""Debian's Python, which has QGIS, and how a script of these tests is run by it."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QGIS_PYTHON = "/usr/bin/python3"
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR")

Ask = Callable[[str, dict[str, Any], Path], dict[str, Any]]


@pytest.fixture(scope="session")
def ask_qgis() -> Ask:
    """Run a script of this folder by a Python that has QGIS; the gate requires one, a laptop may do without.

    The script is given a request and a folder of its own, and returns what QGIS sees.
    """
    found = subprocess.run(
        [QGIS_PYTHON, "-c", "import qgis.core"], capture_output=True, env=_environment(), check=False
    )
    if found.returncode != 0:
        missing = f"{QGIS_PYTHON} has no QGIS: apt-get install python3-qgis qgis-providers"
        if os.environ.get("GEOSEG_REQUIRE_QGIS") == "1":
            pytest.fail(missing)
        pytest.skip(missing)

    def ask(script: str, request: dict[str, Any], folder: Path) -> dict[str, Any]:
        asked, facts = folder / "request.json", folder / "facts.json"
        asked.write_text(json.dumps(request))
        command = [QGIS_PYTHON, str(Path(__file__).with_name(script)), str(asked), str(facts)]
        env = _environment() | {"QT_QPA_PLATFORM": "offscreen", "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=180)
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(facts.read_text())
        return seen

    return ask


def _environment() -> dict[str, str]:
    """Leave nothing of our own Python, GDAL or PROJ for Debian's to stumble over."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}
