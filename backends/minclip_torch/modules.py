"""The towers as PyTorch modules: for training as they are, for inference through `TorchBackend`.

`Clip(config)` has the parameters of a checkpoint under the checkpoint's names, so that state dicts pass between it and
Transformers' models both ways. In `train()` it honours the config's dropout rates; `gradient_checkpointing = True`
trades time for memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from minclip.config import Config, RobertaConfig, TextConfig, VisionConfig
from minclip.inputs import ImageInputs, TextInputs
from minclip_torch.layers import Look, PostNormLayer, PreNormLayer, additive_mask, at

UNSEEN = Look()


class Encoder(nn.Module):
    """A stack of layers. `name` is what the checkpoint calls the list."""

    def __init__(self, layers: list[nn.Module], name: str = "layers") -> None:
        super().__init__()
        self.name = name
        self.gradient_checkpointing = False
        self.add_module(name, nn.ModuleList(layers))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        head_mask: Tensor | None,
        look: Look,
        kept: Tensor | None = None,
    ) -> Tensor:
        """kept (b,): the only token of each row whose state is wanted; the last layer then gives (b, 1, d)."""
        look("layers.input", x)
        layers = list(self.get_submodule(self.name).children())
        for i, layer in enumerate(layers):
            factors = None if head_mask is None else head_mask[i]
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, mask, causal, factors, UNSEEN, use_reentrant=False)
            else:
                wanted = kept if i == len(layers) - 1 else None
                x = layer(x, mask, causal, factors, look.at(f"layers.{i}"), wanted)
            look(f"layers.{i}.output", x)
        return x


def pre_norm_encoder(config: TextConfig | VisionConfig) -> Encoder:
    """The layers of one of CLIP's towers."""
    sizes = (config.hidden_size, config.intermediate_size, config.num_attention_heads)
    rest = (config.hidden_act, config.layer_norm_eps, config.attention_dropout)
    return Encoder([PreNormLayer(*sizes, *rest) for _ in range(config.num_hidden_layers)])


