"""The engines that run an exported model.

Each is a function (Source, place) -> run, where run(batch [N, ...]) returns the graph's outputs in order, float32 [N, classes] each.
To add one, write such a function and put it into ENGINES at the end, and the precisions that it runs into choice.CANDIDATES.
"""

import contextlib
import glob
import hashlib
import importlib
import io
import os
from dataclasses import dataclass
from typing import Optional

import numpy as np

from zodiac.base import device, files, packages
from zodiac.base.errors import UsageError, UserError, meaning, one_line
from zodiac.inference import export_folder

# Pixels per run of OpenVINO in a batch. In fp32, activations of more do not fit the cache of a core; bf16 and int8 multiply matrices so
# fast that larger products pay.
CACHED_PIXELS = {'fp32': 224 * 224, 'bf16': 8 * 224 * 224, 'int8': 8 * 224 * 224}
HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'int8': 'f32'}  # for OpenVINO; an int8 model contains its integer operations
COMPILED = 8  # networks that are kept compiled


@dataclass
class Source:
    """An export whose file hashes have been checked."""

    folder: str
    manifest: dict
    onnx: Optional[bytes]  # content of the ONNX file, for the engines that run it
    precision: str = 'fp32'  # fp32, bf16 or int8
    compiled: Optional[str] = None  # file that keeps the compiled network for OpenVINO


@device.quiet()  # ONNX Runtime warns about each graphics card that it cannot read
def installed(package):
    """Whether a package can be imported."""
    try:
        importlib.import_module(package)
    except Exception:  # a broken package may raise anything
        return False
    return True


def onnx_name(manifest, precision='fp32'):
    """File name of the ONNX model. Exports of earlier versions have only one, in the precision of the export."""
    only = manifest.get('precision') == 'int8'
    return f'{manifest["name"]}{".int8" if precision == "int8" and not only else ""}.onnx'


def _paddle(source, place):
    """Paddle Inference, on a CPU (oneDNN) or a GPU."""
    from zodiac.inference import paddle_engine  # takes seconds and needs Paddle, which the other engines do not

    network = os.path.join(source.folder, export_folder.network_file(source.manifest))
    version = paddle_engine.paddle.__version__
    if network.endswith('.json') and version.startswith('2.'):  # Paddle 2 would crash with no message
        raise UserError(
            f'{network}: needs Paddle 3, this is {version}; install Paddle 3, or export with this one; see '
            'docs/troubleshooting.md#model-files'
        )
    weights = os.path.join(source.folder, f'{source.manifest["name"]}.pdiparams')

    def check():
        export_folder.read_verified(source.folder, source.manifest)

    return paddle_engine.runner(network, weights, device.choose(place), source.precision == 'bf16', check)


