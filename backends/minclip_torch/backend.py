"""The backend: `Clip` frozen for inference, behind minclip's protocol."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minclip.backend import Record
from minclip.config import Config
from minclip.errors import BackendError
from minclip.images import ImageProcessor
from minclip.inputs import ImageInputs, TextInputs
from minclip.outputs import TowerOutput
from minclip.threads import checked_threads
from minclip.weights import BFLOAT16, Weights
from minclip_torch.gradients import contrastive
from minclip_torch.layers import Look, PostNormLayer, PreNormLayer
from minclip_torch.modules import Clip
from minclip_torch.packed import pack
from minclip_torch.pixels import normalize, resize_and_crop, upload
from minclip_torch.rows import Outputs, by_rows, compile_once

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


class TorchBackend:
    """CPU, CUDA and MPS. device None is the fastest there is; dtype None is float32.

    Option `compile=True`: the towers go through `torch.compile`, which takes a while at the first call of each shape;
    on a CPU, where nearly all the time goes into products that are the same without, it gains up to a twentieth.
    Option `threads`: how many compute on the CPU, in the whole process, as torch has it.
    """

    name = "torch"

    def devices(self) -> list[str]:
        """CUDA devices, then MPS, then the CPU."""
        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]

    def dtypes(self, device: str) -> list[str]:
        """What a device computes in."""
        if device == "mps":
            return ["float32", "bfloat16", "float16"]
        if device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
            return ["float32", "float16", "float64"]
        return list(DTYPES)

    def build(
        self,
        config: Config,
        weights: Weights,
        *,
        device: str | None = None,
        dtype: str | None = None,
        compile: bool = False,
        threads: int | None = None,
        **options: Any,
    ) -> TorchTowers:
        devices = self.devices()
        device = devices[0] if device is None else "cuda:0" if device == "cuda" else device
        if device not in devices:
            raise BackendError(f"backend 'torch' has no device {device!r} here; it has {', '.join(devices)}")
        dtype = "float32" if dtype is None else dtype
        if dtype not in self.dtypes(device):
            has = ", ".join(self.dtypes(device))
            raise BackendError(f"backend 'torch' does not compute in {dtype!r} on {device}; it does in {has}")
        if options:
            raise BackendError(f"backend 'torch' takes no option {', '.join(options)}; it takes compile, threads")
        if threads is not None:
            torch.set_num_threads(checked_threads(threads))
        with out_of_memory(device, "its weights"):
            return TorchTowers(config, weights, torch.device(device), DTYPES[dtype], compiled=compile)


class TorchTowers:
    """A checkpoint's towers on one device, for inference. `module` is the frozen `Clip`.

    packed: whether float32 layers on a CPU are packed (`minclip_torch.packed`); None is what is faster here.
    """

    def __init__(
        self,
        config: Config,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compiled: bool = False,
        packed: bool | None = None,
    ) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self._weights, self._compiled = weights, compiled
        with torch.device("meta"):
            module = Clip(config)
        load_weights(module, weights)
        module.eval().requires_grad_(False).to(torch.promote_types(dtype, torch.float32))  # folding rounds once
        for layer in module.modules():
            if isinstance(layer, PreNormLayer | PostNormLayer):
                layer.fold_quick_gelu()
        self.module = module.to(device, dtype)
        if device.type == "cpu":
            packed = pack(self.module, packed)
        self._packed = packed
        self._vision = compile_once(self._run_vision) if compiled else self._run_vision
        self._text = compile_once(self._run_text) if compiled else self._run_text

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it was built from, to answer to the bit: packed weights and compiled functions cannot be."""
        build = partial(TorchTowers, compiled=self._compiled, packed=self._packed)
        return build, (self.config, self._weights, self.device, self.dtype)

    @torch.inference_mode()
    def vision(
        self,
        inputs: ImageInputs[Any],
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Callable[[str, Any], None] | None = None,
    ) -> TowerOutput:
        """See `minclip.backend.Towers.vision`."""
        record, look = self._recorder(output_hidden_states, output_attentions, note)
        with out_of_memory(str(self.device), "images", len(inputs.pixel_values)):
            given = replace(inputs, pixel_values=tensor(inputs.pixel_values, self.device, self.dtype))
            outputs = self._see(given) if look is None else self._run_vision(given, look)
        state, pooled, embeds, logits = outputs
        if embeds is not None and look is not None:
            look("projection", embeds)
        return TowerOutput(state, pooled, embeds, logits, record.hidden_states, record.attentions)

    @torch.inference_mode()
    def text(
        self,
        inputs: TextInputs[Any],
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        note: Callable[[str, Any], None] | None = None,
    ) -> TowerOutput:
        """See `minclip.backend.Towers.text`."""
        record, look = self._recorder(output_hidden_states, output_attentions, note)
        with out_of_memory(str(self.device), "texts", len(inputs.input_ids)):
            given = self._on_device(inputs)
            outputs = self._read(given) if look is None else self._run_text(given, look)
        state, pooled, embeds = outputs
        if embeds is not None and look is not None:
            look("projection", embeds)
        return TowerOutput(state, pooled, embeds, None, record.hidden_states, record.attentions)

    @torch.inference_mode()
    def image_embeds(self, inputs: ImageInputs[Any]) -> Tensor | None:
        """See `minclip.backend.GivesEmbeds.image_embeds`."""
        with out_of_memory(str(self.device), "images", len(inputs.pixel_values)):
            given = replace(inputs, pixel_values=tensor(inputs.pixel_values, self.device, self.dtype))
            return self._see(given, pooled_only=True)[2]

    @torch.inference_mode()
    def text_embeds(self, inputs: TextInputs[Any]) -> Tensor | None:
        """See `minclip.backend.GivesEmbeds.text_embeds`."""
        with out_of_memory(str(self.device), "texts", len(inputs.input_ids)):
            return self._read(self._on_device(inputs), pooled_only=True)[2]

    def _recorder(
        self, hidden_states: bool, attentions: bool, note: Callable[[str, Any], None] | None
    ) -> tuple[Record, Look | None]:
        """What keeps the steps that were asked for, and the look that shows them, None where none was."""
        record = Record(hidden_states, attentions, note)
        if not (hidden_states or attentions or note is not None):
            return record, None
        return record, Look(record.note, explicit=attentions or note is not None)

    def _on_device(self, inputs: TextInputs[Any]) -> TextInputs[Tensor]:
        types = dict.fromkeys(("input_ids", "position_ids", "token_type_ids"), torch.int64)
        types |= {"attention_mask": torch.bool, "inputs_embeds": self.dtype, "head_mask": self.dtype}
        given = {name: getattr(inputs, name) for name in types}
        return TextInputs(**{n: tensor(x, self.device, types[n]) for n, x in given.items() if x is not None})

    def _see(self, inputs: ImageInputs[Tensor], *, pooled_only: bool = False) -> Outputs:
        """What the tower gives when nobody looks."""
        if self.device.type != "cpu":
            return self._vision(inputs, None, pooled_only=pooled_only)
        assert self.config.vision_config is not None
        b, _, height, width = inputs.pixel_values.shape
        patch = self.config.vision_config.patch_size
        tokens = 1 + (height // patch) * (width // patch)
        return by_rows(lambda some: self._vision(inputs.rows(some), None, pooled_only=pooled_only), b, tokens)

    def _read(self, inputs: TextInputs[Tensor], *, pooled_only: bool = False) -> Outputs:
        """What the tower gives when nobody looks."""
        if self.device.type != "cpu":
            return self._text(inputs, None, pooled_only=pooled_only)
        b, t = inputs.input_ids.shape
        return by_rows(lambda some: self._text(inputs.rows(some), None, pooled_only=pooled_only), b, t)

    def _run_vision(self, inputs: ImageInputs[Tensor], look: Look | None, *, pooled_only: bool = False) -> Outputs:
        module = self.module
        state, pooled = module.vision_model(inputs, *(() if look is None else (look,)), pooled_only=pooled_only)
        embeds = module.visual_projection(pooled) if hasattr(module, "visual_projection") else None
        logits = module.classifier(state[:, 1:].mean(dim=1)) if hasattr(module, "classifier") else None
        return state, pooled, embeds, logits

    def _run_text(self, inputs: TextInputs[Tensor], look: Look | None, *, pooled_only: bool = False) -> Outputs:
        module = self.module
        state, pooled = module.text_model(inputs, *(() if look is None else (look,)), pooled_only=pooled_only)
        embeds = module.text_projection(pooled) if hasattr(module, "text_projection") else None
        return state, pooled, embeds

    @torch.inference_mode()
    def pixel_values(self, pixels: Sequence[np.ndarray], processor: ImageProcessor, *, resized: bool) -> Tensor:
        with out_of_memory(str(self.device), "images", len(pixels)):
            if self.device.type == "mps" and not resized:  # it has no float64, which makes the sums exact
                pixels, resized = [processor.pixels(picture) for picture in pixels], True
            batch = upload(pixels, self.device) if resized else resize_and_crop(pixels, processor, self.device)
            return normalize(batch, processor, self.dtype)

    def gradients(self, inputs: Mapping[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
        """The contrastive loss of a batch of pairs and its gradient for every tensor, by autograd, in new modules:
        those for inference are frozen and folded."""
        module = Clip(self.config)
        load_weights(module, self._weights)
        return contrastive(module.to(self.device, self.dtype), self._weights, inputs)

    @torch.inference_mode()
    def unit(self, embeds: Tensor) -> Tensor:
        return F.normalize(embeds if embeds.dtype == torch.float64 else embeds.float(), dim=-1)

    def join(self, arrays: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(arrays))

    def to_numpy(self, array: Tensor) -> np.ndarray:
        array = array.detach()
        return (array if array.dtype == torch.float64 else array.float()).cpu().numpy()


def tensor(array: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor, or an array of NumPy's, on the device and of the type; no copy where it is that already."""
    if isinstance(array, Tensor):
        return array.to(device, dtype)
    array = np.asarray(array)
    if any(stride < 0 for stride in array.strides):  # a reversed view, which torch does not know
        array = array.copy()
    with warnings.catch_warnings():  # an array that cannot be written to is only read here
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array).to(device, dtype)


def load_weights(module: Clip, weights: Weights) -> None:
    """Give a `Clip`, on the meta device or not, the tensors of a checkpoint: views of its file where the type allows.

    Half-precision tensors are widened bit by bit to float32, as the reference does; `.to(dtype)` afterwards.
    """
    cpu = torch.device("cpu")
    state = {}
    for name in weights:
        stored = weights.stored(name)
        if stored.dtype == BFLOAT16:
            state[name] = tensor(stored["bfloat16"].view(np.int16), cpu, torch.int16).view(torch.bfloat16).float()
        else:
            given = torch.float64 if stored.dtype == np.float64 else torch.float32
            state[name] = tensor(stored, cpu, given)
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(())
    module.load_state_dict(state, assign=True)


@contextmanager
def out_of_memory(device: str, what: str, batch: int | None = None) -> Iterator[None]:
    """Turn torch's error into one line with a batch size to try."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator has only this
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        if batch is None:
            way_out = "use a smaller dtype or another device"
        elif batch == 1:
            way_out = "one is the least there is; use a smaller dtype or another device"
        else:
            what, way_out = f"{batch} {what}", f"try batch_size={batch // 2}"
        raise BackendError(f"{device} ran out of memory with {what}; {way_out}") from None
