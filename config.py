"""The settings of a run: defaults below, then a YAML file, then -o overrides; each checked by name, type and range.

    python config.py -c configs/demo.yaml -o train.epochs=3 optim.lr=0.01

prints the settings in force as YAML. Scripts and notebooks read them with `get('train.epochs')`; the names of the
original notebook (`LABEL_MAP`, `LEARNING_RATE.params.lr`, ...) work in `get` too.
"""

from __future__ import annotations

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare()  # before the other imports, which take long

import argparse
import codecs
import dataclasses
import os
import unicodedata
import warnings
from dataclasses import dataclass, field
from typing import List, Literal, Optional, Union

from zodiac.base import columns, provenance, schema
from zodiac.base.errors import UsageError, run
from zodiac.base.schema import setting

DEFAULT_CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'configs', 'zodiac.yaml')
ZODIAC = ['ratt', 'ox', 'tiger', 'rabbit', 'dragon', 'snake', 'horse', 'goat', 'monkey', 'rooster', 'dog', 'pig']
ARCHS = Literal['resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'resnet9', 'cifarnet']
Auto = Literal['auto']
Items = List[Union[str, dict]]  # each a name, or {name: {setting: value}}


@dataclass
class Data:
    root: str = setting(
        'signs', pattern=r'.*[^/].*'
    )  # holds the images, train.txt, valid.txt, test.txt, annotation.json
    labels: List[str] = setting(ZODIAC)  # class names; the position is the class number
    num_workers: Union[Auto, int] = setting('auto', low=0, high=256)  # processes that decode images
    shared_memory: Union[Auto, bool] = 'auto'  # hand batches over through /dev/shm
    cache: Union[bool, str] = False  # keep decoded pictures on disk; true: in output/.cache; or a folder
    cache_gb: float = setting(20.0, above=0)  # what that folder may take, in GB
    cache_side: Union[Auto, int] = setting(
        'auto', low=8, high=8192
    )  # short side of the pictures that are kept to be cut at random; auto: that of evaluation, see image.resize
    reduced_decoding: bool = True  # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is enough


@dataclass
class ImageSize:
    size: int = setting(224, low=8, high=4096)  # pixels a side that the network sees
    resize: Union[Literal['auto', 'squash'], int] = setting(
        'auto', low=8, high=8192
    )  # short side before the centre crop; auto: size * 256 / 224; squash: both sides to size, no crop
    mean: List[float] = setting([0.485, 0.456, 0.406])  # of ImageNet, RGB in [0, 1]
    std: List[float] = setting([0.229, 0.224, 0.225], above=0)


@dataclass
class Annotate:
    archive: Optional[str] = None  # .zip, .tar, .tgz to unpack into data.root first
    encoding: str = 'auto'  # of file names that do not say theirs: gbk, shift_jis, big5, euc_kr, ...
    non_rgb: Literal['reject', 'convert'] = 'reject'  # what to do with grey, palette, CMYK, 16-bit and alpha images
    unknown_class: Literal['stop', 'skip'] = 'stop'  # what to do with a class folder that is none of data.labels
    valid_fraction: float = setting(0.1, above=0, high=0.8)  # taken from train where there is no valid folder
    valid_from: Literal['train', 'test'] = 'train'  # test: without a valid folder valid.txt lists the test images
    test_fraction: float = setting(0.1, above=0, high=0.8)  # taken from train where there is no test folder
    workers: Union[Auto, int] = setting('auto', low=1, high=256)
    max_entries: int = setting(2_000_000, low=1)  # caps on an archive: files and folders,
    max_bytes: int = setting(200 * 2**30, low=1)  # bytes when unpacked,
    max_ratio: float = setting(100.0, above=1)  # bytes when unpacked over bytes of the archive


@dataclass
class Model:
    arch: ARCHS = 'resnet50'
    head: Union[Auto, Items] = 'auto'  # layers behind the last feature map; auto: average pool and one linear layer
    pretrained: Union[bool, str] = True  # true: ImageNet weights; false: from scratch; or a weight file, or a run
    freeze: str = 'none'  # what does not learn: none, backbone (all but the head), or up to a stage such as layer2
    unfreeze_epoch: int = setting(0, low=0)  # from this epoch on everything learns; 0: never
    zero_init_residual: bool = False  # from scratch: the last BatchNorm weight of each block starts at zero


@dataclass
class Train:
    epochs: int = setting(20, low=1)
    batch_size: int = setting(32, low=1)  # most images of a batch; several processes share them
    # with model.freeze=backbone: compute its features of so many augmented views of each image once, and train the head on
    # them; 0: run the backbone in every step
    views: int = setting(0, low=0)
    accumulate: int = setting(1, low=1)  # batches of a step of the optimizer, which is the mean over all their images
    amp: Literal['O0', 'O1', 'O2'] = 'O0'  # mixed precision, on a GPU: O1; O2 is refused
    amp_dtype: Literal['float16', 'bfloat16'] = 'float16'  # of mixed precision; bfloat16 from Ampere on
    autotune: bool = False  # on a GPU, try the kernels and layouts of each convolution in the first steps
    read_steps: Union[Auto, int] = setting('auto', low=1)  # read loss and top1 so often; auto: 1, on a GPU 10
    sync_batch_norm: bool = False  # several GPUs: BatchNorm over the whole batch instead of each one's share
    sampling: Literal['shuffle', 'balanced'] = 'shuffle'  # balanced: each class equally often, by drawing with return
    class_weights: Literal['none', 'balanced'] = 'none'  # balanced: the loss of an image counts 1 / images of its class
    label_smoothing: float = setting(0.0, low=0, high=0.99)  # share of each label spread over all classes
    mixup: float = setting(0.0, low=0)  # alpha of the Beta distribution of the share in mixup; 0: off
    cutmix: float = setting(0.0, low=0)  # the same for CutMix; with both on, each batch draws one of the two
    ema: float = setting(0.0, low=0, high=0.99999)  # decay a step of averaged weights, which are evaluated; 0: off
    evaluate_first: bool = False  # validate before the first step too: epoch 0 of log.csv
    monitor: Literal[columns.SCORES] = 'valid_top1'  # what best/ is best in
    patience: int = setting(0, low=0)  # stop after so many epochs without a better `monitor`; 0: never
    resume: Literal['never', 'auto'] = 'never'  # auto: go on from the newest checkpoint of this name, if there is one
    save_steps: int = setting(0, low=0)  # a checkpoint every so many steps too; 0: at the end of each epoch only
    save_minutes: float = setting(0.0, low=0)  # and every so many minutes
    keep_checkpoints: int = setting(2, low=1)  # newest ones kept in checkpoints/, beside best/


@dataclass
class Optim:
    name: Literal['momentum', 'sgd', 'adam', 'adamw'] = 'momentum'
    lr: float = setting(0.00375, above=0)  # the highest of the schedule
    backbone_lr: float = setting(0.0, low=0)  # for what model.freeze names, once it learns; 0: optim.lr
    momentum: float = setting(0.9, low=0, high=1)
    nesterov: bool = False
    weight_decay: float = setting(1e-6, low=0)  # L2
    decoupled_decay: bool = False  # shrink the weights by rate * weight_decay instead; adamw always does
    decay_bias_and_norm: bool = True  # false: no weight decay on biases and BatchNorm weights
    norm_lr_factor: float = setting(1.0, above=0)  # BatchNorm weights and biases learn so many times as fast
    clip_norm: float = setting(0.0, low=0)  # largest norm of the whole gradient; 0: off
    clip_value: float = setting(0.0, low=0)  # largest absolute value in the gradient; 0: off
    schedule: Literal['cosine', 'cosine_restarts', 'one_cycle', 'step', 'constant'] = 'cosine'
    warmup_epochs: float = setting(0.0, low=0)  # the rate rises linearly from zero for so many epochs
    min_lr: float = setting(0.0, low=0)  # where cosine, cosine_restarts and one_cycle end
    restart_epochs: float = setting(10.0, above=0)  # length of the first cycle of cosine_restarts
    restart_factor: float = setting(1.0, low=1)  # each cycle is so many times as long as the one before
    rise: float = setting(0.3, above=0, high=0.99)  # share of the steps in which one_cycle rises
    anneal: Literal['cos', 'linear'] = 'cos'  # shape of one_cycle
    step_epochs: float = setting(30.0, above=0)  # `step` multiplies the rate every so many epochs
    step_factor: float = setting(0.1, above=0, high=0.999)  # by this


@dataclass
class Evaluate:
    split: Literal['train', 'valid', 'test'] = 'test'
    weights: str = 'best'  # best, last, a weight file, a checkpoint, a run's folder; export.py reads it too; or infer/
    engine: Literal['paddle', 'onnxruntime', 'openvino', 'tensorrt'] = 'paddle'  # what runs an infer/ folder
    flip_average: bool = False  # average over the image and its mirror image; export.py builds it into the model
    batch_size: int = setting(32, low=1)
    sample: int = setting(6, low=1)  # size of the simple random sample that is listed


@dataclass
class Export:
    parity_images: int = setting(64, low=1)  # validation images on which each engine is compared with the network
    tolerance: float = setting(1e-4, above=0, high=1)  # fp32: largest difference of a probability
    # largest difference of a logit, as a share of the spread of the logits; auto: fp32 0.001, bf16 0.1, int8 0.25
    logit_tolerance: Union[Auto, float] = setting('auto', above=0)
    # difference of the loss in nats, above 1 as a share of it; auto: fp32 0.001, bf16 0.02, int8 0.05
    loss_tolerance: Union[Auto, float] = setting('auto', above=0)
    precision: Literal['fp32', 'bf16', 'int8'] = 'fp32'  # bf16: Paddle, on CPUs that have it; int8: the ONNX model
    agreement: float = setting(0.98, above=0, high=1)  # bf16, int8: least share of images with the top-1 of the network
    calibration_images: int = setting(256, low=1)  # int8: training images that show the range of each layer
    onnx: Union[Auto, bool] = 'auto'  # write <name>.onnx too; auto: where paddle2onnx and onnxruntime are installed
    preprocess: bool = False  # the model takes pixels, uint8 [N, H, W, 3], and normalises them itself
    softmax: bool = True  # the model gives probabilities, and logits as a second output; false: logits only
    temperature: bool = False  # divide the logits by the temperature that fits the validation images


@dataclass
class Config:
    name: str = setting('zodiac', pattern=r'[\w][\w.\- ]*')  # the run lives in output/<name>/
    seed: int = setting(0, low=0, high=2**31 - 1)
    device: str = setting('auto', pattern=r'auto|cpu|gpu(:\d+)?|xpu(:\d+)?|npu(:\d+)?')
    data: Data = field(default_factory=Data)
    image: ImageSize = field(default_factory=ImageSize)
    augment: Items = setting(['random_resized_crop', 'horizontal_flip'])  # random changes to training images, in order
    annotate: Annotate = field(default_factory=Annotate)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    optim: Optim = field(default_factory=Optim)
    evaluate: Evaluate = field(default_factory=Evaluate)
    export: Export = field(default_factory=Export)

    @property
    def run_dir(self):
        """output/<name>: everything that a run writes, relative to the working directory."""
        return f'output/{self.name}'

    @property
    def cache_dir(self):
        """The folder of what is kept between runs: decoded pictures, features."""
        return self.data.cache if isinstance(self.data.cache, str) else 'output/.cache'

    @property
    def identity(self):
        """The settings that weights belong to: a checkpoint keeps them, and is refused where they differ."""
        return {
            'model.arch': self.model.arch,
            'model.head': self.model.head,
            'data.labels': self.data.labels,
            'image': dataclasses.asdict(self.image),
        }

    def to_yaml(self):
        """str: every setting, also those at their default, as YAML that `-c` accepts."""
        import yaml

        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)


