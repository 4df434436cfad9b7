"""Libraries that report their use to their makers, imported so that they do not.

geoseg talks to the scene's own server and to nobody else. OpenVINO and ONNX Runtime are imported here alone: both would
begin to report when they are imported.
"""

import importlib
import os
import sys
import threading
from types import ModuleType

_lock = threading.Lock()


def import_openvino() -> ModuleType:
    """Import OpenVINO without `openvino_telemetry`.

    That package looks up a web-analytics host and keeps an id in ~/intel. OpenVINO works without it: where it is not
    installed, `openvino.tools.ovc` has a stub for it, and during the import here it is as if it were not installed.
    """
    with _lock:
        if "openvino" in sys.modules:
            return importlib.import_module("openvino")
        name = "openvino_telemetry"
        known = {key: module for key, module in sys.modules.items() if key.split(".")[0] == name}
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
