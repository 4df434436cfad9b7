"""What worker processes on Linux are forked from: a process that has imported everything and started no thread.

torch and torchgeo take 5 s and half a gigabyte, which the workers of a machine then share.
"""

import importlib
import warnings
from contextlib import suppress

import geoseg.datasets
import geoseg.run.job  # noqa: F401

with suppress(ImportError):  # models run on torch where it is not installed
    importlib.import_module("openvino")

# tqdm starts a helper when it is imported, of whose end Python's forkserver then warns.
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid", UserWarning)
