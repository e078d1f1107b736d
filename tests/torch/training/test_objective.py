"""The losses, their peers, and gradients that do not depend on how a batch is cut up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from training import rows
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from minclip import contrastive
from minclip_torch.training import objective

SIZES = {"b": st.integers(1, 12), "p": st.integers(1, 9), "seed": st.integers(0, 2**32 - 1), "scale": st.floats(0, 4)}


def unit(b: int, p: int, seed: int) -> Tensor:
    return torch.from_numpy(rows(b, p, seed))


@given(**SIZES)
def test_the_loss_is_the_references(b: int, p: int, seed: int, scale: float) -> None:
    image, text = unit(b, p, seed), unit(b, p, seed + 1)
    found = objective.contrastive_loss(image, text, torch.tensor(math.exp(scale)))
    logits = contrastive.logits_per_image(image.double().numpy(), text.double().numpy(), scale)
    assert float(found) == pytest.approx(contrastive.contrastive_loss(logits), abs=1e-5)


@given(**SIZES)
def test_the_loss_is_the_peers(b: int, p: int, seed: int, scale: float) -> None:
    image, text = unit(b, p, seed), unit(b, p, seed + 1)
    found = objective.contrastive_loss(image, text, torch.tensor(math.exp(scale)))
    torch.testing.assert_close(found, image_text_contrastive_loss(math.exp(scale) * text @ image.T), atol=1e-5, rtol=0)


@given(**SIZES)
def test_targets_of_one_caption_each_are_no_targets(b: int, p: int, seed: int, scale: float) -> None:
    given_ = unit(b, p, seed), unit(b, p, seed + 1), torch.tensor(math.exp(scale))
    found = objective.contrastive_loss(*given_, torch.eye(b))
    torch.testing.assert_close(found, objective.contrastive_loss(*given_), atol=1e-5, rtol=1e-5)


def test_soft_targets_are_cross_entropy_both_ways_written_out() -> None:
    image, text = unit(3, 4, 0), unit(3, 4, 1)
    targets = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    logits = 5.0 * image.double().numpy() @ text.double().numpy().T
    loss = 0.0
    for scores, wanted in ((logits, targets), (logits.T, targets.T / targets.T.sum(1, keepdims=True))):
        loss -= (wanted * np.log(np.exp(scores) / np.exp(scores).sum(1, keepdims=True))).sum() / 3 / 2
    found = objective.contrastive_loss(image, text, torch.tensor(5.0), torch.tensor(targets, dtype=torch.float32))
    assert float(found) == pytest.approx(loss, abs=1e-5)


def overlaps(b: int, seed: int) -> Tensor:
    """How alike captions are: symmetric, 1 on the diagonal, mostly 0 elsewhere."""
    rng = np.random.default_rng(seed)
    half = np.triu(rng.uniform(size=(b, b)) * (rng.uniform(size=(b, b)) < 0.3), 1)
    return torch.tensor(half + half.T + np.eye(b), dtype=torch.float32)


@given(b=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), amount=st.floats(0.01, 0.99))
def test_smoothed_targets_are_shares_of_one_and_near_synonyms_get_no_more_than_the_amount(
    b: int, seed: int, amount: float
) -> None:
    overlap = overlaps(b, seed)
    targets = objective.smoothed(overlap, amount)
    assert targets is not None
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(b), atol=1e-5, rtol=0)
    assert (targets.diagonal() >= 1 - amount - 1e-6).all()
    assert ((targets > 0) <= (overlap > 0)).all()
    alone = overlap.sum(1) == 1
    torch.testing.assert_close(targets[alone], torch.eye(b)[alone], atol=0, rtol=0)


def test_the_nearer_synonym_gets_more() -> None:
    targets = objective.smoothed(torch.tensor([[1.0, 0.8, 0.4], [0.8, 1.0, 0.0], [0.4, 0.0, 1.0]]), 0.1)
    assert targets is not None
    assert targets[0, 1] / targets[0, 2] == pytest.approx(0.8**2 / 0.4**2)
    assert targets[0, 0] == pytest.approx(1 - 0.1 * (0.8**2 + 0.4**2))


def test_no_amount_is_no_targets() -> None:
    assert objective.smoothed(overlaps(4, 0), 0.0) is None


def test_smoothing_leaves_the_overlaps_as_they_are() -> None:
    overlap = overlaps(5, 1)
    before = overlap.clone()
    objective.smoothed(overlap, 0.2)
    torch.testing.assert_close(overlap, before, atol=0, rtol=0)


def test_the_distillation_loss_is_the_mean_squared_distance() -> None:
    a, b = rows(5, 7, 0), rows(5, 7, 1)
    expected = np.mean(np.linalg.norm(a - b, axis=1) ** 2)
    assert float(objective.distillation_loss(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(expected)


class TwoTowers(nn.Module):
    """Two matrices and a temperature: the least that has the shape of the problem."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(6, 4), nn.Linear(5, 4)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def step(self, x: Tensor, y: Tensor, chunk: int) -> Tensor:
        def embed(i: int) -> tuple[Tensor, Tensor]:
            part = slice(i * chunk, (i + 1) * chunk)
            return tuple(nn.functional.normalize(f(z[part]), dim=1) for f, z in ((self.image, x), (self.text, y)))

        def loss(image: Tensor, text: Tensor) -> Tensor:
            return objective.contrastive_loss(image, text, self.scale.exp())

        return objective.backward(embed, math.ceil(len(x) / chunk), loss)


@given(b=st.integers(2, 9), chunk=st.integers(1, 9))
def test_gradients_do_not_depend_on_the_chunks(b: int, chunk: int) -> None:
    torch.manual_seed(b)
    model, x, y = TwoTowers(), torch.randn(b, 6), torch.randn(b, 5)
    image, text = (nn.functional.normalize(f(z), dim=1) for f, z in ((model.image, x), (model.text, y)))
    expected_loss = objective.contrastive_loss(image, text, model.scale.exp())
    expected = torch.autograd.grad(expected_loss, list(model.parameters()))
    torch.testing.assert_close(model.step(x, y, chunk), expected_loss.detach())
    torch.testing.assert_close([p.grad for p in model.parameters()], list(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("chunk", [2, 6])
def test_a_frozen_tower_gets_no_gradient_and_the_other_gets_its_own(chunk: int) -> None:
    torch.manual_seed(0)
    model, x, y = TwoTowers(), torch.randn(6, 6), torch.randn(6, 5)
    model.step(x, y, chunk)
    expected = model.text.weight.grad
    model.zero_grad()
    model.image.requires_grad_(False)
    model.step(x, y, chunk)
    assert model.image.weight.grad is None
    torch.testing.assert_close(model.text.weight.grad, expected)
