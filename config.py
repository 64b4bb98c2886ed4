"""The settings of a run: the defaults below, then a YAML file, then -o overrides; all checked by name, type and range.

    python config.py -c configs/demo.yaml -o train.epochs=3 optim.lr=0.01

prints the resulting settings as YAML; docs/settings.md explains them. Scripts and notebooks read them with `get('train.epochs')`, or by
the names of the original notebook (`LABEL_MAP`, `LEARNING_RATE.params.lr`, ...).
"""

from __future__ import annotations

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare()  # before the slow imports

import dataclasses
import os
import sys
import unicodedata
from dataclasses import dataclass, field
from typing import List, Literal, Optional, Union

from zodiac.base import (
    class_names,
    columns,
    device,
    networks,
    notebook_names,
    options,
    photos,
    preprocessing,
    removed,
    rules,
    runs,
    schema,
    settings_page,
)
from zodiac.base.errors import UsageError, run
from zodiac.base.options import overrides_of
from zodiac.base.schema import setting

DEFAULT_CONFIG, PHOTOS_CONFIG = (
    os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configs', name) for name in ('zodiac.yaml', 'photos.yaml')
)
# Folders of the notebook's data set, in the order of its index; ratt, the rat, is spelled so there
ZODIAC = ['ratt', 'ox', 'tiger', 'rabbit', 'dragon', 'snake', 'horse', 'goat', 'monkey', 'rooster', 'dog', 'pig']
ARCHS = Literal[tuple(networks.NETWORKS)]
Auto = Literal['auto']
Items = List[Union[str, dict]]  # each a name, or {name: {setting: value}}


@dataclass
class Data:
    """The images, and how they are loaded."""

    root: str = setting(
        'signs',
        'Folder of the images. `annotate.py` writes `train.txt`, `valid.txt`, `test.txt` and `annotation.json` there.',
        pattern=('.*[^/].*', 'a path other than /'),
    )
    labels: Union[Auto, List[str]] = setting(
        ZODIAC, 'Class names, in the order of the class numbers; auto: the names of the class folders, sorted.'
    )
    num_workers: Union[Auto, int] = setting(
        'auto', 'Processes that load images; auto: up to 8 for a GPU, at most 1 on the CPU.', low=0, high=256
    )
    shared_memory: Union[Auto, bool] = setting('auto', 'Pass batches through `/dev/shm`; auto: if it has enough space.')
    cache: Union[bool, str] = setting(False, 'Keep decoded images on disk: in `output/.cache` (true), or in a folder.')
    cache_gb: float = setting(20.0, 'Maximum size of the cache in GB.', above=0)
    reduced_decoding: bool = setting(True, 'Decode a large JPEG at reduced size if that leaves enough pixels.')


@dataclass
class ImageSize:
    """Size and normalization of the images that the network gets; auto and settings that are left out come from the network."""

    size: Union[Auto, int] = setting(
        224,
        'Width and height in pixels; auto: of `model.arch`, see [recipes.md](recipes.md#networks).',
        low=8,
        high=4096,
    )
    fit: Literal['crop', 'squash', 'pad'] = setting(
        'crop',
        'For evaluation: crop cuts out the center; squash resizes both sides to size; pad resizes the long side to size '
        'and adds borders of the mean color.',
    )
    resize: Union[Literal['auto', 'squash'], int] = setting(
        'auto',
        'With image.fit=crop, the short side in pixels before the crop; auto: size / 0.875; squash: the same as '
        'image.fit=squash.',
        low=8,
        high=8192,
    )
    mean: Union[Auto, List[float]] = setting(
        [0.485, 0.456, 0.406], 'Mean of the RGB channels in [0, 1]; auto: of `model.arch`.'
    )
    std: Union[Auto, List[float]] = setting(
        [0.229, 0.224, 0.225], 'Standard deviation of the RGB channels; auto: of `model.arch`.', above=0
    )
    interpolation: Literal['auto', 'bilinear', 'bicubic'] = setting(
        'bilinear', 'Interpolation when images are resized; auto: of `model.arch`.'
    )


