"""The CUDA checks, one command: `python tests/gpu.py [--out results.md]`.

First the conformance suite of `minclip.testing` in float32, bfloat16 and float16 on the card, then a table of images
and texts per second for ViT-B/32, ViT-L/14 and ViT-H/14 at several batch sizes, beside Transformers (SDPA, eager and
compiled), with the share of the card's measured matmul rate and the peak memory; last, JPEG files end to end and how
much of that time the card was busy. Exits with 1 where the suite fails, and with 2 where there is no such device.
`--device cpu --models tiny` is a dry run of the script itself.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minclip.config import Config, TextConfig, VisionConfig
from minclip.images import ImageProcessor
from minclip.model import Model
from minclip.processor import Processor
from minclip.weights import Weights
from minclip_torch import Clip, TorchBackend

SIZES: dict[str, dict[str, dict[str, int]]] = {
    "tiny": {"vision": {"num_hidden_layers": 1}, "text": {"num_hidden_layers": 1}},
    "ViT-B/32": {"vision": {}, "text": {}},
    "ViT-L/14": {
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    },
    "ViT-H/14": {
        "vision": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        "text": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
    },
}


def main(given: list[str] | None = None) -> int:
    """Run all of it. Returns the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, help="also write the tables there")
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--models", nargs="+", default=["ViT-B/32", "ViT-L/14", "ViT-H/14"], choices=SIZES)
    arguments.add_argument("--batches", nargs="+", type=int, default=[1, 32, 256])
    arguments.add_argument("--files", type=int, default=4096, help="JPEG files end to end")
    arguments.add_argument("--no-suite", action="store_true", help="tables only")
    options = arguments.parse_args(given)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here, so there is nothing to check", file=sys.stderr)
        return 2
    suite = Path(__file__).with_name("torch") / "test_torch_backend.py"
    if not options.no_suite and pytest.main(["-q", "-o", "addopts=", str(suite), "-k", "Cuda"]):
        return 1
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if options.out:
            options.out.write_text("\n".join(lines) + "\n")

    device = torch.device(options.device)
    rate = matmul_rate(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "dry run on the CPU"
    say(f"{name}, {date.today()}, torch {torch.__version__}, bfloat16 throughout;")
    say(f"a large bfloat16 matrix product was measured at {rate / 1e12:.1f} TFLOP/s\n")
    say("| model, batch | minclip | compile=True | Transformers | compiled | of matmul rate | peak memory |")
    say("|---|---|---|---|---|---|---|")
    for model in options.models:
        towers_rows(model, options.batches, rate, device, say)
        torch._dynamo.reset()
        gc.collect()
    files_table(options.models[0] if device.type == "cpu" else "ViT-L/14", options.files, device, say)
    return 0


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations a second of a large bfloat16 product, random numbers, best of ten."""
    n = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds(torch.matmul, a, b, rounds=10)


def seconds(run: Callable[..., object], *inputs: torch.Tensor, rounds: int = 5) -> float:
    """The shortest time of one call, waited for."""
    wait = torch.cuda.synchronize if inputs[0].is_cuda else lambda: None
    times = []
    with torch.inference_mode():
        for i in range(3 + rounds):
            wait()
            start = time.perf_counter()
            run(*inputs)
            wait()
            if i >= 3:
                times.append(time.perf_counter() - start)
    return min(times)


def random_model(name: str) -> tuple[Config, Weights]:
    """A checkpoint of that size in memory, with small random weights."""
    vision = VisionConfig(**SIZES[name]["vision"])  # type: ignore[arg-type]
    text = TextConfig(**SIZES[name]["text"])  # type: ignore[arg-type]
    config = Config(text_config=text, vision_config=vision, projection_dim=512, architectures=("CLIPModel",))
    torch.manual_seed(0)
    return config, Weights({key: value.numpy() for key, value in Clip(config).state_dict().items()})


def transformers_model(config: Config, weights: Weights, device: torch.device) -> torch.nn.Module:
    """The same model as Transformers has it, on the card."""
    import transformers

    peer = transformers.CLIPModel(transformers.CLIPConfig(**config.to_dict()))
    peer.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
    peer.set_attn_implementation("sdpa")
    return peer.eval().to(device, torch.bfloat16)


def operations(tower: VisionConfig | TextConfig, t: int) -> float:
    """Operations of one picture or text of t tokens: the matrix products, two operations a multiply-add."""
    d, f = tower.hidden_size, tower.intermediate_size
    return tower.num_hidden_layers * (2.0 * t * (4 * d * d + 2 * d * f) + 4.0 * t * t * d)


def towers_rows(name: str, batches: list[int], rate: float, device: torch.device, say: Callable[[str], None]) -> None:
    """Images and texts a second of one model, beside Transformers."""
    config, weights = random_model(name)
    vision, text = config.vision_config, config.text_config
    assert vision is not None
    assert isinstance(text, TextConfig)
    plain, compiled = (
        TorchBackend().build(config, weights, device=device.type, dtype="bfloat16", compile=on) for on in (False, True)
    )
    peer = transformers_model(config, weights, device)
    image_runs = [plain.vision, compiled.vision, peer.get_image_features, torch.compile(peer.get_image_features)]
    text_runs = [plain.text, compiled.text, peer.get_text_features, torch.compile(peer.get_text_features)]
    for batch in batches:
        pixels = torch.randn(batch, 3, 224, 224, device=device, dtype=torch.bfloat16)
        ids = torch.randint(3, 49000, (batch, 77), device=device)
        ids[:, -1] = text.eos_token_id
        for kind, runs, given, work in (
            ("images", image_runs, pixels, operations(vision, vision.grid**2 + 1)),
            ("texts", text_runs, ids, operations(text, 77)),
        ):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            speeds = [batch / seconds(run, given) for run in runs]
            share = max(speeds[:2]) * work / rate
            memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
            say(
                f"| {name} {kind}, {batch} | {' | '.join(f'{speed:,.0f}/s' for speed in speeds)} "
                f"| {share:.0%} | {memory:.1f} GiB |"
            )


def files_table(name: str, count: int, device: torch.device, say: Callable[[str], None]) -> None:
    """JPEG files of 512x512 to embeddings, and the share of the time that the card computed."""
    config, weights = random_model(name)
    towers = TorchBackend().build(config, weights, device=device.type, dtype="bfloat16")
    processor = Processor(None, ImageProcessor(), context_length=77, folder=Path())
    model = Model(config, weights, processor, towers, name)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        paths = [str(Path(scratch) / f"{i}.jpg") for i in range(64)]
        for path in paths:
            coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            coarse.resize((512, 512), Image.Resampling.BICUBIC).save(path, quality=90)
        files = [paths[i % len(paths)] for i in range(count)]
        size = min(256, count)
        batch = torch.randn(size, 3, 224, 224, device=device, dtype=torch.bfloat16)
        alone = seconds(towers.vision, batch) * count / size
        say(f"\n| JPEG 512x512 to {name} embeddings, batch {size} | images/s | the card computed |\n|---|---|---|")
        for where, on_device in (("resized in threads", False), ("resized on the card", True)):
            model.encode_image(files[:size], batch_size=size, resize_on_device=on_device)
            start = time.perf_counter()
            model.encode_image(files, batch_size=size, resize_on_device=on_device)
            taken = time.perf_counter() - start
            say(f"| {where} | {count / taken:,.0f} | {alone / taken:.0%} of the time |")


if __name__ == "__main__":
    sys.exit(main())
