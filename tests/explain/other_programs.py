"""Programs of other people, which run a small network with mistakes: plain NumPy and Pillow, and nothing of zodiac/."""

import numpy as np
from PIL import Image, ImageOps

MEAN, STD = (0.485, 0.456, 0.406), (0.2, 0.3, 0.4)
SIZE, SHORT = 32, 37
FILTERS = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
    'box': Image.Resampling.BOX,
}


def open_rgb(path, exif=True, behind=(255, 255, 255), smooth=True):
    """A PIL image.

    Args:
        behind: the colour behind transparent parts; None: the alpha channel is dropped.
        smooth: false for a JPEG decoder that repeats each colour for 2 x 2 pixels.
    """
    with Image.open(path) as image:
        if not smooth:
            image.draft('YCbCr', image.size)
        image.load()
    if exif:
        image = ImageOps.exif_transpose(image)
    if image.mode == 'YCbCr':
        light, *colours = (np.asarray(plane) for plane in image.split())
        colours = [plane[::2, ::2].repeat(2, 0).repeat(2, 1)[: light.shape[0], : light.shape[1]] for plane in colours]
        return Image.merge('YCbCr', [Image.fromarray(plane) for plane in (light, *colours)]).convert('RGB')
    if image.mode == 'RGBA' and behind:
        canvas = Image.new('RGB', image.size, behind)
        canvas.paste(image, mask=image.getchannel('A'))
        return canvas
    return image.convert('RGB')


def opencv_linear(pixels, width, height):
    """What cv2.resize does: two neighbours along each axis, however much the image shrinks."""

    def along(values, count):
        place = (np.arange(count) + 0.5) * len(values) / count - 0.5
        low = np.clip(np.floor(place).astype(int), 0, len(values) - 1)
        high = np.minimum(low + 1, len(values) - 1)
        share = np.clip(place - low, 0, 1).reshape(-1, 1, 1)
        return values[low] * (1 - share) + values[high] * share

    rows = along(pixels.astype(np.float64), height)
    return np.rint(along(rows.transpose(1, 0, 2), width).transpose(1, 0, 2)).astype(np.uint8)


def opencv_area(pixels, width, height):
    """The mean of the pixels that a new one covers, in proportion; the image must shrink."""

    def along(values, count):
        sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, 0)])
        place = np.arange(count + 1) * len(values) / count
        low = np.minimum(np.floor(place).astype(int), len(values) - 1)
        at = sums[low] + (place - low).reshape(-1, 1, 1) * values[low]
        return np.diff(at, axis=0) * count / len(values)

    rows = along(pixels.astype(np.float64), height)
    return np.rint(along(rows.transpose(1, 0, 2), width).transpose(1, 0, 2)).astype(np.uint8)


def resized(image, width, height, how):
    if how == 'opencv linear':
        return Image.fromarray(opencv_linear(np.asarray(image), width, height))
    if how == 'opencv area':
        return Image.fromarray(opencv_area(np.asarray(image), width, height))
    return image.resize((width, height), FILTERS[how])


def framed(image, fit='crop', short=SHORT, how='bilinear', shift=0):
    if fit == 'stretch':
        return resized(image, SIZE, SIZE, how)
    if fit == 'pad':
        scale = SIZE / max(image.size)
        inner = resized(image, max(1, round(image.width * scale)), max(1, round(image.height * scale)), how)
        canvas = Image.new('RGB', (SIZE, SIZE))
        canvas.paste(inner, ((SIZE - inner.width) // 2, (SIZE - inner.height) // 2))
        return canvas
    width, height = (int(short * side / min(image.size)) for side in image.size)
    image = resized(image, width, height, how)
    left, top = (int(round((side - SIZE) / 2.0)) + shift for side in image.size)
    return image.crop((left, top, left + SIZE, top + SIZE))


def tensor(image, bgr=False, scale=1 / 255, mean=MEAN, std=STD, reshape=False):
    pixels = np.array(image).astype(np.float64)
    if bgr:
        pixels = pixels[:, :, ::-1]
    pixels = (pixels * scale - mean) / std
    return (pixels.reshape(3, SIZE, SIZE) if reshape else pixels.transpose(2, 0, 1)).astype(np.float32)


OPENING, FRAMING = {'exif', 'behind', 'smooth'}, {'fit', 'short', 'how', 'shift'}


def run(network, paths, softmax='once', names=None, mirror=False, **how):
    """Numbers of each photo, float64 [photos, classes].

    Args:
        network: callable, float32 [N, 3, SIZE, SIZE] -> logits; names: the order of classes in which the program reports.
        how: keyword arguments of `open_rgb`, `framed` and `tensor`.
    """
    opening = {key: how.pop(key) for key in OPENING & {*how}}
    framing = {key: how.pop(key) for key in FRAMING & {*how}}
    batch = np.stack([tensor(framed(open_rgb(path, **opening), **framing), **how) for path in paths])
    logits = network(batch)
    if mirror:
        logits = (logits + network(batch[..., ::-1].copy())) / 2
    values = logits.astype(np.float64)
    for _ in range({'never': 0, 'once': 1, 'twice': 2}[softmax]):
        powers = np.exp(values - values.max(1, keepdims=True))
        values = powers / powers.sum(1, keepdims=True)
    return values if names is None else values[:, names]
