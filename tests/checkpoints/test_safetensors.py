import mmap
import random
import re
from pathlib import Path

import folders
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mutators import SAFETENSORS, mutated

from minclip import checkpoints
from minclip.backend import NumpyTowers
from minclip.checkpoints.safetensors import convert, read_tensors, round_to_bfloat16, write_tensors
from minclip.config import Config
from minclip.errors import CheckpointError
from minclip.inputs import image_inputs, text_inputs
from minclip.shapes import expected_shapes
from minclip.weights import BFLOAT16, Weights, widen

TYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
bit_patterns = arrays.arrays(np.uint32, st.integers(0, 50), elements=st.integers(0, 2**32 - 1))


def owner(array: np.ndarray) -> object:
    """What lends an array its memory."""
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
def test_tensors_of_every_type_are_read_as_torch_wrote_them(tmp_path: Path, dtype: torch.dtype) -> None:
    given = {"a": torch.randn(3, 4), "b.c": torch.randn(()), "empty": torch.randn(0, 5), "d": torch.randn(2, 1, 3)}
    given = {name: tensor.to(dtype) for name, tensor in given.items()}
    safetensors.torch.save_file(given, tmp_path / "x.safetensors", {"note": "metadata is no tensor"})
    found = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert found[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(widen(found[name], np.float64), tensor.double().numpy())


@pytest.mark.parametrize("dtype", TYPES)
def test_tensors_are_views_of_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.randn(3, 4).to(dtype), "b": torch.randn(5).to(dtype)}, path)
    found = read_tensors(path)
    assert {type(owner(array)) for array in found.values()} == {mmap.mmap}
    assert not any(array.flags.writeable for array in found.values())


def test_float32_tensors_are_handed_out_without_a_copy(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.randn(3, 4)}, tmp_path / "x.safetensors")
    found = read_tensors(tmp_path / "x.safetensors")
    assert np.shares_memory(Weights(found)["a"], found["a"])


def resident(path: Path) -> int:
    """Bytes of a file that this process's memory maps of it hold in memory."""
    smaps = Path("/proc/self/smaps").read_text()
    entries = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", smaps)
    assert entries, "the file is not mapped"
    return 1024 * sum(map(int, entries))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory maps are read from Linux's /proc")
def test_a_text_only_job_never_touches_the_vision_tower(tmp_path: Path) -> None:
    vision = {**folders.VISION, "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    text = {**folders.TEXT, "hidden_size": 128, "intermediate_size": 512}
    config = Config.from_dict({"model_type": "clip", "text_config": text, "vision_config": vision})
    shapes = expected_shapes(config)
    rng = np.random.default_rng(0)
    checkpoints.save(
        tmp_path, config, Weights({name: rng.standard_normal(s, np.float32) * 0.05 for name, s in shapes.items()})
    )
    sizes = {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}
    text_size = sum(size for name, size in sizes.items() if name.startswith("text"))
    vision_size = sum(size for name, size in sizes.items() if name.startswith("vis"))
    slack = 1 << 20  # the kernel maps a few pages around each one that is touched
    assert vision_size > 10 * (text_size + slack)

    _, weights = checkpoints.read(tmp_path)
    assert resident(tmp_path / "model.safetensors") <= slack
    towers = NumpyTowers(config, weights)
    towers.text(text_inputs(config, input_ids=[[0, 5, 19]]))
    assert resident(tmp_path / "model.safetensors") <= text_size + slack
    towers.vision(image_inputs(config, np.zeros((1, 3, 11, 11), np.float32)))
    assert resident(tmp_path / "model.safetensors") >= vision_size


# --- broken files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "x.safetensors"
    given = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.arange(3.0), "half": torch.ones(2).half()}
    safetensors.torch.save_file(given, path, {"format": "pt"})
    return path.read_bytes()


def read_bytes(folder: Path, content: bytes) -> dict[str, np.ndarray]:
    path = folder / "x.safetensors"
    path.write_bytes(content)
    return read_tensors(path)


def assert_refused(folder: Path, content: bytes, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_bytes(folder, content)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(folder / "x.safetensors"), *words):
        assert word in message


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, good: bytes) -> None:
    for length in range(len(good)):
        assert_refused(tmp_path, good[:length], "not a whole safetensors file")


def test_a_file_with_something_appended_is_refused(tmp_path: Path, good: bytes) -> None:
    assert_refused(tmp_path, good + b"\0", "not a whole safetensors file")


@pytest.mark.parametrize("length", [100_000_001, 2**40, 2**63, 2**64 - 1])
def test_an_oversized_header_is_refused(tmp_path: Path, good: bytes, length: int) -> None:
    assert_refused(tmp_path, length.to_bytes(8, "little") + good[8:], "not a whole safetensors file")


