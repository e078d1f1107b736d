import contextlib
import copyreg
import io
import mmap
import pickle
import random
import subprocess
import sys
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import hostile_pickles
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minclip.checkpoints.names import is_buffer
from minclip.checkpoints.torch_file import config_of_openai, read_tensors
from minclip.config import Config
from minclip.errors import CheckpointError
from minclip.weights import BFLOAT16

TYPES = {torch.float16: np.float16, torch.bfloat16: BFLOAT16, torch.float32: np.float32, torch.float64: np.float64}
LEGACY = {"zip": False, "legacy": True}


def saved(content: Any, format: str = "zip", protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=not LEGACY[format])
    return file.getvalue()


def read(folder: Path, content: bytes, **options: Any) -> dict[str, np.ndarray]:
    path = folder / "x.bin"
    path.unlink(missing_ok=True)  # what was read from it before is still mapped
    path.write_bytes(content)
    return read_tensors(path, **options)


def bits(tensor: torch.Tensor) -> bytes:
    whole = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
    return whole.view(torch.uint8).numpy().tobytes()


def assert_same(found: dict[str, np.ndarray], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (TYPES[tensor.dtype], tuple(tensor.shape)), name
        assert found[name].tobytes() == bits(tensor), name


def assert_refused(folder: Path, content: bytes, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(folder, content)
    assert_one_line(caught.value, str(folder / "x.bin"), *words)


def assert_one_line(error: CheckpointError, *words: str) -> None:
    message = str(error)
    assert message.isprintable()
    assert len(message) < 700
    for word in words:
        assert word in message


def owner(array: np.ndarray) -> object:
    """What lends an array its memory."""
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


# --- what torch wrote ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", LEGACY)
@pytest.mark.parametrize("dtype", TYPES)
def test_tensors_of_every_type_are_read_only_views_of_the_file(tmp_path: Path, format: str, dtype: torch.dtype) -> None:
    given = {"a": torch.randn(3, 4), "b.c": torch.randn(()), "empty": torch.randn(0, 5), "d": torch.randn(2, 1, 3)}
    given = {name: tensor.to(dtype) for name, tensor in given.items()}
    found = read(tmp_path, saved(given, format))
    assert_same(found, given)
    assert {type(owner(array)) for array in found.values()} == {mmap.mmap}
    assert not any(array.flags.writeable for array in found.values())


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A tensor of any of the four types with any bits in it, cut, turned, repeated, or as it is."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(list(TYPES)))
    raw = np.random.default_rng(draw(st.integers(0, 99))).bytes(int(np.prod(shape)) * dtype.itemsize)
    tensor = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    tensor = tensor.reshape(shape)
    for axis in range(tensor.ndim):
        match draw(st.sampled_from(["whole", "step", "tail", "turn", "repeat"])):
            case "step":
                tensor = tensor[(slice(None),) * axis + (slice(None, None, 2),)]
            case "tail":
                tensor = tensor[(slice(None),) * axis + (slice(1, None),)]
            case "turn":
                tensor = tensor.transpose(0, axis)
            case "repeat":
                tensor = tensor.unsqueeze(0).expand(3, *tensor.shape)
    return nn.Parameter(tensor) if draw(st.booleans()) else tensor


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), tensors(), min_size=1, max_size=5),
    st.sampled_from(list(LEGACY)),
    st.integers(2, 5),
)
def test_any_state_dict_is_read_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, given: dict[str, torch.Tensor], format: str, protocol: int
) -> None:
    given = {f"_{name}": tensor for name, tensor in given.items()}  # begins with none of the prefixes that are cut
    assert_same(read(tmp_path_factory.getbasetemp(), saved(given, format, protocol)), given)


