"""The gradients of the contrastive loss as torch's autograd finds them: what `minclip.gradients` is proven equal to."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minclip.inputs import IMAGE_INPUTS, TEXT_INPUTS, inputs_of
from minclip.weights import Weights
from minclip_torch.layers import Look
from minclip_torch.modules import Clip

WHOLE_NUMBERS = ("input_ids", "attention_mask", "position_ids", "token_type_ids")


def contrastive(module: Clip, weights: Weights, inputs: Mapping[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
    """The loss of a batch of pairs and its gradient for every tensor; see `minclip.gradients.contrastive`.

    module: of any device and floating type, with the tensors of `weights`, which lend their names and shapes. Dropout
    is off, as in inference. A tensor that nothing depends on has a gradient of zeros.
    """
    module.eval().requires_grad_().zero_grad()
    image, text = embed(module, inputs)
    logits = module.logit_scale.exp() * image @ text.T  # (b, b)
    target = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    loss.backward()
    return loss.item(), collected(module, weights)


def embed(module: Clip, inputs: Mapping[str, Any], look: Look | None = None) -> tuple[Tensor, Tensor]:
    """Unit vectors of images (b, p) and texts (n, p), in the module's floating type, from any inputs of the towers.

    look: sees the steps of both towers, those of the vision tower first. Attention is written out either way: the
    CPU's fused kernel is not exact to the last digits in float64.
    """
    look = Look(explicit=True) if look is None else look
    ready = {name: _ready(name, value, module.logit_scale) for name, value in inputs.items()}
    image = module.visual_projection(module.vision_model(**inputs_of(ready, IMAGE_INPUTS), look=look)[1])
    text = module.text_projection(module.text_model(**inputs_of(ready, TEXT_INPUTS), look=look)[1])
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


def _ready(name: str, value: Any, like: Tensor) -> Any:
    if isinstance(value, bool):
        return value
    return torch.as_tensor(value, dtype=torch.int64 if name in WHOLE_NUMBERS else like.dtype, device=like.device)


def collected(module: Clip, weights: Weights) -> dict[str, np.ndarray]:
    """The parameters' gradients under the checkpoint's names, in which fused queries, keys and values are apart.

    They go through the state dict of a copy, which knows how to take them apart.
    """
    twin = deepcopy(module)
    for parameter, own in zip(twin.parameters(), module.parameters(), strict=True):
        parameter.data = torch.zeros_like(own) if own.grad is None else own.grad
    state = twin.state_dict()
    at_least_float32 = torch.promote_types(module.logit_scale.dtype, torch.float32)
    arrays = {name: state[name].detach().to("cpu", at_least_float32).numpy() for name in weights}
    return {name: array.reshape(weights.stored(name).shape) for name, array in arrays.items()}
