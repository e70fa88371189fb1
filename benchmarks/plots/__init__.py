"""Plots for ``docs/performance.md``: ``python -m benchmarks --plots``."""
