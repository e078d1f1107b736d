"""What training minimizes, and its gradient when the batch is spread over chunks and processes.

Every loss here is a function of the whole batch's embeddings. So a step has two halves (gradient caching, Gao et al.
2021, arXiv:2101.06983): first the loss and its gradient with respect to the embeddings, for the whole batch at once;
then each process backpropagates the gradient of its own rows through its towers, chunk by chunk. Summed over processes,
the parameters' gradients are those that one process with enough memory for everything would compute, as long as nothing
is dropped at random: which patches and layers are dropped is drawn chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minclip_torch.training.distributed import rank, world_size

Embed = Callable[[int], Sequence[Tensor]]
Loss = Callable[..., Tensor]


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, targets: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy of the scaled cosines (Radford et al. 2021, figure 3).

    image, text: unit vectors (b, p); scale: what cosines are multiplied by; targets (b, b): rows that sum to 1, which
    texts an image may go by; None for its own alone. The texts' targets are the columns, brought to a sum of 1.
    """
    logits = scale * image @ text.T  # (b, b)
    wanted = torch.arange(len(logits), device=logits.device) if targets is None else targets
    across = wanted if targets is None else targets.T / targets.T.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, across)) / 2


def smoothed(overlap: Tensor, amount: float) -> Tensor | None:
    """Targets (b, b) that give up to `amount` of each row to near-synonyms, shared by overlap^2; None for none.

    overlap (b, b): how alike two captions are, 0 to 1. Near-synonyms whose overlap^2 sums to less than 1 get less by
    that factor; a row without any keeps all for its own caption. Rows sum to 1.
    """
    if not amount:
        return None
    others = overlap.square().fill_diagonal_(0)
    share = others.sum(dim=1, keepdim=True)
    given = amount * share.clamp_max(1)
    return others / share.clamp_min(1e-6) * given + torch.diag(1 - given[:, 0])


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of two sets of embeddings (b, p): what AltCLIP's first stage minimizes."""
    return (student - teacher).square().sum(dim=1).mean()


def backward(embed: Embed, chunks: int, loss_of: Loss) -> Tensor:
    """Add the gradients of one step to the parameters, and return the loss of the whole batch.

    embed(i): the embeddings of chunk i of this process's rows, as a tuple of tensors (rows, p), the same each time it
    is called. loss_of(*embeddings): the loss of all processes' rows.
    """
    with torch.set_grad_enabled(chunks == 1):
        parts = [tuple(embed(i)) for i in range(chunks)]
    whole = [torch.cat(column) for column in zip(*parts, strict=True)]
    leaves = [column.detach().requires_grad_() for column in whole]
    loss = loss_of(*(_gathered(leaf) for leaf in leaves))
    loss.backward()
    gradients = [leaf.grad for leaf in leaves]
    if chunks == 1:
        _backpropagate(whole, gradients)
        return loss.detach()
    first = 0
    for i in range(chunks):
        rows = slice(first, first := first + len(parts[i][0]))
        _backpropagate(embed(i), [None if g is None else g[rows] for g in gradients])
    return loss.detach()


def _backpropagate(embeddings: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """From embeddings to parameters; a frozen tower has no gradient."""
    pairs = [(e, g) for e, g in zip(embeddings, gradients, strict=True) if e.requires_grad and g is not None]
    if pairs:
        torch.autograd.backward([e for e, _ in pairs], [g for _, g in pairs])


def _gathered(own: Tensor) -> Tensor:
    """All processes' rows (b, p) in order of rank; the gradient flows into this process's own."""
    if world_size() == 1:
        return own
    gathered = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(gathered, own.detach())
    gathered[rank()] = own
    return torch.cat(gathered)


def reduce_gradients(parameters: Sequence[Tensor], shared: Sequence[Tensor]) -> None:
    """Sum gradients over processes, in place, in one message.

    shared: those of `parameters` that belong to the loss itself, whose gradient every process has whole already.
    """
    if world_size() == 1:
        return
    for p in shared:
        if p.grad is not None:
            p.grad /= world_size()
    own = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in own])
    dist.all_reduce(flat)
    for gradient, summed in zip(own, flat.split([g.numel() for g in own]), strict=True):
        gradient.copy_(summed.view_as(gradient))
