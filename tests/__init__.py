"""Tests of the harness, mirroring the tree of the packages they test."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, which many packages do