@given(st.data())
def test_a_damaged_header_is_refused_or_names_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, good: bytes, data: st.DataObject
) -> None:
    """One byte of the header changed: refused in one line, or nothing but a name (or the metadata) differs."""
    end = 8 + int.from_bytes(good[:8], "little")
    place = data.draw(st.integers(0, end - 1))
    content = bytearray(good)
    content[place] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp()
    try:
        found = read_bytes(folder, bytes(content))
    except CheckpointError:
        assert_refused(folder, bytes(content))
    else:
        kept = {(array.shape, array.dtype, array.tobytes()) for array in found.values()}
        assert kept == {(array.shape, array.dtype, array.tobytes()) for array in read_bytes(folder, good).values()}


@given(st.integers(0, 2**32))
def test_what_the_formats_own_library_refuses_is_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, good: bytes, seed: int
) -> None:
    """But for names given twice, types that are no floats, and sizes beyond NumPy's, which it lets pass."""
    rng, path = random.Random(seed), tmp_path_factory.getbasetemp() / "damaged.safetensors"
    for _ in range(20):
        path.write_bytes(mutated(good, SAFETENSORS, rng))
        try:
            with safetensors.safe_open(path, "numpy"):
                known = True
        except (safetensors.SafetensorError, OSError):
            known = False
        refusal = ""
        try:
            read_tensors(path)
        except CheckpointError as error:
            refusal = str(error)
        if known:
            assert not refusal or re.search("twice|is stored as|too large|lengths", refusal), refusal
        else:
            assert refusal or b"\\ud" in path.read_bytes()  # half a surrogate pair in the metadata, not read here


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype":"F32","shape":[0,4611686018427387904],"data_offsets":[0,0]}',
        '{"dtype":"F32","shape":[9223372036854775808,0],"data_offsets":[0,0]}',
        f'{{"dtype":"F32","shape":[{"0," * 64}0],"data_offsets":[0,0]}}',
        '{"dtype":"F32","shape":[-1],"data_offsets":[4,0]}',
        '{"dtype":"F32","shape":[true],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[0]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[1,5]}',
        '{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}',
        f"{'[' * 100_000}",
        "4",
    ],
)
def test_an_entry_that_describes_no_array_is_refused(tmp_path: Path, entry: str) -> None:
    header = f'{{"a":{entry}}}'.encode()
    assert_refused(tmp_path, len(header).to_bytes(8, "little") + header + bytes(4), "not a whole safetensors file")


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    entry = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = b"{" + entry + b"," + entry + b"}"
    assert_refused(tmp_path, len(header).to_bytes(8, "little") + header + bytes(4), "a is in the header twice")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.int64, torch.bool])
def test_a_type_that_is_no_float_of_16_bits_or_more_is_refused_by_name(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"good": torch.ones(2), "odd.one": torch.ones(2).to(dtype)}, path)
    assert_refused(tmp_path, path.read_bytes(), "odd.one", "F32")
    assert read_tensors(path, skip=lambda name: name == "odd.one").keys() == {"good"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.safetensors does not exist"):
        read_tensors(tmp_path / "no.safetensors")


# --- writing and rounding ------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__"),
        st.sampled_from([np.float16, np.float32, np.float64, np.uint16]).flatmap(
            lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0))
        ),
        max_size=6,
    )
)
def test_what_is_written_is_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, given: dict[str, np.ndarray]
) -> None:
    """uint16 stands for bfloat16's bits. The format's own library reads the file, too."""
    given = {name: array.view(BFLOAT16) if array.dtype == np.uint16 else array for name, array in given.items()}
    path = tmp_path_factory.getbasetemp() / "written.safetensors"
    with path.open("wb") as file:
        write_tensors(file, given)
    found = read_tensors(path)
    assert found.keys() == given.keys() == safetensors.torch.load_file(path).keys()
    for name, array in given.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.aligned


@given(bit_patterns)
def test_bfloat16_rounds_as_torch_does(bits: np.ndarray) -> None:
    x = bits.view(np.float32)
    expected = torch.from_numpy(x).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(widen(round_to_bfloat16(x)), expected)


@given(arrays.arrays(np.uint16, st.integers(0, 50)))
def test_widening_a_bfloat16_and_rounding_it_again_changes_nothing(bits: np.ndarray) -> None:
    stored = bits.view(BFLOAT16)
    wide = widen(stored)
    back = round_to_bfloat16(wide)["bfloat16"]
    np.testing.assert_array_equal(back[~np.isnan(wide)], bits[~np.isnan(wide)])
    assert np.isnan(widen(back.view(BFLOAT16))[np.isnan(wide)]).all()


@given(bit_patterns)
def test_float16_rounds_as_torch_does_and_refuses_to_overflow(bits: np.ndarray) -> None:
    x = bits.view(np.float32)
    expected = torch.from_numpy(x).half().numpy()
    if (np.isinf(expected) & np.isfinite(x)).any():
        with pytest.raises(FloatingPointError):
            convert(x, "float16")
    else:
        np.testing.assert_array_equal(convert(x, "float16"), expected)