@dataclass
class Annotate:
    """How `annotate.py` unpacks, checks and splits images."""

    archive: Optional[str] = setting(None, 'Archive (.zip, .tar, .tgz and others) to unpack into data.root first.')
    list: Optional[str] = setting(
        None,
        'List of the images and their classes, instead of class folders: CSV, TSV, PaddleClas, PaddleX, COCO or Label Studio, see '
        '[reference.md](reference.md#lists-of-images).',
    )
    encoding: str = setting(
        'auto',
        'Encoding of file names in an archive that does not declare it, such as gbk, shift_jis, big5 or euc_kr; auto: '
        'one in which the class names are found.',
    )
    non_rgb: Literal['reject', 'convert'] = setting(
        'reject', 'What to do with grayscale, palette, CMYK, 16-bit and transparent images.'
    )
    group: Union[Literal['near_duplicates'], None, str] = setting(
        None,
        'Regular expression: images in whose file names it finds the same text, such as the frames of one video, stay in one split and '
        'fold; near_duplicates: near-copies do, see [reference.md](reference.md#groups).',
    )
    unknown_class: Literal['stop', 'skip'] = setting(
        'stop',
        'What to do with class folders that are not in data.labels; in a list, with lines that have no label, an unknown one, or no file.',
    )
    valid_fraction: float = setting(
        0.1, 'Share of the training images to validate on if there is no validation folder.', above=0, high=0.8
    )
    valid_from: Literal['train', 'test'] = setting(
        'train', 'Without a validation folder, validate on a share of the training images, or on the test images.'
    )
    test_fraction: float = setting(
        0.1, 'Share of the training images to test on if there is no test folder.', above=0, high=0.8
    )
    max_left_out: float = setting(
        0.05,
        'Write no index files if more than this share of the image files cannot be used, or a class has no image; 1: leave '
        'out anything, with a warning.',
        low=0,
        high=1,
    )
    workers: Union[Auto, int] = setting('auto', 'Processes that check images; auto: one per core.', low=1, high=256)


@dataclass
class Model:
    """The network."""

    arch: ARCHS = setting('resnet50', 'Architecture.')
    head: Union[Auto, Items] = setting(
        'auto', 'Layers after the last feature map, see [recipes.md](recipes.md); auto: the head of the architecture.'
    )
    pretrained: Union[bool, str] = setting(
        True, 'Initial weights: true for ImageNet, false for random ones, or the path of a weight file or a run.'
    )
    freeze: str = setting(
        'none', 'Layers that are not trained: none, backbone (all but the head), or all up to a stage such as layer2.'
    )
    unfreeze_epoch: Union[Auto, int] = setting(
        0,
        'Epoch from which the layers in model.freeze are trained too, counted from 1; 0: never; auto, with '
        'train.head=linear: 2 on a GPU with 2000 training images or more, else never.',
        low=0,
    )
    unfreeze_every: int = setting(
        0, 'Epochs from one stage to the next when they are unfrozen, the last one first; 0: all at once.', low=0
    )
    zero_init_residual: bool = setting(
        False, 'With random weights, initialize the last BatchNorm weight of each residual block to zero.'
    )


