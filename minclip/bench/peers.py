"""Who else computes the same towers here: Transformers, plain and compiled, ONNX Runtime and OpenVINO.

The latter two run the model of Transformers, exported. Everything is imported inside the functions: what is not
installed, does not know the checkpoint, or answers otherwise than minclip is left out by name and never an error.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minclip.bench.measure import Run
from minclip.config import Config
from minclip.contrastive import unit
from minclip.files import one_line

Tower = Literal["vision", "text"]
Embed = Callable[[np.ndarray], np.ndarray]
"""pixel_values (b, c, h, w) or input_ids (b, t) to the rows (b, p) that the tower gives."""

NAMES = ("transformers", "onnxruntime", "openvino")
COMPILED = "transformers compiled"
INSTALL = "pip install 'minclip[bench]'"
TOLERANCES = {"float64": 1e-3, "float32": 1e-3}  # of unit vectors; a wrong model is off by far more
HALF_TOLERANCE = 0.1


class Peers:
    """The peers of one checkpoint folder.

    names: which of NAMES to look for. left_out: a line for each that is not measured, by name. scratch: a folder for
    what is exported.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        config: Config,
        scratch: Path,
        left_out: dict[str, str],
        threads: int | None = None,
    ) -> None:
        self.names, self.folder, self.config, self.scratch = names, folder, config, scratch
        self.left_out, self.threads = left_out, threads
        self._models: dict[str, Any] = {}

    def contestants(self) -> list[str]:
        """Who is to be measured, as `make` takes them: Transformers twice."""
        return [name for peer in self.names for name in (peer, *((COMPILED,) if peer == "transformers" else ()))]

    def make(self, name: str, tower: Tower, example: np.ndarray, dtype: str) -> Embed | None:
        """A contestant's function from batches like `example` to embeddings; None where it is left out."""
        makers: dict[str, Callable[[], Embed]] = {
            "transformers": lambda: self._transformers(tower, dtype),
            COMPILED: lambda: self._transformers(tower, dtype, compiled=True),
            "onnxruntime": lambda: self._onnxruntime(tower, example, dtype),
            "openvino": lambda: self._openvino(tower, example, dtype),
        }
        found: Embed | None = self.attempt(name, makers[name], f"{tower} tower in {dtype}")
        return found

    def attempt(self, name: str, make: Callable[[], Any], what: str) -> Any:
        """What `make` gives; None, and a line in `left_out`, where anything goes wrong with it."""
        try:
            with quiet():
                return make()
        except (Exception, SystemExit) as error:
            missing = isinstance(error, ModuleNotFoundError)
            reason = f"{one_line(error) or type(error).__name__:.160}"
            if missing:
                self.left_out[name] = f"not installed ({reason}); {INSTALL}"
            else:
                self.left_out[f"{name}, {what}"] = reason
            return None

    def agree(self, name: str, ours: np.ndarray, theirs: np.ndarray, what: str, dtype: str) -> bool:
        """Whether embeddings (b, p) are the same as minclip's, as far as the dtype goes; if not, it is left out."""
        if ours.shape == theirs.shape:
            off = float(np.abs(unit(ours.astype(np.float64)) - unit(theirs.astype(np.float64))).max())
            if off <= TOLERANCES.get(dtype, HALF_TOLERANCE):
                return True
            reason = f"its embeddings differ from minclip's by {off:.2g}"
        else:
            reason = f"its embeddings have shape {theirs.shape}, minclip's {ours.shape}"
        self.left_out[f"{name}, {what}"] = reason
        return False

    # --- Transformers ----------------------------------------------------------------------------------------------

    def _module(self, tower: Tower, dtype: str) -> Any:
        """A torch module from pixel_values or input_ids to embeddings: the checkpoint in Transformers, with SDPA."""
        import torch
        import transformers

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if dtype not in self._models:
            kind = getattr(transformers, next(iter(self.config.architectures), "AutoModel"))
            options = {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa", "local_files_only": True}
            self._models = {dtype: kind.from_pretrained(self.folder, **options).eval()}  # one at a time
        model, whole = self._models[dtype], self.config.is_whole

        class Embeddings(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, given: Any) -> Any:
                if tower == "vision":
                    out = (self.model.get_image_features if whole else self.model)(pixel_values=given)
                else:
                    out = (self.model.get_text_features if whole else self.model)(input_ids=given)
                for name in ("image_embeds", "text_embeds", "logits", "pooler_output"):
                    if getattr(out, name, None) is not None:
                        return getattr(out, name)
                return out

        return Embeddings().eval()

    def _transformers(self, tower: Tower, dtype: str, compiled: bool = False) -> Embed:
        import torch

        module, number = self._module(tower, dtype), getattr(torch, dtype)
        if compiled:
            module = torch.compile(module, dynamic=False)  # a program for each size of batch, the fastest there is

        def embed(given: np.ndarray) -> np.ndarray:
            tensor = torch.from_numpy(given)
            with torch.inference_mode():
                return module(tensor.to(number) if tower == "vision" else tensor).float().numpy()

        return embed

    def product(self, dtype: str) -> Run | None:
        """A product as `machine.product` makes one, in a type that NumPy lacks; None where torch is not installed."""

        def make() -> Run:
            import torch

            from minclip.bench.machine import INNER, ROWS, WIDTH

            a, w = (torch.ones((rows, WIDTH), dtype=getattr(torch, dtype)) for rows in (ROWS, INNER))
            return lambda: torch.nn.functional.linear(a, w)

        found: Run | None = self.attempt("torch", make, f"the machine's limit in {dtype}")
        return found

    # --- exported --------------------------------------------------------------------------------------------------

    def _exported(self, tower: Tower, example: np.ndarray) -> Path:
        """The tower as an ONNX file that takes any number of inputs like those of `example`; written once."""
        import torch

        file = self.scratch / f"{tower}.onnx"
        if not file.exists():
            rows = torch.from_numpy(np.concatenate([example, example])[:2])  # 1 would be taken for a constant
            with tempfile.TemporaryDirectory(dir=self.scratch) as unfinished, torch.no_grad():
                made = Path(unfinished) / file.name
                torch.onnx.export(
                    self._module(tower, "float32"), (rows,), made,
                    input_names=["given"], output_names=["embeds"], dynamo=True, external_data=True, verbose=False,
                    dynamic_shapes={"given": {0: torch.export.Dim("batch", min=1, max=4096)}},
                )  # fmt: skip
                for part in sorted(Path(unfinished).iterdir(), reverse=True):  # the weights before the file itself
                    part.rename(self.scratch / part.name)
        return file

    def _onnxruntime(self, tower: Tower, example: np.ndarray, dtype: str) -> Embed:
        import onnxruntime

        if dtype != "float32":
            raise ValueError("it computes in float32")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads or 0  # 0: as many as it finds right
        file = str(self._exported(tower, example))
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda given: session.run(None, {"given": given})[0]

    def _openvino(self, tower: Tower, example: np.ndarray, dtype: str) -> Embed:
        import openvino

        kind = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}.get(dtype)
        if kind is None:
            raise ValueError(f"it does not compute in {dtype}")
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": kind}
        if self.threads is not None:
            options["INFERENCE_NUM_THREADS"] = self.threads
        compiled = _core(openvino).compile_model(str(self._exported(tower, example)), "CPU", options)
        used = compiled.get_property("INFERENCE_PRECISION_HINT")
        if used.to_string() != options["INFERENCE_PRECISION_HINT"]:
            raise ValueError(f"it computes in {used.to_string()} on this processor")
        return lambda given: np.asarray(compiled(given)[0])

    # --- what stands before the towers -----------------------------------------------------------------------------

    def tokenizer(self) -> Callable[[list[str]], object] | None:
        """Transformers' tokenizer of the checkpoint."""

        def make() -> Callable[[list[str]], object]:
            import transformers

            found = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            return lambda texts: found(texts, padding=True)

        return self.attempt("transformers", make, "tokenizer") if "transformers" in self.names else None

    def image_processor(self) -> Callable[[Any], np.ndarray] | None:
        """Transformers' image processor of the checkpoint, the one that computes with Pillow, as minclip does."""

        def make() -> Callable[[Any], np.ndarray]:
            import transformers

            kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
            found = kind.from_pretrained(self.folder, local_files_only=True)
            return lambda images: np.asarray(found(images, return_tensors="np")["pixel_values"])

        return self.attempt("transformers", make, "image processor") if "transformers" in self.names else None


@cache
def _core(openvino: Any) -> Any:
    """One core for the whole process. Each gives handlers of signals a stack, and puts back, when it goes, the one that
    it found: of two, the first's, which is gone by then, and the next signal (Ctrl-C, say) crashes the process."""
    return openvino.Core()


@contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing of what others print, warn of or log is shown."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
