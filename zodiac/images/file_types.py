"""Identify a file that is not a supported image by its first bytes, for an error message with the next step."""

import re

HEAD = 1024  # bytes needed
DAMAGED = 'truncated or damaged'
SUPPORTED = rb'\xff\xd8|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP'  # a file of these that cannot be read is damaged
IMAGES = {  # unsupported image formats
    rb'II[*+]\0|MM\0[*+]': 'a TIFF of this kind',
    rb'\0\0\0\x0cjP  |\xff\x4f\xff\x51': 'JPEG 2000',
    rb'\0\0\0\x0cJXL |\xff\x0a': 'JPEG XL',
    rb'8BPS': 'PSD',
    rb'%PDF': 'PDF',
    rb'%!PS|\xc5\xd0\xd3\xc6': 'EPS',
    rb'\0\0\x01\0': 'ICO',
    rb'DDS ': 'DDS',
    rb'(<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg[^>]*>|\s)*<svg': 'SVG',
}
BRANDS = {  # of ISO media files, the most specific first
    **dict.fromkeys((b'avif', b'avis'), 'AVIF'),
    **dict.fromkeys((b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'hevm', b'hevs'), 'HEIC'),
    b'crx ': 'a raw photo',
    **dict.fromkeys((b'mif1', b'msf1'), 'HEIC'),
}
OTHERS = {
    rb'\Z': 'the file is empty',
    rb'\s*<(!DOCTYPE html|html|head)': 'an HTML page',
    rb'version https://git-lfs': 'a Git LFS pointer: run git lfs pull',
    rb'.{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ': 'a video',
    rb'PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b': 'an archive: unpack it',
}


def describe(head):
    """(reason, detail) for the ImageError about a file with these first bytes."""
    if re.match(SUPPORTED, head, re.S):
        return DAMAGED, ''
    name = None
    if head[4:8] == b'ftyp':
        box = head[8 : int.from_bytes(head[:4], 'big')]
        brands = {box[at : at + 4] for at in range(0, len(box), 4)}
        name = next((BRANDS[brand] for brand in BRANDS if brand in brands), None)
    name = name or next((name for start, name in IMAGES.items() if re.match(start, head, re.S)), None)
    if name == 'AVIF':
        return 'AVIF, which this Pillow does not read: update it, or save the file as JPEG or PNG', ''
    if name:
        return f'{name}, which is not read: save it as JPEG or PNG', ''
    return 'not an image', next((what for start, what in OTHERS.items() if re.match(start, head, re.S | re.I)), '')
