"""The NumPy backend in float32 against itself in float64. A backend's whole test file is as long as this one."""

from minclip.backend import NumpyBackend
from minclip.testing.conformance import BackendConformance


class TestNumpy(BackendConformance):
    backend = NumpyBackend()
    device = "cpu"
    dtypes = ("float32", "float64")
