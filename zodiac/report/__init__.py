"""From labels and probabilities to metrics, plots and HTML pages.

Imports: images, pages, base.
Start with: metrics.py (the numbers), then writer.py (the files of a report).
"""
