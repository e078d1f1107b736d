"""minclip's towers in PyTorch: CPU, CUDA and MPS, for inference and as modules to train.

minclip.load(folder, backend="torch", device="cuda", dtype="bfloat16")

Each name is imported when it is first used, so that what needs no torch (the script that draws the emoji) imports none.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["CausalTextTower", "Clip", "RobertaTextTower", "TorchBackend", "VisionTower"]

if TYPE_CHECKING:
    from minclip_torch.backend import TorchBackend
    from minclip_torch.modules import CausalTextTower, Clip, RobertaTextTower, VisionTower
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "backend" if name == "TorchBackend" else "modules"
        return getattr(import_module(f"{__name__}.{home}"), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