@pytest.mark.parametrize("format", LEGACY)
def test_tensors_that_share_a_storage_share_memory(tmp_path: Path, format: str) -> None:
    whole = torch.randn(6, 4)
    given = {"whole": whole, "turned": whole.T, "rows": whole[2:4], "columns": whole[:, ::3], "tied": whole}
    given["repeated"] = whole[:1, :1].expand(5, 7)
    found = read(tmp_path, saved(given, format))
    assert_same(found, given)
    assert all(np.shares_memory(found["whole"], array) for array in found.values())


@pytest.mark.parametrize("format", LEGACY)
def test_a_modules_state_dict_with_its_metadata_and_hooks_is_read(tmp_path: Path, format: str) -> None:
    module = nn.Sequential(OrderedDict(a=nn.Linear(3, 2), b=nn.LayerNorm(2)))
    state = module.state_dict(keep_vars=True)
    assert isinstance(state, OrderedDict)
    assert state._metadata
    state["a.weight"].note = "an attribute of a parameter, which is saved with it"
    assert_same(read(tmp_path, saved(state, format)), dict(state))


@pytest.mark.parametrize("format", LEGACY)
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_state_dict_among_what_a_training_script_saved_is_found(
    tmp_path: Path, format: str, key: str, prefix: str
) -> None:
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 3, "name": "a run", "loss": torch.tensor(0.5), "scaler": None, "args": {"lr": 1e-3},
        "rng": torch.get_rng_state(), "size": torch.Size([2, 3]),
        "device": torch.device("cpu"), "optimizer": optimizer.state_dict(),
        key: {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()},
    }  # fmt: skip
    assert_same(read(tmp_path, saved(content, format)), module.state_dict())


def test_a_prefix_that_not_all_names_have_stays(tmp_path: Path) -> None:
    given = {"module.a": torch.ones(1), "logit_scale": torch.ones(())}
    assert_same(read(tmp_path, saved(given)), given)


def test_tensors_beside_a_config_are_read(tmp_path: Path) -> None:
    assert_same(read(tmp_path, saved({"a": torch.ones(1), "model": {"width": 3}})), {"a": torch.ones(1)})


@pytest.mark.parametrize("format", LEGACY)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool])
def test_a_type_that_is_no_float_is_refused_by_name_and_skipped_by_name(
    tmp_path: Path, format: str, dtype: torch.dtype
) -> None:
    content = saved({"good": torch.ones(2), "odd.one": torch.ones(2).to(dtype), "more": torch.ones(3)}, format)
    assert_refused(tmp_path, content, "odd.one", "Float")
    assert read(tmp_path, content, skip=lambda name: name == "odd.one").keys() == {"good", "more"}


def test_what_torch_stores_unlike_a_plain_tensor_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, saved({"a": torch.ones(2).to(torch.float8_e4m3fn)}), "torch._utils._rebuild_tensor_v3")
    assert_refused(tmp_path, saved({"a": torch.eye(2).to_sparse()}), "torch._utils._rebuild_sparse_tensor")
    assert_refused(tmp_path, saved({"a": torch._neg_view(torch.ones(2))}), "negation")
    assert_refused(tmp_path, saved(nn.Linear(1, 1)), "torch.nn.modules.linear.Linear")


@pytest.mark.parametrize("name", ["archive", "ViT-B-32", "Modell für Übungen", "模型"])
def test_an_archive_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.bin"
    torch.save({"a": torch.ones(2)}, path)
    assert_same(read_tensors(path), {"a": torch.ones(2)})


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        content = saved({"a": torch.ones(2)})
    finally:
        torch.serialization.set_crc32_options(before)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert not any(entry.CRC for entry in archive.infolist())
    assert_same(read(tmp_path, content), {"a": torch.ones(2)})


