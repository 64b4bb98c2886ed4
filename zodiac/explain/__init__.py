"""Why another program gets other numbers from the same model: usual mistakes in preprocessing are tried, one by one and in pairs.

Imports: inference, images, base.
Start with: programs.py (one way to run the model), then mistakes.py (what may differ) and search.py (which of it explains the numbers).
"""
