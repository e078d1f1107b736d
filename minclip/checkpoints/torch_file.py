"""What is in a torch file (.bin, .pt, .pth), read without torch and without running anything that the file says.

A torch file is a pickle and storages. The pickle (see `pickle_machine`) describes a dict of tensors; each of them is a
window on a storage, which is a run of numbers of one type: where it begins, its shape, and how far apart neighbours
lie along each axis. Two tensors may share a storage, and a transposed one is the same storage with its strides swapped.
The storages lie as plain numbers outside of the pickle, which mentions them by persistent ids such as
("storage", torch.FloatStorage, "0", "cpu", 768).

There are two ways to put both in one file:

- since torch 1.6, a zip archive without compression: `archive/data.pkl`, and `archive/data/0`, `archive/data/1`, ...
  TorchScript archives, as OpenAI published CLIP, are the same with a program in `code/`, which is never looked at;
  their pickle describes a tree of modules instead of a dict.
- before that, one after another: pickles of a magic number, of the protocol's version, of facts about the machine, of
  the tensors, of the storages' keys; then each storage, eight bytes for its length first.
"""

from __future__ import annotations

import functools
import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minclip.checkpoints.pickle_machine import Name, Record, RefusedError, run
from minclip.errors import CheckpointError
from minclip.files import one_line
from minclip.weights import BFLOAT16

READABLE: dict[str, np.dtype] = {
    "Double": np.dtype("<f8"),
    "Float": np.dtype("<f4"),
    "Half": np.dtype("<f2"),
    "BFloat16": BFLOAT16,
}
ITEM_SIZES = {kind: dtype.itemsize for kind, dtype in READABLE.items()} | {
    "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1, "ComplexFloat": 8, "ComplexDouble": 16,
}  # fmt: skip
MAGIC = 0x1950A86A20F9469CFC6C  # the number that files before torch 1.6 begin with
PROTOCOL = 1001
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")  # where training scripts keep the state dict
PREFIXES = ("module.", "_orig_mod.", "module.")  # DistributedDataParallel and torch.compile put these before names

BIG_ENDIAN = "it was written on a big-endian machine; load it with torch and save the tensors as safetensors"
ENCRYPTED, UTF_8 = 0x1, 0x800  # flags of a zip archive's entry

PIECE_LIMIT = 1 << 23  # bytes of a pickle, or of an archive's list of entries; a large model's have under a megabyte
TREE_LIMIT = 100_000  # modules and tensors of a TorchScript archive
EXPANDED_LIMIT = 1 << 30  # bytes of a tensor that repeats its storage by strides of 0
UNPACKED_LIMIT = 1 << 24  # bytes of compressed entries, or eight times the file; weights compress to a half at best

DAMAGE = (
    OSError, ValueError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, NotImplementedError,
)  # fmt: skip


def read_tensors(path: Path, skip: Callable[[str], bool] = lambda name: False) -> dict[str, np.ndarray]:
    """The tensors of a torch file by name, as read-only views of its memory map; those that `skip` names are left out.

    The names are those of the file's state dict, which may lie under "state_dict" or "model" beside an optimizer's;
    `module.` before all of them is taken off. A bfloat16 tensor comes as an array of `BFLOAT16`. The pickle's checksum
    is verified; those of storages are not, which would read the whole file, but their places and sizes are.
    Raises CheckpointError, naming the file, where it is absent, damaged, or asks for more than tensors need, and naming
    the tensor, where its type is no floating type of 16 bits or more or it does not lie in its storage.
    """
    try:
        with _Bounded(path) as file:
            # copy-on-write, so that a module trained on views of the map never writes the file
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)).toreadonly()
            root, storage_bytes = _open_zip(file, data) if bytes(data[:2]) == b"PK" else _open_legacy(file, data)
            tensors = {name: tensor for name, tensor in _named(root).items() if not skip(name)}
            return {name: _array(name, tensor, storage_bytes) for name, tensor in tensors.items()}
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except RefusedError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except DAMAGE as error:
        problem = f"{one_line(error):.300}"
        raise CheckpointError(f"{path} is not a whole torch file ({problem}); download or save it again") from None


