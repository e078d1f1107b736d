"""`minclip info`: what a checkpoint is. Reads the headers of its weight files; with --check all of the weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minclip import checkpoints, products, threads
from minclip.commands import common, printing
from minclip.config import Config
from minclip.errors import CheckpointError
from minclip.weights import BFLOAT16, Weights, check_finite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and whether to read all of it."""
    common.model_argument(parser)
    parser.add_argument("--check", action="store_true", help="read all weights, and say whether they are finite")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(options: argparse.Namespace) -> int:
    """Describe; with --check, refuse weights that are not finite."""
    path = checkpoints.locate(options.model)
    config, weights = checkpoints.read(path)
    if options.check and (bad := check_finite(weights)):
        listed = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise CheckpointError(f"{path}: {len(bad)} tensors hold NaN or infinity: {listed}; download or save it again")
    facts = describe(path, config, weights)
    if options.check:
        facts["finite"] = True
    printing.print_json(facts) if options.json else show(facts)
    return 0


def describe(path: Path, config: Config, weights: Weights) -> dict[str, Any]:
    """What there is to say about a checkpoint, as JSON holds it."""
    stored = {name: weights.stored(name) for name in weights}
    facts: dict[str, Any] = {"path": str(path), "family": config.model_type, "towers": list(config.towers)}
    for name, tower in (("text", config.text_config), ("vision", config.vision_config)):
        if tower is not None and name in config.towers:
            facts[name] = {
                "layers": tower.num_hidden_layers,
                "width": tower.hidden_size,
                "heads": tower.num_attention_heads,
                "activation": tower.hidden_act,
                "parameters": sum(tensor.size for key, tensor in stored.items() if key.startswith(f"{name}_model.")),
            }
    if config.vision_config is not None and "vision" in config.towers:
        facts["vision"] |= {
            "image_size": config.vision_config.image_size,
            "patch_size": config.vision_config.patch_size,
        }
    if config.text_config is not None and "text" in config.towers:
        facts["text"] |= {"tokens": config.text_config.context_length, "vocabulary": config.text_config.vocab_size}
    if config.has_projection:
        facts["dimensions"] = config.projection_dim
    facts["parameters"] = sum(tensor.size for tensor in stored.values())
    facts["stored_as"] = sorted({"bfloat16" if x.dtype == BFLOAT16 else x.dtype.name for x in stored.values()})
    folder = path if path.is_dir() else path.parent
    small = {file for pattern in checkpoints.SMALL_FILES for file in folder.glob(pattern)}
    files = [*checkpoints.weight_files(path), *sorted(small)]
    facts["machine"] = {
        "cores": threads.available_cores(),
        "threads": threads.default_threads(),
        "linear_algebra": threads.linear_algebra(),
        "prepack": products.small_kernels(),
    }
    facts["files"] = {file.name: file.stat().st_size for file in files}
    return facts


def show(facts: dict[str, Any]) -> None:
    """The facts as lines for a person."""
    print(f"{facts['path']}\n  family      {facts['family']}: {' and '.join(facts['towers'])} tower")
    for name in ("text", "vision"):
        if tower := facts.get(name):
            layers = f"{tower['layers']} layer{'s' if tower['layers'] != 1 else ''}"
            print(
                f"  {name:<11} {layers}, width {tower['width']}, {tower['heads']} heads, {tower['activation']}, "
                f"{tower['parameters']:,} parameters"
            )
    if vision := facts.get("vision"):
        print(f"  images      {vision['image_size']} px in patches of {vision['patch_size']}")
    if text := facts.get("text"):
        print(f"  texts       {text['tokens']} tokens at most, from a vocabulary of {text['vocabulary']:,}")
    if "dimensions" in facts:
        print(f"  space       {facts['dimensions']} dimensions")
    total, types = facts["parameters"], " and ".join(facts["stored_as"])
    print(f"  parameters  {total:,}, stored as {types}; {4 * total / 2**20:,.1f} MiB in float32")
    if "finite" in facts:
        print("  weights     all of them are finite")
    machine = facts["machine"]
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}"
    use = "prepack=True is of use" if machine["prepack"] else "prepack=True changes nothing"
    print(f"  machine     {cores}, {machine['threads']} used by NumPy's towers; {machine['linear_algebra']}; {use}")
    for name, size in facts["files"].items():
        kib = size / 2**10
        print(f"  file        {name}, {f'{kib:,.1f} KiB' if kib < 2**10 else f'{kib / 2**10:,.1f} MiB'}")
