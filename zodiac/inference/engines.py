"""What runs an exported model: each engine is a function (Model, place) -> run, batch [N, ...] -> the outputs of the graph, in
its order, each float32 [N, classes]."""

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np

from zodiac.base import device, packages
from zodiac.base.errors import UsageError, UserError, meaning, one_line

CACHED_PIXELS = (
    224 * 224
)  # of the images of one run: a core is faster while what is between the layers stays in its cache


@dataclass
class Model:
    """An export whose files are as they were written."""

    folder: str
    manifest: dict
    onnx: Optional[bytes]  # content of <name>.onnx, for the engines that run it
    bf16: bool  # whether to run in bfloat16
    check: Callable  # () -> None; raises UserError where the files are others now: for an engine that reads them itself, when it has


def fastest(manifest, place):
    """Name of the fastest engine that is installed here, of those that export.py has compared with the network (`parity`).

    Paddle but on a CPU; and no engine that would run in float32 what another one runs in bfloat16.
    """
    if not device.is_cpu(place):
        return 'paddle'
    parity = manifest.get('parity', {})
    there = [engine for engine in ('openvino', 'onnxruntime') if engine in parity and installed(engine)] + ['paddle']
    return next((engine for engine in there if runs_in_bf16(manifest, engine)), there[0])


def runs_in_bf16(manifest, engine, compared=True):
    """Whether an engine runs a model in bfloat16: where it was exported so, the processor has it, and export.py has found what it
    costs with this engine; with `compared` false, where it is about to."""
    if manifest.get('precision') != 'bf16' or engine not in ('paddle', 'openvino') or not device.has_bf16():
        return False
    return not compared or engine in manifest.get('parity', {})


@device.quiet()  # ONNX Runtime warns of each graphics card that it cannot read
def installed(package):
    """Whether a package can be imported."""
    try:
        importlib.import_module(package)
    except Exception:  # whatever a broken package raises
        return False
    return True


def network_file(manifest):
    """Name of the static graph: .json from Paddle 3, .pdmodel from Paddle 2."""
    names = [f'{manifest["name"]}{suffix}' for suffix in ('.json', '.pdmodel')]
    return next((name for name in names if name in manifest['sha256']), None)


def _paddle(model, place):
    """Paddle Inference: on the CPU with oneDNN, in bfloat16 where it was exported so and the processor has it; else on a GPU."""
    from zodiac.base.paddle_setup import paddle  # which takes seconds to import

    network = os.path.join(model.folder, network_file(model.manifest))
    if network.endswith('.json') and paddle.__version__.startswith('2.'):  # it would crash without a word
        raise UserError(
            f'{network}: needs Paddle 3, this is {paddle.__version__}; install Paddle 3, or export with this one; see '
            'docs/troubleshooting.md#model-files'
        )
    weights = os.path.join(model.folder, f'{model.manifest["name"]}.pdiparams')
    return paddle_runner(network, weights, device.choose(place), model.bf16, model.check)


def paddle_runner(network, weights, place, bf16=False, check=lambda: None):
    """A callable, array [N, ...] -> list of the outputs of a static graph, by Paddle Inference on a device as `device.choose` names it.

    On a CPU by oneDNN. A graph that it fails at, which may show at the first batch only, is run without it from then on, in
    float32, and the user is told. `check` is called whenever the files have been read: Paddle takes no bytes of a .json. Raises:
    UserError where the graph cannot be loaded, or not be run without oneDNN either.
    """
    onednn = not place.startswith('gpu')

    def load(**how):
        try:
            return _predictor(network, weights, place, **how)
        finally:
            check()

    try:
        run_it = load(onednn=onednn, bf16=bf16)
    except UserError as error:
        if not onednn:
            raise
        run_it, onednn = load(), False
        _tell_of_onednn(network, error)

    def run(batch):
        nonlocal run_it, onednn
        try:
            return run_it(batch)
        except (RuntimeError, ValueError) as error:  # as Paddle's own kinds are, but for a lack of memory
            if not onednn:
                raise UserError(
                    f'{network}: Paddle cannot run it ({_last_line(error)}); export the model again'
                ) from None
            failure = error
        run_it, onednn = load(), False
        result = run(batch)
        _tell_of_onednn(network, failure)
        return result

    return run


def _tell_of_onednn(network, error):
    print(
        f'{network}: oneDNN cannot run it ({_last_line(error)}), so Paddle runs it without, slower; --engine onnxruntime may be '
        'faster; see docs/troubleshooting.md#onednn',
        file=sys.stderr,
    )


def _predictor(network, weights, place, onednn=False, bf16=False):
    """A callable, array [N, ...] -> list of the outputs, by one predictor of Paddle Inference. Raises UserError."""
    from paddle import inference

    config = inference.Config(network, weights)
    if place.startswith('gpu'):
        config.enable_use_gpu(256, int(place.partition(':')[2] or 0))
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(device.cores())
        (config.enable_mkldnn if onednn else config.disable_mkldnn)()
        if bf16:
            config.enable_mkldnn_bfloat16()
    if network.endswith('.pdmodel'):  # of Paddle 2, which scales a weight that two products share twice
        config.delete_pass('matmul_v2_scale_fuse_pass')
    config.disable_glog_info()
    try:
        predictor = inference.create_predictor(config)
    except Exception as error:  # Paddle raises its own kinds for a graph that it cannot read
        raise UserError(
            f'{network}: Paddle Inference cannot load it ({_last_line(error)}); export it again with the Paddle that is installed '
            'here; see docs/troubleshooting.md#model-files'
        ) from None
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    results = [predictor.get_output_handle(name) for name in predictor.get_output_names()]

    def run(batch):
        source.reshape(batch.shape)
        source.copy_from_cpu(batch)
        predictor.run()
        return [result.copy_to_cpu() for result in results]

    return run


