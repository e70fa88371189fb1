"""Draws the plots anew from the figures kept beside them: ``python -m benchmarks.plots``."""

from benchmarks.plots.draw import draw

if __name__ == "__main__":
    draw()
