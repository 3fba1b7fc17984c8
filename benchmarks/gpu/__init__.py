"""The one command for a lent GPU: `python -m benchmarks.gpu`. Ten minutes, one page."""