# The notebook's own names for settings, and what follows from settings.
NOTEBOOK_NAMES = {
    'LABEL_MAP': 'data.labels',
    'epochs': 'train.epochs',
    'batch_size': 'train.batch_size',
    'LEARNING_RATE.params.lr': 'optim.lr',
    'OPTIMIZER.params.momentum': 'optim.momentum',
    'OPTIMIZER.regularizer.factor': 'optim.weight_decay',
}
DERIVED = {
    'num_classes': lambda cfg: len(cfg.data.labels),
    'image_shape': lambda cfg: [3, cfg.image.size, cfg.image.size],
    'total_images': lambda cfg: _count_lines(f'{cfg.data.root}/train.txt'),
    'model_save_dir': lambda cfg: _model_save_dir(cfg),
}
NOTEBOOK_TOTAL_IMAGES = 7096  # images of signs/train, for `get('total_images')` before there is an index

_active = None


def load(path=None, overrides=()):
    """Read `path` (default: configs/zodiac.yaml) and `key=value` overrides into a checked `Config`.

    Raises UsageError naming the key, the value and what is allowed.
    """
    cfg = Config()
    path = path or DEFAULT_CONFIG
    for key, value in schema.flatten(_read_yaml(path)):
        _put(cfg, key, value, path)
    for override in overrides:
        key, equals, value = override.partition('=')
        if not equals or not key.strip():
            raise UsageError(f'-o {override}: write it as key=value, for example -o train.epochs=3')
        for inner_key, inner_value in schema.flatten(parse_yaml(value, f'-o {override}'), key.strip()):
            _put(cfg, inner_key, inner_value, '-o')
    _check_whole(cfg)
    return cfg


