"""Linear layers for inference on a CPU: oneDNN with the weights laid out ahead.

torch's own float32 `linear` reached half the rate of oneDNN's on the CPUs measured (README); the operators used here
are those that torch's compiler emits when it freezes a model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """`nn.Linear` on a weight in oneDNN's own layout. Inference only; its state dict is empty."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y


def pack(module: nn.Module) -> None:
    """Replace every `nn.Linear` below `module`, where this torch has the operators and the dtype suits them."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return
    dtypes = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # by this CPU
        dtypes.add(torch.bfloat16)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.weight.dtype in dtypes:
                setattr(parent, name, PackedLinear(child))
