"""The proof that a backend says what the reference says: a class to subclass. Needs hypothesis and any test runner.

    from minclip.testing import BackendConformance
    from minclip_torch import TorchBackend

    class TestTorch(BackendConformance):
        backend = TorchBackend()
        device = "cpu"
        dtypes = ("float32", "bfloat16")

pytest collects the claims through the subclass. Elsewhere: `for name, check in TestTorch().claims(): check()`.
Where a backend disagrees, the failure names the first tower, layer and step that differ (`first_divergence`), what it
led to, and the smallest model and input that hypothesis found. A backend of some families or of one tower says so:
`families = ("clip",)`, `towers = ("text",)`; its other tower raises BackendError or NotImplementedError.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from minclip.backend import PreparesPixels
from minclip.config import Config
from minclip.contrastive import logits_per_image, probabilities, unit
from minclip.errors import BackendError
from minclip.images import ImageProcessor
from minclip.inputs import checked_inputs
from minclip.inputs import text_inputs as checked_text
from minclip.testing.divergence import STEP_TOLERANCES, compare, visible
from minclip.testing.gradients import pair_cases, towers_agree
from minclip.testing.running import WIDTHS, Claims, needs
from minclip.testing.strategies import (
    Case,
    RandomModel,
    classifiers,
    configs,
    image_inputs,
    image_processors,
    optional_text_inputs,
    pictures,
    single_towers,
    text_inputs,
)  # fmt: skip
from minclip.testing.truth import TOLERANCES, blame, close, part, refusal, truth

RECORDS = st.fixed_dictionaries({"output_hidden_states": st.booleans(), "output_attentions": st.booleans()})
SIZES = {"num_attention_heads": 3, "hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 1}
TINY = RandomModel(
    Config.from_dict(
        {
            "model_type": "clip",
            "text_config": {**SIZES, "vocab_size": 9, "eos_token_id": 8},
            "vision_config": {**SIZES, "image_size": 8, "patch_size": 4},
            "projection_dim": 6,
        }
    ),
    seed=0,
)


class BackendConformance(Claims):
    """Every claim that a backend has to bear out, a method each. Subclass it and set `backend`; see `Claims`."""

    # --- agreement with the reference in float64 -------------------------------------------------------------------

    def test_unit_embeddings_agree_with_float64(self, family: str, dtype: str) -> None:
        def claim(case: Case) -> None:
            with blame(case, built := self.build(case.model, dtype)):
                expected = truth(case.model).embed(case.inputs)
                for tower, embeds in built.embed(case.inputs).items():
                    close(f"{tower} embeddings", embeds, expected[tower], TOLERANCES[dtype])

        self.for_all(self.cases(configs(family, WIDTHS[dtype])), claim)

    def test_every_output_agrees_with_float64(self, family: str) -> None:
        self.for_all(st.tuples(self.cases(configs(family, self.width)), RECORDS), self._outputs_agree)

    def test_single_towers_agree_with_float64(self) -> None:
        self.for_all(
            st.tuples(self.cases(single_towers(self.width, self.families, self.towers)), RECORDS), self._outputs_agree
        )

    @needs("vision")
    def test_classifiers_agree_with_float64(self) -> None:
        self.for_all(st.tuples(self.cases(classifiers(self.width, self.families)), RECORDS), self._outputs_agree)

    @needs("vision")
    def test_interpolated_positions_agree_with_float64(self) -> None:
        drawn = self.cases(configs(self.families, self.width), image_inputs, interpolate=True)
        self.for_all(st.tuples(drawn, RECORDS), self._outputs_agree)

    @needs("text")
    def test_optional_text_inputs_agree_with_float64(self, family: str) -> None:
        drawn = self.cases(configs(family, self.width), optional_text_inputs)
        self.for_all(st.tuples(drawn, RECORDS), self._outputs_agree)

    def test_weights_stored_in_half_precision_mean_their_exact_values(self) -> None:
        stored = st.sampled_from(["float16", "bfloat16"])
        drawn = stored.flatmap(lambda kind: self.cases(configs(self.families, self.width), stored=kind))
        self.for_all(st.tuples(drawn, RECORDS), self._outputs_agree)

    def _outputs_agree(self, drawn: tuple[Case, dict[str, bool]]) -> None:
        """All fields of both towers' outputs: the same ones, of the same shapes, with the same numbers."""
        case, record = drawn
        # in half precision they are no better than steps
        allowed = max(self.tolerance, STEP_TOLERANCES[self.dtypes[0]])
        with blame(case, built := self.build(case.model)):
            expected = truth(case.model).run(case.inputs, **record)
            inputs = checked_inputs(case.model.config, case.inputs)
            for tower, found in built.run(case.inputs, **record).items():
                seen = visible(inputs[tower], case.model.config)
                assert found.keys() == expected[tower].keys(), f"{tower} tower gives {sorted(found)}"
                for name, value in found.items():
                    right = expected[tower][name]
                    pairs = [(value, right)] if not isinstance(right, tuple) else zip(value, right, strict=True)
                    step = "probabilities" if name == "attentions" else name
                    for one, other in pairs:
                        scale = max(1.0, float(np.abs(other).max()))
                        close(f"{tower} {name}", one, other, allowed * scale, seen and seen.of(step))

    @needs("text", "vision")
    def test_logits_and_probabilities_agree_with_float64(self, family: str) -> None:
        def claim(case: Case) -> None:
            with blame(case, built := self.build(case.model)):
                scale = float(case.model.weights["logit_scale"])
                pairs = [(e["vision"], e["text"]) for e in (m.embed(case.inputs) for m in (built, truth(case.model)))]
                found, expected = (logits_per_image(image, text, scale) for image, text in pairs)
                close("logits", found, expected, self.tolerance * math.exp(scale))
                close("probabilities", probabilities(found), probabilities(expected), self.tolerance * math.exp(scale))

        self.for_all(self.cases(configs(family, self.width)), claim)

    def test_steps_are_noted_in_the_order_and_with_the_values_of_the_reference(self, family: str) -> None:
        def claim(case: Case) -> None:
            found = compare(truth(case.model), self.build(case.model), case.inputs)
            assert found.divergence is None, str(found)

        self.for_all(self.cases(configs(family, self.width)), claim)

    @needs("text", "vision")
    def test_gradients_agree_with_float64(self, family: str) -> None:
        """Of backends whose towers have them: see `minclip.testing.gradients`."""
        dtype = self.dtypes[0]
        self.for_all(
            pair_cases(configs(family, self.width)),
            lambda case: towers_agree(self.build(case.model).towers, case, dtype),
        )

    # --- invariants, which need no reference -----------------------------------------------------------------------

    def test_a_batch_is_its_rows_one_by_one(self, family: str) -> None:
        def claim(case: Case) -> None:
            built = self.build(case.model)
            for tower, embeds in built.embed(case.inputs).items():
                given = part(tower, case.inputs)
                for i, row in enumerate(embeds):
                    alone = built.embed({name: array[i : i + 1] for name, array in given.items()})[tower][0]
                    close(f"{tower} row {i}", alone, row, self.tolerance)

        self.for_all(self.cases(configs(family, self.width)), claim)

    def test_permuting_a_batch_permutes_its_embeddings(self, family: str) -> None:
        def claim(case: Case) -> None:
            built = self.build(case.model)
            turned = built.embed({name: array[::-1] for name, array in case.inputs.items()})
            for tower, embeds in built.embed(case.inputs).items():
                close(tower, turned[tower][::-1], embeds, self.tolerance)

        self.for_all(self.cases(configs(family, self.width)), claim)

    @needs("text")
    def test_more_padding_changes_nothing(self, family: str) -> None:
        """Wherever the padding stands that is there already, and whatever ids it has."""

        def claim(case: Case) -> None:
            text, built = case.model.config.text_config, self.build(case.model)
            ids = case.inputs["input_ids"]
            assert text is not None
            assume(ids.shape[1] < text.context_length)
            more = min(3, text.context_length - ids.shape[1])
            fill = {"input_ids": text.pad_token_id}
            longer = {
                name: np.pad(array, ((0, 0), (0, more)), constant_values=fill.get(name, 0))
                for name, array in ({"attention_mask": np.ones_like(ids)} | case.inputs).items()
            }
            close("text", built.embed(longer)["text"], built.embed(case.inputs)["text"], self.tolerance)

        paddings = ("right", "left", "holes", "none")
        self.for_all(self.cases(configs(family, self.width), text_inputs, paddings=paddings), claim)

    @needs("text")
    def test_ids_after_the_end_of_text_change_nothing(self, causal_family: str) -> None:
        """A causal tower pools at the end token, and sees nothing behind it."""

        def claim(case: Case) -> None:
            text, built = case.model.config.text_config, self.build(case.model)
            ids = case.inputs["input_ids"]
            assert text is not None
            ends = checked_text(case.model.config, **part("text", case.inputs)).ends
            assert ends is not None
            after = np.arange(ids.shape[1]) > ends[:, None]
            other = {**case.inputs, "input_ids": np.where(after, (ids + 3) % (text.vocab_size - 1), ids)}
            close("text", built.embed(other)["text"], built.embed(case.inputs)["text"], self.tolerance)

        drawn = self.cases(configs(causal_family, self.width), text_inputs, paddings=("right", "unmasked"))
        self.for_all(drawn, claim)

    @needs("text")
    def test_the_order_of_tokens_matters(self, family: str) -> None:
        """Of eight texts, most change when two tokens before the end, not pooled themselves, change places."""

        def claim(case: Case) -> None:
            ids, built = case.inputs["input_ids"], self.build(case.model)
            assume(ids.shape[1] > 3)
            swapped = ids.copy()
            swapped[:, [-3, -2]] = ids[:, [-2, -3]]
            change = built.embed({**case.inputs, "input_ids": swapped})["text"] - built.embed(case.inputs)["text"]
            different = np.abs(change).max(axis=1)[ids[:, -2] != ids[:, -3]]
            assume(len(different) > 4)
            assert np.median(different) > TOLERANCES["float32"], f"swapping two tokens moves texts by {different}"

        drawn = self.cases(configs(family, self.width), text_inputs, temper="loud", paddings=("none",), batch=8)
        self.for_all(drawn, claim)

    def test_embeddings_have_unit_length(self, dtype: str) -> None:
        def claim(case: Case) -> None:
            for tower, embeds in self.build(case.model, dtype).embed(case.inputs).items():
                close(tower, np.linalg.norm(embeds.astype(np.float64), axis=1), np.ones(len(embeds)), 1e-5)

        self.for_all(self.cases(configs(self.families, WIDTHS[dtype])), claim)

    def test_embeddings_alone_are_those_of_the_whole_output(self, dtype: str) -> None:
        """Of backends whose towers give them by themselves (`minclip.backend.GivesEmbeds`)."""

        def claim(case: Case) -> None:
            built = self.build(case.model, dtype)
            whole = built.run(case.inputs)
            for tower, embeds in built.embed(case.inputs).items():
                close(tower, embeds, unit(whole[tower]["embeds"].astype(np.float64)), TOLERANCES[dtype])

        self.for_all(self.cases(configs(self.families, WIDTHS[dtype])), claim)

    def test_arrays_come_back_as_numpy_of_at_least_float32(self, dtype: str) -> None:
        def claim(case: Case) -> None:
            outputs = self.build(case.model, dtype).run(case.inputs, output_hidden_states=True, output_attentions=True)
            for output in outputs.values():
                for value in output.values():
                    for array in value if isinstance(value, tuple) else (value,):
                        assert isinstance(array, np.ndarray), f"to_numpy gave {type(array).__name__}"
                        assert array.dtype in (np.float32, np.float64), f"to_numpy gave {array.dtype}"

        self.for_all(self.cases(configs(self.families, WIDTHS[dtype])), claim)

    @needs("vision")
    def test_native_arrays_mean_the_same_as_numpy_s(self) -> None:
        def claim(case: Case) -> None:
            built = self.build(case.model)
            expected = built.embed(case.inputs)
            native = {**case.inputs, "pixel_values": self.native(case.inputs["pixel_values"])}
            for tower, embeds in built.embed(native).items():
                close(tower, embeds, expected[tower], self.tolerance)

        self.for_all(self.cases(configs(self.families, self.width)), claim)

    def test_inputs_and_weights_are_left_as_they_were(self) -> None:
        def claim(case: Case) -> None:
            weights = case.model.weights
            arrays = {**case.inputs, **{name: weights[name] for name in weights}}
            before = {name: array.copy() for name, array in arrays.items()}
            self.build(case.model).run(case.inputs)
            changed = [name for name in arrays if not np.array_equal(arrays[name], before[name])]
            assert not changed, f"changed in place: {', '.join(changed)}"

        self.for_all(self.cases(configs(self.families, self.width)), claim)

    def test_weights_may_be_read_only(self) -> None:
        """As they are where a checkpoint's file is mapped into memory."""

        def claim(case: Case) -> None:
            for name in case.model.weights:
                case.model.weights[name].flags.writeable = False
            self.build(case.model).run(case.inputs)

        self.for_all(self.cases(configs(self.families, self.width)), claim)

    def test_the_same_call_gives_the_same_bits(self) -> None:
        def claim(case: Case) -> None:
            built = self.build(case.model)
            first, again = built.embed(case.inputs), built.embed(case.inputs)
            assert all(np.array_equal(first[tower], again[tower]) for tower in first)

        self.for_all(self.cases(configs(self.families, self.width)), claim)

    @needs("text")
    def test_joined_parts_are_the_rows_of_the_parts(self) -> None:
        def claim(case: Case) -> None:
            built = self.build(case.model)
            embeds = built.towers.text(checked_text(case.model.config, **case.inputs)).embeds
            rows = built.towers.to_numpy(embeds)
            joined = built.towers.to_numpy(built.towers.join([embeds, embeds[:1]]))
            assert np.array_equal(joined, np.concatenate([rows, rows[:1]]))

        self.for_all(self.cases(configs(self.families, self.width), text_inputs), claim)

    @needs("text")
    def test_rows_are_taken_by_their_numbers(self) -> None:
        """As `Model` puts texts that were embedded by length back into their order, copies included."""

        def claim(case: Case) -> None:
            towers = self.build(case.model).towers
            embeds = towers.text(checked_text(case.model.config, **case.inputs)).embeds
            numbers = np.arange(2 * len(embeds))[::-1] // 2
            assert np.array_equal(towers.to_numpy(embeds[numbers]), towers.to_numpy(embeds)[numbers])

        self.for_all(self.cases(configs(self.families, self.width), text_inputs), claim)

    @needs("text")
    def test_unit_vectors_are_multiplied_and_summed_where_they_are(self) -> None:
        """As `Model` finds their lengths, so that only one number a row leaves the device."""

        def claim(case: Case) -> None:
            towers = self.build(case.model).towers
            rows = towers.unit(towers.text(checked_text(case.model.config, **case.inputs)).embeds)
            close("squared length", towers.to_numpy((rows * rows).sum(-1)), np.ones(len(rows)), 1e-3)

        self.for_all(self.cases(configs(self.families, self.width), text_inputs), claim)

    # --- the edges -------------------------------------------------------------------------------------------------

    @needs("vision")
    def test_pictures_become_the_pixel_values_of_the_reference(self) -> None:
        """Of backends that prepare pixels: resized by them or handed over resized, the same numbers."""
        towers = self.build(TINY).towers
        if not isinstance(towers, PreparesPixels):  # the image processor does it for this backend
            return
        exact = 1e-6 if self.tolerance < 1e-3 else 2**-7  # the pixel values are of the type computed in

        def claim(drawn: tuple[ImageProcessor, list[np.ndarray]]) -> None:
            processor, raw = drawn
            cropped = [processor.pixels(picture) for picture in raw]
            expected = processor.normalize(np.stack(cropped))
            tolerance = exact * max(1.0, float(np.abs(expected).max()))
            for resized, bytes_ in ((True, cropped), (False, raw)):
                found = towers.to_numpy(towers.pixel_values(bytes_, processor, resized=resized))
                close(f"pixel_values with resized={resized}", found, expected, tolerance)

        self.for_all(st.tuples(image_processors(), pictures()), claim)

    def test_there_is_a_device_and_the_first_is_the_default(self) -> None:
        devices = self.backend.devices()
        assert devices
        assert all(isinstance(device, str) for device in devices)
        self.backend.build(TINY.config, TINY.weights, device=None, dtype=self.dtypes[0])
        self.backend.build(TINY.config, TINY.weights, device=devices[0], dtype=self.dtypes[0])

    def test_an_unknown_device_is_refused_with_a_list_of_those_there_are(self) -> None:
        message = refusal(BackendError, partial(self.backend.build, TINY.config, TINY.weights, device="abacus"))
        assert "abacus" in message
        assert all(device in message for device in self.backend.devices()), message

    def test_an_unknown_dtype_is_refused_with_a_list_of_those_there_are(self) -> None:
        message = refusal(BackendError, partial(self.backend.build, TINY.config, TINY.weights, dtype="int3"))
        assert "int3" in message
        assert all(dtype in message for dtype in self.dtypes), message

    def test_an_unknown_option_is_refused_by_its_name(self) -> None:
        message = refusal(BackendError, partial(self.backend.build, TINY.config, TINY.weights, mood="good"))
        assert "mood" in message