@dataclass
class Train:
    """Batches, labels, weights and checkpoints of a training."""

    epochs: int = setting(20, 'Number of epochs.', low=1)
    batch_size: int = setting(32, 'Maximum number of images in a batch, which all processes share.', low=1)
    head: Literal['sgd', 'linear'] = setting(
        'sgd',
        'linear: with model.freeze=backbone, solve the head on the features of the images (logistic regression, its '
        'strength chosen by cross-validation), which is epoch 1, the last one without model.unfreeze_epoch; sgd: train '
        'it in steps.',
    )
    views: int = setting(
        0,
        'With model.freeze=backbone, compute the features of this many augmented views of each image once, and train '
        'only the head on them; 0: run the backbone in every step (train.head=linear: use the images as they are).',
        low=0,
    )
    accumulate: int = setting(1, 'Batches per optimizer step, which uses the mean over all their images.', low=1)
    amp: Literal['O0', 'O1'] = setting('O0', 'Mixed precision: O1 turns it on, on a GPU only.')
    amp_dtype: Literal['float16', 'bfloat16'] = setting(
        'float16', 'Data type of mixed precision; bfloat16 needs an Ampere GPU or a newer one.'
    )
    read_steps: Union[Auto, int] = setting(
        'auto',
        'Read loss and accuracy from the device once in this many steps; auto: 1 on the CPU, 10 on a GPU.',
        low=1,
    )
    batch_norm: Literal['learn', 'keep'] = setting(
        'learn', 'keep: use the BatchNorm statistics of the pretrained weights and leave them as they are.'
    )
    sync_batch_norm: bool = setting(False, 'With several GPUs, compute BatchNorm statistics over the whole batch.')
    sampling: Literal['shuffle', 'balanced'] = setting(
        'shuffle', 'balanced: draw images of each class equally often, with replacement.'
    )
    class_weights: Literal['none', 'balanced'] = setting('none', 'balanced: weight classes inversely to their size.')
    label_smoothing: float = setting(0.0, 'Share of each label that is spread over all classes.', low=0, high=0.99)
    mixup: float = setting(0.0, 'Alpha of the Beta distribution of mixup; 0: off.', low=0)
    cutmix: float = setting(
        0.0, 'Alpha of the Beta distribution of CutMix; 0: off. With both on, each batch uses one of them.', low=0
    )
    ema: float = setting(
        0.0, 'Decay per step of averaged weights, which are then evaluated and saved; 0: off.', low=0, high=0.99999
    )
    monitor: Literal[columns.SCORES] = setting('valid_top1', 'Column of `log.csv` by which the best epoch is chosen.')
    patience: int = setting(
        0,
        'Stop after this many epochs without a better train.monitor; 0: never. Epochs before model.unfreeze_epoch do '
        'not count.',
        low=0,
    )
    resume: Literal['never', 'auto'] = setting('never', 'auto: resume from the newest checkpoint of the run, if any.')
    save_steps: int = setting(0, 'Save a checkpoint every so many steps too; 0: only at the end of each epoch.', low=0)
    save_minutes: float = setting(0.0, 'Save a checkpoint every so many minutes too; 0: off.', low=0)
    keep_checkpoints: int = setting(2, 'Number of newest checkpoints to keep, besides `best/`.', low=1)

    @property
    def on_features(self):
        """Whether the head learns from features that are computed once, in a single process."""
        return self.views > 0 or self.head == 'linear'


@dataclass
class Optim:
    """The optimizer and its learning rate schedule."""

    name: Literal['momentum', 'sgd', 'adam', 'adamw'] = setting('momentum', 'Optimizer.')
    lr: float = setting(0.00375, 'Highest learning rate of the schedule.', above=0)
    backbone_lr: float = setting(
        0.0, 'Learning rate of the layers in model.freeze once they are trained; 0: same as optim.lr.', low=0
    )
    layer_decay: float = setting(
        1.0, 'Factor of the learning rate per stage, from the head down; 1: off.', above=0, high=1
    )
    momentum: float = setting(0.9, 'Momentum coefficient of the optimizer momentum.', low=0, high=1)
    nesterov: bool = setting(False, 'Nesterov momentum.')
    weight_decay: float = setting(1e-6, 'Weight decay: coefficient of the L2 penalty.', low=0)
    decoupled_decay: bool = setting(False, 'Decoupled weight decay, as in adamw, instead of an L2 penalty.')
    decay_bias_and_norm: bool = setting(True, 'Apply weight decay to biases and BatchNorm weights too.')
    norm_lr_factor: float = setting(1.0, 'Factor of the learning rate for BatchNorm weights and biases.', above=0)
    clip_norm: float = setting(0.0, 'Maximum norm of the whole gradient; 0: no clipping.', low=0)
    schedule: Literal['cosine', 'cosine_restarts', 'one_cycle', 'step', 'constant'] = setting(
        'cosine', 'Learning rate schedule.'
    )
    warmup_epochs: float = setting(0.0, 'Epochs in which the learning rate first rises linearly from zero.', low=0)
    min_lr: float = setting(0.0, 'Last learning rate of cosine, cosine_restarts and one_cycle.', low=0)
    restart_epochs: float = setting(10.0, 'Length in epochs of the first cycle of cosine_restarts.', above=0)
    restart_factor: float = setting(1.0, 'Length of each cycle of cosine_restarts relative to the previous one.', low=1)
    rise: float = setting(0.3, 'Share of the steps in which one_cycle rises.', above=0, high=0.99)
    anneal: Literal['cos', 'linear'] = setting('cos', 'Shape of one_cycle.')
    step_epochs: float = setting(30.0, 'schedule=step: epochs between two changes of the learning rate.', above=0)
    step_factor: float = setting(0.1, 'schedule=step: factor of each change.', above=0, high=0.999)


