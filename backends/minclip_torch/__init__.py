"""minclip's towers in PyTorch: CPU, CUDA and MPS, for inference and as modules to train.

minclip.load(folder, backend="torch", device="cuda", dtype="bfloat16")
"""

from minclip_torch.backend import TorchBackend
from minclip_torch.modules import CausalTextTower, Clip, RobertaTextTower, VisionTower

__all__ = ["CausalTextTower", "Clip", "RobertaTextTower", "TorchBackend", "VisionTower"]