class _Bounded(io.FileIO):
    """A file that is read in small pieces only: an archive's list of entries may claim to be as long as the file."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > PIECE_LIMIT:
            raise ValueError(f"its list of entries has more than {PIECE_LIMIT} bytes")
        return super().read(PIECE_LIMIT if size is None or size < 0 else size)


# --- what the names in the pickle mean -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of `count` numbers, kept outside of the pickle under a key."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A window on a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _storage(persistent_id: Any) -> Storage:
    if not isinstance(persistent_id, tuple) or not 5 <= len(persistent_id) <= 6 or persistent_id[0] != "storage":
        raise ValueError("its pickle describes something beside it that is no storage")
    _, name, key, _location, count, *view = persistent_id
    kind = name.text.removeprefix("torch.").removesuffix("Storage") if isinstance(name, Name) else ""
    if kind not in ITEM_SIZES or not isinstance(key, str) or not _is_count(count):
        raise ValueError("its pickle describes a storage by something else than a type, a key and a count")
    if view not in ([], [None]):
        raise RefusedError("it has views of storages, as torch wrote before 0.4; load it with torch and save it again")
    return Storage(kind, key, count)


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any = None, _hooks: Any = None, metadata: Any = None
) -> Tensor:
    numbers = [offset, *shape, *strides]
    if not isinstance(storage, Storage) or not all(map(_is_count, numbers)) or not len(shape) == len(strides) <= 64:
        raise ValueError("its pickle describes a tensor by something else than sizes and strides of at least 0")
    if metadata:
        raise RefusedError("it has a tensor with a pending negation; resolve it with torch and save it again")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and number >= 0


def _first(value: Any, *_rest: Any) -> Any:
    return value


NAMES: dict[str, Callable[..., Any] | None] = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": tuple,
    "torch.device": lambda *place: None,
    **{f"torch.{kind}Storage": None for kind in ITEM_SIZES},
    # TorchScript says what is in a list or a dict before it shows it
    "torch.jit._pickle.restore_type_tag": _first,
    **{f"torch.jit._pickle.build_{kind}list": _first for kind in ("int", "double", "bool", "tensor")},
}


# --- the two kinds of file -----------------------------------------------------------------------------------------

Opened = tuple[Any, Callable[[Storage], memoryview]]  # what the pickle describes; the bytes of a storage


def _open_zip(file: io.FileIO, data: memoryview) -> Opened:
    """A zip archive: a list of entries at its end; before each entry's bytes a header that repeats its name."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise ValueError("its archive has two entries of one name")
    pickles = [name for name in entries if name.count("/") <= 1 and name.split("/")[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise RefusedError("it is a zip archive, but not one that torch wrote: there is no data.pkl in it")
    prefix = pickles[0].removesuffix("data.pkl")
    order, program = entries.get(f"{prefix}byteorder"), entries[pickles[0]]
    unpacked = sum(entry.file_size for entry in entries.values() if entry.compress_type != zipfile.ZIP_STORED)
    if unpacked > max(UNPACKED_LIMIT, 8 * len(data)):
        raise RefusedError(f"it unpacks to {unpacked} bytes, out of all proportion to its own {len(data)}")
    if program.file_size > PIECE_LIMIT:
        raise RefusedError(f"its pickle has {program.file_size} bytes, more than any model's")
    if order is not None and bytes(_content(file, data, order)) == b"big":
        raise RefusedError(BIG_ENDIAN)

    @functools.cache  # a compressed entry that two tensors share is unpacked once
    def entry_bytes(name: str, size: int) -> memoryview:
        if name not in entries or entries[name].file_size != size:
            found = f"{entries[name].file_size} bytes" if name in entries else "not there"
            raise ValueError(f"{name!a:.100} should be {size} bytes and is {found}")
        return _content(file, data, entries[name])

    def storage_bytes(storage: Storage) -> memoryview:
        return entry_bytes(f"{prefix}data/{storage.key}", storage.count * ITEM_SIZES[storage.kind])

    _verify(program, _content(file, data, program))
    return run(io.BytesIO(_content(file, data, program)), NAMES, _storage), storage_bytes


def _content(file: io.FileIO, data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry: a view of the file, or unpacked and verified.

    Headers are read from the file, not from its map, which would keep the pages around each of them in memory.
    """
    name = entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF_8 else "cp437")
    file.seek(entry.header_offset)
    signature, method, name_length, extra_length = struct.unpack("<4s4xH16xHH", file.read(30))
    begin = entry.header_offset + 30 + name_length + extra_length
    end = begin + entry.compress_size
    found = file.read(len(name))
    file.seek(end)
    follows = file.read(2)  # a further header, whose kind is of no interest here
    here = (signature, method, found, follows)
    if here != (b"PK\3\4", entry.compress_type, name, b"PK") or entry.flag_bits & ENCRYPTED:
        raise ValueError(f"{entry.filename!a:.100} does not lie where its list of entries says, or is encrypted")
    packed = data[begin:end]
    if entry.compress_type == zipfile.ZIP_STORED:
        if len(packed) != entry.file_size:
            raise ValueError(f"{entry.filename!a:.100} should be {entry.file_size} bytes and is {len(packed)}")
        return packed
    if entry.compress_type != zipfile.ZIP_DEFLATED:
        raise RefusedError(f"{entry.filename!a:.100} is compressed in an unusual way; torch itself compresses nothing")
    content = memoryview(zlib.decompressobj(-15).decompress(packed, entry.file_size + 1))
    _verify(entry, content)
    return content


def _verify(entry: zipfile.ZipInfo, content: memoryview) -> None:
    """Compare checksum and length; torch, which compresses nothing, writes 0 where it was asked for no checksum."""
    unchecked = entry.CRC == 0 and entry.compress_type == zipfile.ZIP_STORED
    if len(content) != entry.file_size or (zlib.crc32(content) != entry.CRC and not unchecked):
        raise ValueError(f"{entry.filename!a:.100} is damaged: its checksum differs")


def _open_legacy(file: io.FileIO, data: memoryview) -> Opened:
    """Five pickles, then each storage's length and numbers in the order of the last pickle's keys."""
    if bytes(data[257:262]) == b"ustar":
        raise RefusedError("it is a tar archive, as torch wrote before 0.1.10; load it with torch and save it again")
    storages: dict[str, Storage] = {}

    def load(persistent_id: Any) -> Storage:
        storage = _storage(persistent_id)
        first = storages.setdefault(storage.key, storage)
        if (first.kind, first.count) != (storage.kind, storage.count):
            raise ValueError(f"storage {storage.key!a:.100} is described in two ways")
        return first

    pickles = io.BytesIO(file.read(PIECE_LIMIT))
    try:
        is_torch = run(pickles, NAMES) == MAGIC and run(pickles, NAMES) == PROTOCOL
    except RefusedError:
        raise
    except ValueError:
        is_torch = False
    if not is_torch:
        raise RefusedError(f"it begins with {bytes(data[:12])!r}, which no file of torch.save does; download it again")
    machine = run(pickles, NAMES)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise RefusedError(BIG_ENDIAN)
    root, keys = run(pickles, NAMES, load), run(pickles, NAMES)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise ValueError("its list of storages does not fit its tensors")
    places: dict[str, memoryview] = {}
    begin = pickles.tell()
    for key in keys:
        file.seek(begin)
        count, begin = int.from_bytes(file.read(8), "little"), begin + 8
        end = begin + count * ITEM_SIZES[storages[key].kind]
        if count != storages[key].count or end > len(data) or key in places:
            raise ValueError(f"storage {key!a:.100} should hold {storages[key].count} numbers, and does not")
        places[key], begin = data[begin:end], end

    def storage_bytes(storage: Storage) -> memoryview:
        if storage.key not in places:
            raise ValueError(f"storage {storage.key!a:.100} is not there")
        return places[storage.key]

    return root, storage_bytes


# --- from what the pickle describes to arrays ----------------------------------------------------------------------


def _named(root: Any) -> dict[str, Tensor]:
    """The tensors that the pickle describes, by name: those of a tree of modules, or of a state dict."""
    tensors = _module_tree(root) if isinstance(root, Record) else _state_dict(root)
    if not tensors:
        raise RefusedError(f"it holds no tensors by name; expected a state dict, alone or under {', '.join(WRAPPERS)}")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _state_dict(content: Any, depth: int = 3) -> dict[str, Tensor]:
    """The tensors of a dict, or of one within it, which goes first: a loss beside a state dict is a tensor, too."""
    if not isinstance(content, dict):
        return {}
    for key in WRAPPERS if depth else ():
        if tensors := _state_dict(content.get(key), depth - 1):
            return tensors
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not all(isinstance(name, str) for name in tensors):
        raise ValueError("its state dict has a tensor under a number instead of a name")
    return tensors


def _module_tree(root: Record) -> dict[str, Tensor]:
    """What the modules of a TorchScript archive hold, under dotted names such as visual.conv1.weight."""
    found: dict[str, Tensor] = {}
    modules = [("", root)]
    for prefix, module in modules:  # grows as submodules are found
        for name, value in module.attributes.items():
            if isinstance(value, Record):
                modules.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            if len(modules) + len(found) > TREE_LIMIT or len(prefix) > 1000:
                raise ValueError(f"its modules are nested without end, or more than {TREE_LIMIT}")
    return found


def _array(name: str, tensor: Tensor, storage_bytes: Callable[[Storage], memoryview]) -> np.ndarray:
    """A tensor as a view of its storage's bytes, if it lies within them."""
    storage, shape = tensor.storage, tensor.shape
    if storage.kind not in READABLE:
        raise RefusedError(
            f"tensor {name!a:.200} is stored as {storage.kind}, and minclip reads {', '.join(READABLE)}; "
            "save the weights in one of these types"
        )
    dtype, content = READABLE[storage.kind], storage_bytes(storage)
    if 0 in shape:
        return np.ndarray(shape, dtype, content)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(shape, tensor.strides, strict=True))
    if last >= storage.count:
        raise ValueError(f"tensor {name!a:.200} reaches to number {last} of a storage of {storage.count}")
    if math.prod(shape) > max(storage.count, EXPANDED_LIMIT // dtype.itemsize):
        raise ValueError(f"tensor {name!a:.200} repeats a storage of {storage.count} numbers beyond measure")
    strides = [0 if n == 1 else stride * dtype.itemsize for n, stride in zip(shape, tensor.strides, strict=True)]
    return np.ndarray(shape, dtype, content, tensor.offset * dtype.itemsize, strides)


# --- OpenAI's archives ---------------------------------------------------------------------------------------------


def config_of_openai(tensors: Mapping[str, np.ndarray], source: str = "the file") -> dict[str, Any]:
    """The content of a config.json for a CLIP that lies alone in a file, as OpenAI published it, from its shapes.

    tensors: under OpenAI's names. What shapes cannot say is the same in all of OpenAI's models: heads of width 64,
    QuickGELU, and texts pooled at their largest id, which is what an eos_token_id of 2 means.
    Raises CheckpointError, one line that begins with `source`, for a ResNet or another model.
    """
    if any(name.startswith("visual.layer1.") for name in tensors):
        raise CheckpointError(f"{source} holds a CLIP with a ResNet, which minclip has not; use one with a ViT")

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != rank:
            found = f"of shape {tensors[name].shape}" if name in tensors else "missing"
            raise CheckpointError(
                f"{source} is not one of OpenAI's CLIP models: {name} is {found}; "
                "for other models give a folder with a config.json"
            )
        return tensors[name].shape

    def tower(prefix: str, width: int) -> dict[str, Any]:
        block = f"{prefix}transformer.resblocks."
        layers = len({name.removeprefix(block).split(".")[0] for name in tensors if name.startswith(block)})
        ffn, _ = shape(f"{block}0.mlp.c_fc.weight", 2)
        return {
            "hidden_size": width,
            "intermediate_size": ffn,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "hidden_act": "quick_gelu",
        }

    vision_width, _, _, patch = shape("visual.conv1.weight", 4)
    positions, _ = shape("visual.positional_embedding", 2)
    context, text_width = shape("positional_embedding", 2)
    vocab, _ = shape("token_embedding.weight", 2)
    _, embed_dim = shape("text_projection", 2)
    grid = math.isqrt(max(positions - 1, 0))
    if positions != grid**2 + 1:
        raise CheckpointError(
            f"{source}: visual.positional_embedding has {positions} rows, not one and a square of them"
        )
    vision = {"image_size": patch * grid, "patch_size": patch}
    text = {"vocab_size": vocab, "max_position_embeddings": context, "eos_token_id": 2}
    return {
        "model_type": "clip",
        "projection_dim": embed_dim,
        "vision_config": vision | tower("visual.", vision_width),
        "text_config": text | tower("", text_width),
    }
