"""A pickle is a program: opcodes for a small machine that has a stack, a memo and no loops.

Most opcodes push a literal or gather what lies on the stack into a tuple, a list or a dict. Two of them are why opening
an unknown pickle with Python's own reader is dangerous: GLOBAL looks up any name of any module, and REDUCE calls it.
Here a name stays a name. What may be called is a table that the caller brings, everything else is refused, and nothing
is ever imported. `pickletools` of the standard library splits the bytes into opcodes and documents each of them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

OPERATIONS = 1_000_000  # about ten times what a large model with its optimizer takes, and two seconds
RECORDS = "__torch__."  # how the names of TorchScript's classes begin
ADVICE = (
    "minclip runs nothing that a file says: where you trust it, load it with torch and save the tensors as safetensors"
)


class RefusedError(ValueError):
    """Content that is well formed, and that minclip does not read on purpose; says what and what to do."""


@dataclass(frozen=True)
class Name:
    """A name in the file, "module.attribute"; it is compared, never looked up."""

    text: str


@dataclass(eq=False)
class Record:
    """An object of one of TorchScript's classes: its attributes and nothing else."""

    kind: Name
    attributes: dict[Any, Any] = field(default_factory=dict)


MARK = object()  # lies on the stack where a tuple, list or dict begins

LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
})  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def run(
    program: BinaryIO, calls: Mapping[str, Callable[..., Any] | None], load: Callable[[Any], Any] | None = None
) -> Any:
    """What the pickle at the program's position describes; the position afterwards is the pickle's end.

    calls: the names that the pickle may use; those with a function may be called, and the function must answer odd
    arguments with ValueError or TypeError. load: what to make of a persistent id, the pickle's word for something that
    is kept beside it. Raises ValueError, or RefusedError with the name or the opcode that is not known.
    """
    try:
        return _run(program, calls, load)
    except (IndexError, KeyError, TypeError) as error:  # the stack is empty, the memo lacks an entry, odd arguments
        raise ValueError(f"its pickle is broken before byte {program.tell()}: {type(error).__name__}") from None


def _run(program: BinaryIO, calls: Mapping[str, Callable[..., Any] | None], load: Callable[[Any], Any] | None) -> Any:
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if count > OPERATIONS:
            raise ValueError(f"its pickle takes more than {OPERATIONS} operations")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return _pop(stack)
            # literals, and what gathers them
            case name if name in LITERALS:
                stack.append(_literal(argument))
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case "MARK":
                stack.append(MARK)
            case "TUPLE":
                stack.append(tuple(_pop_to_mark(stack)))
            case name if name in SHORT_TUPLES:
                stack.append(tuple([_pop(stack) for _ in range(SHORT_TUPLES[name])][::-1]))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                _extend(stack, [_pop(stack)])
            case "APPENDS":
                _extend(stack, _pop_to_mark(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                _update(stack, [_pop(stack), _pop(stack)][::-1])
            case "SETITEMS":
                _update(stack, _pop_to_mark(stack))
            # the memo, by which an object can be used twice
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            # names, calls, and objects with attributes
            case "GLOBAL":
                stack.append(_known(_string(argument).replace(" ", "."), calls))
            case "STACK_GLOBAL":
                attribute, module = _pop(stack), _pop(stack)
                stack.append(_known(f"{_string(module)}.{_string(attribute)}", calls))
            case "REDUCE" | "NEWOBJ":
                arguments, called = _pop(stack), _pop(stack)
                stack.append(_call(called, arguments, calls))
            case "BUILD":
                _build(_pop(stack), stack[-1])
            case "BINPERSID" if load is not None:
                stack.append(load(_pop(stack)))
            case name:
                of = f" of {argument.replace(' ', '.')!a:.100}" if isinstance(argument, str) else ""
                raise RefusedError(f"its pickle has an opcode {name}{of}, which files of tensors do without; {ADVICE}")
    raise ValueError("its pickle has no end")


def _known(name: str, calls: Mapping[str, Callable[..., Any] | None]) -> Name:
    if name not in calls and not name.startswith(RECORDS):
        raise RefusedError(f"its pickle names {name!a:.100}, which is none of the names that tensors need; {ADVICE}")
    return Name(name)


def _call(called: Any, arguments: Any, calls: Mapping[str, Callable[..., Any] | None]) -> Any:
    if not isinstance(called, Name) or not isinstance(arguments, tuple):
        raise TypeError
    if called.text.startswith(RECORDS):
        return Record(called)
    function = calls[called.text]
    if function is None:
        raise RefusedError(f"its pickle calls {called.text}, which is no function; {ADVICE}")
    return function(*arguments)


def _build(state: Any, built: Any) -> None:
    """Give an object its attributes. An OrderedDict may have some, too (torch's `_metadata`); nobody needs those."""
    if isinstance(built, Record):
        built.attributes = state if isinstance(state, dict) else {}
    elif not isinstance(built, dict):
        raise TypeError


def _literal(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 128:  # larger ones cost time in whatever is done with them
        raise ValueError("its pickle has a number of more than 128 bits")
    return value


def _pop(stack: list[Any]) -> Any:
    if (top := stack.pop()) is MARK:
        raise IndexError
    return top


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (top := stack.pop()) is not MARK:
        items.append(top)
    return items[::-1]


def _extend(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise TypeError
    stack[-1].extend(items)


def _update(stack: list[Any], items: list[Any]) -> None:
    """Fill the dict on top of the stack with keys and values in turn."""
    if not isinstance(stack[-1], dict) or len(items) % 2:
        raise TypeError
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 2**32):
            raise ValueError("its pickle has a dict with keys that are neither names nor small numbers")
        stack[-1][key] = value  # what is hashed is a name or small: tuples of tuples could take for ever


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
