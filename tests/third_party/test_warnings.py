"""Warnings are ignored for all threads at once, and until the last caller has left."""

import threading
import warnings

import pytest
from rasterio.errors import NotGeoreferencedWarning

from geoseg.third_party import allow_no_georeference, ignore_warnings

THREADS = 6


def test_threads_ignore_warnings_together_and_none_waits() -> None:
    before, failed = list(warnings.filters), []
    inside = threading.Barrier(THREADS, timeout=60)

    def warn() -> None:
        try:
            with allow_no_georeference():
                inside.wait()
                warnings.warn("none", NotGeoreferencedWarning, stacklevel=1)
        except Exception as err:  # noqa: BLE001 - the test reports it
            failed.append(err)

    threads = [threading.Thread(target=warn) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert list(warnings.filters) == before
    with pytest.warns(NotGeoreferencedWarning):
        warnings.warn("not ignored", NotGeoreferencedWarning, stacklevel=1)


def test_it_ends_after_an_error_and_may_be_nested() -> None:
    before = list(warnings.filters)
    with pytest.raises(ValueError, match="inside"), allow_no_georeference(), allow_no_georeference():
        raise ValueError("inside")
    assert list(warnings.filters) == before


def test_callers_that_ignore_other_warnings_do_not_end_each_other() -> None:
    before = list(warnings.filters)
    with ignore_warnings(UserWarning, "mild"):
        with allow_no_georeference():
            pass
        warnings.warn("mild thing", UserWarning, stacklevel=1)
        with pytest.warns(UserWarning, match="other"):
            warnings.warn("other thing", UserWarning, stacklevel=1)
    assert list(warnings.filters) == before