def repacked(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return file.getvalue()


def test_an_archive_that_another_program_packed_again_is_read(tmp_path: Path) -> None:
    given = {"a": torch.randn(30, 4), "b": torch.zeros(1000).half(), "c": torch.randn(3).bfloat16()}
    given["d"] = given["a"].T
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        found = read(tmp_path, repacked(saved(given), compression))
        assert_same(found, given)
        assert np.shares_memory(found["a"], found["d"])
    assert_refused(tmp_path, repacked(saved(given), zipfile.ZIP_LZMA), "compressed")


def test_an_archive_with_sizes_of_64_bits_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"a": torch.randn(30, 4), "b": torch.randn(3)}
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 8)
    content = repacked(saved(given))
    assert b"PK\x06\x06" in content  # zip64's own record of the archive's end
    monkeypatch.undo()
    assert_same(read(tmp_path, content), given)


def test_reading_imports_neither_torch_nor_anything_that_the_file_names(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(saved({"a": torch.ones(2)}))
    script = (
        "import sys; from pathlib import Path; from minclip.checkpoints.torch_file import read_tensors\n"
        f"before = set(sys.modules); print(list(read_tensors(Path({str(tmp_path / 'x.bin')!r}))))\n"
        "assert 'torch' not in sys.modules; print(sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["['a']", "[]"]


# --- OpenAI's archives ---------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int, mask: torch.Tensor | None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, 4 * width), c_proj=nn.Linear(4 * width, width)))
        self.ln_2 = nn.LayerNorm(width)
        self.attn_mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.ln_1(x)
        mask = self.attn_mask
        x = x + self.attn(y, y, y, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, mask: torch.Tensor | None = None) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, mask) for _ in range(layers)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resblocks(x)


class Visual(nn.Module):
    def __init__(self, width: int, patch: int, grid: int, layers: int, dim: int) -> None:
        super().__init__()
        self.input_resolution = patch * grid
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, dim))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.conv1(image).flatten(2).permute(2, 0, 1)
        x = torch.cat([self.class_embedding.expand(1, x.shape[1], -1), x]) + self.positional_embedding[:, None]
        return self.ln_post(self.transformer(self.ln_pre(x))[0]) @ self.proj


