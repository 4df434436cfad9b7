"""Third-party libraries kept quiet: warnings that do not concern users, and telemetry.

geoseg talks to the scene's own server and to nobody else. OpenVINO and ONNX Runtime are imported here alone: both would
start to send telemetry when they are imported.
"""

import importlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class _SharedFilters:
    """Python's warning filters, which belong to the whole process, and how many callers have added to them."""

    def __init__(self) -> None:
        self.lock, self.users, self.saved = threading.Lock(), 0, warnings.catch_warnings()


_filters = _SharedFilters()
_importing = threading.Lock()


@contextmanager
def ignore_warnings(category: type[Warning] = Warning, message: str = "") -> Iterator[None]:
    """Ignore warnings of a category whose text begins as given, at least while the block runs.

    Safe in several threads, unlike `warnings.catch_warnings`, which restores what it found: of two threads that use it,
    one may restore what the other wants ignored, or leave it ignored for ever. Here the first caller saves the filters
    and the last one to leave restores them; no caller waits for another.

    Args:
        category: Which warnings.
        message: Regular expression that matches the beginning of their text.
    """
    with _filters.lock:
        if _filters.users == 0:
            _filters.saved = warnings.catch_warnings()
            _filters.saved.__enter__()
        _filters.users += 1
        warnings.filterwarnings("ignore", message, category)
    try:
        yield
    finally:
        with _filters.lock:
            _filters.users -= 1
            if _filters.users == 0:
                _filters.saved.__exit__(None, None, None)


@contextmanager
def allow_no_georeference() -> Iterator[None]:
    """Let rasterio open rasters without georeference and not warn: geoseg logs it once, when it opens a scene."""
    from rasterio.errors import NotGeoreferencedWarning

    with ignore_warnings(NotGeoreferencedWarning):
        yield


def import_openvino() -> ModuleType:
    """Import OpenVINO without `openvino_telemetry`.

    That package looks up a web-analytics host and keeps an id in ~/intel. OpenVINO works without it: where it is not
    installed, `openvino.tools.ovc` has a stub for it, and during the import here it is as if it were not installed.
    """
    with _importing:
        if "openvino" in sys.modules:
            return importlib.import_module("openvino")
        name = "openvino_telemetry"
        known = {key: module for key, module in list(sys.modules.items()) if key.split(".")[0] == name}
        sys.modules[name] = None  # type: ignore[assignment]  # documented: its import then fails
        try:
            return importlib.import_module("openvino")
        finally:
            del sys.modules[name]
            sys.modules.update(known)


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off, unless the user has set `ORT_DISABLE_TELEMETRY`.

    From 1.32 on it keeps events in ~/.cache/Microsoft and uploads them.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")
