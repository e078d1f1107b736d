"""The name and shape of every tensor that a checkpoint has, as its config describes it."""

from __future__ import annotations

from minclip.config import Config, RobertaConfig, TextConfig, VisionConfig

Shapes = dict[str, tuple[int, ...]]


def expected_shapes(config: Config) -> Shapes:
    """The name and shape of every tensor that a checkpoint with this config has, under minclip's names."""
    shapes: Shapes = {}
    text, vision = config.text_config, config.vision_config
    if "text" in config.towers and text is not None:
        tower = _roberta_tower(text) if isinstance(text, RobertaConfig) else _causal_tower(text)
        shapes |= _under("text_model", tower)
        if config.has_projection:
            shapes["text_projection.weight"] = (config.projection_dim, text.output_dim)
    if vision is not None:
        shapes |= _under("vision_model", _vision_tower(vision))
        if config.has_projection:
            shapes["visual_projection.weight"] = (config.projection_dim, vision.hidden_size)
    if config.is_whole:
        shapes["logit_scale"] = ()
    if config.is_classifier and vision is not None:  # a config without labels has two, as Transformers counts
        shapes |= _linear("classifier", config.num_labels, vision.hidden_size)
    return shapes


def _causal_tower(c: TextConfig) -> Shapes:
    return {
        "embeddings.token_embedding.weight": (c.vocab_size, c.hidden_size),
        "embeddings.position_embedding.weight": (c.max_position_embeddings, c.hidden_size),
        **_pre_norm_layers(c),
        **_norm("final_layer_norm", c.hidden_size),
    }


def _vision_tower(c: VisionConfig) -> Shapes:
    return {
        "embeddings.class_embedding": (c.hidden_size,),
        "embeddings.patch_embedding.weight": (c.hidden_size, c.num_channels, c.patch_size, c.patch_size),
        "embeddings.position_embedding.weight": (c.grid**2 + 1, c.hidden_size),
        **_norm("pre_layrnorm", c.hidden_size),
        **_pre_norm_layers(c),
        **_norm("post_layernorm", c.hidden_size),
    }


def _pre_norm_layers(c: TextConfig | VisionConfig) -> Shapes:
    d, f = c.hidden_size, c.intermediate_size
    layer = {
        **_norm("layer_norm1", d),
        **_norm("layer_norm2", d),
        **_linear("mlp.fc1", f, d),
        **_linear("mlp.fc2", d, f),
    }
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        layer |= _linear(f"self_attn.{name}", d, d)
    return {name: s for i in range(c.num_hidden_layers) for name, s in _under(f"encoder.layers.{i}", layer).items()}


def _roberta_tower(c: RobertaConfig) -> Shapes:
    d, f, n = c.hidden_size, c.intermediate_size, c.max_position_embeddings
    layer = {**_linear("intermediate.dense", f, d), **_linear("output.dense", d, f), **_norm("output.LayerNorm", d)}
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        layer |= _linear(f"attention.{name}", d, d)
    layer |= _norm("attention.output.LayerNorm", d)
    if c.position_embedding_type != "absolute":  # the table of absolute positions is kept in the file, unused
        layer["attention.self.distance_embedding.weight"] = (2 * n - 1, d // c.num_attention_heads)
    layers = {name: s for i in range(c.num_hidden_layers) for name, s in _under(f"layer.{i}", layer).items()}
    return {
        "roberta.embeddings.word_embeddings.weight": (c.vocab_size, d),
        "roberta.embeddings.position_embeddings.weight": (n, d),
        "roberta.embeddings.token_type_embeddings.weight": (c.type_vocab_size, d),
        **_norm("roberta.embeddings.LayerNorm", d),
        **_under("roberta.encoder", layers),
        **_norm("pre_LN", d),
        **_linear("transformation", c.project_dim, d),
    }


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}
