"""Speed and memory beside Transformers, in one run on one machine: `python tests/benchmark.py`.

ViT-B/32 with random weights (speed does not depend on them) and CLIP's tokenizer files. Prints a Markdown table. Each
figure is the best of several rounds, in which the competitors take turns, so that a busy moment hits all of them.
`--memory` measures the peak of encoding five texts with MetaCLIP 2 huge instead (1.9 billion parameters; 8 GB of disk).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import minclip

FILES = Path(__file__).parents[2] / "shared" / "data" / "clip-vit-base-patch32"
LABELS = ["a cat", "a dog", "an astronaut"]
OURS = "import sys, minclip; print(minclip.zero_shot(sys.argv[2], {labels!r}, model=sys.argv[1]))"
THEIRS = (
    "import sys; from transformers import pipeline; "
    "print(pipeline('zero-shot-image-classification', model=sys.argv[1])(sys.argv[2], candidate_labels={labels!r}))"
)


def main() -> None:
    """Make the checkpoint, run every comparison, print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--memory", action="store_true", help="the memory of a large model instead")
    rounds, large = vars(arguments.parse_args()).values()
    if large:
        memory_of_a_large_model()
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "vit-b-32"
        kernels = os.environ.get("OPENBLAS_CORETYPE", "the ones it picks")  # NumPy's speed hangs on them
        print(f"{processor_name()}, {os.cpu_count()} cores, Python {platform.python_version()},", end=" ")
        print(f"OpenBLAS kernels: {kernels}\n")
        print("| | minclip | Transformers | ratio |\n|---|---|---|---|")
        # Each in a process of its own. This one stays small: a child's peak memory counts from its parent's size.
        for job in ("make_checkpoint", "images", "tokens", "pixels"):
            subprocess.run([sys.executable, __file__, job, str(folder), str(rounds)], check=True)
        cold_start(folder, Path(scratch), rounds)


def make_checkpoint(folder: Path, rounds: int) -> None:
    """A full-size ViT-B/32 folder as Transformers writes it."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.CLIPConfig.from_pretrained(FILES)
    transformers.CLIPModel(config).save_pretrained(folder)
    for path in FILES.iterdir():
        if path.name != "config.json":
            shutil.copy(path, folder)


def row(what: str, ours: float, theirs: float, unit: str, *, less_is_better: bool = False) -> None:
    """One line of the table; the ratio says how many times better minclip is."""
    ratio = theirs / ours if less_is_better else ours / theirs
    print(f"| {what} | {ours:,.2f} {unit} | {theirs:,.2f} {unit} | {ratio:.2f} |", flush=True)


def best(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest time of each, after a warm-up, the competitors taking turns."""
    times = {name: float("inf") for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def images(folder: Path, rounds: int) -> None:
    """The image tower, batch 32: NumPy, and the torch backend in both dtypes."""
    import numpy as np
    import torch
    import transformers

    transformers.logging.disable_progress_bar()

    pixels = np.random.default_rng(0).normal(size=(32, 3, 224, 224)).astype(np.float32)
    given = torch.from_numpy(pixels)
    peers = {
        dtype: transformers.CLIPModel.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        for dtype in ("float32", "bfloat16")
    }

    def peer(dtype: str) -> None:
        with torch.inference_mode():
            peers[dtype].get_image_features(given.to(getattr(torch, dtype)))

    models = {"numpy float32": minclip.load(folder)}
    for dtype in peers:
        models[f"torch {dtype}"] = minclip.load(folder, backend="torch", device="cpu", dtype=dtype)
    runs: dict[str, Callable[[], object]] = {dtype: lambda dtype=dtype: peer(dtype) for dtype in peers}
    for name, model in models.items():
        runs[name] = lambda model=model: model.get_image_features(pixel_values=pixels)
    times = best(runs, rounds)
    for name in models:
        dtype = name.split()[1]
        row(f"ViT-B/32 image tower, batch 32, {name}", 32 / times[name], 32 / times[dtype], "img/s")


def tokens(folder: Path, rounds: int) -> None:
    """5,000 short labels whose words have been seen."""
    import transformers

    from minclip.tokenizers import find_tokenizer

    ours, theirs = find_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours is not None
    words = ["cat", "dog", "car", "tree", "house", "bird", "fish", "boat", "plane", "train", "flower", "horse", "cup"]
    labels = [f"a photo of a {a} and {b}" for a in words for b in words] * 30
    labels = labels[:5000]
    times = best({"ours": lambda: ours(labels), "theirs": lambda: theirs(labels, padding=True)}, rounds)
    row("tokenizing 5,000 short labels", 5000 / times["ours"], 5000 / times["theirs"], "texts/s")


def pixels(folder: Path, rounds: int) -> None:
    """A 512x512 photograph to pixel_values."""
    import transformers
    from PIL import Image
    from skimage import data

    from minclip.images import ImageProcessor

    picture = Image.fromarray(data.astronaut())
    ours, theirs = ImageProcessor.from_folder(folder), transformers.CLIPImageProcessorPil.from_pretrained(folder)
    runs = {"ours": lambda: ours(picture), "theirs": lambda: theirs(picture, return_tensors="np")}
    times = best(runs, 10 * rounds)
    row("512x512 picture to pixel_values", 1e3 * times["ours"], 1e3 * times["theirs"], "ms", less_is_better=True)


def cold_start(folder: Path, scratch: Path, rounds: int) -> None:
    """From process start to the answer for one picture and three labels: seconds, and peak resident memory."""
    from PIL import Image
    from skimage import data

    picture = scratch / "astronaut.jpg"
    Image.fromarray(data.astronaut()).save(picture)
    seconds, memory = {}, {}
    for name, code in (("ours", OURS), ("theirs", THEIRS)):
        command = [sys.executable, "-c", code.format(labels=LABELS), str(folder), str(picture)]
        for _ in range(rounds):
            start = time.perf_counter()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            assert status == 0, f"{name} failed"
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - start)
            memory[name] = usage.ru_maxrss / 1024
    row("process start to answer, 1 image, 3 labels", seconds["ours"], seconds["theirs"], "s", less_is_better=True)
    row("peak resident memory of that", memory["ours"], memory["theirs"], "MiB", less_is_better=True)
    size = (folder / "model.safetensors").stat().st_size / 2**20
    print(f"\nweight file {size:,.0f} MiB: minclip's peak is {memory['ours'] / size:.2f} times that")


