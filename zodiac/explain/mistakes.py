"""What another program may do otherwise: each mistake changes some fields of a `programs.Program`."""

import dataclasses
from dataclasses import dataclass
from typing import Tuple

from zodiac.explain import programs, scaling

NETWORKS = {  # mean and std that other networks have, of RGB in [0, 1]
    'mean and std of ImageNet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    'mean and std 0.5, which gives -1 to 1': (0.5, 0.5),
    '(RGB - 127) / 128, as for EfficientNet-Lite': (127 / 255, 128 / 255),
    '0 to 1, without mean and std': (0.0, 1.0),
}
CAFFE = (123.68, 116.779, 103.939)  # mean of RGB in 0..255
FILTERS = {
    'nearest': 'the nearest pixel',
    'bilinear': 'bilinear with antialiasing, as Pillow',
    'bicubic': 'bicubic with antialiasing, as Pillow',
    'box': 'box filter of Pillow',
    'hamming': 'Hamming filter of Pillow',
    'lanczos': 'Lanczos filter of Pillow',
    'cv nearest': 'the nearest pixel as OpenCV takes it (INTER_NEAREST)',
    'cv linear': 'bilinear without antialiasing (INTER_LINEAR of OpenCV, antialias=False of torch)',
    'cv cubic': 'bicubic without antialiasing (INTER_CUBIC of OpenCV, antialias=False of torch)',
    'cv lanczos': 'Lanczos without antialiasing (INTER_LANCZOS4 of OpenCV)',
    'cv area': 'mean of the covered pixels (INTER_AREA of OpenCV)',
}
TURNED, DETAILED, NOT_SQUARE = 'with an EXIF orientation', 'large and full of fine detail', 'that is far from square'
COLOURED, ANY = 'with strong colours', 'that the model is less sure of'
CLEAR, LARGE_JPEG = 'with transparent parts, in CMYK or with 16 bits', 'that is a JPEG of several megapixels'
ODD = 'with an odd number of pixels to cut'


@dataclass(frozen=True)
class Mistake:
    """One thing that another program does otherwise."""

    text: str  # what it does
    changes: Tuple  # ((field of Program, value), ...)
    tells: str  # a photo ... that shows it

    def fields(self):
        return {name for name, _ in self.changes}

    def applied(self, program):
        return dataclasses.replace(program, **dict(self.changes))


def of_inputs(own, manifest):
    """The mistakes in what the network gets, for a Program `own` of the export; those that change nothing of it are left out."""
    size = manifest['input']['shape'][2]
    step = manifest['transform'][-1]
    found = [
        Mistake('BGR instead of RGB', (('order', 'BGR'),), COLOURED),
        *_numbers(own, step),
        *_frames(own, size),
        *(
            Mistake(f'another resize filter: {text}', (('filter', name),), DETAILED)
            for name, text in FILTERS.items()
            if name in scaling.FILTERS
        ),
        Mistake('EXIF orientation ignored', (('upright', False),), TURNED),
        Mistake('rows of interleaved pixels (HWC) reshaped to planes, not transposed', (('layout', 'reshaped'),), ANY),
        Mistake('width and height swapped', (('layout', 'turned'),), ANY),
        Mistake('transparency dropped, CMYK and 16 bits converted plainly', (('modes', 'plain'),), CLEAR),
        Mistake('transparent parts placed on black, not white', (('modes', 'black'),), CLEAR),
        Mistake("JPEG decoded at a reduced size (Pillow's draft mode)", (('reduced', 'draft'),), LARGE_JPEG),
        *(
            Mistake(f'JPEG decoded at 1/{factor} of its size', (('reduced', factor),), LARGE_JPEG)
            for factor in (2, 4, 8)
        ),
        Mistake('another JPEG decoder, which does not smooth the colours', (('chroma', 'blocks'),), COLOURED),
        Mistake('averaged over the photo and its mirror image', (('mirror', True),), ANY),
    ]
    return [mistake for mistake in found if mistake.applied(own) != own]


def of_precision(precisions):
    """Mistakes for the precisions besides fp32 in which the export can run here."""
    return [Mistake(f'run in {name}', (('precision', name),), ANY) for name in precisions]


def of_outputs(manifest):
    """The mistakes in what becomes of the network's numbers."""
    temperature = manifest.get('temperature') or 1.0
    found = [
        Mistake('logits, without softmax', (('outputs', 'logits'),), ANY),
        Mistake('softmax applied twice', (('outputs', 'twice'),), ANY),
        Mistake('sigmoid instead of softmax', (('outputs', 'sigmoid'),), ANY),
        Mistake('logarithms of the probabilities (log_softmax)', (('outputs', 'log'),), ANY),
        Mistake('percent instead of probabilities', (('outputs', 'percent'),), ANY),
    ]
    if temperature != 1.0:
        found.append(Mistake('logits not divided by the temperature', (('temperature', temperature),), ANY))
    return found


