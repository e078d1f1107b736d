"""Pickles that run a command when Python's own reader opens them, and pickles that are made to exhaust whoever reads.

Written opcode by opcode, because no pickler writes most of them. `wrapped_as_zip` and `wrapped_as_legacy` put a pickle
where torch would have put its own.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

MAGIC, PROTOCOL, MACHINE = 0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}
EXTENSION = 0xAB  # the code under which `copyreg` knows os.system while the rows that use one are tried
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"ctorch\nFloatStorage\n"


def text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def number(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8b" + struct.pack("<I", size) + value.to_bytes(size, "little", signed=True)


def executing(canary: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that write the canary file when `pickle.loads` opens them, each with the word of its error."""
    touch = text(f"touch {canary}")
    python = text(f"open({str(canary)!r}, 'w').close()")
    mapped = b"cbuiltins\nmap\n(cos\nsystem\n]" + touch + b"at"  # runs when the dict is filled from it
    ordered = b"ccollections\nOrderedDict\n)R"
    return {
        "GLOBAL os.system": (b"cos\nsystem\n" + touch + b"\x85R.", "os.system"),
        "GLOBAL posix.system": (b"cposix\nsystem\n" + touch + b"\x85R.", "posix.system"),
        "GLOBAL builtins.eval": (b"cbuiltins\neval\n" + python + b"\x85R.", "builtins.eval"),
        "GLOBAL builtins.exec": (b"cbuiltins\nexec\n" + python + b"\x85R.", "builtins.exec"),
        "Python 2's name": (b"c__builtin__\neval\n" + python + b"\x85R.", "__builtin__.eval"),
        "STACK_GLOBAL": (b"\x80\x04" + text("os") + text("system") + b"\x93" + touch + b"\x85R.", "os.system"),
        "STACK_GLOBAL through the memo": (
            b"\x80\x04" + text("system") + b"\x94" + text("os") + b"\x94h\x01h\x00\x93" + touch + b"\x85R.",
            "os.system",
        ),
        "STACK_GLOBAL into a known name": (
            b"\x80\x04" + text("torch._utils") + text("sys.modules.get") + b"\x93" + text("os") + b"\x85R0"
            b"cos\nsystem\n" + touch + b"\x85R.", "torch._utils.sys.modules.get",
        ),
        "INST": (b"(" + touch + b"ios\nsystem\n.", "os.system"),
        "OBJ": (b"(csubprocess\nPopen\n]" + text("touch") + b"a" + text(str(canary)) + b"ao.", "subprocess.Popen"),
        "NEWOBJ": (b"ccollections\nOrderedDict\n" + mapped + b"\x81\x85R.", "builtins.map"),
        "NEWOBJ_EX": (b"\x80\x04ccollections\nOrderedDict\n" + mapped + b"}\x92\x85R.", "builtins.map"),
        "BUILD by __setstate__": (
            ordered + b"}" + text("__setstate__") + b"cos\nsystem\nsb" + touch + b"b.", "os.system",
        ),
        "EXT1": (b"\x82" + bytes([EXTENSION]) + touch + b"\x85R.", "EXT1"),
        "EXT2": (b"\x83" + struct.pack("<H", EXTENSION) + touch + b"\x85R.", "EXT2"),
        "EXT4": (b"\x84" + struct.pack("<I", EXTENSION) + touch + b"\x85R.", "EXT4"),
        "in what is not used": (b"cos\nsystem\n" + touch + b"\x85R0}.", "os.system"),
        "in a dict's key": (b"}cos\nsystem\n" + touch + b"\x85RNs.", "os.system"),
        "getattr": (
            b"cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"\x86R"
            + touch + b"\x85R.", "builtins.getattr",
        ),
    }  # fmt: skip


