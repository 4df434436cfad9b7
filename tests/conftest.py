"""What every test package shares: quiet threads, a clock far from UTC, a process as it was, a full disk, real data."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before numpy, torch or OpenVINO start their pools: the suite must not oversubscribe a small machine.
for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")

# Far from UTC, and not by whole hours: a moment that is read or written in local time by mistake shows.
os.environ.setdefault("TZ", "Asia/Kathmandu")
time.tzset()

# No deadline: a busy machine is no bug. The gate tries the same examples each time, so that it does not fail by chance.
settings.register_profile(
    "geoseg", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("geoseg")

REPOSITORY = Path(__file__).resolve().parent.parent


def realdata_folder() -> Path | None:
    """Return the folder of real imagery: GEOSEG_REALDATA, else ../shared/data beside the repository."""
    named = os.environ.get("GEOSEG_REALDATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return folder if (folder / "README.md").is_file() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `realdata`, and those that ask for its fixture, where there is none."""
    if realdata_folder() is not None:
        return
    skip = pytest.mark.skip(reason="no real imagery: set GEOSEG_REALDATA, or put it in ../shared/data")
    for item in items:
        if "realdata" in item.keywords or "realdata" in getattr(item, "fixturenames", ()):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real imagery (read only)."""
    folder = realdata_folder()
    assert folder is not None, "a test of real imagery ran without the imagery"
    return folder


def _loggers() -> list[logging.Logger]:
    root = logging.getLogger()
    return [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]


@pytest.fixture(autouse=True)
def _own_process() -> Iterator[None]:
    """Undo what the command line, called within a test, sets for its process: logging and the handler of SIGTERM."""
    root = logging.getLogger()
    levels, handlers = {each: each.level for each in _loggers()}, list(root.handlers)
    on_term = signal.getsignal(signal.SIGTERM)
    if "geoseg.io.datum" in sys.modules:  # what was said once in this process is said again in this test
        sys.modules["geoseg.io.datum"].warn_once.cache_clear()
    yield
    signal.signal(signal.SIGTERM, on_term)
    root.handlers[:] = handlers
    for each in _loggers():
        each.setLevel(levels.get(each, logging.NOTSET))


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A context in which no file grows beyond some bytes: writing fails then, as on a full disk."""
    resource = pytest.importorskip("resource", reason="limits of a process are a matter of Unix")

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture(params=["Asia/Kathmandu", "America/Anchorage"])
def local_time(request: pytest.FixtureRequest) -> Iterator[str]:
    """A computer east and one west of Greenwich."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout, for tests of what is committed."""
    return REPOSITORY