@dataclass
class Evaluate:
    """How `evaluate.py` measures a network."""

    split: Literal['train', 'valid', 'test'] = setting('test', 'Split to evaluate.')
    weights: str = setting(
        'best',
        'Weights to evaluate: best, last, or the path of a weight file, a checkpoint, a run, or an exported folder. '
        '`export.py` uses this setting too, but cannot use an exported folder.',
    )
    engine: Literal['paddle', 'onnxruntime', 'openvino'] = setting('paddle', 'Engine that runs an exported folder.')
    precision: Literal['fp32', 'bf16', 'int8'] = setting('fp32', 'Precision in which it runs.')
    flip_average: bool = setting(False, 'Average over the image and its mirror image, in `export.py` too.')
    batch_size: int = setting(32, 'Number of images in a batch.', low=1)
    folds: int = setting(
        0,
        'With train.head=linear, also measure the head over this many folds of all images (train, valid and test), and '
        'draw a learning curve; 0: off.',
        low=0,
        high=20,
    )
    sample: int = setting(6, 'Number of randomly drawn images whose predictions are listed.', low=1)


@dataclass
class Export:
    """What `export.py` writes, and how it is compared with the network."""

    parity_images: int = setting(64, 'Validation images on which each engine is compared with the network.', low=1)
    tolerance: float = setting(1e-4, 'fp32: maximum difference of a probability.', above=0, high=1)
    logit_tolerance: Union[Auto, float] = setting(
        'auto',
        'Maximum difference of a logit, relative to the spread of the logits; auto: fp32 0.001, int8 0.25.',
        above=0,
    )
    loss_tolerance: Union[Auto, float] = setting(
        'auto',
        'Maximum difference of the loss in nats, relative to the loss if that is above 1; auto: fp32 0.001, int8 0.05.',
        above=0,
    )
    int8: bool = setting(False, 'Also write `<name>.int8.onnx`, which runs with `--precision int8`.')
    agreement: float = setting(0.98, 'int8: minimum share of images with the same top-1.', above=0, high=1)
    calibration_images: int = setting(256, 'int8: training images for calibrating the range of each layer.', low=1)
    examples: int = setting(
        0,
        'Validation images, as pixels, that the export carries so that each machine checks its engines on them too, and '
        'that the page of serve.py offers to try.',
        low=0,
    )
    onnx: Union[Auto, bool] = setting('auto', 'Also write `<name>.onnx`; auto: if its packages are installed.')
    weights: Literal['none', 'safetensors'] = setting(
        'none',
        'safetensors: also write `<name>.safetensors`, the weights for PyTorch, with the names of torchvision or timm where they have '
        'the network.',
    )
    preprocess: bool = setting(False, 'The model takes uint8 pixels [N, H, W, 3] and normalizes them itself.')
    softmax: bool = setting(True, 'The model returns probabilities, and logits as a second output; false: only logits.')
    features: Union[Auto, bool] = setting(
        'auto',
        'The model returns the features of each image, what enters its last linear layer, as its last output, for '
        '`predict.py --features`; auto: with reject.keep, which needs them.',
    )
    temperature: bool = setting(False, 'Divide the logits by the temperature that fits the validation images best.')
    web: bool = setting(
        False, 'Also write `web/`, a page that classifies photos in the browser, see [browser.md](browser.md).'
    )
    web_runtime: Optional[str] = setting(
        None, 'Files of onnxruntime-web for `web/`: the archive that `npm pack onnxruntime-web` writes, or a folder.'
    )