class OpenAI(nn.Module):
    """A small CLIP whose modules and parameters are named as OpenAI's are."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = Visual(width=128, patch=4, grid=3, layers=2, dim=24)
        self.transformer = Transformer(64, 3, torch.full((9, 9), -torch.inf).triu(1))
        self.token_embedding = nn.Embedding(50, 64)
        self.positional_embedding = nn.Parameter(torch.randn(9, 64))
        self.ln_final = nn.LayerNorm(64)
        self.text_projection = nn.Parameter(torch.randn(64, 24))
        self.logit_scale = nn.Parameter(torch.tensor(2.7))
        for name, number in {"input_resolution": 12, "context_length": 9, "vocab_size": 50}.items():
            self.register_buffer(name, torch.tensor(number))

    def forward(self, image: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = (self.token_embedding(ids) + self.positional_embedding).permute(1, 0, 2)
        x = self.ln_final(self.transformer(x)).permute(1, 0, 2)
        text = x[torch.arange(len(ids)), ids.argmax(-1)] @ self.text_projection
        return self.logit_scale.exp() * self.visual(image), text


@pytest.fixture(scope="module")
def openai() -> OpenAI:
    return OpenAI().eval()


@pytest.fixture(scope="module", params=["traced", "scripted", "state dict"])
def openai_file(openai: OpenAI, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openai") / "ViT-B-32.pt"
    if request.param == "state dict":
        torch.save(openai.state_dict(), path)
    elif request.param == "scripted":
        torch.jit.save(torch.jit.script(openai), str(path))
    else:
        inputs = torch.zeros(2, 3, 12, 12), torch.arange(18).reshape(2, 9)
        with warnings.catch_warnings(action="ignore", category=torch.jit.TracerWarning):
            torch.jit.save(torch.jit.trace(openai, inputs, check_trace=False), str(path))
    return path


def test_an_archive_of_openai_holds_the_tensors_of_its_state_dict(openai: OpenAI, openai_file: Path) -> None:
    expected = {name: tensor for name, tensor in openai.state_dict().items() if not is_buffer(name)}
    assert {"visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight", "logit_scale"} <= expected.keys()
    assert_same(read_tensors(openai_file, skip=is_buffer), expected)


def test_the_config_of_an_archive_of_openai_comes_from_its_shapes(openai_file: Path) -> None:
    content = config_of_openai(read_tensors(openai_file, skip=is_buffer), openai_file.name)
    config = Config.from_dict(content, openai_file.name)
    vision, text = config.vision_config, config.text_config
    assert (config.model_type, config.projection_dim) == ("clip", 24)
    assert (vision.hidden_size, vision.patch_size, vision.image_size) == (128, 4, 12)
    assert (vision.num_hidden_layers, vision.num_attention_heads, vision.intermediate_size) == (2, 2, 512)
    assert (text.hidden_size, text.vocab_size, text.max_position_embeddings) == (64, 50, 9)
    assert (text.num_hidden_layers, text.num_attention_heads, text.intermediate_size) == (3, 1, 256)
    assert vision.hidden_act == text.hidden_act == "quick_gelu"
    assert text.pools_largest_id


@pytest.mark.parametrize(
    ("lost", "instead", "word"),
    [
        ("visual.conv1.weight", {"visual.layer1.0.conv1.weight": (4, 4, 1, 1)}, "ResNet"),
        ("visual.conv1.weight", {}, "visual.conv1.weight is missing"),
        ("visual.conv1.weight", {"visual.conv1.weight": (4,)}, r"visual.conv1.weight is of shape (4,)"),
        ("token_embedding.weight", {}, "token_embedding.weight is missing"),
        ("text_projection", {}, "text_projection is missing"),
        ("transformer.resblocks.0.mlp.c_fc.weight", {}, "transformer.resblocks.0.mlp.c_fc.weight is missing"),
        ("visual.positional_embedding", {"visual.positional_embedding": (9, 128)}, "visual.positional_embedding"),
        ("visual.positional_embedding", {"visual.positional_embedding": (0, 128)}, "visual.positional_embedding"),
    ],
)
def test_an_archive_of_another_model_is_refused(
    openai: OpenAI, lost: str, instead: dict[str, tuple[int, ...]], word: str
) -> None:
    tensors = {name: tensor.detach().numpy() for name, tensor in openai.state_dict().items()}
    del tensors[lost]
    tensors |= {name: np.zeros(shape, np.float32) for name, shape in instead.items()}
    with pytest.raises(CheckpointError) as caught:
        config_of_openai(tensors, "x.pt")
    assert_one_line(caught.value, "x.pt", word)


def test_a_torchscript_archive_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(3, 2), nn.ReLU())), str(path))
    with pytest.raises(CheckpointError) as caught:
        config_of_openai(read_tensors(path), str(path))
    assert_one_line(caught.value, str(path), "visual.conv1.weight is missing")


# --- hostile files -------------------------------------------------------------------------------------------------


@pytest.fixture
def extension() -> Any:
    copyreg.add_extension("os", "system", hostile_pickles.EXTENSION)
    yield
    copyreg.remove_extension("os", "system", hostile_pickles.EXTENSION)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("row", hostile_pickles.executing(Path()))
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path: Path, row: str) -> None:
    canary = tmp_path / "canary"
    pickled, word = hostile_pickles.executing(canary)[row]
    for wrap in hostile_pickles.WRAPPINGS.values():
        assert_refused(tmp_path, wrap(pickled), word)
    time.sleep(0.1)  # a process that was started would need a moment
    assert not canary.exists()
    with contextlib.suppress(TypeError):  # where the command's result is no dict's item; and what it would have done:
        pickle.loads(pickled)
    for _ in range(100):
        time.sleep(0 if canary.exists() else 0.1)
    assert canary.exists()


@pytest.mark.parametrize("format", LEGACY)
@pytest.mark.parametrize("row", hostile_pickles.odd())
def test_a_pickle_that_makes_no_sense_is_refused(tmp_path: Path, row: str, format: str) -> None:
    assert_refused(tmp_path, hostile_pickles.WRAPPINGS[format](hostile_pickles.odd()[row]))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("row", hostile_pickles.bombs())
def test_a_pickle_that_would_exhaust_its_reader_is_refused_quickly_and_in_little_memory(
    tmp_path: Path, row: str
) -> None:
    content = hostile_pickles.wrapped_as_zip(hostile_pickles.bombs()[row])
    before, begun = reset_peak(), time.process_time()
    assert_refused(tmp_path, content)
    assert time.process_time() - begun < 20
    assert peak() - before < 256 << 20


def reset_peak() -> int:
    """Begin to measure the peak of this process's memory anew. Returns what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def one_tensor(count: int) -> bytes:
    """A pickle of a dict with one float32 tensor of so many numbers."""
    file = saved({"a": torch.zeros(1).expand(count)})
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        pickled = archive.read("archive/data.pkl")
    size = b"J" + count.to_bytes(4, "little")
    return pickled.replace(b"cpuq\x05K\x01t", b"cpuq\x05" + size + b"t").replace(b"K\x00\x85", b"K\x01\x85")


