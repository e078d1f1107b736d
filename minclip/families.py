"""The three families: what differs between them, a row each. A new family is a new row.

`minclip.config.Family` says what each field means.
"""

from __future__ import annotations

from minclip.config import FAMILIES as FAMILIES
from minclip.config import Family, MetaClip2TextConfig, RobertaConfig, TextConfig
from minclip.shapes import causal_text_shapes, roberta_text_shapes
from minclip.towers import causal_text_tower, end_of_text, pool_end_of_text, pool_first, roberta_text_tower

SENTENCEPIECE_FILES = "a SentencePiece .model or tokenizer.json"

FAMILIES["clip"] = Family(  # Radford et al. 2021
    class_prefix="CLIP",
    text_config=TextConfig,
    text_tower=causal_text_tower,
    text_shapes=causal_text_shapes,
    ends=end_of_text,
    pool=pool_end_of_text,
)
FAMILIES["metaclip_2"] = Family(  # Chuang et al. 2025
    class_prefix="MetaClip2",
    text_config=MetaClip2TextConfig,
    text_tower=causal_text_tower,
    text_shapes=causal_text_shapes,
    ends=end_of_text,
    pool=pool_end_of_text,
    tokenizer_files=SENTENCEPIECE_FILES,
)
FAMILIES["altclip"] = Family(  # Chen et al. 2022
    class_prefix="AltCLIP",
    text_config=RobertaConfig,
    text_tower=roberta_text_tower,
    text_shapes=roberta_text_shapes,
    pool=pool_first,
    causal=False,
    projection_dim=768,
    tokenizer_files=SENTENCEPIECE_FILES,
    heads_alone=False,
    bare_text_names=(("text_model.", ""), ("roberta.encoder.layer.", "roberta.encoder.layers.")),
)