def odd() -> dict[str, bytes]:
    """Pickles that no Python need run to be wrong: known names with odd arguments, and opcodes where none belong."""
    storage = b"(" + text("storage") + STORAGE + text("0") + text("cpu") + b"K\x04tQ"
    one = b"K\x01\x85"

    def tensor(*arguments: bytes) -> bytes:
        return b"}" + text("a") + TENSOR + b"(" + b"".join(arguments) + b"tRs."

    def persistent(*parts: bytes) -> bytes:
        return tensor(b"(" + b"".join(parts) + b"tQ", b"K\x00", one, one)

    huge, negative = number(2**100), b"J\xff\xff\xff\xff"
    return {
        "a tensor of nothing": tensor(),
        "a tensor of numbers": tensor(b"K\x01", b"K\x01", b"K\x01", b"K\x01"),
        "a tensor whose storage is a name": tensor(STORAGE, b"K\x00", one, one),
        "a tensor of a tensor": tensor(TENSOR + b"(" + storage + b"K\x00" + one + one + b"tR", b"K\x00", one, one),
        "a size that is text": tensor(storage, b"K\x00", text("1"), one),
        "a size of floats": tensor(storage, b"K\x00", b"G?\xf0\0\0\0\0\0\0\x85", one),
        "a negative offset": tensor(storage, negative, one, one),
        "a negative size": tensor(storage, b"K\x00", negative + b"\x85", one),
        "a negative stride": tensor(storage, b"K\x03", b"K\x02\x85", negative + b"\x85"),
        "an offset beyond": tensor(storage, b"K\x04", one, one),
        "a huge offset": tensor(storage, huge, one, one),
        "a stride beyond": tensor(storage, b"K\x00", b"K\x02\x85", b"K\x04\x85"),
        "a huge stride": tensor(storage, b"K\x00", b"K\x02\x85", huge + b"\x85"),
        "a huge size": tensor(storage, b"K\x00", huge + b"\x85", one),
        "a huge size repeated": tensor(storage, b"K\x00", huge + b"\x85", b"K\x00\x85"),
        "a huge size beside a size of 0": tensor(storage, b"K\x00", huge + b"K\x00\x86", b"K\x01K\x01\x86"),
        "sizes whose product wraps around": tensor(
            storage, b"K\x00", number(2**32) + number(2**32) + b"\x86", b"K\x00K\x00\x86"
        ),
        "fewer strides than sizes": tensor(storage, b"K\x00", b"K\x01K\x01\x86", one),
        "a thousand axes": tensor(storage, b"K\x00", b"(" + b"K\x01" * 1000 + b"t", b"(" + b"K\x01" * 1000 + b"t"),
        "a tensor that is stored negated": tensor(
            storage, b"K\x00", one, one, b"\x89", b"}", b"}" + text("neg") + b"\x88s"
        ),
        "a persistent id of nothing": persistent(),
        "a persistent id of another kind": persistent(text("module"), STORAGE, text("0"), text("cpu"), b"K\x04"),
        "a storage of no known type": persistent(
            text("storage"), b"ccollections\nOrderedDict\n", text("0"), text("cpu"), b"K\x04"
        ),
        "a storage whose key is a number": persistent(text("storage"), STORAGE, b"K\x00", text("cpu"), b"K\x04"),
        "a storage that is not there": persistent(text("storage"), STORAGE, text("9"), text("cpu"), b"K\x04"),
        "a storage outside": persistent(text("storage"), STORAGE, text("../../version"), text("cpu"), b"K\x04"),
        "a storage of fewer than none": persistent(text("storage"), STORAGE, text("0"), text("cpu"), negative),
        "a storage that is short": persistent(text("storage"), STORAGE, text("0"), text("cpu"), b"K\x05"),
        "a storage of a huge count": persistent(text("storage"), STORAGE, text("0"), text("cpu"), huge),
        "a view of a storage": persistent(
            text("storage"), STORAGE, text("0"), text("cpu"), b"K\x04", text("1") + b"K\x00K\x01\x87"
        ),
        "PERSID": b"Pos.system\n.",
        "a storage that is called": STORAGE + b")R.",
        "a dict that is called": b"})R.",
        "a call with a list": b"ccollections\nOrderedDict\n]R.",
        "OrderedDict with arguments": b"ccollections\nOrderedDict\n]\x85R.",
        "OrderedDict's method": b"ccollections\nOrderedDict.__init__\n)R.",
        "attributes for a list": b"]}b.",
        "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
        "items for a tuple": b")NNs.",
        "items for a list": b"]NNs.",
        "an odd number of items": b"}(Nu.",
        "a list's method for a dict": b"}Na.",
        "a mark for a value": b"}" + text("a") + b"(s.",
        "an empty stack": b".",
        "no mark": b"t.",
        "a memo that is empty": b"h\x00.",
        "no end": b"}",
        "an opcode that there is not": b"\xff",
        "a name that merely begins like TorchScript's": b"c__torch__x\nM\n)\x81.",
        "a list": b"].",
        "nothing": b"N.",
        "no tensor": b"}" + text("epoch") + b"K\x01s.",
        "a module without tensors": b"c__torch__\nM\n)\x81}b.",
        "a module whose attributes are a list": b"c__torch__\nM\n)\x81]b.",
        "a tensor without a name": b"}K\x01" + tensor(storage, b"K\x00", one, one)[7:],
        "a name that breaks lines and writes in red": b"c\x1b[31mos\rsystem\nx\n.",
    }  # fmt: skip


