"""Errors that a user can act on, one class per fact.

Every message says what was found, what was expected and what to do next. An argument of a public function stands in
backticks, alone or with a value (`aoi_where`, `workers=4`), which the command line shows as a flag (--aoi-where,
--workers 4). The command line prints the message alone and exits with code 2, or 3 if the same command continues.
Everything that is not a `GeosegError` is a defect of geoseg and keeps its traceback.
"""

import re
from collections.abc import Sequence

from geoseg.redaction import redact

LONGEST, LONGEST_END = 2000, 500
"""Characters of a line of a message, and how many of them are its end if it is cut."""


class GeosegError(Exception):
    """Base class of all errors that a user can act on.

    A message is one line that a terminal shows as it is, whatever the input holds and the library that it quotes says.

    Args:
        message: The message.
        rows: Lines below it, such as one for each row of a table that cannot be used.
    """

    def __init__(self, message: object = "", *, rows: Sequence[str] = ()) -> None:
        super().__init__("\n".join(map(_as_line, (str(message), *rows))))


def _as_line(text: str) -> str:
    """Return a text as one line of printable characters, without secrets, and without its middle if it is very long."""
    text = re.sub(r"\s*[\r\n]\s*", " ", redact(text).strip())
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - LONGEST_END]} [...] {text[-LONGEST_END:]}"
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


class UsageError(GeosegError):
    """An argument has a value that cannot be used."""


class MissingFileError(GeosegError):
    """A file does not exist or cannot be reached."""


class NotARasterError(GeosegError):
    """A file exists, but GDAL cannot read a raster from it."""


class TruncatedFileError(GeosegError):
    """A raster file ends before the pixels that its header announces."""


class ReadError(GeosegError):
    """Pixels of a raster cannot be read."""


class BandMismatchError(GeosegError):
    """The scene does not have the bands that the model needs."""


class MissingCRSError(GeosegError):
    """A coordinate reference system is missing, or the given one cannot be parsed."""


class GeoreferenceError(GeosegError):
    """The transform of a raster gives its pixels no place or no area."""


class SceneMismatchError(GeosegError):
    """Several files cannot be one scene."""


class MissingDatetimeError(GeosegError):
    """A scene has no datetime, but one is needed."""


class AOIError(GeosegError):
    """The area of interest cannot be read, or lies outside the scene."""


class BundleError(GeosegError):
    """A model bundle is damaged or its specification does not fit."""


class PickledModelError(BundleError):
    """A model file would run arbitrary code when it is opened."""


class ExportError(GeosegError):
    """A network cannot be exported, or its export gives different results."""


class MissingPackageError(GeosegError):
    """A command needs a package that is not installed."""


class InstallationError(GeosegError):
    """A library cannot be used as it is installed or configured, such as PROJ without its data."""


class UnknownModelError(GeosegError):
    """No model has this name."""


class UnknownNetworkError(GeosegError):
    """No network, encoder or option of a network has this name."""


class NetworkExportError(GeosegError):
    """A network contains something that ONNX cannot represent."""


class EncoderWeightsError(GeosegError):
    """Pretrained weights are not available, or do not belong to the encoder."""


class TrainingError(GeosegError):
    """A training run cannot continue."""


class PredictionError(GeosegError):
    """A network returns something other than probabilities."""


class DeviceError(GeosegError):
    """The device or its library is not available."""


class ExistingResultError(GeosegError):
    """A result already exists, and replacing it was not requested."""


class OutputError(GeosegError):
    """A result cannot be written: no space, no permission or no folder."""


class RecipeError(GeosegError):
    """A training recipe names something that does not exist or has a value that is not allowed."""


class LabelError(GeosegError):
    """Labels cannot be read, or do not fit their scene."""


class UnknownLabelError(LabelError):
    """A mask contains numbers or colors that belong to no class."""


class ScoredFileError(GeosegError):
    """A run folder, mask or footprints that should be scored cannot be read, or do not fit the scene."""


class OutsideAOIError(AOIError):
    """A scene and the area of interest do not overlap."""


class BusyError(GeosegError):
    """Another client is working on the same run folder."""


class ClusterError(GeosegError):
    """A dask cluster cannot be reached, was lost, or cannot access the client's files."""


class UnfinishedError(GeosegError):
    """Some blocks or scenes failed; all others are done, and the same command continues from there."""


class RunFolderError(GeosegError):
    """A file in which a run folder says what it holds is damaged."""


class DamagedPartError(GeosegError):
    """The file of a finished block is incomplete, as after a power failure."""


class SourceError(GeosegError):
    """The input contains no scene, or it is not clear which one is meant."""


class ManifestError(SourceError):
    """A table of scenes cannot be read, or some of its rows cannot be used."""


class CatalogError(SourceError):
    """A STAC document cannot be read, or does not lead to rasters."""


class AssetError(CatalogError):
    """A STAC Item has no raster asset, or several and no rule to choose one."""
