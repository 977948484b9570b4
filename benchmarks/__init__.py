"""Comparisons with peers, each in one run: `python -m benchmarks NAME`."""
