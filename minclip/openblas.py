"""Which matrix kernels NumPy's own OpenBLAS runs, settled before NumPy is imported.

OpenBLAS picks its AVX2 kernels on AMD processors even where AVX-512 is there; with the AVX-512 ones matrix products
take half the time (measured on an EPYC of the fifth generation: 400 against 200 GFLOP/s on two cores). It reads its
environment variable only once, when it is loaded, so that this does nothing where NumPy was imported before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["prefer_avx512"]

VARIABLE = "OPENBLAS_CORETYPE"
NEEDED = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's SkylakeX kernels use


def prefer_avx512() -> None:
    """Import NumPy with OpenBLAS's AVX-512 kernels on an AMD processor that has the instructions.

    A choice of the user's in the environment is respected, and the environment is left as it was.
    """
    if "numpy" in sys.modules or VARIABLE in os.environ or not amd_with_avx512():
        return
    os.environ[VARIABLE] = "SkylakeX"
    try:
        import numpy  # noqa: F401 - for its effect: OpenBLAS is loaded
    finally:
        del os.environ[VARIABLE]


def amd_with_avx512() -> bool:
    """Whether the processor is AMD's and has AVX-512. Only Linux says so without further help; elsewhere False."""
    try:
        info = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return False
    lines = dict(line.split(":", 1) for line in info.replace("\t", "").splitlines() if ":" in line)
    return lines.get("vendor_id", "").strip() == "AuthenticAMD" and set(lines.get("flags", "").split()) >= NEEDED