def test_a_compressed_entry_that_unpacks_to_gigabytes_is_refused_in_little_memory(tmp_path: Path) -> None:
    path, size = tmp_path / "x.bin", 1 << 30
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", one_tensor(size // 4))
        with archive.open("archive/data/0", "w") as entry:
            for _ in range(size >> 24):
                entry.write(bytes(1 << 24))
    assert path.stat().st_size < 10 << 20
    before = reset_peak()
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert_one_line(caught.value, str(path), "out of all proportion")
    assert peak() - before < 64 << 20


def test_an_entry_that_unpacks_to_more_than_it_says_is_refused_in_little_memory(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", one_tensor(1))
        archive.writestr("archive/data/0", bytes(256 << 20))
    content = bytearray(file.getvalue())
    place = content.rindex(b"archive/data/0") - 22  # where the archive's list says how long the entry is
    assert int.from_bytes(content[place : place + 4], "little") == 256 << 20
    content[place : place + 4] = (4).to_bytes(4, "little")
    before = reset_peak()
    assert_refused(tmp_path, bytes(content), "archive/data/0")
    assert peak() - before < 64 << 20


def test_a_damaged_pickle_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    content = bytearray(saved({"weight": torch.ones(2)}))
    begin = content.index(b"\x80\x02}")
    for place in range(begin, begin + 150):
        content[place] ^= 1
        assert_refused(tmp_path, bytes(content), "checksum")
        content[place] ^= 1


@pytest.mark.parametrize("format", LEGACY)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, format: str) -> None:
    content = saved({"weight": torch.arange(12.0).reshape(3, 4), "half": torch.ones(2).half()}, format)
    for length in range(len(content)):
        assert_refused(tmp_path, content[:length])


def big_endian(format: str) -> bytes:
    content = saved({"a": torch.ones(2)}, format)
    if format == "legacy":
        return content.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, b"big" if "byteorder" in entry.filename else old.read(entry))
    return file.getvalue()


