"""Read a static graph that `convert.save_static` wrote as plain Python data, the same for Paddle 3 (.json) and Paddle 2 (.pdmodel)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import numpy as np

from zodiac.base.paddle_setup import paddle

# Paddle 2 to Paddle 3: an operation's name, and its inputs in the order of Paddle 3. Others have the same name and one input, X.
LEGACY = {
    'batch_norm': ('batch_norm_', ('X', 'Mean', 'Variance', 'Scale', 'Bias')),
    'conv2d': ('conv2d', ('Input', 'Filter')),
    'depthwise_conv2d': ('depthwise_conv2d', ('Input', 'Filter')),
    'elementwise_add': ('add', ('X', 'Y')),
    'elementwise_div': ('divide', ('X', 'Y')),
    'elementwise_mul': ('multiply', ('X', 'Y')),
    'elementwise_sub': ('subtract', ('X', 'Y')),
    'flatten_contiguous_range': ('flatten', ('X',)),
    'hard_sigmoid': ('hardsigmoid', ('X',)),
    'hard_swish': ('hardswish', ('X',)),
    'layer_norm': ('layer_norm', ('X', 'Scale', 'Bias')),
    'matmul_v2': ('matmul', ('X', 'Y')),
    'reduce_mean': ('mean', ('X',)),
    'reshape2': ('reshape', ('X',)),
    'transpose2': ('transpose', ('X',)),
}
LEGACY_ATTRIBUTES = {  # by the operation's name in Paddle 3
    'batch_norm_': {'data_layout': 'data_format'},
    'dropout': {'dropout_prob': 'p', 'dropout_implementation': 'mode'},
    'matmul': {'trans_x': 'transpose_x', 'trans_y': 'transpose_y'},
    'max_pool2d_with_index': {'ksize': 'kernel_size'},
    'mean': {'dim': 'axis', 'keep_dim': 'keepdim'},
    'pool2d': {'ksize': 'kernel_size'},
    'transpose': {'axis': 'perm'},
}
ARGUMENTS = {  # operations of Paddle 3: constant inputs that are attributes here, as in Paddle 2
    'dropout': {2: 'p'},
    'mean': {1: 'axis'},
    'pool2d': {1: 'kernel_size'},
    'reshape': {1: 'shape'},
    'scale': {1: 'scale'},
}


@dataclass
class Operation:
    """An operation under its name in Paddle 3. An absent input is ''. `output` is the first result, the only one that inference uses."""

    kind: str
    inputs: list[str]
    output: str
    attributes: dict


@dataclass
class Graph:
    """A network with one input. Each value has a name.

    Attributes:
        operations: in the order in which they run.
        constants: weights and other constants, by name.
        shapes, dtypes: of the input and of what the operations give, by name; -1 for any size; 'float32' and so on.
    """

    input: str = ''
    outputs: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)

    def describe(self, name, value):
        """Note shape and dtype of a value of Paddle."""
        self.shapes[name], self.dtypes[name] = tuple(value.shape), str(value.dtype).rpartition('.')[2]


def read(path):
    """The Graph in the files <path>.json or <path>.pdmodel, and <path>.pdiparams."""
    with _static_mode(), paddle.static.scope_guard(paddle.static.Scope()):
        program, *_ = paddle.static.load_inference_model(path, paddle.static.Executor(paddle.CPUPlace()))
        scope, block = paddle.static.global_scope(), program.global_block()

        def weights(name):
            return np.array(scope.find_var(name).get_tensor())

        return _of_paddle_2(block, weights) if hasattr(block, 'vars') else _of_paddle_3(block, weights)


@contextlib.contextmanager
def _static_mode():
    dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        yield
    finally:
        if dynamic:
            paddle.disable_static()


def _of_paddle_3(block, weights):
    graph, names, literals = Graph(), {}, {}
    for number, operation in enumerate(block.ops):
        kind, attributes = operation.name().partition('.')[2], operation.attrs()
        inputs = [names[value.hash()] if value.initialized() else '' for value in operation.operands_source()]
        if kind == 'fetch':
            graph.outputs += inputs
            continue
        name = attributes.get('parameter_name') or attributes.get('name') or f'{kind}_{number}'
        result, *others = operation.results()
        names[result.hash()] = name
        names.update((other.hash(), f'another result of {name}') for other in others)
        if result.is_dense_tensor_type():  # not a list of tensors
            graph.describe(name, result)
        if kind == 'data':
            graph.input = name
        elif kind == 'parameter':
            graph.constants[name] = weights(name)
        elif kind in ('full', 'full_int_array'):
            literals[name] = attributes['value']
            shape = attributes.get('shape', np.shape(literals[name]))
            graph.constants[name] = np.full(shape, literals[name], graph.dtypes[name])
        else:
            for place, argument in ARGUMENTS.get(kind, {}).items():
                if inputs[place] in literals:
                    attributes[argument] = literals[inputs[place]]
            inputs = [value for place, value in enumerate(inputs) if place not in ARGUMENTS.get(kind, {})]
            graph.operations.append(Operation(kind, inputs, name, attributes))
    return graph


def _of_paddle_2(block, weights):
    graph = Graph()
    for name, variable in block.vars.items():
        if variable.persistable and name not in ('feed', 'fetch'):
            graph.constants[name] = weights(name)
    names = {}  # of variables; one may be written more than once
    for number, operation in enumerate(block.ops):
        kind, slots = LEGACY.get(operation.type, (operation.type, ('X',)))
        inputs = [
            names.get(name, name) for slot in slots if slot in operation.input_names for name in operation.input(slot)
        ]
        if kind == 'fetch':
            graph.outputs += inputs
            continue
        written = operation.output(next((slot for slot in ('Out', 'Y') if slot in operation.output_names), 'Output'))[0]
        name = names[written] = written if kind == 'feed' else f'{kind}_{number}'
        graph.describe(name, block.var(written))
        if kind == 'feed':
            graph.input = name
            continue
        renamed = LEGACY_ATTRIBUTES.get(kind, {})
        attributes = {renamed.get(key, key): operation.attr(key) for key in operation.attr_names}
        graph.operations.append(Operation(kind, inputs, name, attributes))
    return graph
