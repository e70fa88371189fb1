"""Measurements, each beside a bare loop doing the same steps in the same run: these machines are noisy."""
