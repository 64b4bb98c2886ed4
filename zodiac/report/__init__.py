"""From labels and probabilities to numbers, plots and pages.

Imports: data (for near-duplicates), images, base.
Start with: metrics.py (the numbers), then pages.py (report.html).
"""
