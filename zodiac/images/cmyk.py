"""Convert CMYK to RGB by the colour profile in the file: the same inks look different on another printer or paper."""

import functools
import io

from PIL import Image, ImageCms

MAX_BYTES = 1 << 23  # of a profile; those of printers have up to 3 MB


def to_rgb(image, profile):
    """A CMYK image in sRGB.

    Args:
        profile: bytes of an ICC profile. Without one, and for one that is damaged or of another colour space: Pillow's plain formula.
    """
    transform = _transform(profile) if profile and len(profile) <= MAX_BYTES else None
    return ImageCms.applyTransform(image, transform) if transform else image.convert('RGB')


@functools.lru_cache(maxsize=4)  # takes as long as a million pixels, and the photos of a set often share one
def _transform(profile):
    """The transform from a profile to sRGB; None if it cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile('sRGB'), 'CMYK', 'RGB')
        ImageCms.applyTransform(Image.new('CMYK', (1, 1)), transform)
    except (
        Exception
    ):  # Pillow and its library raise several kinds on damaged data; a Pillow without that library raises ImportError
        return None
    return transform
