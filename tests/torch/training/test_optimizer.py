"""What the optimizers move, and what decays."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from training import recipe, write_start

from minclip.config import read_config
from minclip_torch import Clip
from minclip_torch.training.optimizer import Optimizers, optimizers, parameter_groups
from minclip_torch.training.recipe import Recipe


@pytest.fixture(scope="module", params=["clip", "altclip"])
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_start(tmp_path_factory.mktemp("start"), request.param)


def fresh(start: Path) -> Clip:
    torch.manual_seed(0)
    return Clip(read_config(start))


def step(model: Clip, made: Recipe, gradient: float, rate: float) -> Optimizers:
    """One step with the same gradient everywhere."""
    found = optimizers(model, made)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, gradient)
    found.step(rate)
    return found


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_matrices_and_tables_decay(start: Path, optimizer: str) -> None:
    model = fresh(start)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step(model, recipe(optimizer=optimizer, weight_decay=0.5), gradient=0.0, rate=0.1)
    for name, parameter in model.named_parameters():
        kept = name.endswith((".bias", "class_embedding", "logit_scale")) or "norm" in name.lower()
        kept = kept or ".pre_LN." in name or ".pre_layrnorm." in name
        expected = before[name] * (1 if kept else 1 - 0.1 * 0.5)
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_that_is_trained_has_one_optimizer(start: Path, optimizer: str) -> None:
    model = fresh(start)
    model.vision_model.requires_grad_(False)
    parts = optimizers(model, recipe(optimizer=optimizer)).parts
    found = [id(p) for part in parts for group in part.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_adamw_is_torchs_own(start: Path) -> None:
    model, peer = fresh(start), fresh(start)
    made = recipe(optimizer="adamw", weight_decay=0.0, beta2=0.95)
    reference = torch.optim.AdamW(peer.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    for parameter in peer.parameters():
        parameter.grad = torch.full_like(parameter, 0.3)
    reference.step()
    step(model, made, gradient=0.3, rate=0.01)
    torch.testing.assert_close(model.state_dict(), peer.state_dict(), atol=1e-6, rtol=1e-5)


def test_muon_moves_the_matrices_of_the_layers_alone_and_as_far_as_adamw_would(start: Path) -> None:
    model = fresh(start)
    found = optimizers(model, recipe(optimizer="muon"))
    assert len(found.parts) == 2
    muon = {id(p) for group in found.parts[1].param_groups for p in group["params"]}
    named = {name for name, p in model.named_parameters() if id(p) in muon}
    assert named == {
        n for n, p in model.named_parameters() if ".encoder." in n and n.endswith("weight") and p.ndim == 2
    }

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    found.step(0.01)
    for name, p in model.named_parameters():
        if name in named:
            moved = float((p.detach() - before[name]).square().mean().sqrt())
            assert 0.001 < moved < 0.004, name  # 0.2 of the rate (Liu et al. 2025)


def test_optimizers_go_on_from_their_state(start: Path) -> None:
    made = recipe(optimizer="muon")
    model, other = fresh(start), fresh(start)
    state = step(model, made, gradient=0.2, rate=0.01).state_dict()
    other.load_state_dict(model.state_dict())
    again = optimizers(other, made)
    again.load_state_dict(copy.deepcopy(state))
    first = optimizers(model, made)
    first.load_state_dict(copy.deepcopy(state))
    for module, found in ((model, first), (other, again)):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, -0.1)
        found.step(0.01)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_groups_leave_out_what_another_optimizer_has(start: Path) -> None:
    model = fresh(start)
    first = next(iter(model.parameters()))
    groups = parameter_groups(model, 0.1, without=[first])
    assert all(p is not first for group in groups for p in group["params"])
