"""From an image file to the input array of a network, the same way in every script.

Imports: base.
Start with: decoding.py (any file to upright 8-bit RGB, or an error), then transforms.py (transforms as data, stored with a model).
"""
