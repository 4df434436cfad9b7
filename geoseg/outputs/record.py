"""A run's own record."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.io.aside import write_text


def write_run_json(path: str | Path, record: Mapping[str, Any]) -> Path:
    """Write a record as JSON: sorted, indented, numbers of numpy as numbers, what is not finite as null.

    Args:
        path: The file to be; an older one is replaced.
        record: What to write; paths, dates and other strangers are written as text.

    Returns:
        The path.

    Raises:
        OutputError: If the file cannot be written.
    """
    text = json.dumps(_plain(record), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return write_text(path, f"{text}\n")


def _plain(value: Any) -> Any:
    """Turn a value into what JSON knows."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
