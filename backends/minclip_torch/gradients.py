"""The gradients of the contrastive loss as torch's autograd finds them: what `minclip.gradients` is proven equal to."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minclip.inputs import checked_inputs
from minclip.weights import Weights
from minclip_torch.layers import Look
from minclip_torch.modules import Clip


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

    look: sees the steps of both towers, those of the vision tower first. Attention is written out, so that its
    probabilities are there to have gradients.
    """
    look = Look(explicit=True) if look is None else look
    found = checked_inputs(module.config, inputs)
    image, text = (_ready(found[tower], inputs, module.logit_scale) for tower in ("vision", "text"))
    image_embeds = module.visual_projection(module.vision_model(image, look)[1])
    text_embeds = module.text_projection(module.text_model(text, look)[1])
    return F.normalize(image_embeds, dim=-1), F.normalize(text_embeds, dim=-1)


def _ready(checked: Any, given: Mapping[str, Any], like: Tensor) -> Any:
    """A tower's inputs as tensors; a tensor that was given is taken as it is, so that gradients reach it."""
    ready = {}
    for name, value in vars(checked).items():
        if not isinstance(value, np.ndarray | Tensor):
            continue
        own = given[name] if isinstance(given.get(name), Tensor) else np.array(value)
        floating = name in ("pixel_values", "inputs_embeds", "head_mask")
        ready[name] = torch.as_tensor(own, dtype=like.dtype if floating else None, device=like.device)
    return replace(checked, **ready)


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
