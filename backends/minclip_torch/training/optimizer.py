"""AdamW for all parameters, or Muon for the matrices inside the layers and AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from minclip_torch.training.recipe import Recipe

# What each optimizer keeps of a parameter, besides its settings: tensors of the parameter's shape, and a step count.
MOMENTS: dict[type[Optimizer], tuple[str, ...]] = {
    AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Muon: ("momentum_buffer",),
}


class Optimizers:
    """Several optimizers, each over its own parameters, stepped as one."""

    def __init__(self, parts: list[Optimizer]) -> None:
        self.parts = parts

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self, learning_rate: float) -> None:
        """One step of each at this learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned. Raises ValueError, or an error of torch's, for anything else."""
        for part, state in zip(self.parts, states, strict=True):
            settings = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in part.param_groups]
            part.load_state_dict(state)
            for own, restored in zip(settings, part.param_groups, strict=True):
                if differing := [name for name in own if restored.get(name, own[name]) != own[name]]:
                    raise ValueError(f"the optimizer's {', '.join(differing)} differ")
            for parameter, moments in part.state.items():
                shapes = {name: () if name == "step" else parameter.shape for name in MOMENTS[type(part)]}
                if {name: value.shape for name, value in moments.items()} != shapes:
                    raise ValueError("the optimizer's moments are of another shape")
                if not all(value.isfinite().all() for value in moments.values()):
                    raise ValueError("the optimizer's moments hold NaN or infinity")
                if any((moments[name] < 0).any() for name in ("step", "exp_avg_sq") if name in moments):
                    raise ValueError("the optimizer's step or mean square is negative")


def optimizers(model: nn.Module, recipe: Recipe) -> Optimizers:
    """The recipe's optimizer, over the parameters that are trained.

    Muon (Jordan et al. 2024) makes every update of a matrix orthogonal, scaled to the length that AdamW's would have
    (Liu et al. 2025, arXiv:2502.16982), so that both use one learning rate. It needed two thirds of AdamW's steps here.
    """
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if recipe.optimizer == "muon" and parameter.requires_grad and parameter.ndim == 2 and ".encoder." in name
    ]
    groups = parameter_groups(model, recipe.weight_decay, without=matrices)
    parts: list[Optimizer] = [AdamW(groups, lr=recipe.learning_rate, betas=(0.9, recipe.beta2), fused=True)]
    if matrices:
        decay = recipe.weight_decay
        parts.append(torch.optim.Muon(matrices, recipe.learning_rate, decay, adjust_lr_fn="match_rms_adamw"))
    return Optimizers(parts)


def parameter_groups(
    model: nn.Module, weight_decay: float, without: list[nn.Parameter] | None = None
) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay; norms, biases, single vectors and the temperature do not."""
    others = {id(parameter) for parameter in without or []}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in others]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
