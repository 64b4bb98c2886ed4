"""Load an exported folder, after checking its hashes, and run it: `predict(batch) -> probabilities`.

Nothing of training is imported here. Only load models that you trust: a static graph can hold operators that write files.
"""

import hashlib
import importlib
import itertools
import os
from dataclasses import dataclass
from typing import Callable, List

import numpy as np

from zodiac import device, files, images, transforms
from zodiac.errors import UsageError, UserError, one_line

MANIFEST = 'inference.yaml'
SEAL = b'# SHA-256 of the lines above: '


@dataclass
class Exported:
    """An exported model, ready to run."""

    name: str
    labels: List[str]  # in the order of the classes
    transform: list  # see zodiac.transforms
    trained: dict  # what export.py says of the weights
    predict: Callable  # a batch of what the transform gives, [N, ...] -> float32 [N, classes], probabilities


def is_export(path):
    """Whether a path names a folder that export.py wrote."""
    return os.path.isfile(os.path.join(path, MANIFEST))


def write_manifest(folder, manifest):
    """Write inference.yaml; its last line, a comment, is the SHA-256 of those before."""
    import yaml

    content = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True).encode()
    with open(os.path.join(folder, MANIFEST), 'wb') as file:
        file.write(content + SEAL + hashlib.sha256(content).hexdigest().encode() + b'\n')


def read_manifest(folder):
    """inference.yaml of an export as a dict. Raises UserError when the folder is no export or the file is not as it was written."""
    import yaml

    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        raise UserError(
            f'{folder}: no exported model ({MANIFEST} is missing); name the infer/ folder that export.py wrote'
        )
    with open(path, 'rb') as file:
        content, _, digest = file.read().rpartition(SEAL)
    try:
        manifest = yaml.safe_load(content) if digest == hashlib.sha256(content).hexdigest().encode() + b'\n' else None
        whole = all(manifest[key] for key in ('name', 'labels', 'transform', 'input', 'output', 'sha256'))
        names = list(manifest['sha256'])
        whole = whole and isinstance(manifest['labels'], list) and all(os.path.basename(name) == name for name in names)
        whole = whole and f'{manifest["name"]}.pdiparams' in names and _network_file(manifest) is not None
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise UserError(f'{path}: is not as export.py wrote it; copy it again, or export the model again')
    transforms.check(manifest['transform'], path)
    return manifest


def _network_file(manifest):
    """Name of the static graph: .json from Paddle 3, .pdmodel from Paddle 2."""
    names = [f'{manifest["name"]}{suffix}' for suffix in ('.json', '.pdmodel')]
    return next((name for name in names if name in manifest['sha256']), None)