def of_labels(labels):
    """Mistakes in the order of the class names: known orders, and their inverse."""
    labels, count = [str(label) for label in labels], len(labels)
    orders = {
        'sorted by name': sorted(range(count), key=labels.__getitem__),
        'sorted by name without regard to case': sorted(range(count), key=lambda number: labels[number].casefold()),
        'in reverse': range(count)[::-1],
        'one place further, as with an extra class at the start': [*range(1, count), 0],
        'one place back': [count - 1, *range(count - 1)],
    }
    if all(label.isdecimal() for label in labels):
        orders['sorted as numbers'] = sorted(range(count), key=lambda number: int(labels[number]))
    found = {}
    for text, order in orders.items():
        for one in (tuple(order), inverse(order)):
            if one != tuple(range(count)):
                found.setdefault(one, labels_in(text, one))
    return list(found.values())


def labels_in(text, order):
    return Mistake(f'class names in another order: {text}', (('labels', tuple(order)),), ANY)


def inverse(order):
    result = [0] * len(order)
    for place, number in enumerate(order):
        result[number] = place
    return tuple(result)


def _numbers(own, step):
    """Scales, means and standard deviations."""
    if own.numbers is None:
        unit = ((1 / 255,) * 3, (0.0,) * 3)
        return [Mistake('scaled to 0..1, but this export takes pixels of 0..255', (('numbers', unit),), ANY)]
    mean, std = step['mean'], step['std']
    several = {
        **{text: programs.numbers_of(*values) for text, values in NETWORKS.items()},
        'not scaled: 0 to 255, without mean and std': programs.numbers_of(0, 1, 1),
        'not scaled by 1/255: (0..255 - mean) / std': programs.numbers_of(mean, std, 1),
        'scaled by 1/255 twice': programs.numbers_of(mean, std, 1 / 255**2),
        'mean subtracted, not divided by std': programs.numbers_of(mean, 1),
        'divided by std, mean not subtracted': programs.numbers_of(0, std),
        'mean and std in the order BGR': programs.numbers_of(mean[::-1], std[::-1]),
        '0 to 255 minus the mean of Caffe': programs.numbers_of(CAFFE, 1, 1),
    }
    own_text = 'other numbers for the network: '
    found = [
        Mistake(own_text + text, (('numbers', numbers),), ANY)
        for text, numbers in several.items()
        if not _close(numbers, own.numbers)
    ]
    bgr = programs.numbers_of(CAFFE[::-1], 1, 1)
    return [
        *found,
        Mistake(f'{own_text}BGR, 0 to 255 minus the mean of Caffe', (('numbers', bgr), ('order', 'BGR')), ANY),
    ]


def _close(numbers, others):
    return all(abs(a - b) < 1e-6 for some, more in zip(numbers, others) for a, b in zip(some, more))


def _frames(own, size):
    """Cuts, borders and stretching."""
    kind, *more = own.frame
    frames = {}
    if kind != 'squash':
        frames['stretched to a square, not cut' if kind == 'crop' else 'stretched to a square, without borders'] = (
            'squash',
            size,
        )
    shorts = {round(size * 256 / 224): '0.875', int(size / 0.9): '0.9', int(size / 0.95): '0.95', size: '1', 256: ''}
    if kind == 'crop':
        shorts[more[0]] = ''
    for short, ratio in shorts.items():
        if short >= size:
            text = f'{short} pixels' + (f' (crop ratio {ratio})' if ratio else '')
            frames.setdefault(f'short side scaled to {text}, then the centre cut', ('crop', short, 'round', False))
            if short > size:
                frames[f'stretched to {short} x {short}, then the centre cut'] = ('squash', short)
    for text, colour in {
        'black': (0, 0, 0),
        'white': (255, 255, 255),
        'grey': (114, 114, 114),
        'the mean colour of ImageNet': (124, 116, 104),
    }.items():
        frames[f'borders of {text} around the whole photo'] = ('pad', colour)
    if kind == 'crop':
        found = {
            'crop rounded down': ('crop', more[0], 'floor', False),
            'crop rounded up': ('crop', more[0], 'ceil', False),
            'crop one pixel too far to the left and top': ('crop', more[0], 'before', False),
            'crop one pixel too far to the right and bottom': ('crop', more[0], 'after', False),
            'long side rounded before the crop': ('crop', more[0], 'round', True),
            'long side and crop rounded': ('crop', more[0], 'floor', True),
            'cut at the top left, not at the centre': ('crop', more[0], 'first', False),
        }
        frames.update(found)
    tells = {'floor': ODD, 'ceil': ODD}
    return [
        Mistake(text, (('frame', frame),), tells.get(frame[2] if len(frame) > 2 else '', NOT_SQUARE))
        for text, frame in frames.items()
    ]
