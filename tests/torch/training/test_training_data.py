"""Data sets: what is read, what is refused, and batches that follow from the seed and the step."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from training import entries, write_data

from minclip.errors import ImageError
from minclip.images import open_image, to_rgb
from minclip_torch.training import dataset
from minclip_torch.training.dataset import Captioner, DecodedImages, decode_images, draw_batch
from minclip_torch.training.entries import DataError, Entry, read_entries


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


# --- the file ------------------------------------------------------------------------------------------------------


def test_entries_say_what_the_lines_say(data: Path) -> None:
    for found, line in zip(read_entries(data), entries(), strict=True):
        assert found.images == tuple(data.parent / name for name in line["images"])
        assert found.captions == {language: tuple(texts) for language, texts in line["captions"].items()}
        assert found.mirror == line["mirror"]


def test_only_the_languages_asked_for_are_kept(data: Path) -> None:
    assert all(set(entry.captions) == {"fr"} for entry in read_entries(data, ("fr",)))


def test_captions_may_be_a_plain_list_and_belong_to_every_language(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('\n{"images": ["a.png"], "captions": ["a dog"]}\n  \n')
    assert read_entries(path, ("en",)) == [Entry((tmp_path / "a.png",), {"": ("a dog",)})]


@given(st.text(min_size=1))
def test_any_text_is_a_caption_whatever_ends_lines_elsewhere(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    line = json.dumps({"images": ["a.png"], "captions": [text]}, ensure_ascii=False)
    path.write_bytes((line + "\n").encode("utf-8", "surrogatepass"))
    assert read_entries(path)[0].captions[""] == (text,)


GOOD = '{"images": ["a.png"], "captions": {"en": ["a"]}}\n'


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        "null",
        '{"images": ["a.png"]}',
        '{"captions": ["a"]}',
        '{"images": ["a.png"], "captions": "a"}',
        '{"images": ["a.png"], "captions": {"en": "a"}}',
        '{"images": ["a.png"], "captions": {"en": [3]}}',
        '{"images": "a.png", "captions": ["a"]}',
        '{"images": [], "captions": ["a"]}',
        '{"images": ["a.png"], "captions": []}',
        '{"images": ["a.png"], "captions": {}}',
        '{"images": ["a.png"], "captions": ["a"], "sets": "all"}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_broken_line_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}")
    with pytest.raises(DataError) as caught:
        read_entries(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('"photograph": 1', "photograph must be true or false, not 1"),
        ('"photograph": "yes"', "photograph must be true or false, not 'yes'"),
        ('"photograph": null', "photograph must be true or false, not None"),
        *(
            (f'"weight": {weight}', "weight must be a finite number above 0, not ")
            for weight in ("0", "-1", "NaN", "Infinity", "1e999", '"2"', "true", "null", "[1]", "1" + "0" * 400)
        ),
    ],
)
def test_a_setting_of_an_entry_that_cannot_be_is_refused_by_its_number(tmp_path: Path, setting: str, says: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f'{GOOD}{{"images": ["a.png"], "captions": ["a"], {setting}}}\n')
    with pytest.raises(DataError) as caught:
        read_entries(path)
    assert str(caught.value).startswith(f"{path}, line 2: {says}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_entries_are_drawings_of_weight_one_unless_their_line_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f'{GOOD}{{"images": ["a.jpg"], "captions": ["a"], "photograph": true, "weight": 3}}\n')
    found = [(entry.photograph, entry.weight) for entry in read_entries(path)]
    assert found == [(False, 1.0), (True, 3.0)]


def test_an_entry_without_captions_in_the_languages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(GOOD)
    with pytest.raises(DataError, match="line 1: needs at least one image and one caption in de, fr"):
        read_entries(path, ("de", "fr"))


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe{}"])
def test_a_file_without_entries_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "data.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"data\.jsonl (cannot be read|holds no entries)"):
        read_entries(path)


def test_images_that_do_not_fit_into_memory_are_one_line() -> None:
    entry = Entry((Path("absent.png"),) * 3, {"": ("much",)})
    with pytest.raises(DataError, match=r"^3 images of 10000000 x 10000000 pixels take 1200000 GB, more than"):
        decode_images([entry], 10**7)


def test_a_strip_that_would_be_gigabytes_when_resized_is_refused_by_name(tmp_path: Path) -> None:
    for size in ((4_000_000, 1), (1, 4_000_000)):
        path = tmp_path / "strip.png"
        Image.new("1", size).save(path)
        with pytest.raises(ImageError, match=r"strip\.png: resizing .* exceeds \d+ pixels; crop it"):
            decode_images([Entry((path,), {"": ("strip",)})], 80)


# --- pictures ------------------------------------------------------------------------------------------------------


def test_pictures_lie_in_the_order_of_the_entries(data: Path) -> None:
    found = read_entries(data)
    pictures = decode_images(found, 20)
    assert pictures.pixels.shape == (sum(len(entry.images) for entry in found), 4, 20, 20)
    for entry, (first, end) in zip(found, pictures.spans, strict=True):
        for path, pixels in zip(entry.images, pictures.pixels[first:end], strict=True):
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))


@pytest.mark.parametrize("size", [(60, 20), (20, 60), (10, 30), (40, 41)])
def test_the_middle_of_a_picture_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    """Columns and rows that hold their own place between 0 and 1: the middle is symmetric about a half."""
    width, height = size
    ramp = np.zeros((height, width, 3))
    ramp[..., 0] = np.linspace(0, 255, width)
    ramp[..., 1] = np.linspace(0, 255, height)[:, None]
    Image.fromarray(ramp.round().astype(np.uint8)).save(tmp_path / "a.png")
    pixels = decode_images([Entry((tmp_path / "a.png",), {})], 16).pixels[0].float()
    assert (pixels[3] == 255).all()
    across, down = pixels[0].mean(0), pixels[1].mean(1)
    for line, n in ((across, width), (down, height)):
        torch.testing.assert_close(line + line.flip(0), torch.full((16,), 255.0), atol=3, rtol=0)
        step = 255 / (n - 1) * n / round(n * 16 / min(size))  # of the ramp, from one pixel of the result to the next
        assert float(line[12] - line[3]) == pytest.approx(9 * step, abs=3)


def test_nothing_bleeds_out_of_transparent_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, :16] = (0, 0, 255, 255)
    pixels[:, 16:] = (255, 0, 0, 0)  # red, but nobody sees it
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = decode_images([Entry((tmp_path / "a.png",), {})], 10).pixels[0].float()
    assert (found[0] * found[3] < 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "CMYK", "I;16"])
def test_a_picture_of_any_mode_looks_as_the_image_processor_sees_it(tmp_path: Path, mode: str) -> None:
    grey = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    image = Image.fromarray(grey.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    image.save(path)
    found = decode_images([Entry((path,), {})], 16).pixels
    assert np.array_equal(found[0, :3].permute(1, 2, 0).numpy(), np.asarray(to_rgb(open_image(path))))


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    for name in ("absent.png", "broken.png"):
        with pytest.raises(ImageError, match=name):
            decode_images([Entry((tmp_path / name,), {})], 8)


# --- captions ------------------------------------------------------------------------------------------------------

DOG = Entry((), {"en": ("dog", "pet", "animal"), "fr": ("chien", "animal de compagnie")})


def said(captioner: Captioner, entry: Entry = DOG, count: int = 4000) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(captioner(entry, rng) for _ in range(count))


def test_names_come_in_every_language_and_half_of_the_first_ones_in_a_template_as_it_is_written() -> None:
    entry = Entry((), {"en": DOG.captions["en"], "x-nobody": DOG.captions["fr"]})
    found = said(Captioner(first=0.2, name=1.0, keyword=0.0, templates=("a {}", "the {}")), entry)
    shares = {text: found[text] / 4000 for text in found}
    assert set(shares) == {"dog", "a dog", "the dog", "chien"}
    assert shares["chien"] == pytest.approx(0.4, abs=0.03)
    assert shares["dog"] == pytest.approx(0.3, abs=0.03)
    assert shares["a dog"] == pytest.approx(shares["the dog"], abs=0.03)


def test_names_and_keywords_stand_in_phrases_of_their_own_language_and_lists_of_them_do_not() -> None:
    found = said(Captioner(name=0.4, keyword=0.3))
    assert {"A dog.", "the pet", "Un chien", "C'est un animal de compagnie.", "chien, animal de compagnie"} <= set(
        found
    )
    assert not {text for text in found if "," in text} & {text for text in found if text[0].isupper()}
    assert not any("dog" in text or "pet" in text for text in found if text.lower().startswith(("un ", "le ", "c'est")))


def test_without_phrases_only_a_capital_or_a_full_stop_is_added() -> None:
    found = said(Captioner(name=1.0, framed=0.0))
    assert set(found) == {"dog", "Dog", "dog.", "Dog.", "chien", "Chien", "chien.", "Chien."}
    assert (found["dog"] + found["chien"]) / 4000 == pytest.approx(0.85**2, abs=0.03)


def test_captions_without_a_language_stay_as_they_are() -> None:
    assert set(said(Captioner(framed=1.0), Entry((), {"": ("dog",)}), 50)) == {"dog"}


def test_templates_stand_in_for_the_first_languages_phrases_alone() -> None:
    found = said(Captioner(name=1.0, framed=1.0, templates=("my {}",)))
    assert {text for text in found if "dog" in text} == {"my dog"}
    assert {"un chien", "Un chien."} <= set(found)


def test_keywords_stand_alone_or_after_the_name() -> None:
    only = Entry((), {"": DOG.captions["en"]})
    found = said(Captioner(name=0.5, keyword=0.2), only)
    assert found["dog"] / 4000 == pytest.approx(0.5, abs=0.03)
    assert (found["pet"] + found["animal"]) / 4000 == pytest.approx(0.2, abs=0.03)
    together = {"dog, pet", "dog, animal", "dog, pet, animal", "dog, animal, pet"}
    assert set(found) == {"dog", "pet", "animal", *together}


def test_an_entry_without_keywords_is_called_by_its_name() -> None:
    assert set(said(Captioner(name=0.0, keyword=0.5), Entry((), {"": ("dog",)}), 50)) == {"dog"}


def test_braces_in_captions_and_templates_are_text() -> None:
    found = said(Captioner(name=1.0, templates=("{x: {}}",)), Entry((), {"": ("{0} {}",)}), 50)
    assert set(found) == {"{0} {}", "{x: {0} {}}"}


# --- batches -------------------------------------------------------------------------------------------------------


def fake(count: int, seed: int = 0) -> tuple[DecodedImages, list[Entry]]:
    """Entries with one to three pictures each, whose first byte is the picture's number."""
    counts = np.random.default_rng(seed).integers(1, 4, size=count)
    ends = np.cumsum(counts)
    pixels = torch.arange(int(ends[-1]), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 4, 2, 2)
    made = [
        Entry(tuple(map(Path, "abc"[:n])), {"": (f"thing {i}", f"key {i}")}, bool(i % 2)) for i, n in enumerate(counts)
    ]
    return DecodedImages(pixels, np.stack([ends - counts, ends], axis=1)), made


