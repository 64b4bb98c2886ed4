"""What a photo is like, apart from what it shows: its size, brightness and sharpness."""

from collections import namedtuple

import numpy as np

from zodiac.images import decoding, transforms

SIDE = 224  # pixels of the short side at which brightness and sharpness are measured; smaller photos stay as they are

# short_side: int, pixels. brightness: mean grey value, 0 to 1. sharpness: variance of the Laplacian of grey values from 0 to 255
# (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy", doi:10.1109/ICPR.2000.903548); 0 where there is only blur.
Properties = namedtuple('Properties', 'short_side brightness sharpness')


def measure(source):
    """The `Properties` of a path or binary file. A JPEG is decoded at a fraction of its size. Raises decoding.ImageError."""
    shape = []

    def whole(size):
        shape.append(size)
        return 0, 0, *size

    image, _ = decoding.decode_part(source, whole, SIDE)
    grey = np.asarray(transforms.shrink(image, SIDE).convert('L'), np.float32)
    return Properties(min(shape[0]), float(grey.mean() / 255), _laplacian(grey))


def _laplacian(grey):
    """Variance of the Laplacian, float; 0 for an image of fewer than three pixels across."""
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    return float((grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle).var())
