"""Convert a network to a static graph for Paddle Inference, to ONNX, and to 8-bit ONNX."""

import os
import re
import shutil
import subprocess
import sys

from zodiac.base import device, files, packages, stops
from zodiac.base.errors import UserError, one_line
from zodiac.base.paddle_setup import paddle

FULL_DISK = 1 << 20  # a disk with fewer free bytes counts as full
PRODUCTS = ['MatMul', 'Gemm']  # ONNX's matrix products
OPSET = 17  # of ONNX: supported by ONNX Runtime from 1.12, OpenVINO from 2022.3


def save_static(layer, path, shape, dtype):
    """Save a layer with one input, `image`, as a static graph: <path>.json (Paddle 3) or .pdmodel (2.6), and <path>.pdiparams."""
    try:
        paddle.jit.save(layer, path, input_spec=[paddle.static.InputSpec(shape, dtype, 'image')])
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise _failed(path, f'Paddle could not save the static model ({reason}); check the free space') from None
    folder = os.path.dirname(path)
    for leftover in [name for name in os.listdir(folder) if name.endswith('.info')]:
        os.remove(os.path.join(folder, leftover))


def network_of(path):
    """The file of the static graph at `path` that is not the weights."""
    return next(path + suffix for suffix in ('.json', '.pdmodel') if os.path.isfile(path + suffix))


def _failed(path, why):
    """UserError with the reason, or that the disk is full, which Paddle and its converter do not always report."""
    if 'No space left' in why or shutil.disk_usage(os.path.dirname(path) or '.').free < FULL_DISK:
        why = 'cannot write it, the disk is full; free some space; see docs/troubleshooting.md#disk'
    return UserError(f'{path}: {why}')


CONVERT = """
import inspect, os, sys
os.dup2(2, 1)  # it prints a lot
import paddle2onnx
network, weights, target, opset = sys.argv[1:]
options = {'opset_version': int(opset), 'enable_onnx_checker': True}
if 'optimize_tool' in inspect.signature(paddle2onnx.export).parameters:  # otherwise it installs packages by itself
    options['optimize_tool'] = 'None'
paddle2onnx.export(network, weights, target, **options)
"""


def can_save_onnx():
    """Whether the packages for ONNX export are installed."""
    return not packages.why_no_onnx()


def save_onnx(path, outputs):
    """Convert the static graph at `path` to <path>.onnx with outputs named `outputs`. Raises UserError when it fails.

    Runs in another process, which the converter may crash; it may also return normally and leave an empty file.
    """
    network = network_of(path)
    target = f'{path}.onnx'
    command = [sys.executable, '-W', 'ignore', '-c', CONVERT, network, f'{path}.pdiparams', target, str(OPSET)]
    how = {'stderr': subprocess.PIPE, 'stdout': subprocess.DEVNULL, 'text': True, 'errors': 'replace'}
    with subprocess.Popen(command, **how) as child, stops.at_stop(child.kill):
        _, output = child.communicate()
    if child.returncode or not os.path.isfile(target) or not os.path.getsize(target):
        reason = re.sub(r'\x1b\[[0-9;]*m', '', (output.strip().splitlines() or ['no error message'])[-1])
        raise _failed(
            target,
            f'paddle2onnx could not convert the static model ({reason}); see the versions in requirements-deploy.txt, or set '
            'export.onnx=false; see docs/troubleshooting.md#onnx-export',
        )
    _rename_outputs(target, outputs)


@device.quiet()
def quantize_onnx(path, target, batches):
    """Write to `target` an ONNX file with convolutions and matrix products in 8-bit integers (ONNX Runtime's static quantization).

    Everything else stays in float32, logits and softmax too: they take almost no time, and an 8-bit softmax would give
    probabilities in steps of 1/255.

    Args:
        batches: network inputs [N, ...] from training images, which set the range of each layer.
    Raises: UserError when it fails.
    """
    try:
        import onnxruntime  # optional package
        from onnxruntime import quantization  # the same
    except ImportError as error:
        raise UserError(f'export.int8=true needs more packages; {packages.diagnose(error, packages.DEPLOY)}') from None

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.rest = iter(batches)

        def get_next(self):
            batch = next(self.rest, None)
            return None if batch is None else {'image': batch}

    onnxruntime.set_default_logger_severity(3)  # errors
    with files.temporary_folder() as folder:
        prepared = os.path.join(folder, 'prepared.onnx')
        try:
            quantization.quant_pre_process(path, prepared, skip_symbolic_shape=True)
            # one scale per channel; 7-bit weights, because 8 bits overflow on processors without VNNI
            quantization.quantize_static(
                prepared,
                target,
                Reader(),
                op_types_to_quantize=['Conv', *PRODUCTS],
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                extra_options={'OpTypesToExcludeOutputQuantization': PRODUCTS},  # the last one gives the logits
            )
        except UserError:  # from a training image
            raise
        except Exception as error:  # ONNX Runtime raises many kinds
            raise UserError(
                f'{path}: ONNX Runtime could not quantize it ({one_line(error)}); set export.int8=false'
            ) from None
    _share_equal_tensors(target)


def _rename_outputs(path, names):
    import onnx  # optional package

    model = onnx.load(path)
    wanted = dict(zip((output.name for output in model.graph.output), names))
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [wanted.get(name, name) for name in ends]
    for output in model.graph.output:
        output.name = wanted[output.name]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = 'N'
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _share_equal_tensors(path):
    """Keep each constant once. A network that runs twice, on an image and its mirror image, is quantized with two copies of its weights."""
    import onnx  # optional package

    model, kept, names = onnx.load(path), {}, {}
    for tensor in model.graph.initializer:
        content = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
        names[tensor.name] = kept.setdefault(content, tensor).name
    constants = list(kept.values())
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.checker.check_model(model)
    onnx.save(model, path)
