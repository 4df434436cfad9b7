"""What a person looks through in QGIS: layers made of a finished run, and a report beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import ExistingResultError, MissingFileError, ScoredFileError
from geoseg.io.aside import check_folder, reported, require_closed, write_all_aside, write_record
from geoseg.outputs.gdal import write_layers

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

PROBABILITY, FOOTPRINTS = "probability.tif", "buildings.parquet"
"""The files of a run that the layers are made of."""


def require_run(folder: Path, *files: str) -> None:
    """Raise `MissingFileError` if a folder lacks one of some files, or the report, of a finished run."""
    lacking = [name for name in (*files, "run.json") if not (folder / name).is_file()]
    if lacking:
        raise MissingFileError(
            f"{folder} is not the folder of a finished run: it has no {lacking[0]}. Give the folder that was its `out`."
        )


def read_footprints(folder: Path) -> "GeoDataFrame":
    """Return the footprints of a run, without their boxes.

    Raises:
        ScoredFileError: If they cannot be read.
    """
    import geopandas

    try:
        return geopandas.read_parquet(folder / FOOTPRINTS).drop(columns="bbox", errors="ignore")
    except Exception as err:  # pyarrow raises several types without a common root
        raise ScoredFileError(f"{folder / FOOTPRINTS} cannot be read ({err}). Run the scene again.") from err


def check_out(out: Path, files: Sequence[str], *, overwrite: bool, holding: str = "") -> None:
    """Check that layers and report can be written, and are not there already unless they may be replaced.

    Args:
        out: Their folder.
        files: The GeoPackage and the report.
        overwrite: Whether they may be replaced.
        holding: What else would be lost, for the message.

    Raises:
        ExistingResultError: If they exist.
        OutputError: If they cannot be written.
        BusyError: If another program has the GeoPackage open.
    """
    check_folder(out)
    held = [name for name in files if (out / name).exists()]
    if held and not overwrite:
        raise ExistingResultError(
            f"{out} already holds {' and '.join(held)}{holding}. Choose another folder with `out`, or replace them "
            "with `overwrite=True`."
        )
    if held:
        require_closed(out / files[0])


def write_out(
    out: Path,
    files: Sequence[str],
    layers: Mapping[str, "GeoDataFrame"],
    styles: Mapping[str, str],
    report: Mapping[str, Any],
) -> None:
    """Write layers and report, both or neither; see `check_out` and `write_layers`."""
    with reported(out):
        out.mkdir(parents=True, exist_ok=True)
    with write_all_aside([out / name for name in files]) as (path, record):
        write_layers(path, layers, styles)
        write_record(record, report)
