"""Calls the installed geoseg: its own Python environment, progress, cancel. Knows nothing of QGIS."""

from __future__ import annotations  # Python 3.9, which comes with QGIS 3.22 on Windows

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue

NOT_OURS = (
    *("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV"),
    *("GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA"),
)
"""Variables that QGIS sets for its own Python and GDAL, which are others than geoseg's."""

PROGRESS = re.compile(r"^([\d,]+) of ([\d,]+) \w+ done")
PATIENCE_S = 20
"""Seconds in which geoseg ends after it was asked to; then it is killed. Finished blocks are kept in any case."""


class CommandError(Exception):
    """geoseg cannot be found, or ended with an error."""


def find_geoseg(setting: str = "") -> str:
    """Return the program: the setting, the environment variable `GEOSEG`, or `geoseg` on the path.

    Raises:
        CommandError: If there is none.
    """
    asked = setting or os.environ.get("GEOSEG", "") or "geoseg"
    found = shutil.which(str(Path(asked).expanduser()))
    if found is None:
        raise CommandError(
            f"There is no program {asked}. Install geoseg in a Python environment of its own and give the path of its "
            "`geoseg` in Settings > Options > Processing > Providers > geoseg, or in the environment variable GEOSEG."
        )
    return found


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what QGIS set for itself."""
    return {name: value for name, value in environment.items() if name not in NOT_OURS}


def run_geoseg(
    program: str,
    args: Sequence[str],
    *,
    say: Callable[[str], None] = lambda line: None,
    show: Callable[[float], None] = lambda percent: None,
    is_canceled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Run a command of geoseg, and return the lines that it prints: the paths of the results.

    Args:
        program: What `find_geoseg` returned.
        args: Command and options.
        say: Is called with every line of the log.
        show: Is called with the progress in percent.
        is_canceled: Is asked several times a second whether to stop.

    Raises:
        CommandError: If it was canceled, or ended with an error; the message is geoseg's own line.
    """
    options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}
    with subprocess.Popen(
        [program, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=own_environment(os.environ),
        encoding="utf-8",
        errors="replace",
        **options,
    ) as process:
        logged: Queue[str] = Queue()
        printed: list[str] = []
        streams = ((process.stderr, logged.put), (process.stdout, printed.append))
        readers = [threading.Thread(target=_read, args=stream, daemon=True) for stream in streams]
        for reader in readers:
            reader.start()
        last = ""
        while True:
            is_over = not any(reader.is_alive() for reader in readers)
            try:
                line = logged.get(timeout=0.2)
            except Empty:
                if is_over:
                    break
            else:
                last = line or last
                done = PROGRESS.match(line)
                if done:
                    part, whole = (int(number.replace(",", "")) for number in done.groups())
                    show(100 * part / max(whole, 1))
                say(line)
            if is_canceled():
                _stop(process)
                raise CommandError("Canceled. Finished blocks are kept: the same settings continue.")
    if process.returncode:
        raise CommandError(last.removeprefix("Error: ") or f"geoseg ended with exit code {process.returncode}.")
    return printed


def _read(stream: Iterable[str], take: Callable[[str], object]) -> None:
    for line in stream:
        take(line.rstrip("\n"))


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask a process to end, as Ctrl-C does; kill it if it does not."""
    process.send_signal(signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGINT)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
