"""Load an exported folder, after checking its hashes, and run it: `predict(batch) -> probabilities`.

Nothing of training is imported here. Only load models that you trust: a static graph can hold operators that write files.
"""

import os
from dataclasses import dataclass
from typing import Callable, List

import numpy as np

from zodiac import device, files, transforms
from zodiac.errors import UserError

MANIFEST = 'inference.yaml'


@dataclass
class Exported:
    """An exported model, ready to run."""

    name: str
    labels: List[str]  # in the order of the classes
    transform: list  # see zodiac.transforms
    predict: Callable  # float32 [N, 3, size, size] -> float32 [N, classes], probabilities


def read_manifest(folder):
    """inference.yaml of an export as a dict. Raises UserError when the folder is no export or the file is damaged."""
    import yaml

    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        raise UserError(
            f'{folder}: no exported model ({MANIFEST} is missing); name the infer/ folder that export.py wrote'
        )
    try:
        with open(path, encoding='utf-8') as file:
            manifest = yaml.safe_load(file)
        whole = all(manifest[key] for key in ('name', 'labels', 'transform', 'input', 'output', 'sha256'))
        names = list(manifest['sha256'])
        whole = whole and isinstance(manifest['labels'], list) and all(os.path.basename(name) == name for name in names)
        whole = whole and f'{manifest["name"]}.pdiparams' in names and _network_file(manifest) is not None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise UserError(f'{path}: is damaged; export the model again')
    transforms.check(manifest['transform'], path)
    return manifest


def _network_file(manifest):
    """Name of the static graph: .json from Paddle 3, .pdmodel from Paddle 2."""
    names = [f'{manifest["name"]}{suffix}' for suffix in ('.json', '.pdmodel')]
    return next((name for name in names if name in manifest['sha256']), None)


def load(folder, place='auto'):
    """The model in `folder` (written by export.py) on Paddle Inference, as `Exported`.

    Args:
        place: 'auto', 'cpu', 'gpu' or 'gpu:N'.
    Raises: UserError when the folder is no export, or a file is missing or not as it was exported.
    """
    manifest = read_manifest(folder)
    for name, digest in manifest['sha256'].items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise UserError(f'{path}: is missing; export the model again')
        if files.sha256(path) != digest:
            raise UserError(
                f'{path}: is not the file that was exported (its SHA-256 differs); copy it again, or export again'
            )
    paddle = device.import_paddle()
    network = os.path.join(folder, _network_file(manifest))
    if network.endswith('.json') and paddle.__version__.startswith('2.'):  # it would crash without a word
        raise UserError(
            f'{network}: needs Paddle 3, this is {paddle.__version__}; install Paddle 3, or export with this one'
        )
    predictor = _predictor(network, os.path.join(folder, f'{manifest["name"]}.pdiparams'), place)
    labels = [str(label) for label in manifest['labels']]
    return Exported(manifest['name'], labels, manifest['transform'], _run(predictor))


def _predictor(network_file, weight_file, place):
    from paddle import inference

    config = inference.Config(network_file, weight_file)
    place = device.choose(place)
    if place.startswith('gpu'):
        config.enable_use_gpu(256, int(place.partition(':')[2] or 0))
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(device.cores())
        config.enable_mkldnn()
    config.disable_glog_info()
    try:
        return inference.create_predictor(config)
    except Exception as error:  # Paddle raises its own kinds for a graph that it cannot read
        raise UserError(
            f'{network_file}: Paddle Inference cannot load it ({str(error).strip().splitlines()[-1]}); '
            'export it again with the Paddle that is installed here'
        ) from None


def _run(predictor):
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    result = predictor.get_output_handle(predictor.get_output_names()[0])

    def predict(batch):
        source.reshape(batch.shape)
        source.copy_from_cpu(np.ascontiguousarray(batch, np.float32))
        predictor.run()
        return result.copy_to_cpu()

    return predict