def zip_of(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>", "b'<!DOCTYPE ht'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "b'version http"),
        (b"\x18\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}   ', "begins with"),
        (bytes(1000), "begins with"),
        (bytes(257) + b"ustar" + bytes(1000), "tar archive"),
        (pickle.dumps({"a": 1}), "begins with"),
        (pickle.dumps({"a": np.ones(3)}), "numpy"),
        (zip_of(word=b"document"), "no data.pkl"),
        (zip_of(), "data.pkl"),
        (b"PK\x03\x04 and no more", "not a whole torch file"),
        (big_endian("zip"), "big-endian"),
        (big_endian("legacy"), "big-endian"),
        (saved({}), "no tensors"),
        (saved([torch.ones(2)]), "no tensors"),
        (saved(torch.ones(2)), "no tensors"),
        (saved({"epoch": 1, "optimizer": {"a": torch.ones(2)}}), "no tensors"),
        (saved({"a": torch.ones(2), 3: torch.ones(2)}), "instead of a name"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    assert_refused(tmp_path, content, word)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path, word in ((tmp_path / "no.bin", "does not exist"), (tmp_path, "directory")):
        with pytest.raises(CheckpointError) as caught:
            read_tensors(path)
        assert_one_line(caught.value, str(path), word)


# --- mutated files -------------------------------------------------------------------------------------------------


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three changes, mostly where the structure is: a byte, a number, a piece, the end."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place = rng.randrange(len(out))
        match rng.randrange(7):
            case 0 | 1:
                out[place] ^= 1 << rng.randrange(8)
            case 2:
                out[place] = rng.choice(b"\x00\xff\x7f\x80.()0R\x81\x85bcQuqhtKJX")
            case 3:
                width = rng.choice([2, 4, 8])
                out[place : place + width] = rng.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]).to_bytes(
                    8, "little"
                )[:width]
            case 4:
                del out[place : place + rng.choice([1, 2, 8, 64])]
            case 5:
                other = rng.randrange(len(out))
                out[place:place] = out[other : other + rng.choice([1, 4, 30])]
            case 6:
                if rng.random() < 0.3:
                    del out[place:]
        if not out:
            break
    return bytes(out)


def originals() -> dict[str, bytes]:
    torch.manual_seed(0)
    whole = torch.randn(4, 3)
    state = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)).state_dict()
    content = {"epoch": 1, "state_dict": {**state, "turned": whole.T, "cut": whole[1:], "half": torch.ones(3).half()}}
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))), script)
    return {
        "zip": saved(content),
        "protocol 4": saved(content, protocol=4),
        "legacy": saved(content, "legacy"),
        "compressed": repacked(saved(content), zipfile.ZIP_DEFLATED),
        "script": script.getvalue(),
    }


def check_mutants(folder: Path, kind: str, count: int) -> None:
    """A mutated file is refused in one line, or read right.

    Right is, for an archive, what was in it but for the bytes that were changed, because the pickle has a checksum and
    entries have their place; for the older format, which has neither, what torch reads from the same bytes.
    """
    content = originals()[kind]
    expected = read(folder, content)
    rng = random.Random(kind)
    refused = 0
    for _ in range(count):
        mutant = mutated(content, rng)
        try:
            found = read(folder, mutant)
        except CheckpointError as error:
            assert_one_line(error, str(folder / "x.bin"))
            refused += 1
            continue
        if kind == "legacy":
            try:
                with warnings.catch_warnings(action="ignore"):
                    loaded = torch.load(io.BytesIO(mutant), weights_only=True)
            except Exception:  # torch has many, and refuses what is of no use here as well
                continue
            state = loaded["state_dict"] if isinstance(loaded.get("state_dict"), dict) else loaded
            assert_same(found, {name: value for name, value in state.items() if isinstance(value, torch.Tensor)})
        else:
            assert found.keys() == expected.keys()
            for name, array in found.items():
                assert (array.shape, array.dtype) == (expected[name].shape, expected[name].dtype)
                changed = np.frombuffer(array.tobytes(), np.uint8) != np.frombuffer(expected[name].tobytes(), np.uint8)
                assert changed.sum() <= (0 if kind == "compressed" else 3 * 8)
    assert count // 10 < refused < count


@pytest.mark.parametrize("kind", ["zip", "protocol 4", "legacy", "compressed", "script"])
def test_a_mutated_file_is_refused_or_read_right(tmp_path: Path, kind: str) -> None:
    check_mutants(tmp_path, kind, 200)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["zip", "protocol 4", "legacy", "compressed", "script"])
def test_thousands_of_mutated_files_are_refused_or_read_right(tmp_path: Path, kind: str) -> None:
    check_mutants(tmp_path, kind, 10_000)
