"""`minclip bench`: how fast a checkpoint runs here, beside what the machine can do and what others do on it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from threadpoolctl import threadpool_limits

from minclip import checkpoints, notice
from minclip.backend import get_backend
from minclip.bench import growth, machine, memory, plot, report, sections, starts
from minclip.bench.peers import NAMES, Peers
from minclip.bench.plan import PREPACKED, Plan, Report, load_models, locate
from minclip.commands import common, printing
from minclip.products import small_kernels

DTYPES = ("float32", "bfloat16", "float16", "float64")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, who takes part, how often, and how the result is shown."""
    parser.usage = (
        "minclip bench [MODEL] [--backend numpy torch] [--dtype float32 bfloat16] [--threads N]\n"
        "                     [--against transformers onnxruntime openvino] [--batch-sizes 1 8 32] [--rounds N]\n"
        "                     [--prepack] [--busy N] [--memory] [--json] [--plot bench.svg]"
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="checkpoint folder, hub id, or name of a bundled model (default: ViT-B/32 with random weights)",
    )
    parser.set_defaults(how_to_choose=f"name {notice.ANOTHER}")
    parser.add_argument("--backend", nargs="+", default=["numpy"], help="what computes (default: numpy)")
    parser.add_argument(
        "--dtype", nargs="+", default=["float32"], choices=DTYPES, help="in which numbers (default: float32)"
    )
    parser.add_argument(
        "--prepack", action="store_true", help="NumPy also with its weights laid out: load(..., prepack=True)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="for each of the competitors (default: their own)")
    parser.add_argument(
        "--against",
        nargs="*",
        default=list(NAMES),
        choices=NAMES,
        help="competitors, of which those that are not installed are left out (default: all; nothing: none)",
    )
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 8, 32], metavar="N", help="(default: 1 8 32)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each competitor (default: 5)")
    parser.add_argument(
        "--busy", type=int, default=0, metavar="N", help="all of it beside N other busy processes (default: 0)"
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="the memory of embedding five texts instead, by default with MetaCLIP 2 huge (8 GB of disk and of memory)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--plot", type=Path, metavar="bench.svg", help="draw how the cost grows, too")


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    check(options)
    if options.model is not None:
        checkpoints.locate(options.model)  # raises where there is none, before anything is measured
    with (
        beside(options.busy),
        threadpool_limits(options.threads, user_api="blas"),
    ):  # None: as it is; the products of the limit heed it, too
        note("the machine's limits")
        found = Report(
            machine=machine.Machine.this(),
            model=options.model or "",
            rates=[machine.product_rate(options.rounds)],
            bandwidth=machine.memory_bandwidth(options.rounds),
            rounds=options.rounds,
            threads=options.threads,
            busy=options.busy,
        )
        if options.memory:
            memory.measure(found, options.model, options.against, note)
        else:
            measure(options, found)
    if options.plot:
        with common.writing(options.plot) as file:
            plot.draw(found, file)
        print(f"wrote {options.plot}", file=sys.stderr)
    if options.json:
        printing.print_json(report.as_json(found))
    else:
        print("\n".join(report.lines(found)))
    return 0


@contextmanager
def beside(count: int) -> Iterator[None]:
    """Within, so many other processes are busy, each as much as one core lets it."""
    with ExitStack() as others:
        for _ in range(count):
            other = others.enter_context(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
            others.callback(other.kill)
        yield


def measure(options: argparse.Namespace, found: Report) -> None:
    """Every section of the table, and with --plot how the cost grows."""
    with tempfile.TemporaryDirectory() as scratch:
        note("the checkpoint")
        found.model, source = locate(options.model, Path(scratch))
        backends = list(options.backend)
        if options.prepack and small_kernels():
            backends.insert(backends.index("numpy") + 1, PREPACKED)
        elif options.prepack:
            found.left_out[f"minclip {PREPACKED}"] = "no order is known in which this linear algebra is faster"
        plan = Plan(
            name=found.model,
            source=source,
            config=checkpoints.read(source)[0],
            backends=backends,
            dtypes=options.dtype,
            batch_sizes=options.batch_sizes,
            against=options.against,
            rounds=options.rounds,
            threads=options.threads,
            scratch=Path(scratch),
            note=note,
        )
        models = load_models(plan, found)
        any_model = next(iter(models.values()))
        peers = Peers(plan.against, plan.folder, plan.config, plan.scratch, found.left_out, plan.threads)
        sections.towers(plan, found, models, peers, "vision")
        sections.towers(plan, found, models, peers, "text")
        starts.first_answer(plan, found)
        sections.tokenizer(plan, found, any_model, peers)
        sections.preprocessing(plan, found, any_model, peers)
        sections.end_to_end(plan, found, models, peers)
        if options.plot:
            growth.measure(plan, found, models)


def check(options: argparse.Namespace) -> None:
    """Raises ValueError or BackendError, before anything is measured, for what cannot be meant."""
    if options.busy < 0:
        raise ValueError(f"--busy must be at least 0, not {options.busy}")
    numbers = {"--rounds": options.rounds, "--threads": options.threads, "--batch-sizes": min(options.batch_sizes)}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, not {number}")
    for name in ("backend", "dtype", "against", "batch_sizes"):  # each once, whatever was written
        setattr(options, name, list(dict.fromkeys(getattr(options, name))))
    for backend in options.backend:
        get_backend(backend)
    if options.prepack and "numpy" not in options.backend:
        raise ValueError("--prepack is for --backend numpy; the others lay weights out as they see fit")
    if options.memory and (
        options.backend != ["numpy"] or options.dtype != ["float32"] or options.plot or options.prepack
    ):
        raise ValueError(
            "--memory takes no --backend, --dtype, --prepack or --plot: it measures NumPy on weights as they are stored"
        )
    if options.plot:
        common.check_output(options.plot, [], ".svg")
        plot.check()


def note(line: str) -> None:
    """What is being measured, where somebody is looking."""
    if sys.stderr is not None and sys.stderr.isatty():
        printing.complain(f"{line} ...")