@dataclass
class Reject:
    """What an exported model says when a photo shows none of the classes, or when it hesitates, see [trust.md](trust.md)."""

    keep: float = setting(
        0.0,
        'Share of photos of the trained classes that are taken for known; others are answered with "none of these". 0: off, every photo '
        'gets a label.',
        low=0,
        high=0.999,
    )
    coverage: float = setting(
        0.98,
        'With reject.keep: share of photos of the trained classes whose set of labels holds the right one.',
        low=0.5,
        high=0.999,
    )
    sets: Literal['lac', 'raps'] = setting(
        'lac', 'How the sets are made: lac, the smallest ones; raps, larger ones for hard photos and rare mistakes.'
    )


@dataclass
class Config:
    """The run as a whole."""

    name: str = setting(
        'zodiac',
        'Name of the run, which is stored in `output/<name>/`.',
        pattern=(r'[\w][\w.\- ]*', 'a folder name of letters, digits, spaces and . - _'),
    )
    output: str = setting('output', 'Folder of all runs and of the cache.', pattern=('.+', 'a folder'))
    seed: int = setting(0, 'Seed of all random numbers.', low=0, high=2**31 - 1)
    device: str = setting(
        'auto', 'Device to compute on; auto: a GPU if there is one.', pattern=(device.NAMES, device.NAMES_IN_WORDS)
    )
    data: Data = field(default_factory=Data)
    image: ImageSize = field(default_factory=ImageSize)
    augment: Items = setting(
        ['random_resized_crop', 'horizontal_flip'],
        'Random changes to training images, in order, see [recipes.md](recipes.md).',
    )
    annotate: Annotate = field(default_factory=Annotate)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    optim: Optim = field(default_factory=Optim)
    evaluate: Evaluate = field(default_factory=Evaluate)
    export: Export = field(default_factory=Export)
    reject: Reject = field(default_factory=Reject)

    @property
    def run_dir(self):
        """Folder of everything that the run writes."""
        return f'{self.output}/{self.name}'

    @property
    def cache_dir(self):
        """Cache folder, shared by all runs: decoded images, features."""
        return self.data.cache if isinstance(self.data.cache, str) else f'{self.output}/.cache'

    @property
    def identity(self):
        """The settings that must match those of a checkpoint, which stores them."""
        return {
            'model.arch': self.model.arch,
            'model.head': self.model.head,
            'data.labels': self.data.labels,
            'image': preprocessing.identity(self.image),
        }

    @property
    def exports_features(self):
        """Whether the exported model returns features."""
        return self.reject.keep > 0 if self.export.features == 'auto' else self.export.features

    def to_yaml(self):
        """All settings, including defaults, as YAML text that `-c` accepts."""
        import yaml  # 12 ms, which --help does without

        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)


_active = None


def load(path=None, overrides=()):
    """A checked `Config` from the YAML file `path` (default: configs/zodiac.yaml) and overrides, see `options.assignments`.

    Raises UsageError, which names the key, the value and what is allowed.
    """
    cfg, given = Config(), []
    for key, value, where in options.assignments(path or DEFAULT_CONFIG, overrides):
        if not removed.is_ignored(key, value):
            removed.check(key, value, where)
            notebook_names.check(key, where)
            options.check(cfg, key, value, where)
            schema.put(cfg, key, value, where)
            given.append(key)
    preprocessing.resolve(cfg.image, cfg.model.arch, given)
    if cfg.model.unfreeze_epoch == 'auto' and cfg.train.head != 'linear':
        cfg.model.unfreeze_epoch = 0
    if cfg.data.labels != 'auto':
        cfg.data.labels = [unicodedata.normalize('NFC', label) for label in cfg.data.labels]
    rules.check(cfg)
    return cfg


def use(path=None, overrides=()):
    """Load settings, make them active for `get`, and return them."""
    global _active
    _active = load(path, overrides)
    return _active


def active():
    """The active `Config`, by default that of configs/zodiac.yaml."""
    return _active or use()


