"""Linear layers for inference on a CPU: oneDNN with the weights laid out ahead.

In float32 torch's own `linear` goes to MKL, which is faster than oneDNN on some CPUs and half as fast on others: a
layer is timed both ways when a model is loaded, and the answer remembered. The operators used here are those that
torch's compiler emits when it freezes a model.
"""

from __future__ import annotations

import time
from functools import lru_cache
from itertools import count
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """`nn.Linear` on a weight in oneDNN's own layout. Inference only; its state dict is empty."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.n_out, self.number = linear.out_features, next(_numbers)
        _layers[self.number] = self

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return by_number(x, self.number, self.n_out)
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y


_numbers = count()
_layers: WeakValueDictionary[int, PackedLinear] = WeakValueDictionary()


@torch.library.custom_op(
    "minclip::packed_linear", mutates_args=(), schema="(Tensor x, int number, int n_out) -> Tensor"
)
def by_number(x: Tensor, number: int, n_out: int) -> Tensor:
    """A packed layer for the compiler, which cannot look into such weights: it is shown the layer's number alone."""
    return _layers[number].product(x)


@by_number.register_fake
def _(x: Tensor, number: int, n_out: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], n_out))


ROWS = 512  # of the product that is timed
ALIGNED = 64  # bytes: MKL rounds otherwise where a weight begins in the midst of a line of the cache, as in a file


@lru_cache
def packed_is_faster(n_in: int, n_out: int, threads: int) -> bool:
    """Whether a packed float32 layer of this size beats torch's own, here and with so many threads. By turns, a few
    hundredths of a second for the layers of ViT-B/32."""
    x, linear = torch.ones(ROWS, n_in), nn.Linear(n_in, n_out).requires_grad_(False)
    layers: tuple[nn.Module, nn.Module] = linear, PackedLinear(linear)
    shortest = [float("inf"), float("inf")]
    for _ in range(4):
        for i, layer in enumerate(layers):
            start = time.perf_counter()
            layer(x)
            shortest[i] = min(shortest[i], time.perf_counter() - start)
    return shortest[1] < shortest[0]


def pack(module: nn.Module, always: bool | None = None) -> bool:
    """Replace every `nn.Linear` below `module` that gains from it, where this torch has the operators for its dtype.

    always: whether float32 layers are packed, None where that is to be timed. Returns whether they are.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    dtypes = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # by this CPU
        dtypes.add(torch.bfloat16)
    if always is None:
        sizes = [
            (m.in_features, m.out_features)
            for m in module.modules()
            if type(m) is nn.Linear and m.weight.dtype == torch.float32
        ]
        largest = max(sizes, key=lambda size: size[0] * size[1], default=None)
        always = largest is not None and packed_is_faster(*largest, torch.get_num_threads())
    parents = [m for m in module.modules() if type(m) is not nn.Linear]  # what is replaced goes at once, its weight too
    for parent in parents:
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or child.weight.dtype not in dtypes:
                continue
            if always or child.weight.dtype != torch.float32:
                setattr(parent, name, PackedLinear(child))
            elif child.weight.data_ptr() % ALIGNED:
                child.weight = nn.Parameter(child.weight.detach().clone(), requires_grad=False)
    return always
