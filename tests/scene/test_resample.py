"""Resampling between two grids of one extent, against brute force and torch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.scene.resample import Axis, resample

Read = Callable[[slice, slice], tuple[NDArray, NDArray | None]]


def reader(pixels: NDArray, valid: NDArray | None = None) -> Read:
    """Read from an array; what is asked for must lie inside it."""

    def read(rows: slice, cols: slice) -> tuple[NDArray, NDArray | None]:
        assert 0 <= rows.start < rows.stop <= pixels.shape[1]
        assert 0 <= cols.start < cols.stop <= pixels.shape[2]
        return pixels[:, rows, cols], None if valid is None else valid[rows, cols]

    return read


def resample_all(pixels: NDArray, shape: tuple[int, int], valid: NDArray | None = None) -> tuple[NDArray, NDArray]:
    """Resample a whole array."""
    axes = (Axis(pixels.shape[1], shape[0]), Axis(pixels.shape[2], shape[1]))
    whole = (slice(0, shape[0]), slice(0, shape[1]))
    return resample(reader(pixels, valid), axes, *whole, len(pixels), pixels.dtype)


def overlaps(source: int, target: int) -> NDArray:
    """Share of each target pixel `(target, source)` that lies on each source pixel, in float64."""
    edges = np.arange(target + 1) * (source / target)
    low = np.maximum(edges[:-1, None], np.arange(source))
    high = np.minimum(edges[1:, None], np.arange(1, source + 1))
    return np.clip(high - low, 0, None) * (target / source)


def area_average(pixels: NDArray, shape: tuple[int, int]) -> NDArray:
    """Brute-force area average in float64."""
    return overlaps(pixels.shape[1], shape[0]) @ pixels.astype(float) @ overlaps(pixels.shape[2], shape[1]).T


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 1) -> NDArray:
    """Random pixels over the range of the type."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return rng.normal(100, 50, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_whole_number_ratios_give_the_mean_of_the_block_exactly(factor: int, dtype: str) -> None:
    pixels = noise((3, 80, 112), dtype)
    out, _ = resample_all(pixels, (80 // factor, 112 // factor))
    blocks = pixels.reshape(3, 80 // factor, factor, 112 // factor, factor).astype(float)
    np.testing.assert_array_equal(out, np.floor(blocks.mean((2, 4)) + 0.5))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), ratio=st.floats(1, 4), seed=st.integers(0, 99))
def test_shrinking_is_the_area_average_but_for_the_rounding_of_weights(
    height: int, width: int, ratio: float, seed: int
) -> None:
    pixels = noise((1, height, width), seed=seed)
    shape = (max(1, round(height / ratio)), max(1, round(width / ratio)))
    out, valid = resample_all(pixels, shape)
    assert valid.all()
    # each inner edge between source pixels is off by at most 1/512 of the target pixel, on either side of it
    edges = sum(-(-n // m) for n, m in zip((height, width), shape, strict=True))
    assert np.abs(out - area_average(pixels, shape)).max() <= 0.5 + 255 / 2 * edges / 256


def test_weights_are_rounded_to_the_nearest_256th_and_lean_to_no_side() -> None:
    """Three pixels become two of 2/3 and 1/3 (171 and 85 of 256), five become three of 3/5 and 2/5 (154 and 102)."""
    pixels = np.array([[[0, 256 * 100, 0]]], "uint16")
    out, _ = resample_all(pixels, (1, 2))
    np.testing.assert_array_equal(out[0, 0], [8500, 8500])
    pixels = np.array([[[256 * 100, 0, 0, 0, 0]]], "uint16")
    np.testing.assert_array_equal(resample_all(pixels, (1, 3))[0][0, 0], [15400, 0, 0])


def test_shrinking_an_image_is_the_area_average_within_a_gray_level() -> None:
    pixels = noise((1, 300, 400))
    out, _ = resample_all(pixels, (125, 167))
    expected = area_average(pixels, (125, 167))
    assert np.abs(out - np.round(expected)).max() <= 1
    assert np.abs(out - expected).mean() <= 0.3  # rounding alone gives 0.25


def test_shrinking_keeps_the_mean_of_the_scene() -> None:
    pixels = noise((1, 500, 700), "float64")
    out, _ = resample_all(pixels, (143, 211))
    assert out.mean() == pytest.approx(pixels.mean(), rel=2e-4)


def test_shrinking_moves_no_position() -> None:
    rows, cols = np.mgrid[:300, :400].astype(float)
    out, _ = resample_all(np.stack([rows, cols]), (100, 133))
    np.testing.assert_allclose(
        out[0], np.broadcast_to(((np.arange(100) + 0.5) * 3 - 0.5)[:, None], out[0].shape), atol=0.01
    )
    np.testing.assert_allclose(
        out[1], np.broadcast_to((np.arange(133) + 0.5) * 400 / 133 - 0.5, out[1].shape), atol=0.02
    )


@pytest.mark.parametrize("shape", [(40, 40), (33, 61), (21, 47), (300, 300)])
def test_enlarging_is_bilinear_as_torch_does_it(shape: tuple[int, int]) -> None:
    pixels = noise((2, 20, 30), "float32")
    out, _ = resample_all(pixels, shape)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(pixels)[None], shape, mode="bilinear", align_corners=False
    )
    # weights are multiples of 1/256: neighbors that differ by d are off by at most d/512 per axis
    tolerance = 2 * (pixels.max() - pixels.min()) / 512
    np.testing.assert_allclose(out, expected[0].numpy(), atol=tolerance)


@pytest.mark.parametrize("shape", [(2, 3), (3, 5), (7, 11), (20, 33)])
def test_enlarging_leans_to_no_side(shape: tuple[int, int]) -> None:
    """The enlarged mirror image is the mirror image of the enlarged picture, to the last level of 16 bits."""
    source, target = shape
    pixels = noise((1, 1, source), "uint16")
    out, _ = resample_all(pixels, (1, target))
    mirrored, _ = resample_all(pixels[:, :, ::-1], (1, target))
    np.testing.assert_array_equal(mirrored[:, :, ::-1], out)
    steps = np.array([[[0, 256 * 100, 0]]], "uint16")
    np.testing.assert_array_equal(resample_all(steps, (1, 5))[0][0, 0], [0, 10200, 25600, 10200, 0])


@pytest.mark.parametrize(("dtype", "low"), [("uint8", 254), ("uint16", 60_000), ("int16", -30_000)])
def test_a_mean_a_hair_below_the_half_is_rounded_down_and_at_the_half_up(dtype: str, low: int) -> None:
    """Of 65,536 pixels one decides: the sums are exact, in whatever order and window they are made."""
    pixels = np.full(256 * 256, low, dtype)
    pixels[: 256 * 128 - 1] = low + 1
    assert resample_all(pixels.reshape(1, 256, 256), (1, 1))[0].item() == low
    pixels[256 * 128 - 1] = low + 1
    assert resample_all(pixels.reshape(1, 256, 256), (1, 1))[0].item() == low + 1


def test_one_axis_may_shrink_while_the_other_grows() -> None:
    rows, cols = np.mgrid[:60, :20].astype(float)
    out, _ = resample_all(np.stack([rows, cols]), (30, 40))
    np.testing.assert_allclose(out[0], np.broadcast_to((np.arange(30) * 2 + 0.5)[:, None], (30, 40)))
    np.testing.assert_allclose(out[1, :, 2:-2], np.broadcast_to((np.arange(40) / 2 - 0.25)[2:-2], (30, 36)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_a_constant_stays_that_constant(dtype: str) -> None:
    pixels = np.full((1, 37, 53), 117, dtype)
    for shape in [(11, 17), (37, 17), (80, 90), (1, 1)]:
        out, _ = resample_all(pixels, shape)
        assert (out == 117).all()
        assert out.dtype == dtype


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(),
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    target=st.tuples(st.integers(1, 90), st.integers(1, 150)),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    masked=st.booleans(),
)
def test_any_window_equals_the_crop_of_the_whole(
    data: st.DataObject, source: tuple[int, int], target: tuple[int, int], dtype: str, masked: bool
) -> None:
    pixels = noise((2, *source), dtype)
    valid = np.random.default_rng(3).random(source) < 0.6 if masked else None
    whole, whole_valid = resample_all(pixels, target, valid)
    top, left = (data.draw(st.integers(0, n - 1)) for n in target)
    bottom, right = data.draw(st.integers(top + 1, target[0])), data.draw(st.integers(left + 1, target[1]))
    axes = (Axis(source[0], target[0]), Axis(source[1], target[1]))
    part, part_valid = resample(reader(pixels, valid), axes, slice(top, bottom), slice(left, right), 2, pixels.dtype)
    np.testing.assert_array_equal(part, whole[:, top:bottom, left:right])
    np.testing.assert_array_equal(part_valid, whole_valid[top:bottom, left:right])


def test_a_pixel_is_valid_where_at_least_half_of_it_is() -> None:
    valid = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool).reshape(1, 20)
    pixels = np.full((1, 1, 20), 9, np.uint8)
    _, out = resample_all(pixels, (1, 5), valid)
    assert out.tolist() == [[True, True, True, False, False]]


@pytest.mark.parametrize("shape", [(10, 15), (13, 19), (60, 90)])
def test_invalid_pixels_have_no_part_in_a_value(shape: tuple[int, int]) -> None:
    pixels = np.full((1, 40, 60), 50, np.uint8)
    valid = np.random.default_rng(0).random((40, 60)) < 0.5
    pixels[:, ~valid] = 255
    out, usable = resample_all(pixels, shape, valid)
    assert usable.any()
    assert (out[:, usable] == 50).all()


@settings(max_examples=30)
@given(source=st.integers(1, 4000), target=st.integers(1, 4000), data=st.data())
def test_the_weights_of_a_pixel_add_up_to_one(source: int, target: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, target - 1))
    weights = Axis(source, target).weights(start, min(start + 5, target), np.float64)
    assert (weights.sum(1) == 256).all()
    assert (weights >= 0).all()
    assert (weights == weights.round()).all()
