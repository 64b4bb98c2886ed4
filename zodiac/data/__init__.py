"""From a folder or archive of images to training samples: unpack, scan, inspect, find duplicates, split, index, cache, augment.

Imports: images, base.
Start with: scan.py (which files belong to which split and class), then inspection.py (whether a file is a usable image).
"""
