"""`minclip bench` from end to end on small checkpoints, and what it says to what it cannot do. No claim about speed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import left_in, run
from folders import peer

import minclip
from minclip import checkpoints, products
from minclip.bench import launcher, machine, memory, random_models, sections, starts
from minclip.bench.measure import LIMIT
from minclip.bench.peers import Peers, quiet
from minclip.commands import bench
from minclip.config import Config, VisionConfig

FILES = "JPEG files to embeddings"
QUICK = "--rounds", 1, "--batch-sizes", 1, 2, "--against"


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products and counts that take no time: what they measure does not matter here."""
    monkeypatch.setattr(machine, "ROWS", 8)
    monkeypatch.setattr(machine, "READ_BYTES", 2**17)
    monkeypatch.setattr(sections, "TEXTS", 20)
    machine.product.cache_clear()


def measured(*words: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON object of a run."""
    out, _ = run("bench", *words, *QUICK, "--json", capsys=capsys)
    (line,) = out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def names(found: dict[str, Any], section: str) -> list[set[str]]:
    return [set(row["medians"]) for row in found["rows"] if row["section"] == section]


def test_every_section_is_measured_for_every_backend(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(miniature, "--backend", "numpy", "torch", capsys=capsys)
    ours = {"minclip numpy", "minclip torch"}
    assert found["left_out"] == {}
    assert found["model"] == str(miniature)
    assert (
        names(found, "images") == names(found, "texts") == [ours | {LIMIT}] * 3
    )  # one after a rest, in a row, a batch
    assert names(found, "first answer") == [ours] * 2
    assert names(found, "end to end") == [ours | {LIMIT}] * 2
    assert names(found, "tokenizer") == names(found, "preprocessing") == [{"minclip"}]
    assert all(len(values) >= 1 for row in found["rows"] for values in row["rounds"].values())
    assert all(value > 0 for row in found["rows"] for value in row["medians"].values())


@pytest.mark.parametrize("kernels", [True, False])
def test_weights_laid_out_are_measured_beside_those_as_stored(
    kernels: bool, miniature: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that makes a difference; where not, it is said, not measured twice."""
    for module in (bench, machine, products):
        monkeypatch.setattr(module, "small_kernels", lambda: kernels)
    found = measured(miniature, "--prepack", capsys=capsys)
    ours = {"minclip numpy", "minclip numpy prepacked"} if kernels else {"minclip numpy"}
    assert set(found["left_out"]) == (set() if kernels else {"minclip numpy prepacked"})
    assert (
        names(found, "images") == names(found, "texts") == [ours | {LIMIT}] * 3
    )  # one after a rest, in a row, a batch
    assert names(found, "first answer") == [ours] * 2
    assert names(found, "end to end") == [ours | {LIMIT}] * 2


def test_others_are_busy_meanwhile_and_gone_afterwards(
    miniature: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[subprocess.Popen[bytes]] = []

    class Process(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            running.append(self)

    def look(*_: object) -> None:
        assert [process.poll() for process in running] == [None] * len(running)

    monkeypatch.setattr(bench.subprocess, "Popen", Process)
    for section in ("tokenizer", "preprocessing", "end_to_end", "towers"):
        monkeypatch.setattr(sections, section, look)
    monkeypatch.setattr(starts, "first_answer", look)
    assert measured(miniature, "--busy", 2, capsys=capsys)["busy"] == 2
    assert len(running) == 2
    assert all(process.poll() is not None for process in running)
    running.clear()
    out, _ = run("bench", miniature, "--busy", 1, *QUICK, capsys=capsys)
    assert "on the CPU, beside 1 busy process; one round" in out


def test_the_limit_is_of_the_faster_way_to_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both give the product; which one is timed is found by timing."""
    ways = []
    monkeypatch.setattr(machine, "small_kernels", lambda: True)
    monkeypatch.setattr(machine, "take_turns", lambda runs, rounds: ways.append(runs[""]) or {"": [float(len(ways))]})
    assert machine.product("float32") is ways[0]
    assert machine.product("float32") is ways[0]
    assert len(ways) == 2  # found once
    machine.product.cache_clear()
    monkeypatch.setattr(machine, "take_turns", lambda runs, rounds: ways.append(runs[""]) or {"": [-float(len(ways))]})
    assert machine.product("float32") is ways[3]
    a, w, out = np.eye(8, 5, dtype=np.float32), np.ones((40, 5), np.float32), np.zeros((8, 40), np.float32)
    machine._in_small_products(a, products.Packed.of(w), out)
    assert (out == a @ w.T).all()


def test_the_text_begins_with_the_machine_and_holds_the_rows_of_the_json_object(
    miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = run("bench", miniature, *QUICK, capsys=capsys)
    lines = out.splitlines()
    assert err == ""
    assert lines[0] == str(machine.Machine.this())
    assert str(miniature) in lines[1]
    shown = [line.strip("| ").split(" | ")[0].strip() for line in lines if line.startswith("| ")][1:]
    rows = measured(miniature, capsys=capsys)["rows"]
    expected = [", ".join([row["what"], *ours.split()[1:]]) for row in rows for ours in row["ratios"]]
    assert shown == expected


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        ("CLIPVisionModelWithProjection", {"text tower", "first answer", "tokenizer"}),
        ("AltCLIPVisionModel", {"text tower", "first answer", "tokenizer", FILES}),
        ("CLIPForImageClassification", {"text tower", "first answer", "tokenizer", FILES}),
        ("MetaClip2TextModel", {"image tower", "first answer", "tokenizer", "preprocessing", FILES}),
        ("AltCLIPModel", {"minclip numpy, first answer", "tokenizer"}),  # of a folder without tokenizer files
    ],
)  # fmt: skip
def test_sections_that_a_checkpoint_has_nothing_for_are_left_out_by_name(
    kind: str, left_out: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with quiet():
        peer(kind).save_pretrained(tmp_path)
    found = measured(tmp_path, capsys=capsys)
    assert set(found["left_out"]) == left_out
    assert {row["section"] for row in found["rows"]} & {"images", "texts"}


def test_peers_stand_in_the_row_with_their_ratio_and_wrong_ones_do_not(
    miniature: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = minclip.load(miniature)

    def make(self: Peers, name: str, tower: Any, example: np.ndarray, dtype: str) -> Callable[..., np.ndarray] | None:
        embed = sections.embed_with(model, tower)
        made = {"transformers": embed, "openvino": lambda given: embed(given)[:, ::-1]}
        return self.attempt(name, lambda: made[name], f"{tower} tower")

    monkeypatch.setattr(Peers, "make", make)
    monkeypatch.setattr(machine, "PACKAGES", ())  # nobody else is started in a process of its own
    words = "--rounds", 2, "--batch-sizes", 2, "--against", "openvino", "transformers", "onnxruntime"
    found = json.loads(run("bench", miniature, *words, "--json", capsys=capsys)[0])
    for section in ("images", "texts"):
        (row,) = (row for row in found["rows"] if row["section"] == section)
        assert set(row["ratios"]["minclip numpy"]) == {"transformers", LIMIT}
    files, arrays = (row for row in found["rows"] if row["section"] == "end to end")
    assert set(files["medians"]) == {"minclip numpy", "transformers", LIMIT}
    assert set(arrays["medians"]) == {"minclip numpy", LIMIT}
    reasons = found["left_out"]
    assert "differ" in reasons["openvino, image tower in float32, batch 2"]
    assert "differ" in reasons["openvino, text tower in float32, batch 2"]
    assert {"onnxruntime, vision tower", "onnxruntime, text tower", "transformers compiled, vision tower"} <= set(
        reasons
    )


def test_a_dtype_that_a_backend_lacks_is_left_out_by_name(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--backend", "numpy", "torch", "--dtype", "float32", "bfloat16"
    found = measured(miniature, *words, capsys=capsys)
    assert set(found["left_out"]) == {"minclip numpy in bfloat16"}
    assert names(found, "images") == [{"minclip numpy", "minclip torch", LIMIT}] * 3 + [{"minclip torch", LIMIT}] * 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no/such/model/here",), "no/such/model/here"),
        (("--backend", "abacus"), "there is no backend 'abacus'"),
        (("--backend", "numpy", "--dtype", "bfloat16"), "does not compute in 'bfloat16'"),
        (("--dtype", "int3"), "invalid choice: 'int3'"),
        (("--against", "tensorflow"), "invalid choice: 'tensorflow'"),
        (("--rounds", 0), "--rounds must be at least 1, not 0"),
        (("--rounds", "x"), "invalid int value: 'x'"),
        (("--busy", -1), "--busy must be at least 0, not -1"),
        (("--threads", 0), "--threads must be at least 1, not 0"),
        (("--batch-sizes", 8, -1), "--batch-sizes must be at least 1, not -1"),
        (("--plot", "bench.png"), "bench.png must end in .svg"),
        (("--plot", "no/such/folder/bench.svg"), "is not a folder"),
        (("--memory", "--plot", "bench.svg"), "--memory takes no"),
        (("--memory", "--dtype", "bfloat16"), "--memory takes no"),
        (("--memory", "--prepack"), "--memory takes no"),
        (("--prepack", "--backend", "torch"), "--prepack is for --backend numpy"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: tuple[object, ...], said: str, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*words, *(() if words[0] == "no/such/model/here" else ("--", miniature))]
    from minclip.commands.cli import main

    try:
        code: object = main(["bench", *map(str, given)])
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_plot_without_matplotlib_is_one_line_before_the_work(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out, err = run("bench", miniature, "--plot", tmp_path / "bench.svg", code=2, capsys=capsys)
    assert out == ""
    assert re.fullmatch(r"minclip: --plot needs matplotlib \(.*\): pip install 'minclip\[bench\]'\n", err)
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize("backends", [["numpy"], ["numpy", "torch"]])
def test_the_plot_is_an_svg_with_a_panel_for_each_thing_that_grows(
    backends: list[str],
    miniature: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    tiny = {"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2, "image_size": 32}
    sizes = {f"ViT-{n}": lambda n=n: VisionConfig(**tiny, patch_size=32 // n, num_hidden_layers=n) for n in (1, 2)}
    monkeypatch.setattr(random_models, "VISION", sizes)
    monkeypatch.setattr("minclip.bench.growth.COUNTS", (1, 20))
    found = measured(miniature, "--plot", tmp_path / "bench.svg", "--backend", *backends, capsys=capsys)
    assert {name: {len(points) for points in panel.values()} for name, panel in found["growth"].items()} == {
        "batch": {2}, "image size": {4}, "model size": {2}, "number of labels": {2}
    }  # fmt: skip
    ours = {f"minclip {backend}" for backend in backends}
    assert all(set(panel) == ours | {LIMIT} for panel in found["growth"].values())
    root = ElementTree.parse(tmp_path / "bench.svg").getroot()
    assert root.tag.endswith("}svg")
    assert sum(element.get("id", "").startswith("axes_") for element in root.iter()) == 4


def test_memory_is_measured_of_a_checkpoint_that_has_texts(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = run("bench", miniature, "--memory", "--json", "--rounds", 1, "--against", capsys=capsys)
    rows = json.loads(out)["rows"]
    assert [(row["unit"], set(row["medians"])) for row in rows] == [("MiB", {"minclip"}), ("s", {"minclip"})]
    out, _ = run("bench", miniature, "--memory", "--rounds", 3, "--against", capsys=capsys)
    assert out.splitlines()[1].startswith(f"{miniature}, on the CPU; one round")  # each process has one
    with quiet():
        peer("CLIPVisionModel").save_pretrained(tmp_path)
    _, err = run("bench", tmp_path, "--memory", code=2, capsys=capsys)
    assert "has no text tower" in err
    assert len(err.splitlines()) == 1


def test_the_random_model_is_a_whole_checkpoint_with_a_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = random_models.small(2047)
    assert full.text_config is not None
    assert full.vision_config is not None
    tower = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    little = replace(
        full, text_config=replace(full.text_config, **tower), vision_config=replace(full.vision_config, **tower)
    )
    monkeypatch.setattr(random_models, "small", lambda _: little)
    random_models.write(random_models.SMALL, tmp_path)
    model = minclip.load(tmp_path)
    assert model.processor(text="a cat")["input_ids"][0, -1] == 2047
    assert model.encode_text(["a cat"]).shape == (1, 512)
    assert checkpoints.read(tmp_path)[0].text_config == little.text_config


def test_the_huge_model_has_the_released_size() -> None:
    from minclip.shapes import expected_shapes

    shapes = expected_shapes(random_models.huge())
    assert round(sum(int(np.prod(shape)) for shape in shapes.values()) / 1e9, 2) == 1.86


def test_sizes_grow_from_vit_b_32_to_vit_h_14() -> None:
    """Parameters of the vision towers, in millions, as published."""
    from minclip.shapes import vision_shapes

    counts = [sum(int(np.prod(s)) for s in vision_shapes(make()).values()) for make in random_models.VISION.values()]
    assert [round(count / 1e6) for count in counts] == [87, 86, 303, 631]
    assert all(isinstance(random_models.vision_model(name), Config) for name in random_models.VISION)


def test_processes_take_turns_and_one_that_fails_is_started_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2]); sys.exit(sys.argv[3] or None)"
    reasons = {"a": "", "b": "no\nluck"}
    commands = {name: [sys.executable, "-c", code, str(log), name, reason] for name, reason in reasons.items()}
    found = starts.by_turns(commands, 3, None)
    assert log.read_text() == "abaa"
    assert found["a"]["error"] is None
    assert len(found["a"]["seconds"]) == 3
    assert found["b"]["error"] == "luck"


@pytest.mark.skipif(not hasattr(launcher.os, "wait4"), reason="this system does not tell a child's memory")
def test_a_childs_peak_memory_is_its_own(tmp_path: Path) -> None:
    """64 MiB more in the child are 64 MiB more; this process, which is far larger, does not count."""
    hold = "import sys; held = b'x' * int(sys.argv[1])"
    sizes = {"little": 0, "much": 2**26}
    commands = {name: [sys.executable, "-S", "-c", hold, str(size)] for name, size in sizes.items()}
    found = starts.by_turns(commands, 1, None)
    little, much = (found[name]["bytes"][0] for name in sizes)
    assert little < 2**26
    assert 2**26 < much - little + 2**22 < 2**26 + 2**23


def test_threads_reach_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys; sys.exit(os.environ['OMP_NUM_THREADS'] + os.environ['OPENBLAS_NUM_THREADS'])"
    assert starts.by_turns({"a": [sys.executable, "-c", code]}, 1, 3)["a"]["error"] == "33"


def test_memory_of_the_huge_model_is_measured_in_both_dtypes(
    miniature: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, folder: Path, dtype: str) -> None:
        assert name == random_models.HUGE
        checkpoints.save(folder, *checkpoints.read(miniature), dtype=dtype)

    monkeypatch.setattr(memory.random_models, "write_in_a_process", write)
    out, _ = run("bench", "--memory", "--json", "--rounds", 1, "--against", capsys=capsys)
    assert [row["what"].split(" (")[0] for row in json.loads(out)["rows"]] == [
        f"5 texts, MetaCLIP 2 huge in {dtype}" for dtype in ("float32", "float32", "bfloat16", "bfloat16")
    ]
