"""Run a static graph with Paddle Inference; on a CPU with oneDNN, or without it where oneDNN fails."""

import sys

from zodiac.base import device
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle


def runner(network, weights, place, bf16=False, check=lambda: None):
    """A function, batch [N, ...] -> list of the graph's outputs.

    If oneDNN fails on the graph, which may show only at the first batch, the graph runs without it from then on, in float32, and a
    message says so.

    Args:
        network: path of the static graph; weights: path of the .pdiparams file.
        place: a device name as `device.choose` returns it.
        check: called each time Paddle has read the files (it takes paths, not bytes); raises UserError if they have changed.
    Raises: UserError when the graph cannot be loaded, or cannot be run without oneDNN either.
    """
    onednn = not place.startswith('gpu')

    def load(**options):
        try:
            return _predictor(network, weights, place, **options)
        finally:
            check()

    try:
        predict = load(onednn=onednn, bf16=bf16)
    except UserError as error:
        if not onednn:
            raise
        predict, onednn = load(), False
        _report_onednn(network, error)

    def run(batch):
        nonlocal predict, onednn
        try:
            return predict(batch)
        except (RuntimeError, ValueError) as error:  # base classes of Paddle's own exceptions, but for out of memory
            if not onednn:
                raise UserError(
                    f'{network}: Paddle cannot run it ({_last_line(error)}); export the model again'
                ) from None
            failure = error
        predict, onednn = load(), False
        result = run(batch)
        _report_onednn(network, failure)
        return result

    return run


def _report_onednn(network, error):
    print(
        f'{network}: oneDNN cannot run it ({_last_line(error)}); Paddle runs it without oneDNN, which is slower; --engine onnxruntime '
        'may be faster; see docs/troubleshooting.md#onednn',
        file=sys.stderr,
    )


def _predictor(network, weights, place, onednn=False, bf16=False):
    """A function, batch [N, ...] -> list of outputs, backed by one predictor of Paddle Inference. Raises UserError."""
    config = paddle.inference.Config(network, weights)
    if place.startswith('gpu'):
        config.enable_use_gpu(256, int(place.partition(':')[2] or 0))
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(device.cores())
        (config.enable_mkldnn if onednn else config.disable_mkldnn)()
        if bf16:
            config.enable_mkldnn_bfloat16()
    if network.endswith('.pdmodel'):  # Paddle 2's pass scales a weight twice that two matrix products share
        config.delete_pass('matmul_v2_scale_fuse_pass')
    config.disable_glog_info()
    try:
        predictor = paddle.inference.create_predictor(config)
    except Exception as error:  # Paddle raises various types for a graph that it cannot read
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
    """The message of a Paddle exception, without its C++ stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].partition('(at /')[0].strip()[:200]
