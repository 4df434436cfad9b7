"""What can go wrong, one class per fact.

Every message says what was found, what was expected and what to do next. An argument of a public function stands in
backticks, alone or with a value (`aoi_where`, `workers=4`), which the command line shows as a flag (--aoi-where,
--workers 4). The command line prints the message alone and
leaves with exit code 2, or 3 where the same command goes on; everything that is not a `GeosegError` is a defect of
geoseg and keeps its traceback.
"""


class GeosegError(Exception):
    """Root of all errors that a user can act upon."""


class UsageError(GeosegError):
    """An option has a value that cannot be used."""


class MissingFileError(GeosegError):
    """A file that was named does not exist or cannot be reached."""


class NotARasterError(GeosegError):
    """A file exists but GDAL reads no raster from it."""


class TruncatedFileError(GeosegError):
    """A raster's header promises pixels that the file does not hold."""


class ReadError(GeosegError):
    """Pixels of a raster cannot be read."""


class BandMismatchError(GeosegError):
    """The scene's bands do not serve the model's."""


class MissingCRSError(GeosegError):
    """A coordinate reference system is needed and missing, or the given one cannot be understood."""


class SceneMismatchError(GeosegError):
    """Several files cannot be one scene."""


class MissingDatetimeError(GeosegError):
    """A scene's datetime is needed and nobody said it."""


class AOIError(GeosegError):
    """The area of interest cannot be read, or lies outside the scene."""


class BundleError(GeosegError):
    """A model bundle is damaged or its specification does not fit."""


class PickledModelError(BundleError):
    """A model file would run code of its maker when it is opened."""


class ExportError(GeosegError):
    """A network cannot be exported, or its export gives other results."""


class MissingPackageError(GeosegError):
    """A command needs a package that is not installed."""


class UnknownModelError(GeosegError):
    """No model has this name."""


class UnknownNetworkError(GeosegError):
    """No network, encoder or option of a network has this name."""


class NetworkExportError(GeosegError):
    """A network holds something that ONNX cannot say."""


class EncoderWeightsError(GeosegError):
    """Pretrained weights cannot be had, or are not those of the encoder."""


class TrainingError(GeosegError):
    """A training run cannot go on."""


class PredictionError(GeosegError):
    """A network gives something else than probabilities."""


class DeviceError(GeosegError):
    """The device or its library is not there."""


class ExistingResultError(GeosegError):
    """A result is already there and may not be replaced unasked."""


class OutputError(GeosegError):
    """A result cannot be written: no room, no permission, no folder."""


class RecipeError(GeosegError):
    """A training recipe names something that does not exist or has a value that is not allowed."""


class LabelError(GeosegError):
    """Labels cannot be read, or do not fit their scene."""


class UnknownLabelError(LabelError):
    """A mask holds numbers or colors that stand for no class."""


class ScoredFileError(GeosegError):
    """A run folder, mask or footprints to be scored cannot be read, or do not fit."""


class OutsideAOIError(AOIError):
    """A scene and the area of interest share no ground."""


class BusyError(GeosegError):
    """Another client works on the same run folder."""


class ClusterError(GeosegError):
    """A dask cluster cannot be reached, went away, or does not see what the client sees."""


class UnfinishedError(GeosegError):
    """Some blocks or scenes could not be done; everything else is, and the same command goes on from there."""


class DamagedPartError(GeosegError):
    """A finished block's file is not whole, as after a power failure."""


class SourceError(GeosegError):
    """What was named gives no scene, or it is not clear which."""


class ManifestError(SourceError):
    """A table of scenes cannot be read, or some of its rows say nothing usable."""


class CatalogError(SourceError):
    """A STAC document cannot be read, or does not lead to rasters."""


class AssetError(CatalogError):
    """A STAC Item has no raster asset, or several and no rule to choose one."""
