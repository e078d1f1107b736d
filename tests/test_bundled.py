"""The models in the box: what is said when one is used, and that Transformers finds in each what minclip finds."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import minclip
from minclip import checkpoints, notice
from minclip.checkpoints import sources
from minclip.commands import demo
from minclip.tokenizers import Tokenizer
from minclip.tokenizers.bpe import BPETokenizer

transformers.logging.disable_progress_bar()
MEGABYTE = 10**6
PICTURES = [demo.PICTURES / example.picture for example in demo.EXAMPLES]  # square: see README's limits
DOGS = """
dog; Hund; chien; perro; cane; cachorro; hond; pies; hund; köpek; chó; anjing; mbwa; собака; собака; σκύλος;
كلب; כלב; سگ; कुत्ता; কুকুর; สุนัข; イヌ; 개; 狗
"""
CAKES = """
birthday cake; Geburtstagskuchen; gâteau d’anniversaire; tarta de cumpleaños; torta di compleanno; bolo de aniversário;
verjaardagstaart; tort urodzinowy; födelsedagstårta; doğum günü pastası; bánh sinh nhật; kue ulang tahun;
keki ya kusherehekea siku ya kuzaliwa; торт ко дню рождения; торт на день народження; τούρτα γενεθλίων; كعكة عيد ميلاد;
עוגת יום הולדת; کیک تولد; जन्मदिन का केक; জন্মদিনের কেক; เค้กวันเกิด; バースデーケーキ; 생일 케이크; 生日蛋糕
"""
NAMES = [name.strip() for names in (DOGS, CAKES) for name in names.split(";")]  # of two things in 25 languages
HOSTILE = [
    "", "   ", "a  b\t c\nd\re", " before and after ", "İstanbul ß ſ", "fi ﬁ Å", "ＡＢＣ１２３", "e\u0301\u200b\u00ad",
    "don't it's", "&amp; &lt;b&gt;", "👨\u200d👩\u200d👧", "a\u0000b", "\u202eabc", "\ufeffx", "ـكـ", "▁▁a", "\ufffd",
    "HELLO", "<s> x </s>", "<|endoftext|> <unk> <pad><mask> mask", "word " * 60, "x" * 300,
]  # fmt: skip


# --- what is said ----------------------------------------------------------------------------------------------------


def said(program: str, box: Path) -> list[str]:
    """The lines on stderr of a process of its own, whose models in the box are those of `box`."""
    start = (
        "import pathlib, minclip\n"
        "from minclip.checkpoints import sources\n"
        f"sources.BUNDLED = pathlib.Path({str(box)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_a_process_that_loads_bundled_models_says_so_in_one_line(box: Path) -> None:
    call = f"minclip.zero_shot({str(PICTURES[0])!r}, ['a', 'b'])\n"
    (line,) = said(f"{call}{call}minclip.load()\nminclip.load({sources.DEFAULT!r})", box)
    assert line.startswith(f"minclip: using the bundled {sources.DEFAULT}, which knows drawn pictures")
    assert line.endswith(f'photographs of groceries; for others pass model="{notice.ANOTHER}"')


def test_the_command_line_says_it_in_its_own_words(box: Path) -> None:
    command = ["zero-shot", str(PICTURES[0]), "--labels", "a", "b"]
    (line,) = said(f"from minclip.commands.cli import main\nmain({command})", box)
    assert line.endswith(f"for others pass --model {notice.ANOTHER}")


def test_a_program_can_silence_it(box: Path) -> None:
    assert said("import logging\nlogging.getLogger('minclip').setLevel('ERROR')\nminclip.load()", box) == []


def test_threads_say_it_once(box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(notice, "_announced", False)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: minclip.load(), range(8)))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_other_models_and_failed_loads_say_nothing(
    miniature: Path, box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notice, "_announced", False)
    minclip.load(miniature)
    with pytest.raises(minclip.BackendError):
        minclip.load(device="abacus")
    assert not caplog.records


# --- what is in the box ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(sources.LANGUAGES))
def folder(request: pytest.FixtureRequest) -> Path:
    return sources.BUNDLED / request.param


@pytest.fixture(scope="module")
def model(folder: Path) -> minclip.Model:
    return minclip.load(folder)


@pytest.fixture(scope="module")
def tokenizer(model: minclip.Model, folder: Path) -> Tokenizer:
    """minclip's, but that BPE cleans texts in the newer way, as the peer does ("’" stays what it is)."""
    own = model.processor.tokenizer
    return BPETokenizer.from_folder(folder, cleaning="nfc") if isinstance(own, BPETokenizer) else own


@pytest.fixture(scope="module")
def peer_tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_the_peer_reads_texts_alike_and_cuts_them_to_what_the_model_takes(
    model: minclip.Model, tokenizer: Tokenizer, peer_tokenizer: Any
) -> None:
    for text in [*NAMES, *HOSTILE]:
        expected = peer_tokenizer(text, truncation=True)["input_ids"]
        assert tokenizer(text, max_length=model.processor.context_length)["input_ids"][0].tolist() == expected, text


def test_the_peer_makes_the_same_pixels(model: minclip.Model, folder: Path) -> None:
    peer = transformers.AutoImageProcessor.from_pretrained(folder)
    expected = peer([Image.open(path) for path in PICTURES], return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(model.processor(images=PICTURES)["pixel_values"], expected, atol=1e-5)


def test_the_peer_gives_the_same_logits(model: minclip.Model, folder: Path) -> None:
    processor = transformers.AutoProcessor.from_pretrained(folder)
    peer = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    pictures = [Image.open(path) for path in PICTURES]
    inputs = processor(text=NAMES, images=pictures, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = peer(**inputs).logits_per_image
    texts = {name: inputs[name].numpy() for name in ("input_ids", "attention_mask")}
    found = model(**texts, **model.processor(images=PICTURES)).logits_per_image
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_torch_backend_agrees(model: minclip.Model, folder: Path) -> None:
    examined = minclip.load(folder, backend="torch", device="cpu", dtype="float32")
    np.testing.assert_allclose(examined.encode_image(PICTURES), model.encode_image(PICTURES), atol=2e-5)
    np.testing.assert_allclose(examined.encode_text(NAMES), model.encode_text(NAMES), atol=2e-5)


def test_weights_are_float16_and_the_folder_is_small(model: minclip.Model, folder: Path) -> None:
    assert {model.weights.stored(name).dtype for name in model.weights} == {np.dtype(np.float16)}
    assert size(folder) <= 9 * MEGABYTE


def test_the_box_holds_three_and_is_small() -> None:
    assert checkpoints.bundled_names() == sorted(sources.LANGUAGES)
    assert size(sources.BUNDLED) <= 24 * MEGABYTE


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_card_names_the_licences(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    for licence in ("Apache-2.0", "MIT", "CC-BY-4.0", "Unicode-3.0"):
        assert licence in card, licence