def _last_line(error):
    """What Paddle says, behind its stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].partition('(at /')[0].strip()[:200]


def _onnxruntime(model, place):
    """ONNX Runtime: on the CPU, or on a GPU that is asked for."""
    return _run_onnx(model, place, 'onnxruntime', ['CUDAExecutionProvider'] if place.startswith('gpu') else [])


def _tensorrt(model, place):
    """TensorRT, through ONNX Runtime; what it cannot run, CUDA does."""
    if place == 'cpu':
        raise UsageError('--device cpu: the engine tensorrt runs on a GPU; use --device gpu, or --engine onnxruntime')
    return _run_onnx(model, place, 'tensorrt', ['TensorrtExecutionProvider', 'CUDAExecutionProvider'])


def _run_onnx(model, place, engine, providers):
    """The ONNX model in ONNX Runtime, on the first of `providers` (of GPUs) that takes each part of it, else on the CPU."""
    path = _onnx_file(model, engine)
    number = {'device_id': int(device.checked(place).partition(':')[2] or 0)}
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
    providers = [*((provider, number) for provider in providers), 'CPUExecutionProvider']
    session = _start(engine, path, lambda: onnxruntime.InferenceSession(model.onnx, options, providers=providers))
    session._model_bytes = None  # it would keep them for good, for a second try with other providers
    name = session.get_inputs()[0].name
    return _named(engine, path, lambda batch: session.run(None, {name: batch}))


def _openvino(model, place):
    """OpenVINO on the CPU, in float32 but for what was exported as integers, or as bfloat16 where the processor has it.

    A batch runs in parts, in as many streams side by side as OpenVINO finds best; a single image on all cores.
    """
    path = _onnx_file(model, 'openvino')
    if place not in ('auto', 'cpu'):
        raise UsageError(f'--device {place}: the engine openvino runs on the CPU here; use --device cpu')
    openvino = _import('openvino', 'openvino')
    core, streams = openvino.Core(), {}
    graph = _start('openvino', path, lambda: core.read_model(model.onnx))
    precision = 'bf16' if model.bf16 else 'f32'
    settings = {'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': device.cores()}

    def streams_for(count):
        # no second plan for the one image of a folder that is left over
        alone = count == 1 and ('LATENCY' in streams or not streams)
        hint = 'LATENCY' if alone else 'THROUGHPUT'
        if hint not in streams:
            how = {**settings, 'PERFORMANCE_HINT': hint}
            network = _start('openvino', path, lambda: core.compile_model(graph, 'CPU', how))
            number = network.get_property('OPTIMAL_NUMBER_OF_INFER_REQUESTS')
            streams[hint] = [network.create_infer_request() for _ in range(number)]
        return streams[hint]

    def run(batch):
        requests = streams_for(len(batch))
        images = max(1, CACHED_PIXELS // (batch[0].size // 3))
        parts = np.array_split(batch, max(-(-len(batch) // images), min(len(requests), len(batch))))
        results = []

        def collect():
            request = requests[len(results) % len(requests)]
            request.wait()
            results.append([tensor.data.copy() for tensor in request.output_tensors])

        for number, part in enumerate(parts):
            if number >= len(requests):
                collect()
            requests[number % len(requests)].start_async({0: part})
        while len(results) < len(parts):
            collect()
        return list(map(np.concatenate, zip(*results)))

    return _named('openvino', path, run)


def _onnx_file(model, engine):
    name = f'{model.manifest["name"]}.onnx'
    if name not in model.manifest['sha256']:
        why = model.manifest.get('without_onnx')
        raise UserError(
            f'{model.folder}: has no {name}, which the engine {engine} runs{f" ({why})" if why else ""}; export again with '
            'export.onnx=true, with requirements-deploy.txt on Python 3.12 or older, or use the engine paddle'
        )
    return os.path.join(model.folder, name)


@device.quiet()
def _import(engine, package):
    try:
        return importlib.import_module(package)
    except Exception as error:  # whatever a broken package raises
        raise UserError(f'the engine {engine}: {packages.diagnose(error, packages.SERVE) or one_line(error)}') from None


def _start(engine, path, start):
    try:
        return start()
    except Exception as error:  # whatever an engine says of a graph that it cannot read
        raise UserError(f'{path}: {engine} cannot load it ({one_line(error)}); export the model again') from None


def _named(engine, path, run):
    """`run`, whose failures name the file and the engine."""

    def named(batch):
        try:
            return run(batch)
        except UserError:
            raise
        except Exception as error:  # engines have kinds of their own
            why = f'{engine} cannot run it ({one_line(error)}); export the model again, or use another --engine'
            raise UserError(f'{path}: {meaning(error) or why}') from None

    return named


ENGINES = {'paddle': _paddle, 'onnxruntime': _onnxruntime, 'openvino': _openvino, 'tensorrt': _tensorrt}