@given(count=st.integers(1, 30), size=st.integers(1, 40), seed=st.integers(0, 2**32), step=st.integers(0, 10**6))
def test_a_batch_holds_entries_with_their_own_pictures_and_words_none_twice(
    count: int, size: int, seed: int, step: int
) -> None:
    pictures, made = fake(count)
    batch = draw_batch(pictures, made, Captioner(name=0.5), size, seed, step, slice(0, size))
    assert len(batch.pixels) == len(batch.texts) == len(batch.mirror) == len(batch.entries) == size
    times = Counter(batch.entries.tolist())
    assert max(times.values()) - min(times[i] for i in range(count)) <= 1  # once each, while there are enough
    for pixels, text, mirror, entry in zip(batch.pixels, batch.texts, batch.mirror, batch.entries, strict=True):
        first, end = pictures.spans[entry]
        assert first <= int(pixels[0, 0, 0]) < end
        assert str(entry) in text.split()[1].rstrip(",")
        assert bool(mirror) == made[entry].mirror


@given(share=st.integers(1, 8), processes=st.integers(1, 5), step=st.integers(0, 100))
def test_the_parts_of_a_batch_make_the_whole(share: int, processes: int, step: int) -> None:
    pictures, made = fake(20)
    size = share * processes

    def part(rows: slice) -> dataset.Batch:
        return draw_batch(pictures, made, Captioner(), size, 3, step, rows)

    whole = part(slice(0, size))
    parts = [part(slice(i * share, (i + 1) * share)) for i in range(processes)]
    assert torch.equal(torch.cat([p.pixels for p in parts]), whole.pixels)
    assert torch.equal(torch.cat([p.mirror for p in parts]), whole.mirror)
    assert [text for p in parts for text in p.texts] == whole.texts
    assert all(np.array_equal(p.entries, whole.entries) for p in parts)


