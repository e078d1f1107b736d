"""Arrays and tensors as images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import NOISE, arrays, refusal, rgb

from minclip.images import ImageProcessor, open_image


@given(arrays(st.integers(1, 6), st.integers(1, 6), channels=(3,)))
@settings(deadline=None)
def test_an_array_means_the_picture_that_it_came_from_whatever_its_size(array):
    np.testing.assert_array_equal(rgb(array), array)


@given(arrays(st.integers(5, 9), st.integers(5, 9), channels=()), st.sampled_from([1, 3, 4]))
@settings(deadline=None)
def test_channels_first_equals_channels_last(grey, channels):
    last = np.stack([grey // (c + 1) for c in range(channels)], axis=-1)
    np.testing.assert_array_equal(rgb(np.moveaxis(last, -1, 0)), rgb(last))


def test_a_grey_array_is_three_equal_channels():
    expected = np.repeat(NOISE[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(rgb(NOISE[..., 0]), expected)
    np.testing.assert_array_equal(rgb(NOISE[..., :1]), expected)


@pytest.mark.parametrize(
    ("array", "culprits"),
    [
        (np.zeros((8, 8, 3)), ("float64", "(8, 8, 3)", "* 255")),
        (np.full((8, 8, 3), np.nan, dtype=np.float32), ("NaN", "(8, 8, 3)")),
        (np.zeros((8, 8), dtype=np.uint16), ("uint16", ">> 8")),
        (np.zeros((8, 8), dtype=bool), ("bool", "* 255")),
        (np.zeros((8, 8), dtype=np.int64), ("int64", "astype('uint8')")),
        (np.zeros((8, 8, 2), dtype=np.uint8), ("(8, 8, 2)",)),
        (np.zeros(8, dtype=np.uint8), ("(8,)",)),
        (np.zeros((0, 8, 3), dtype=np.uint8), ("(0, 8, 3)", "no pixels")),
        (np.zeros((8, 0), dtype=np.uint8), ("(8, 0)", "no pixels")),
        (np.zeros((3, 0, 0), dtype=np.uint8), ("(3, 0, 0)", "no pixels")),
    ],
)
def test_an_array_that_is_no_image_is_described(array, culprits):
    refusal(lambda: open_image(array), *culprits)
    refusal(lambda: ImageProcessor()([NOISE, array]), "images[1]", *culprits)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.from_numpy(NOISE.copy()),
        torch.from_numpy(NOISE.copy()).permute(2, 0, 1),
        torch.nn.Parameter(torch.from_numpy(NOISE.copy()), requires_grad=False),
    ],
)
def test_a_tensor_is_its_array(tensor):
    np.testing.assert_array_equal(rgb(tensor), NOISE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_of_floats_with_a_gradient_is_its_array(dtype):
    tensor = torch.rand(3, 20, 30, dtype=torch.float64).to(dtype).requires_grad_()
    expected = ImageProcessor()(tensor.detach().double().numpy(), do_rescale=False)
    np.testing.assert_allclose(ImageProcessor()(tensor, do_rescale=False), expected, atol=1e-6)


class OnADevice:
    """A tensor as CUDA's are: NumPy can read it only after it was moved."""

    dtype, ndim = np.dtype(np.uint8), 3

    def cpu(self):
        return NOISE

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def test_a_tensor_on_a_device_is_fetched():
    np.testing.assert_array_equal(rgb(OnADevice()), NOISE)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(3, 4, 4, device="meta", dtype=torch.uint8),
        torch.zeros(3, 4, 4).to_sparse(),
        torch.zeros(4, 4, 3, dtype=torch.complex64),
        torch.zeros(4, 4, 3, dtype=torch.int32),
        torch.zeros(4, 4, 3, dtype=torch.float8_e4m3fn),
        np.array([["a"]]),
        np.array([[None]]),
        np.zeros((4, 4), dtype="M8[s]"),
    ],
    ids=str,
)
@pytest.mark.parametrize("do_rescale", [False, True])
def test_a_tensor_that_is_no_image_is_refused(tensor, do_rescale):
    refusal(lambda: ImageProcessor()([tensor], do_rescale=do_rescale), "images[0]")
