"""Open rasters: one per thread and file, closed from anywhere when nobody reads."""

import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioError

from geoseg.scene import close_idle_readers, open_reader


def test_the_open_rasters_of_all_threads_are_closed_and_opened_anew_when_wanted(write) -> None:
    path = str(write("a.tif", np.full((1, 40, 50), 7, np.uint8)))
    opened, closed, found = threading.Event(), threading.Event(), []

    def read() -> None:
        for _ in range(2):
            with open_reader(path) as reader:
                found.append(reader)
        opened.set()
        closed.wait(60)
        with open_reader(path) as reader:
            found.append(reader.read(1))

    thread = threading.Thread(target=read)
    thread.start()
    assert opened.wait(60)
    assert found[0] is found[1]
    with open_reader(path) as own:
        assert own is not found[0]
    close_idle_readers()
    assert own.closed
    assert found[0].closed
    closed.set()
    thread.join()
    assert (found[2] == 7).all()


def test_rasters_that_a_thread_is_reading_stay_open(write) -> None:
    """As those of another run in the same process."""
    path = str(write("a.tif", np.full((1, 40, 50), 7, np.uint8)))
    opened, closed, found = threading.Event(), threading.Event(), []

    def read() -> None:
        with open_reader(path) as reader:
            opened.set()
            closed.wait(60)
            found.append(reader.read(1))

    thread = threading.Thread(target=read)
    thread.start()
    assert opened.wait(60)
    close_idle_readers()
    closed.set()
    thread.join()
    assert (found[0] == 7).all()


def test_a_file_that_was_replaced_is_opened_anew(write) -> None:
    path = write("a.tif", np.full((1, 40, 50), 7, np.uint8))
    with open_reader(str(path)) as reader:
        assert reader.read(1)[0, 0] == 7
        profile = reader.profile
    other = Path(f"{path}.new.tif")
    with rasterio.open(other, "w", **(profile | {"width": 60})) as dst:
        dst.write(np.full((1, 40, 60), 9, np.uint8))
    other.replace(path)
    with open_reader(str(path)) as reader:
        assert reader.read(1).shape == (40, 60)


def test_the_error_of_a_read_that_failed_is_not_raised_again_by_the_next_call(write, noise) -> None:
    path = write("a.tif", noise(1, 300, 300), compress="deflate", tiled=True, blockxsize=128, blockysize=128)
    with rasterio.open(path) as src:
        place = int(src.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[place : place + 500] = bytes(500)
    path.write_bytes(content)
    with pytest.raises(RasterioError), open_reader(str(path)) as reader:
        reader.read(1)
    with open_reader(str(path)) as again:
        assert again is reader
        assert again.colorinterp == (rasterio.enums.ColorInterp.gray,)
