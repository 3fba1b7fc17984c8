"""Where tests run the Triton kernels: compiled on a GPU, or else in Triton's interpreter, which must be asked for before the kernels are imported."""

import os
from importlib.util import find_spec

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton: pip install triton")
