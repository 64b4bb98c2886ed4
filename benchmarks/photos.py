"""Draw JPEGs that compress like photos, for the benchmarks."""

import os
from pathlib import Path

import numpy as np
from PIL import Image


def draw_photo(rng, size=(1200, 800)):
    """A PIL image: noise at every scale, the coarser the stronger. As a JPEG of quality 90 it takes two bits per pixel, as photos do."""
    picture = Image.new('RGB', size)
    for octave in range(2, 10):
        pixels = rng.integers(0, 256, (2**octave * 2 // 3 + 1, 2**octave, 3), dtype=np.uint8)
        layer = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        picture = Image.blend(picture, layer, 1.0 if octave == 2 else 0.9 / octave)
    return picture


def draw_photos(folder, count, size=(1200, 800)):
    """Draw <folder>/0000.jpg and so on, `count` of them, if they do not exist; returns the folder as a Path.

    They are parts of a few larger pictures, because drawing takes ten times as long as the JPEG.
    """
    folder = Path(folder)
    os.makedirs(folder, exist_ok=True)
    rng, pictures = np.random.default_rng(0), []
    for number in range(count):
        path = folder / f'{number:04}.jpg'
        if path.exists():
            continue
        pictures = pictures or [draw_photo(rng, (size[0] * 3 // 2, size[1] * 3 // 2)) for _ in range(8)]
        left, top = (int(rng.integers(0, side // 2 + 1)) for side in size)
        part = pictures[number % len(pictures)].crop((left, top, left + size[0], top + size[1]))
        part.save(path, quality=85)
    return folder
