"""How many parameters a model has, from its header alone."""

import json
import math

from geoseg.bundle import Bundle
from geoseg.model_file import MLM_KEY, ModelFormat

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch normalization keeps beside its parameters."""


def count_parameters(bundle: Bundle) -> int:
    """Return the number of parameters, without the statistics of batch normalization; 0 where a file tells none."""
    if bundle.format is not ModelFormat.SAFETENSORS:
        properties = json.loads(bundle.header.get(MLM_KEY, "{}"))
        return int(properties.get("mlm:total_parameters", 0))
    from safetensors import safe_open

    with safe_open(bundle.path, framework="np") as file:
        names = [name for name in file.keys() if not name.endswith(STATISTICS)]  # noqa: SIM118 (no mapping)
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
