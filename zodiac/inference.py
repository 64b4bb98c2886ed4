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
        shapes = manifest['name'] and manifest['input']['shape'] and manifest['output']['name']
        whole = (
            shapes
            and isinstance(manifest['labels'], list)
            and isinstance(manifest['sha256'], dict)
            and manifest['sha256']
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f'{path}: is damaged; export the model again')
    transforms.check(manifest['transform'], path)
    return manifest


def load(folder, place='auto'):
    """The model in `folder` (written by export.py) on Paddle Inference, as `Exported`.

    Args:
        place: 'auto', 'cpu', 'gpu' or 'gpu:N'.
    Raises: UserError when the folder is no export, or a file is missing or not as it was exported.
    """
    manifest = read_manifest(folder)
    for name, digest in manifest['sha256'].items():
        path = os.path.join(folder, os.path.basename(name))
        if not os.path.isfile(path):
            raise UserError(f'{path}: is missing; export the model again')
        if files.sha256(path) != digest:
            raise UserError(
                f'{path}: is not the file that was exported (its SHA-256 differs); copy it again, or export again'
            )
    device.import_paddle()
    network_file = next((path for path in manifest['sha256'] if not path.endswith('.pdiparams')), '')
    predictor = _predictor(
        os.path.join(folder, network_file), os.path.join(folder, manifest['name'] + '.pdiparams'), place
    )
    return Exported(
        manifest['name'], [str(label) for label in manifest['labels']], manifest['transform'], _run(predictor)
    )


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
