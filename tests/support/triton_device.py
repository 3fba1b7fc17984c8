"""Where tests run the Triton kernels: compiled on a GPU, or else in Triton's interpreter. `tests/__init__.py` asks for the interpreter, because
Triton reads the request when it is first imported.
"""

from importlib.util import find_spec

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton: pip install triton")
