"""From the name of a checkpoint to a `Model`, and the one-liner that does both steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Unpack, overload

from minclip import checkpoints
from minclip.arguments import LoadAndRankOptions
from minclip.backend import get_backend
from minclip.checkpoints import sources
from minclip.images import ImageSource
from minclip.initialization import with_classifier
from minclip.label_set import Labels, LabelSet
from minclip.model import Model, Source
from minclip.notice import announce_bundled
from minclip.processor import Processor
from minclip.ranking import Ranking


def load(
    source: str | Path | None = None,
    *,
    backend: str = "numpy",
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    labels: Sequence[str] | None = None,
    mmap: bool = True,
    **options: object,
) -> Model:
    """Load a checkpoint.

    source: a checkpoint folder, a hub id "org/name" (only then is the network used; needs `minclip[hub]`), or a
    bundled name; None is the bundled "mini-metaclip-2". backend, device, dtype: see `minclip.backends()`; None is the
    backend's default. NumPy computes in "float32" or "float64", and with None leaves half-precision weights at half
    the memory. threads: how many work on a run of NumPy's towers (torch: of all models in the process); None is one for
    each core that is ours. labels: put a new image-classification head with random weights on the vision tower, a class
    each, to be trained (Transformers has no such class for AltCLIP). mmap: False reads the weights into memory, so that
    whatever happens to the file later changes nothing; a mapped file must be replaced, not written into, while a model
    uses it.
    options: the backend's own; NumPy's is prepack, see `minclip.backend.NumpyBackend.build`: for a process that asks
    often, faster answers for a second copy of the layers' weights.
    Raises CheckpointError, ConfigError, TokenizerError or BackendError, one line each; never a partial model.

    The bundled models know drawn pictures and photographs of groceries. The first one loaded in a process says so in
    one line on stderr, through the logger "minclip": `logging.getLogger("minclip").setLevel("ERROR")` silences it.
    """
    factory = get_backend(backend)
    if threads is not None:
        options["threads"] = threads  # a backend without such an option says so
    path = checkpoints.locate(source)
    config, weights = checkpoints.read(path, mmap=mmap)
    processor = Processor.from_checkpoint(path, config)
    if labels is not None:
        config, weights = with_classifier(config, weights, labels)
    towers = factory.build(config, weights, device=device, dtype=dtype, **options)
    if path.parent == sources.BUNDLED:
        announce_bundled(path.name)
    return Model(config, weights, processor, towers, str(source or sources.DEFAULT))


@lru_cache(maxsize=1)
def _load_once(source: str | Path | None, state: object, backend: str, device: str | None, dtype: str | None) -> Model:
    """`load`, remembered while `state` stays as it is."""
    return load(source, backend=backend, device=device, dtype=dtype)


@overload
def zero_shot(
    image: Source,
    labels: Labels,
    *,
    model: str | Path | Model | None = None,
    **options: Unpack[LoadAndRankOptions],
) -> Ranking: ...
@overload
def zero_shot(
    image: list[Source] | tuple[Source, ...],
    labels: Labels,
    *,
    model: str | Path | Model | None = None,
    **options: Unpack[LoadAndRankOptions],
) -> list[Ranking]: ...
def zero_shot(
    image: ImageSource | Sequence[ImageSource],
    labels: Labels,
    *,
    model: str | Path | Model | None = None,
    template: str | Sequence[str] | None = None,
    top_k: int | None = None,
    backend: str = "numpy",
    device: str | None = None,
    dtype: str | None = None,
) -> Ranking | list[Ranking]:
    """Rank labels for an image, best first, or for each of a list: `load(model, ...).zero_shot(image, labels, ...)`.

    model: as for `load`, which tells what the bundled default knows; or a Model; of a label set, None is the model that
    made it. The model loaded last is kept, so that calls in a row load it once; a folder that has changed is loaded
    again. Labels in a row are encoded once, see `Model.zero_shot`.
    """
    if model is None and isinstance(labels, LabelSet):
        model = labels.model
    if not isinstance(model, Model | str | Path | None):
        model = load(model)  # which says what is wrong with it
    if not isinstance(model, Model):
        model = _load_once(model, checkpoints.state_of(model), backend, device, dtype)
    return model.zero_shot(image, labels, template=template, top_k=top_k)  # type: ignore[type-var]