def bombs() -> dict[str, bytes]:
    """Pickles of some bytes up to some megabytes that cost time or memory without bounds where nothing bounds it."""
    doubled = b"N\x85" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(200))  # a tuple of itself twice, 200 times
    modules = b"c__torch__\nM\n)\x81}b"
    for i in range(40):  # the module before, twice
        modules += b"q%cc__torch__\nM\n)\x81}%sh%cs%sh%csb" % (i, text("a"), i, text("b"), i)
    return {
        "a billion laughs": b"}" + text("a") + doubled + b"s.",
        "a billion laughs for a key": b"}" + doubled + b"Ns.",
        "a billion laughs for an argument": TENSOR + b"(" + doubled * 4 + b"tR.",
        "a billion laughs for a persistent id": doubled + b"Q.",
        "a billion laughs for attributes": b"}" + doubled + b"b.",
        "a billion modules": modules + b".",
        "a module within itself": b"c__torch__\nM\n)\x81q\0}" + text("a") + b"h\0sb.",
        "a state dict within itself": b"}q\0" + text("state_dict") + b"h\0s.",
        "a list within itself": b"]q\0h\0a.",
        "lists in lists": b"]" * 200_000 + b"a" * 199_999 + b".",
        "tuples in tuples": b")" + b"\x85" * 200_000 + b".",
        "dicts in dicts": (b"}" + text("a")) * 100_000 + b"N" + b"s" * 100_000 + b".",
        "modules in modules": (b"c__torch__\nM\n)\x81}" + text("a")) * 50_000 + b"N" + b"sb" * 50_000 + b".",
        "a huge number": number(2 ** (8 * 4_000_000)) + b".",
        "a number of many digits": b"L" + b"9" * 5000 + b"L\n.",
        "a number of very many digits": b"I" + b"9" * 4_000_000 + b"\n.",
        "keys that collide": b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(100, 50_000)) + b"u.",
        "many operations": b"N" * 4_000_000 + b".",
        "many marks": b"(" * 4_000_000 + b".",
        "a text that is longer than the file": b"\x8d" + struct.pack("<Q", 2**62) + b"a.",
        "a text longer than memory's addresses": b"\x8d" + struct.pack("<Q", 2**64 - 1) + b"a.",
        "a frame that is longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"}.",
        "a memo with a huge index": b"}r\xff\xff\xff\xff.",
        "a name of megabytes": b"c" + b"a" * 4_000_000 + b"\nx\n.",
        "a dotted name of megabytes": b"}" + text("module." * 1_000_000) + b"Ns.",
    }  # fmt: skip


def wrapped_as_zip(pickled: bytes, storages: dict[str, bytes] | None = None, name: str = "archive") -> bytes:
    """An archive as torch >= 1.6 writes it, with this pickle and these storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}/data.pkl", pickled)
        archive.writestr(f"{name}/byteorder", "little")
        for key, content in (storages or {"0": bytes(16)}).items():
            archive.writestr(f"{name}/data/{key}", content)
        archive.writestr(f"{name}/version", "3\n")
    return file.getvalue()


def wrapped_as_legacy(pickled: bytes) -> bytes:
    """A file as torch before 1.6 writes it, with this pickle and one storage of four float32."""
    head = b"".join(pickle.dumps(content, 2) for content in (MAGIC, PROTOCOL, MACHINE))
    keys = pickle.dumps(["0"] if b"Q" in pickled else [], 2)
    return head + pickled + keys + struct.pack("<Q", 4) + bytes(16)


WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "zip": wrapped_as_zip,
    "legacy": wrapped_as_legacy,
    "nothing around it": bytes,
}
