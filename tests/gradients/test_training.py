"""The lesson's optimizer and loop against torch's, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minclip import lesson
from minclip.gradients.training import AdamW, train
from minclip.weights import Weights
from minclip_torch import gradients as peer
from minclip_torch.backend import load_weights
from minclip_torch.modules import Clip


def test_twenty_steps_give_the_numbers_of_torchs_adamw() -> None:
    """In float64: losses and every tensor, after each step, within 1e-10."""
    batch, tokenizer = lesson.pairs()
    ours = lesson.tiny(tokenizer, dtype="float64")
    module = Clip(ours.config)
    load_weights(module, Weights({name: ours.weights[name].copy() for name in ours.weights}, np.float64))
    module = module.double().train()
    theirs = torch.optim.AdamW(module.parameters(), lr=2e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05)
    optimizer = AdamW(learning_rate=2e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05)
    losses = train(ours, [batch] * 21, optimizer)
    for _ in range(20):
        theirs.zero_grad()
        image, text = peer.embed(module, batch)
        logits = module.logit_scale.exp() * image @ text.T
        target = torch.arange(8)
        cross_entropy = torch.nn.functional.cross_entropy
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        loss.backward()
        assert next(losses) == pytest.approx(loss.item(), abs=1e-10)
        theirs.step()
    next(losses)  # which takes the twentieth step
    state = module.state_dict()
    for name in ours.weights:
        np.testing.assert_allclose(ours.weights[name], state[name].numpy(), atol=1e-10, rtol=0, err_msg=name)


def test_a_tiny_clip_learns_the_eight_drawings() -> None:
    *_, (loss, shares) = lesson.learn()
    first = next(iter(lesson.learn(1)))[0]
    assert first > 1.5
    assert loss < 0.05
    assert shares.diagonal().min() > 0.9


def test_decay_shrinks_weights_that_have_no_gradient() -> None:
    w = {"w": np.ones(3)}
    AdamW(learning_rate=0.1, weight_decay=0.5).step(w, {"w": np.zeros(3)})
    np.testing.assert_allclose(w["w"], 0.95)


def test_tensors_of_a_file_are_refused_by_name() -> None:
    batch, tokenizer = lesson.pairs()
    model = lesson.tiny(tokenizer)
    model.weights["logit_scale"].flags.writeable = False
    with pytest.raises(ValueError, match="logit_scale cannot be changed in place") as caught:
        next(train(model, [batch], AdamW()))
    assert "\n" not in str(caught.value)
