"""From a folder or archive of images to training samples: unpack, scan, inspect, compare, index, cache, augment.

Imports: images, base.
Start with: scan.py (which files belong to which split and class), then inspection.py (what one file is).
"""