class PatchEmbedding(nn.Module):
    """A convolution without bias whose stride is its width: one product with the flattened patches."""

    def __init__(self, d: int, channels: int, patch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d, channels, patch, patch))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(b, c, height, width) -> (b, rows * columns, d)."""
        d, c, patch, _ = self.weight.shape
        b, _, height, width = pixel_values.shape
        rows, columns = height // patch, width // patch
        x = pixel_values[:, :, : rows * patch, : columns * patch].reshape(b, c, rows, patch, columns, patch)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c * patch * patch)
        return F.linear(x, self.weight.view(d, -1))


class VisionEmbeddings(nn.Module):
    """Patches and class token, with their learned positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(config.hidden_size) * config.hidden_size**-0.5)
        self.patch_embedding = PatchEmbedding(config.hidden_size, config.num_channels, config.patch_size)
        self.position_embedding = nn.Embedding(1 + config.grid**2, config.hidden_size)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, pixel_values: Tensor, interpolate: bool) -> Tensor:
        x = self.patch_embedding(pixel_values)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)
        positions = self.position_embedding.weight
        if interpolate:
            patch = self.patch_embedding.weight.shape[-1]
            positions = _interpolated(positions, pixel_values.shape[2] // patch, pixel_values.shape[3] // patch)
        return x + positions


def _interpolated(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Learned positions (1 + grid^2, d) stretched bicubically to (1 + rows columns, d)."""
    grid = int((len(positions) - 1) ** 0.5)
    if (rows, columns) == (grid, grid):
        return positions
    table = positions[1:].to(torch.promote_types(positions.dtype, torch.float32))  # not every device has it in bfloat16
    table = table.view(1, grid, grid, -1).permute(0, 3, 1, 2)
    table = F.interpolate(table, (rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([positions[:1], table[0].flatten(1).T.to(positions.dtype)])


class VisionTower(nn.Module):
    """`vision_model`. Images -> last hidden state (b, t, d), pooled (b, d).

    pooled_only, here and of the text towers: the last layer is computed for the pooled token alone, and the state
    returned is that one's, (b, 1, d).
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = pre_norm_encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, inputs: ImageInputs[Tensor], look: Look = UNSEEN, *, pooled_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        x = self.embeddings(inputs.pixel_values, inputs.interpolate_pos_encoding)
        look("embeddings", x)
        kept = torch.zeros(len(x), dtype=torch.long, device=x.device) if pooled_only else None
        x = self.encoder(self.pre_layrnorm(x), None, False, None, look, kept)
        pooled = self.post_layernorm(x[:, 0])
        look("pooled", pooled)
        return x, pooled


class TextEmbeddings(nn.Module):
    """Tokens with their learned positions."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.02)


class CausalTextTower(nn.Module):
    """`text_model` of CLIP and MetaCLIP 2. Texts -> last hidden state (b, t, d), pooled (b, d).

    A row without an end-of-text id pools its first token; `minclip.inputs` refuses it before it comes here.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = pre_norm_encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, inputs: TextInputs[Tensor], look: Look = UNSEEN, *, pooled_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        ids, t = inputs.input_ids, inputs.input_ids.shape[1]
        tokens = self.embeddings.token_embedding(ids) if inputs.inputs_embeds is None else inputs.inputs_embeds
        positions = self.embeddings.position_embedding.weight
        x = tokens + (positions[:t] if inputs.position_ids is None else positions[inputs.position_ids])
        look("embeddings", x)
        mask = None
        if inputs.attention_mask is not None:
            causal = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
            mask = additive_mask(causal & inputs.attention_mask.bool()[:, None, None, :], x.dtype)  # (b, 1, t, t)
        one_token = type(self).pool is CausalTextTower.pool  # and not a subclass's, which may need them all
        kept = self.ends(inputs) if pooled_only and one_token else None
        x = self.final_layer_norm(self.encoder(x, mask, mask is None, inputs.head_mask, look, kept))
        pooled = self.pool(x, inputs) if kept is None else x[:, 0]
        look("pooled", pooled)
        return x, pooled

    def pool(self, x: Tensor, inputs: TextInputs[Tensor]) -> Tensor:
        """The state at the token that ends each text. (b, t, d) -> (b, d)"""
        return at(x, self.ends(inputs))[:, 0]

    def ends(self, inputs: TextInputs[Tensor]) -> Tensor:
        """The token that ends each text, (b,)."""
        ids = inputs.input_ids
        if not self.config.pools_largest_id:
            ids = torch.isin(ids, torch.tensor(self.config.eos_token_id, device=ids.device)).int()
        return ids.argmax(dim=1)


class RobertaEmbeddings(nn.Module):
    """Tokens, their types and their positions, normalized."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        for table in (self.word_embeddings, self.token_type_embeddings, self.position_embeddings):
            nn.init.normal_(table.weight, std=0.02)


class Roberta(nn.Module):
    """`roberta`: embeddings and post-norm layers."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.embeddings = RobertaEmbeddings(config)
        sizes = (config.hidden_size, config.intermediate_size, config.num_attention_heads)
        layers: list[nn.Module] = [
            PostNormLayer(
                *sizes,
                config.hidden_act,
                config.layer_norm_eps,
                kind=config.position_embedding_type,
                positions=config.max_position_embeddings,
                attention_dropout=config.attention_probs_dropout_prob,
                dropout=config.hidden_dropout_prob,
            )
            for _ in range(config.num_hidden_layers)
        ]
        self.encoder = Encoder(layers, "layer")


class RobertaTextTower(nn.Module):
    """`text_model` of AltCLIP. Texts -> transformed states (b, t, d), the first (b, d), d = project_dim."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.config = config
        self.roberta = Roberta(config)
        self.transformation = nn.Linear(config.hidden_size, config.project_dim)
        self.pre_LN = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, inputs: TextInputs[Tensor], look: Look = UNSEEN, *, pooled_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        e, ids = self.roberta.embeddings, inputs.input_ids
        tokens = e.word_embeddings(ids) if inputs.inputs_embeds is None else inputs.inputs_embeds
        types = torch.zeros_like(ids) if inputs.token_type_ids is None else inputs.token_type_ids
        x = tokens + e.token_type_embeddings(types)
        if self.config.position_embedding_type == "absolute":
            positions = inputs.position_ids
            if positions is None:
                real = ids != self.config.pad_token_id
                positions = real.cumsum(dim=1) * real + self.config.pad_token_id
            x = x + e.position_embeddings(positions)
        x = e.dropout(e.LayerNorm(x))
        look("embeddings", x)
        mask = inputs.attention_mask
        if mask is not None:
            mask = additive_mask(mask.bool()[:, None, None, :], x.dtype)
        kept = None
        if pooled_only and self.config.position_embedding_type == "absolute":
            kept = torch.zeros(len(x), dtype=torch.long, device=x.device)
        x = self.pre_LN(self.roberta.encoder(x, mask, False, inputs.head_mask, look, kept))
        look("pre_LN", x)
        x = self.transformation(x)
        look("pooled", x[:, 0])
        return x, x[:, 0]


TEXT_TOWERS: dict[str, Callable[[Any], nn.Module]] = {
    "clip": CausalTextTower,
    "metaclip_2": CausalTextTower,
    "altclip": RobertaTextTower,
}
"""The text tower of each family: (text config) -> module whose forward takes `TextInputs`."""


class Clip(nn.Module):
    """What a checkpoint of `config` holds: `vision_model`, `text_model`, projections, `logit_scale`, `classifier`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        text, vision = config.text_config, config.vision_config
        if vision is not None:
            self.vision_model = VisionTower(vision)
            if config.has_projection:
                self.visual_projection = nn.Linear(vision.hidden_size, config.projection_dim, bias=False)
            if config.is_classifier:
                self.classifier = nn.Linear(vision.hidden_size, config.num_labels)
        if text is not None and not config.is_classifier:
            self.text_model = TEXT_TOWERS[config.model_type](text)
            if config.has_projection:
                self.text_projection = nn.Linear(text.output_dim, config.projection_dim, bias=False)
        if config.is_whole:
            self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass instead of keeping their activations."""
        return any(m.gradient_checkpointing for m in self.modules() if isinstance(m, Encoder))

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        for module in self.modules():
            if isinstance(module, Encoder):
                module.gradient_checkpointing = on

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Unit vectors of the images (b, p) and of the texts (n, p), in float32: what the contrastive loss takes."""
        return self.embed_images(pixel_values), self.embed_texts(input_ids, attention_mask)

    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """Unit vectors (b, p) of pixels (b, c, height, width)."""
        return F.normalize(self.visual_projection(self.vision_model(ImageInputs(pixel_values))[1]).float(), dim=-1)

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Unit vectors (n, p) of ids (n, t)."""
        pooled = self.text_model(TextInputs(input_ids, attention_mask))[1]
        return F.normalize(self.text_projection(pooled).float(), dim=-1)
