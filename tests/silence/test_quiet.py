"""Silence about what concerns nobody: for all threads at once, and over when the last has left."""

import threading
import warnings

import pytest
from rasterio.errors import NotGeoreferencedWarning

from geoseg.silence import quiet, quiet_georeference

THREADS = 6


def test_threads_are_quiet_together_and_nobody_waits() -> None:
    before, failed = list(warnings.filters), []
    inside = threading.Barrier(THREADS, timeout=20)

    def hold(order: int) -> None:
        try:
            with quiet_georeference():
                inside.wait()
                warnings.warn("none", NotGeoreferencedWarning, stacklevel=1)
        except Exception as err:  # noqa: BLE001 - told to the test
            failed.append(err)

    threads = [threading.Thread(target=hold, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert list(warnings.filters) == before
    with pytest.warns(NotGeoreferencedWarning):
        warnings.warn("loud again", NotGeoreferencedWarning, stacklevel=1)


def test_it_is_over_after_an_error_and_may_be_nested() -> None:
    before = list(warnings.filters)
    with pytest.raises(ValueError, match="inside"), quiet_georeference(), quiet_georeference():
        raise ValueError("inside")
    assert list(warnings.filters) == before


def test_silences_of_several_kinds_do_not_end_each_other() -> None:
    before = list(warnings.filters)
    with quiet(UserWarning, "mild"):
        with quiet_georeference():
            pass
        warnings.warn("mild thing", UserWarning, stacklevel=1)
        with pytest.warns(UserWarning, match="other"):
            warnings.warn("other thing", UserWarning, stacklevel=1)
    assert list(warnings.filters) == before