def test_a_batch_follows_from_seed_and_step() -> None:
    def drawn(seed: int, step: int) -> tuple[list[int], list[str]]:
        batch = draw_batch(*fake(20), Captioner(), 16, seed, step, slice(0, 16))
        return batch.entries.tolist(), batch.texts

    assert drawn(1, 2) == drawn(1, 2)
    assert len({str(drawn(seed, step)) for seed in range(3) for step in range(3)}) == 9


def test_all_pictures_of_an_entry_get_their_turn() -> None:
    pictures, made = fake(6)
    seen = [draw_batch(pictures, made, Captioner(), 6, 0, step, slice(0, 6)).pixels[:, 0, 0, 0] for step in range(40)]
    assert set(torch.cat(seen).tolist()) == set(range(len(pictures.pixels)))


def weighted(weights: list[float]) -> tuple[DecodedImages, list[Entry]]:
    """Entries of these weights, every second a photograph."""
    pictures, made = fake(len(weights))
    kinds = enumerate(zip(made, weights, strict=True))
    return pictures, [replace(entry, weight=weight, photograph=i % 2 == 1) for i, (entry, weight) in kinds]


@given(weight=st.floats(1e-3, 1e3), count=st.integers(1, 30), size=st.integers(1, 40), step=st.integers(0, 10**6))
def test_equal_weights_draw_the_permutations_that_they_always_drew(
    weight: float, count: int, size: int, step: int
) -> None:
    rng = np.random.default_rng([7, step])
    expected = np.concatenate([rng.permutation(count) for _ in range(-(-size // count))])[:size]
    batch = draw_batch(*weighted([weight] * count), Captioner(), size, 7, step, slice(0, size))
    assert np.array_equal(batch.entries, expected)
    assert batch.texts == draw_batch(*fake(count), Captioner(), size, 7, step, slice(0, size)).texts


@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30), size=st.integers(1, 70), step=st.integers(0, 99)
)
def test_no_weight_draws_an_entry_twice_before_all_are_drawn(weights: list[float], size: int, step: int) -> None:
    pictures, made = weighted(weights)
    batch = draw_batch(pictures, made, Captioner(), size, 0, step, slice(0, size))
    for first in range(0, size, len(weights)):
        chosen = batch.entries[first : first + len(weights)]
        assert len(set(chosen.tolist())) == len(chosen)
    assert batch.photograph.tolist() == [made[entry].photograph for entry in batch.entries]
    part = slice(size // 3, size // 2)
    alone = draw_batch(pictures, made, Captioner(), size, 0, step, part)
    assert torch.equal(alone.photograph, batch.photograph[part])
    assert torch.equal(alone.pixels, batch.pixels[part])


def test_entries_are_drawn_in_proportion_to_their_weights() -> None:
    """The first row of a batch is an entry with a probability of its weight over the sum; the next, of what is left."""
    weights = np.array([1.0, 2.0, 5.0, 0.5])
    pictures, made = weighted(weights.tolist())
    rows = [draw_batch(pictures, made, Captioner(), 2, 0, step, slice(0, 2)).entries for step in range(4000)]
    first, second = (np.bincount(row, minlength=4) / 4000 for row in np.transpose(rows))
    share = weights / weights.sum()
    np.testing.assert_allclose(first, share, atol=0.03)
    after = [sum(share[i] * share[j] / (1 - share[i]) for i in range(4) if i != j) for j in range(4)]
    np.testing.assert_allclose(second, after, atol=0.03)


def test_shared_captions_are_counted_over_all_captions_of_either() -> None:
    made = [
        Entry((), {"en": ("dog", "pet", "animal"), "fr": ("x",)}),
        Entry((), {"en": ("cat", "pet", "animal", "pet"), "fr": ("x",)}),
        Entry((), {"en": ("car",), "fr": ("x",)}),
    ]
    found = dataset.shared_captions(made)(np.array([0, 1, 2, 0]))
    expected = torch.tensor([[1, 0.5, 0, 1], [0.5, 1, 0, 0.5], [0, 0, 1, 0], [1, 0.5, 0, 1]])
    torch.testing.assert_close(found, expected)
