import numpy as np
import pytest

from geoseg.outputs.tiles import Key, PendingTiles

SHAPE = (2, 4, 4)
KEYS = [Key(0, row, 0) for row in range(5)]


def stack(number):
    return np.full(SHAPE, number, np.uint8)


@pytest.fixture
def pending(tmp_path):
    pending = PendingTiles(tmp_path / "spill", SHAPE, memory=2 * stack(0).size)
    yield pending
    pending.close()


def test_tiles_beyond_the_memory_come_back_from_the_file(pending, tmp_path):
    for number, key in enumerate(KEYS):
        pending.keep(key, stack(number), 10 + number)
    assert (tmp_path / "spill").exists()
    for number in (3, 0, 4, 1, 2):
        found = pending.take(KEYS[number])
        assert found is not None
        assert (found[0] == number).all()
        assert found[1] == 10 + number


def test_no_file_is_made_while_memory_is_enough(pending, tmp_path):
    pending.keep(KEYS[0], stack(1), 1)
    pending.keep(KEYS[1], stack(2), 1)
    assert pending.take(KEYS[0]) is not None
    assert list(tmp_path.iterdir()) == []


def test_a_tile_is_handed_out_once(pending):
    pending.keep(KEYS[0], stack(1), 1)
    assert pending.take(KEYS[0]) is not None
    assert pending.take(KEYS[0]) is None


def test_places_in_the_file_are_used_again(pending, tmp_path):
    for _ in range(20):
        for number, key in enumerate(KEYS):
            pending.keep(key, stack(number), 1)
        for key in KEYS:
            pending.take(key)
    assert (tmp_path / "spill").stat().st_size <= 3 * stack(0).size


def test_a_tile_that_was_changed_after_its_return_is_kept_as_it_is_then(pending):
    for number, key in enumerate(KEYS):
        pending.keep(key, stack(number), 3)
    values, waiting = pending.take(KEYS[0])
    values[0, 0, 0] = 99
    pending.keep(KEYS[0], values, waiting - 1)
    for number, key in enumerate(KEYS[1:], 1):
        pending.keep(key, pending.take(key)[0], number)
    values, waiting = pending.take(KEYS[0])
    assert (values[0, 0, 0], waiting) == (99, 2)
    assert pending.select(lambda key: key.row > 3) == [KEYS[4]]