def get(key):
    """The active value of a dotted key such as `'train.epochs'`, or of one of the notebook's names; a dict for a section.

    Raises UsageError for an unknown key; UserError for class names that come from data which annotate.py has not seen.
    """
    cfg, name = active(), notebook_names.SETTINGS.get(key, key)
    if key in notebook_names.DERIVED:
        return notebook_names.DERIVED[key](cfg)
    try:
        return schema.get(class_names.resolve(cfg) if name == 'data.labels' else cfg, name)
    except KeyError:
        raise UsageError(f'{key}: no such setting{schema.nearest(cfg, key)}') from None


def parser(doc, takes=None):
    """The parser of a script with settings, see `options.parser`."""
    return options.parser(doc, Config(), takes)


def from_command_line(doc, argv=None, takes=None):
    """Parse a command line that has only settings, make them active and return them."""
    return from_arguments(parser(doc, takes).parse_args(argv))


def from_arguments(args):
    """Make the settings of a parsed command line active and return them: those of -c, or of the photos or the run that it names, or of
    configs/zodiac.yaml; then what the photos imply; then -o.

    Raises: UsageError; UserError for a missing run, and one whose classes are not those of the photos any more.
    """
    overrides = overrides_of(args)
    if getattr(args, 'photos', None):
        return use(args.config or PHOTOS_CONFIG, [*photos.settings(args.photos), *overrides])
    folder = run_of(args) if hasattr(args, 'run') else None
    if not folder:
        return use(args.config, overrides)
    if args.run:
        if any(map(_is_name, overrides)):
            raise UsageError(f'{args.run} and -o name: name one run')
        runs.say(args.run, folder)
    parent, name = os.path.split(folder)
    place = [('output', parent or '.', folder), ('name', name, folder)]
    own = load(f'{folder}/{runs.CONFIG}', place)
    cfg = use(args.config or f'{folder}/{runs.CONFIG}', [*place, *(text for text in overrides if not _is_name(text))])
    for key, before, now in differences(own, cfg):
        print(f'{key} = {now} (the run: {before})', file=sys.stderr)
    if not getattr(args, 'data', None):  # evaluate.py --data needs none of the run's photos
        class_names.require_unchanged(cfg, own.data.labels, folder)
    return cfg


def run_of(args):
    """The folder of the run that a parsed command line names, as its argument or, without -c, with -o name=...; None without one."""
    if args.run:
        return runs.find(args.run)
    names = [text.partition('=')[2].strip() for text in overrides_of(args) if _is_name(text)]
    folder = f'output/{names[-1]}' if names and not args.config else None
    return folder if folder and os.path.isfile(f'{folder}/{runs.CONFIG}') else None


def _is_name(text):
    return text.partition('=')[0].strip() == 'name'


def differences(before, now):
    """[(dotted key, value in one `Config`, value in another), ...]"""
    pairs = ((key, schema.get(before, key), schema.get(now, key)) for key in schema.keys_of(now))
    return [(key, *values) for key, *values in pairs if values[0] != values[1]]


# Settings that export.py should have as evaluate.py had them
FOR_EXPORT = ('device', 'data.root', 'evaluate.weights', 'evaluate.flip_average')


def to_export(cfg):
    """The arguments of export.py for the network that was evaluated: the run, and what differs from its config.yaml."""
    try:
        changed = differences(load(f'{cfg.run_dir}/{runs.CONFIG}'), cfg)
    except UsageError:  # an older run, with settings that are gone
        changed = ()
    kept = [
        f'{key}={schema.as_yaml(now)}'
        for key, _, now in changed
        if key in FOR_EXPORT or key.startswith(('export.', 'reject.'))
    ]
    return [runs.shortest(cfg.run_dir), *(['-o', *kept] if kept else [])]


def main():
    command = parser(__doc__)
    command.add_argument('--describe', action='store_true', help='print the meaning of all settings, as Markdown')
    args = command.parse_args()
    described = settings_page.markdown(Config()) if args.describe else use(args.config, overrides_of(args)).to_yaml()
    print(described, end='')


if __name__ == '__main__':
    run(main)