def use(path=None, overrides=()):
    """Make a configuration the active one, which `get` reads, and return it."""
    global _active
    _active = load(path, overrides)
    return _active


def active():
    """The active `Config`; configs/zodiac.yaml if nothing else was chosen."""
    return _active or use()


def get(key):
    """Value of a dotted key of the active configuration (`'train.epochs'`), or of one of the notebook's names.

    A section (`'train'`) comes as a dict. Raises UsageError for an unknown key.
    """
    cfg = active()
    if key in DERIVED:
        return DERIVED[key](cfg)
    try:
        return schema.get(cfg, NOTEBOOK_NAMES.get(key, key))
    except KeyError:
        raise UsageError(f'{key}: no such setting{schema.nearest(cfg, key)}') from None


def parser(doc):
    """An argparse parser with `-c CONFIG -o key=value ...`; `doc` is shown by --help."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument('-c', '--config', metavar='CONFIG', help='YAML file of settings (default: configs/zodiac.yaml)')
    result.add_argument(
        '-o',
        '--override',
        metavar='key.sub=value',
        nargs='+',
        action='append',
        default=[],
        help='settings that win over the file, as YAML values',
    )
    return result


def from_command_line(doc, argv=None):
    """Parse the command line of a script that takes settings only; make the result active and return it."""
    args = parser(doc).parse_args(argv)
    return use(args.config, overrides_of(args))


def overrides_of(args):
    """The `key=value` texts of a parsed command line, in order."""
    return [override for group in args.override for override in group]


def _read_yaml(path):
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'not UTF-8 text'
        raise UsageError(f'{path}: cannot read the configuration ({reason}); see configs/ for examples') from None
    content = parse_yaml(text, path)
    if content is not None and not isinstance(content, dict):
        raise UsageError(f'{path}: a configuration is "key: value" lines; see configs/ for examples')
    return content or {}


def parse_yaml(text, where):
    """The value that a YAML text stands for. Raises UsageError naming `where`."""
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise UsageError(f'{where}: not valid YAML: {" ".join(str(error).split())}') from None


def _put(cfg, key, value, where):
    if key in NOTEBOOK_NAMES:
        raise UsageError(f"{where}: {key} is the notebook's name; set {NOTEBOOK_NAMES[key]}")
    if key in DERIVED:
        raise UsageError(f'{where}: {key} follows from the other settings and the index files; it cannot be set')
    schema.put(cfg, key, value, where)


def _check_whole(cfg):
    """Rules that tie several values together."""

    def require(holds, key, allowed):
        if not holds:
            raise UsageError(f'{key} = {schema.get(cfg, key)!r}: allowed is {allowed}')

    labels = cfg.data.labels = [unicodedata.normalize('NFC', label) for label in cfg.data.labels]
    require(len(labels) >= 2 and len(set(labels)) == len(labels), 'data.labels', 'two or more names, each once')
    require(all(map(schema.names_a_folder, labels)), 'data.labels', 'folder names without tab, newline or slash')
    encoding = cfg.annotate.encoding
    require(encoding == 'auto' or _is_encoding(encoding), 'annotate.encoding', 'auto, or one that Python knows, as gbk')
    for key in ('image.mean', 'image.std'):
        require(len(schema.get(cfg, key)) == 3, key, 'three numbers: red, green, blue')
    require(
        cfg.image.resize in ('auto', 'squash') or cfg.image.resize >= cfg.image.size,
        'image.resize',
        f'auto, squash, or image.size ({cfg.image.size}) or more',
    )
    require(
        cfg.annotate.valid_fraction + cfg.annotate.test_fraction < 1,
        'annotate.test_fraction',
        'less than 1 - annotate.valid_fraction',
    )
    require(
        not cfg.optim.nesterov or cfg.optim.name == 'momentum', 'optim.nesterov', 'false unless optim.name is momentum'
    )
    require(cfg.optim.min_lr <= cfg.optim.lr, 'optim.min_lr', f'optim.lr ({cfg.optim.lr:g}) or less')
    require(not (cfg.optim.clip_norm and cfg.optim.clip_value), 'optim.clip_value', '0 where optim.clip_norm is set')
    require(
        cfg.train.amp != 'O2',
        'train.amp',
        'O0, or O1, which computes in half precision; O2 keeps the weights in it too, where small steps are lost, and has never been '
        'tried here',
    )
    require(
        cfg.optim.schedule != 'one_cycle' or not cfg.optim.warmup_epochs,
        'optim.warmup_epochs',
        '0 with optim.schedule=one_cycle, which has its own rise (optim.rise)',
    )
    require(
        not cfg.model.unfreeze_epoch or cfg.model.freeze != 'none',
        'model.unfreeze_epoch',
        '0 unless model.freeze says what is frozen until then',
    )
    require(
        not cfg.optim.backbone_lr or cfg.model.unfreeze_epoch,
        'optim.backbone_lr',
        '0 unless model.unfreeze_epoch lets the frozen part learn',
    )
    require(
        cfg.export.precision != 'int8' or cfg.export.onnx is not False,
        'export.onnx',
        'auto or true with export.precision=int8, which is a precision of the ONNX model',
    )
    require(
        cfg.train.class_weights == 'none' or cfg.train.sampling == 'shuffle',
        'train.class_weights',
        'none with train.sampling=balanced: one of them is enough',
    )
    views, train = cfg.train.views, cfg.train
    for holds, allowed in (
        (cfg.model.freeze == 'backbone', '0 unless model.freeze is backbone'),
        (not cfg.model.unfreeze_epoch, '0 with model.unfreeze_epoch: features are of a backbone that never learns'),
        (not (train.mixup or train.cutmix), '0 with train.mixup or train.cutmix, which mix the pixels'),
    ):
        require(not views or holds, 'train.views', allowed)


def _model_save_dir(cfg):
    """The run's folder; with a warning where the weights beside it, which `model.load` of it reads, are of other classes."""
    path = f'{cfg.run_dir}.pdparams'
    trained = provenance.labels(provenance.read(path))
    if trained and trained != cfg.data.labels:
        warnings.warn(
            f'{path}: was trained with data.labels = {trained}, now it is {cfg.data.labels}: its predictions would get wrong names; call '
            f"config.use('{cfg.run_dir}/config.yaml') first, or train again",
            stacklevel=3,
        )
    return cfg.run_dir


def _is_encoding(name):
    try:
        return codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):  # ValueError: a name with a zero byte
        return False


def _count_lines(path):
    try:
        with open(path, 'rb') as file:
            return sum(1 for line in file if line.strip())
    except FileNotFoundError:
        return NOTEBOOK_TOTAL_IMAGES


def main():
    print(from_command_line(__doc__).to_yaml(), end='')


if __name__ == '__main__':
    run(main)
