"""The command line: parse, make one public call, print the paths. Commands import heavy packages only when run."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import typer

from geoseg.cli import (  # each registers its commands
    compare,
    evaluate,
    finetune,
    merge,
    models,
    report,
    review,
    run,
    status,
    train,
    vectorize,
)
from geoseg.cli.app import Interrupted, app, with_flags
from geoseg.errors import ClusterError, GeosegError, UnfinishedError
from geoseg.redaction import redact

__all__ = [
    "app",
    "compare",
    "evaluate",
    "finetune",
    "main",
    "merge",
    "models",
    "report",
    "review",
    "run",
    "status",
    "train",
    "vectorize",
]

INPUT_REFUSED, UNFINISHED, INTERRUPTED, TERMINATED = 2, 3, 130, 143
"""Exit codes; after 3 the same command continues from what is done."""

SHOWN_OF_NAME = 100
"""Characters of an endless name in a message."""

DATA_LIBRARIES = ("rasterio", "pyproj", "pyogrio")
"""What reads the users' files. Their errors are turned into geoseg's where they are called; any other is shown as a
line too, as it is hardly ever a defect that a traceback would help with."""


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turn errors that a user can act on into a message and an exit code."""
    try:
        yield
    except GeosegError as err:
        typer.echo(f"Error: {with_flags(str(err))}", err=True)
        sys.exit(UNFINISHED if isinstance(err, UnfinishedError | ClusterError) else INPUT_REFUSED)
    except (Interrupted, KeyboardInterrupt):
        typer.echo("Interrupted. Run the same command again: it continues if it can.", err=True)
        sys.exit(INTERRUPTED)
    except Exception as err:
        library = type(err).__module__.partition(".")[0]
        if isinstance(err, OSError) and err.errno == errno.ENAMETOOLONG:
            said = f"The name {str(err.filename)[:SHOWN_OF_NAME]}... is longer than a file's may be. Check the command."
        elif library in DATA_LIBRARIES:
            said = _describe_failure(library, err)
        else:
            raise
        typer.echo(f"Error: {said}", err=True)
        sys.exit(INPUT_REFUSED)


def _describe_failure(library: str, err: Exception) -> str:
    """Return one line on the error of a library that geoseg did not expect, and where it called the library."""
    frames = traceback.extract_tb(err.__traceback__)
    own = [frame for frame in frames if f"{os.sep}geoseg{os.sep}" in frame.filename]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    said = " ".join(redact(str(err)).split()) or type(err).__name__
    return (
        f"{library} cannot work with this input: {said}{place}. Check the files with `gdalinfo` and `ogrinfo`; if they "
        "are sound, please report it with the output of `geoseg info`."
    )


def _avoid_settings_folder() -> None:
    """Prevent matplotlib, which torchgeo imports, from creating an empty settings folder."""
    with suppress(RuntimeError):  # a user without a home folder
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "matplotlib"
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matplotlib"
        has_two = sys.platform.startswith(("linux", "freebsd"))  # elsewhere settings and caches share a folder
        if has_two and not settings.exists():
            os.environ.setdefault("MPLCONFIGDIR", str(caches))


def _show_traceback(kind: type[BaseException], err: BaseException, trace: TracebackType | None) -> None:
    """Print what Python prints of an exception, without secrets."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, err, trace))))


def main() -> None:
    """Run the command line."""
    sys.excepthook = _show_traceback
    # Several engines and dask threads share the cores; BLAS threads would only compete with them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # GDAL prints what does not concern users, such as that it computes sizes that a TIFF lacks; errors are raised.
    if "CPL_DEBUG" not in os.environ:
        os.environ.setdefault("CPL_LOG", os.devnull)
    _avoid_settings_folder()
    # Exit cleanly when a job scheduler asks for it, which releases the lease on the run folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    with errors_as_messages():
        app()
