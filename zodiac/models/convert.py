"""Convert a network to a static graph for Paddle Inference, to ONNX, and to 8-bit ONNX."""

import os
import shutil

from zodiac.base import device, files, packages
from zodiac.base.errors import UserError, one_line
from zodiac.base.paddle_setup import paddle
from zodiac.models import onnx_graph, static_graph

FULL_DISK = 1 << 20  # a disk with fewer free bytes counts as full
PRODUCTS = ['MatMul', 'Gemm']  # ONNX's matrix products
WITHOUT_ONNX = 'set export.onnx=false; see docs/troubleshooting.md#onnx-export'


def save_static(layer, path, shape, dtype):
    """Save a layer with one input, `image`, as a static graph: <path>.json (Paddle 3) or .pdmodel (2.6), and <path>.pdiparams."""
    try:
        paddle.jit.save(layer, path, input_spec=[paddle.static.InputSpec(shape, dtype, 'image')])
    except (OSError, RuntimeError, ValueError) as error:
        reason = _last_line(error)
        raise _failed(path, f'Paddle could not save the static model ({reason}); check the free space') from None
    folder = os.path.dirname(path)
    for leftover in [name for name in os.listdir(folder) if name.endswith('.info')]:
        os.remove(os.path.join(folder, leftover))


def network_of(path):
    """The file of the static graph at `path` that is not the weights."""
    return next(path + suffix for suffix in ('.json', '.pdmodel') if os.path.isfile(path + suffix))


def _failed(path, why):
    """UserError with the reason, or that the disk is full, which Paddle does not always report."""
    if 'No space left' in why or shutil.disk_usage(os.path.dirname(path) or '.').free < FULL_DISK:
        why = 'cannot write it, the disk is full; free some space; see docs/troubleshooting.md#disk'
    return UserError(f'{path}: {why}')


def _last_line(error):
    """The last line of an exception's message: before it, Paddle writes a traceback."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def can_save_onnx():
    """Whether the packages for ONNX export are installed."""
    return not packages.why_no_onnx()


def save_onnx(path, outputs):
    """Convert the static graph at `path` to <path>.onnx with outputs named `outputs`. Raises UserError when it fails."""
    target = f'{path}.onnx'
    try:
        import onnx  # optional package
    except Exception as error:  # a broken package may raise anything
        raise UserError(f'{target}: {packages.diagnose(error, packages.DEPLOY) or one_line(error)}') from None
    try:
        onnx.save(onnx_graph.convert(static_graph.read(path), outputs), target)
    except onnx_graph.Unsupported as error:
        raise UserError(f'{target}: {error} cannot be converted to ONNX; {WITHOUT_ONNX}') from None
    except (OSError, RuntimeError, ValueError) as error:  # Paddle raises them for files that it cannot read
        raise _failed(target, f'the static model cannot be converted ({_last_line(error)}); {WITHOUT_ONNX}') from None


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