def _onnxruntime(source, place):
    """ONNX Runtime, on a CPU, or on a GPU if `place` names one."""
    path = _onnx_path(source, 'onnxruntime')
    onnxruntime = _import('onnxruntime')
    providers = ['CPUExecutionProvider']
    if place.startswith('gpu'):
        if 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
            raise UserError(
                'the engine onnxruntime on a GPU: this ONNX Runtime has no CUDAExecutionProvider; pip install onnxruntime-gpu in place '
                'of onnxruntime, with the version of CUDA that it names'
            )
        number = int(device.checked(place).partition(':')[2] or 0)
        providers.insert(0, ('CUDAExecutionProvider', {'device_id': number}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.cores()
    options.log_severity_level = 3  # errors
    session = _load(
        'onnxruntime', path, lambda: onnxruntime.InferenceSession(source.onnx, options, providers=providers)
    )
    session._model_bytes = None  # the session would keep them to try again with other providers
    name = session.get_inputs()[0].name
    return _with_errors_named('onnxruntime', path, lambda batch: session.run(None, {name: batch}))


def _openvino(source, place):
    """OpenVINO on a CPU. A batch is split into parts that run in parallel streams; a single image runs on all cores."""
    path = _onnx_path(source, 'openvino')
    if place not in ('auto', 'cpu'):
        raise UsageError(f'--device {place}: the engine openvino runs on the CPU here; use --device cpu')
    openvino = _import('openvino')
    core, streams, graph = openvino.Core(), {}, None
    settings = {'INFERENCE_PRECISION_HINT': HINTS[source.precision], 'INFERENCE_NUM_THREADS': device.cores()}
    largest = CACHED_PIXELS[source.precision]

    def read():
        nonlocal graph
        graph = graph or core.read_model(source.onnx)
        return graph

    if not source.compiled or not os.path.isfile(source.compiled):
        _load('openvino', path, read)

    def compile_for(hint):
        options = {**settings, 'PERFORMANCE_HINT': hint}
        kept = source.compiled if hint == 'LATENCY' else None
        network = _read_compiled(core, kept, options) if kept else None
        if network is None:
            network = core.compile_model(read(), 'CPU', options)
            if kept:
                _keep_compiled(network, kept)
        return network

    def streams_for(count):
        # the single image at the end of a folder does not compile the model a second time
        single = count == 1 and ('LATENCY' in streams or not streams)
        hint = 'LATENCY' if single else 'THROUGHPUT'
        if hint not in streams:
            network = _load('openvino', path, lambda: compile_for(hint))
            number = network.get_property('OPTIMAL_NUMBER_OF_INFER_REQUESTS')
            streams[hint] = [network.create_infer_request() for _ in range(number)]
        return streams[hint]

    def run(batch):
        requests = streams_for(len(batch))
        images = max(1, largest // (batch[0].size // 3))
        parts = np.array_split(batch, max(-(-len(batch) // images), min(len(requests), len(batch))))
        results = []

        def collect():
            request = requests[len(results) % len(requests)]
            request.wait()
            results.append([tensor.data.copy() for tensor in request.output_tensors])

        for number, part in enumerate(parts):
            if number >= len(requests):
                collect()
            requests[number % len(requests)].start_async({0: part}, share_inputs=True)
        while len(results) < len(parts):
            collect()
        return list(map(np.concatenate, zip(*results)))

    return _with_errors_named('openvino', path, run)


def _read_compiled(core, path, options):
    """The network in a file that `_keep_compiled` wrote; None without a valid one."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: OpenVINO refuses it
        with open(path, 'rb') as file:
            digest, content = file.read(32), file.read()
        if hashlib.sha256(content).digest() == digest:
            os.utime(path)
            return core.import_model(io.BytesIO(content), 'CPU', options)
    return None


def _keep_compiled(network, path):
    """Write a compiled network after its SHA-256, and remove all but the last COMPILED that were used."""
    with contextlib.suppress(OSError, UserError, RuntimeError):  # of no use to the caller: it has the network
        stream = io.BytesIO()
        network.export_model(stream)
        content = stream.getvalue()
        with files.atomic_write(path, binary=True, sync=False) as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        others = sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(path)), '*.blob')), key=os.path.getmtime)
        for old in others[:-COMPILED]:
            os.remove(old)


def _onnx_path(source, engine):
    name = onnx_name(source.manifest, source.precision)
    if name not in source.manifest['sha256']:
        why = source.manifest.get('without_onnx')
        setting = 'export.int8=true' if source.precision == 'int8' else 'export.onnx=true'
        raise UserError(
            f'{source.folder}: has no {name}, which the engine {engine} needs{f" ({why})" if why else ""}; export again with '
            f'{setting}, with requirements-deploy.txt, or use the engine paddle'
        )
    return os.path.join(source.folder, name)


@device.quiet()
def _import(engine):
    """The Python package of an engine, which has its name."""
    try:
        return importlib.import_module(engine)
    except Exception as error:  # a broken package may raise anything
        raise UserError(f'the engine {engine}: {packages.diagnose(error, packages.SERVE) or one_line(error)}') from None


def _load(engine, path, load):
    try:
        return load()
    except Exception as error:  # engines raise various types for a graph that they cannot read
        raise UserError(f'{path}: {engine} cannot load it ({one_line(error)}); export the model again') from None


def _with_errors_named(engine, path, run):
    """`run`, with errors that name the file and the engine."""

    def wrapped(batch):
        try:
            return run(batch)
        except Exception as error:  # engines have exception types of their own
            why = f'{engine} cannot run it ({one_line(error)}); export the model again, or use another --engine'
            raise UserError(f'{path}: {meaning(error) or why}') from None

    return wrapped


ENGINES = {'paddle': _paddle, 'onnxruntime': _onnxruntime, 'openvino': _openvino}
