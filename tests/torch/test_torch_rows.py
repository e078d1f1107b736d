"""Batches cut by their rows, a thread each, answer as they do whole, and leave torch's own threads as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minclip
from minclip.inputs import ImageInputs, checked_inputs
from minclip.testing.strategies import Case, cases, configs, inputs, optional_text_inputs
from minclip_torch import rows
from minclip_torch.backend import TorchTowers
from minclip_torch.packed import PackedLinear
from minclip_torch.rows import by_rows, compile_once

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def several_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("most", [1024, 12])
@given(st.data())
def test_a_batch_cut_by_rows_gives_what_the_whole_gives(most: int, data: st.DataObject) -> None:
    case: Case = data.draw(cases(configs(), inputs))
    text = data.draw(optional_text_inputs(case.model.config)) if data.draw(st.booleans()) else {}
    pixels = {"pixel_values": case.inputs["pixel_values"]}
    given: dict[str, Any] = checked_inputs(case.model.config, {**pixels, **text} if text else case.inputs)
    towers = TorchTowers(case.model.config, case.model.weights, CPU, torch.float64, packed=False)
    for tower, embeds in (("vision", towers.image_embeds), ("text", towers.text_embeds)):
        if tower not in given:
            continue
        found = []
        for tokens in (10**9, 0):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rows, "TOKENS", tokens)
                patch.setattr(rows, "MOST_TOKENS", most)
                output = getattr(towers, tower)(given[tower])
                found.append([output.last_hidden_state, output.pooler_output, output.embeds, embeds(given[tower])])
        for whole, cut in zip(*found, strict=True):
            assert (whole is None) == (cut is None)
            if whole is not None:
                torch.testing.assert_close(cut, whole, rtol=1e-10, atol=1e-10)


def seen(count: int, tokens: int) -> tuple[list[slice], set[str], set[int]]:
    """Which parts a run is cut into, on which threads, and how many torch uses on each."""
    parts, names, numbers = [], set(), set()
    meeting = threading.Barrier(3, timeout=60)

    def run(part: slice) -> tuple[torch.Tensor, None]:
        parts.append(part)
        names.add(threading.current_thread().name)
        numbers.add(torch.get_num_threads())
        torch.ones(300, 300) @ torch.ones(300, 300)
        if threading.current_thread() is not threading.main_thread():
            meeting.wait()
        return torch.arange(count)[part], None

    found, nothing = by_rows(run, count, tokens)
    assert nothing is None
    assert found is not None
    assert found.tolist() == list(range(count))
    return parts, names, numbers


def test_large_batches_run_on_threads_of_one_each() -> None:
    parts, names, numbers = seen(12, 1024)
    assert len(parts) == 12
    assert len(names) == 3
    assert numbers == {1}
    assert seen(12, 1024)[1] == names  # which are kept


def test_small_batches_run_on_torchs_own_threads() -> None:
    parts, names, numbers = seen(2, 77)
    assert parts == [slice(0, 2)]
    assert names == {threading.main_thread().name}
    assert numbers == {3}


def test_threads_that_come_later_have_torchs_number_of_threads() -> None:
    seen(12, 1024)
    numbers: list[int] = []
    thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert numbers == [3]


def test_what_fails_in_a_part_is_raised_when_all_are_done() -> None:
    done = []

    def run(part: slice) -> tuple[torch.Tensor]:
        if part.start == 0:
            raise ValueError("the first")
        done.append(part.start)
        return (torch.zeros(1),)

    with pytest.raises(ValueError, match="the first"):
        by_rows(run, 30, 1024)
    assert sorted(done) == list(range(1, 30))


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_where_threads_cannot_be_started_the_caller_does_it(allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    rows._workers.cache_clear()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    try:
        parts, names, _ = seen(12, 1024)
    finally:
        rows._workers.cache_clear()
    assert len(parts) == 12
    assert names == {threading.main_thread().name}
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()


FORKED = """
import os, sys, torch
from minclip_torch.rows import by_rows

def doubled(part):
    return (2 * torch.arange(part.start, part.stop),)

torch.set_num_threads(2)
expected = list(range(0, 40, 2))
assert by_rows(doubled, 20, 1024)[0].tolist() == expected
child = os.fork()
if child:
    sys.exit(os.waitpid(child, 0)[1])
os._exit(by_rows(doubled, 20, 1024)[0].tolist() != expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()


def test_several_callers_at_once_get_their_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And keep torch's number of threads, though they come while workers are given theirs, which takes long here."""
    give, together = torch.set_num_threads, threading.Barrier(4)

    def slowly(number: int) -> None:
        give(number)
        time.sleep(0.05)

    def multiples(x: int) -> tuple[list[int], int, set[threading.Thread]]:
        workers = set()

        def run(part: slice) -> tuple[torch.Tensor]:
            workers.add(threading.current_thread())
            return (x * torch.arange(40)[part],)

        together.wait(60)
        time.sleep(0.02 * x)
        found = by_rows(run, 40, 1024)[0]
        assert found is not None
        return found.tolist(), torch.get_num_threads(), workers

    rows._workers.cache_clear()
    monkeypatch.setattr(torch, "set_num_threads", slowly)
    with ThreadPoolExecutor(4) as callers:
        found, numbers, workers = zip(*callers.map(multiples, range(8)), strict=True)
    assert list(found) == [[x * i for i in range(40)] for x in range(8)]
    assert set(numbers) == {3}
    assert len(set().union(*workers)) <= 3


def test_the_compiler_works_once_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of threads that come with new shapes one goes ahead; afterwards all may run at once."""
    inside, most, together = [0], [0], threading.Barrier(3)

    def program(inputs: ImageInputs[torch.Tensor], look: None, *, pooled_only: bool) -> tuple[torch.Tensor]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        if compiling:
            time.sleep(0.05)
        else:
            together.wait(60)
        inside[0] -= 1
        return (inputs.pixel_values,)

    monkeypatch.setattr(torch, "compile", lambda run: program)
    run, inputs = compile_once(program), ImageInputs(torch.zeros(2, 3, 4, 4))
    with ThreadPoolExecutor(3) as threads:
        compiling = True
        list(threads.map(lambda _: run(inputs, None), range(3)))
        assert most == [1]
        compiling = False
        list(threads.map(lambda _: run(inputs, None), range(3)))
        assert most == [3]


@pytest.mark.parametrize("packed", [True, False])
def test_compiled_towers_are_packed_and_cut_as_others_are(miniature: Path, packed: bool) -> None:
    model = minclip.load(miniature)
    pixels = np.random.default_rng(0).standard_normal((120, 3, 32, 32)).astype(np.float32)
    towers = [
        TorchTowers(model.config, model.weights, CPU, torch.float32, compiled=compiled, packed=packed)
        for compiled in (False, True)
    ]
    assert any(isinstance(module, PackedLinear) for module in towers[1].module.modules()) == packed
    for count in (120, 2):  # by rows, and whole
        plain, compiled = (each.image_embeds(ImageInputs(pixels[:count])) for each in towers)
        assert plain is not None
        assert compiled is not None
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