HUGE = """
import sys, torch, transformers
transformers.logging.disable_progress_bar()
shared = {"num_attention_heads": 16, "projection_dim": 1024}
config = transformers.MetaClip2Config(
    text_config={**shared, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                 "vocab_size": 901629, "eos_token_id": 2, "bos_token_id": 0},
    vision_config={**shared, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "patch_size": 14},
    projection_dim=1024)
transformers.MetaClip2Model(config).to(getattr(torch, sys.argv[2])).save_pretrained(sys.argv[1])
"""
IDS = "import numpy as np; ids = np.random.default_rng(0).integers(3, 900000, (5, 12)); ids[:, -1] = 2; "
OURS_HUGE = "import sys, minclip; " + IDS + "minclip.load(sys.argv[1]).get_text_features(input_ids=ids)"
THEIRS_HUGE = (
    "import sys, torch, transformers; " + IDS + "model = transformers.MetaClip2Model.from_pretrained(sys.argv[1]); "
    "model.get_text_features(torch.from_numpy(ids))"
)


def memory_of_a_large_model() -> None:
    """Peak resident memory, and of that what is not the mapped file, for five texts with MetaCLIP 2 huge."""
    print("| five texts, MetaCLIP 2 huge | file | minclip's peak | Transformers' peak | minclip | Transformers |")
    print("|---|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-c", HUGE, folder, dtype], check=True, stderr=subprocess.DEVNULL)
            size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors")) / 2**20
            figures = []
            for code in (OURS_HUGE, THEIRS_HUGE):
                start = time.perf_counter()
                child = subprocess.Popen([sys.executable, "-c", code, folder], stderr=subprocess.DEVNULL)
                _, status, usage = os.wait4(child.pid, 0)
                assert status == 0, code
                figures.append((usage.ru_maxrss / 1024, time.perf_counter() - start))
        (ours, our_time), (theirs, their_time) = figures
        memory = " | ".join(f"{mebibytes:,.0f} MiB" for mebibytes in (size, ours, theirs))
        print(f"| {dtype} | {memory} | {our_time:.1f} s | {their_time:.1f} s |", flush=True)


def processor_name() -> str:
    """What the operating system calls the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    jobs = {"make_checkpoint": make_checkpoint, "images": images, "tokens": tokens, "pixels": pixels}
    if len(sys.argv) == 4 and sys.argv[1] in jobs:
        jobs[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
