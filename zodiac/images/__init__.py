"""From an image file to the array that a network sees, the same in every script.

Imports: base.
Start with: decoding.py (any file to upright 8-bit RGB, or an error), then transforms.py (transforms as data that travels with a model).
"""