def load(folder, place='auto', engine='paddle'):
    """The model in `folder` (written by export.py), as `Exported`.

    Args:
        place: 'auto', 'cpu', 'gpu' or 'gpu:N'; on 'auto', onnxruntime and openvino take the CPU.
        engine: one of ENGINES.
    Raises: UserError when the folder is no export, a file is missing or not as it was exported, or the engine is not installed.
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
    run = ENGINES[engine](folder, manifest, place)
    dtype = manifest['input'].get('dtype', 'float32')
    logits = manifest['output']['name'] == 'logits'

    def predict(batch):
        result = run(np.ascontiguousarray(batch, dtype))
        if logits:
            from scipy.special import softmax

            result = softmax(result, axis=1)
        return result

    labels = [str(label) for label in manifest['labels']]
    return Exported(manifest['name'], labels, manifest['transform'], manifest.get('trained', {}), predict)


def best(probabilities, labels, top):
    """[(label, probability), ...] of the `top` most probable classes, the first one first; probabilities: [classes]."""
    order = (-probabilities).argsort(kind='stable')[:top]
    return [(labels[number], float(probabilities[number])) for number in order]


def as_dict(guesses):
    """What `best` gives, ready for JSON."""
    top = [{'label': label, 'probability': probability} for label, probability in guesses]
    return {**top[0], 'top': top}


def batches(paths, transform, size):
    """Yield (paths, float32 [n, 3, height, width] or [], errors) for groups of up to `size` files, decoded in threads."""
    import concurrent.futures

    def read(path):
        try:
            return path, transforms.read(transform, path), None
        except images.ImageError as error:
            return path, None, error

    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = iter(paths)
        ahead = [pool.submit(read, path) for path in itertools.islice(waiting, 2 * size)]
        while ahead:
            group, ahead = [future.result() for future in ahead[:size]], ahead[size:]
            ahead += [pool.submit(read, path) for path in itertools.islice(waiting, size)]
            good = [(path, image) for path, image, error in group if error is None]
            yield (
                [path for path, _ in good],
                np.stack([image for _, image in good]) if good else [],
                [error for *_, error in group if error],
            )


def sound_batches(paths, transform, size):
    """Yield what the transform gives of groups of `size` files, [n, ...]. Raises ImageError for the first that cannot be read."""
    for _, batch, errors in batches(paths, transform, size):
        if errors:
            raise errors[0]
        yield batch


def _paddle(folder, manifest, place):
    """Paddle Inference: on the CPU with oneDNN, in bfloat16 where it was exported so and the processor has it; else on a GPU."""
    paddle = device.import_paddle()
    network = os.path.join(folder, _network_file(manifest))
    if network.endswith('.json') and paddle.__version__.startswith('2.'):  # it would crash without a word
        raise UserError(
            f'{network}: needs Paddle 3, this is {paddle.__version__}; install Paddle 3, or export with this one'
        )
    weights = os.path.join(folder, f'{manifest["name"]}.pdiparams')
    return paddle_runner(network, weights, device.choose(place), manifest.get('precision') == 'bf16')


def paddle_runner(network, weights, place, bf16=False):
    """A callable, array [N, ...] -> the first output of a static graph, by Paddle Inference on a device as `device.choose` names it.

    Raises: UserError where the graph cannot be loaded.
    """
    from paddle import inference

    config = inference.Config(network, weights)
    if place.startswith('gpu'):
        config.enable_use_gpu(256, int(place.partition(':')[2] or 0))
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(device.cores())
        config.enable_mkldnn()
        if bf16 and device.has_bf16():
            config.enable_mkldnn_bfloat16()
    config.disable_glog_info()
    try:
        predictor = inference.create_predictor(config)
    except Exception as error:  # Paddle raises its own kinds for a graph that it cannot read
        raise UserError(
            f'{network}: Paddle Inference cannot load it ({str(error).strip().splitlines()[-1]}); '
            'export it again with the Paddle that is installed here'
        ) from None
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    result = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(batch):
        source.reshape(batch.shape)
        source.copy_from_cpu(batch)
        predictor.run()
        return result.copy_to_cpu()

    return run


def _onnxruntime(folder, manifest, place):
    """ONNX Runtime: on the CPU, or on a GPU that is asked for."""
    return _run_onnx(
        folder, manifest, place, 'onnxruntime', ['CUDAExecutionProvider'] if place.startswith('gpu') else []
    )


def _tensorrt(folder, manifest, place):
    """TensorRT, through ONNX Runtime; what it cannot run, CUDA does."""
    if place == 'cpu':
        raise UsageError('--device cpu: the engine tensorrt runs on a GPU; use --device gpu, or --engine onnxruntime')
    return _run_onnx(folder, manifest, place, 'tensorrt', ['TensorrtExecutionProvider', 'CUDAExecutionProvider'])


def _run_onnx(folder, manifest, place, engine, providers):
    """The ONNX model in ONNX Runtime, on the first of `providers` (of GPUs) that takes each part of it, else on the CPU."""
    path = _onnx_file(folder, manifest, engine)
    onnxruntime = _import(engine, 'onnxruntime')
    for provider in providers:
        if provider not in onnxruntime.get_available_providers():
            raise UserError(
                f'the engine {engine} on a GPU: this ONNX Runtime has no {provider}; pip install onnxruntime-gpu in place of '
                'onnxruntime, and CUDA (and TensorRT) in the versions that it names'
            )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.cores()
    options.log_severity_level = 3  # errors
    number = {'device_id': int(place.partition(':')[2] or 0)}
    session = _start(
        engine,
        path,
        lambda: onnxruntime.InferenceSession(
            path, options, providers=[*((provider, number) for provider in providers), 'CPUExecutionProvider']
        ),
    )
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _openvino(folder, manifest, place):
    """OpenVINO on the CPU, in float32 but for what was exported as integers."""
    path = _onnx_file(folder, manifest, 'openvino')
    if place not in ('auto', 'cpu'):
        raise UsageError(f'--device {place}: the engine openvino runs on the CPU here; use --device cpu')
    openvino = _import('openvino', 'openvino')
    precision = {'INFERENCE_PRECISION_HINT': 'f32'}
    network = _start('openvino', path, lambda: openvino.Core().compile_model(path, 'CPU', precision))
    return lambda batch: network(batch)[0].copy()


def _onnx_file(folder, manifest, engine):
    name = f'{manifest["name"]}.onnx'
    if name not in manifest['sha256']:
        raise UserError(
            f'{folder}: has no {name}, which the engine {engine} runs; install requirements-deploy.txt and export again, or use '
            'engine paddle'
        )
    return os.path.join(folder, name)


def _import(engine, package):
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f'the engine {engine} needs {package}; pip install {package}') from None


def _start(engine, path, start):
    try:
        return start()
    except Exception as error:  # whatever an engine says of a graph that it cannot read
        raise UserError(f'{path}: {engine} cannot load it ({one_line(error)}); export the model again') from None


ENGINES = {'paddle': _paddle, 'onnxruntime': _onnxruntime, 'openvino': _openvino, 'tensorrt': _tensorrt}
