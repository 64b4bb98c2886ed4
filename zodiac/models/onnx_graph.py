"""Write a `static_graph.Graph` as an ONNX model, one operation of Paddle at a time.

The engines join operations themselves (BatchNorm into convolutions, the parts of GELU, a bias), so nothing is joined here.
"""

import math

import numpy as np

from zodiac.base.errors import one_line

OPSET = 17  # of ONNX: supported by ONNX Runtime from 1.12, OpenVINO from 2022.3
IR_VERSION = 8  # of the file: the one of this opset; the newest onnx would write one that older engines refuse


class Unsupported(Exception):
    """An operation, or an attribute of one, that cannot be converted."""


class Writer:
    """Collects the nodes of a graph. Values are passed by name.

    Attributes:
        graph: the static_graph.Graph.
        nodes: list of (operator of ONNX, names of inputs, name of the output, attributes).
        constants: {name: array}; names: of the values of ONNX, by name in the graph.
    """

    def __init__(self, graph):
        self.graph, self.nodes = graph, []
        self.constants = dict(graph.constants)
        self.names = {name: name for name in ('', graph.input, *graph.constants)}  # '': an absent input

    def node(self, operator, *inputs, **attributes):
        """Add a node; returns the name of its output."""
        name = f'{operator}_{len(self.nodes)}'
        self.nodes.append((operator, inputs, name, attributes))
        return name

    def constant(self, value, dtype=np.float32):
        """Add a constant; returns its name."""
        name = f'constant_{len(self.constants)}'
        self.constants[name] = np.asarray(value, dtype)
        return name


def convert(graph, outputs):
    """The onnx.ModelProto of a static_graph.Graph, checked by onnx.

    Args:
        outputs: names for its outputs. The first dimension of the input and of these is named N.
    Raises: Unsupported.
    """
    import onnx  # optional package
    from onnx import helper, numpy_helper  # the same

    writer = Writer(graph)
    for operation in graph.operations:
        if operation.kind not in OPERATIONS:
            raise Unsupported(f'the operation {operation.kind}')
        try:
            inputs = [writer.names[name] for name in operation.inputs]
            writer.names[operation.output] = OPERATIONS[operation.kind](writer, operation, *inputs)
        except (KeyError, TypeError) as error:  # an input or attribute that is missing, not constant, or too many
            raise Unsupported(f'the operation {operation.kind} in this form ({error})') from None
    renamed = {}
    for name, value in zip(outputs, graph.outputs):
        own = writer.names[value]
        if own in renamed or own in writer.constants or own == graph.input:  # it has a name already
            own = writer.node('Identity', own)
        renamed[own] = name
    nodes = [
        helper.make_node(operator, [renamed.get(i, i) for i in inputs], [renamed.get(name, name)], name, **attributes)
        for operator, inputs, name, attributes in writer.nodes
    ]
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(value, name) for name, value in writer.constants.items() if name in used]
    ends = [
        [_described(helper, name, graph, value) for name, value in values]
        for values in ([(graph.input, graph.input)], zip(outputs, graph.outputs))
    ]
    made = helper.make_graph(nodes, 'zodiac', *ends, weights)
    model = helper.make_model(
        made, producer_name='zodiac', ir_version=IR_VERSION, opset_imports=[helper.make_opsetid('', OPSET)]
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Unsupported(f'a network that onnx refuses afterwards ({one_line(error)})') from None
    return model


def _described(helper, name, graph, value):
    """onnx.ValueInfoProto of an input or output."""
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(graph.dtypes[value]))
    _, *sizes = graph.shapes[value]
    return helper.make_tensor_value_info(name, dtype, ['N', *(None if size < 0 else size for size in sizes)])


def _require(operation, **wanted):
    """Raise Unsupported unless the attributes that an operation has are these."""
    for name, value in wanted.items():
        found = operation.attributes.get(name, value)
        if found != value:
            raise Unsupported(f'the operation {operation.kind} with {name}={found}')


# The operations of Paddle 3: functions of a Writer, an Operation and the names of its inputs, which return the name of the result.


def as_it_is(operator):
    """An operation without attributes that ONNX has too."""

    def write(writer, operation, *inputs):
        _require(operation, axis=-1)  # of Paddle 2: as NumPy aligns shapes
        return writer.node(operator, *inputs)

    return write


def batch_norm(writer, operation, x, mean, variance, scale, shift):
    _require(operation, data_format='NCHW', is_test=True)
    return writer.node('BatchNormalization', x, scale, shift, mean, variance, epsilon=operation.attributes['epsilon'])


def cast(writer, operation, x):
    from onnx import helper  # optional package

    dtype = np.dtype(writer.graph.dtypes[operation.output])
    return writer.node('Cast', x, to=helper.np_dtype_to_tensor_dtype(dtype))


def conv2d(writer, operation, x, weights):
    _require(operation, data_format='NCHW')
    return writer.node(
        'Conv',
        x,
        weights,
        kernel_shape=writer.constants[weights].shape[2:],
        strides=operation.attributes['strides'],
        dilations=operation.attributes['dilations'],
        group=operation.attributes['groups'],
        **_padding(operation),
    )


def _padding(operation):
    """The attributes for the padding of a convolution or a pool."""
    how, sizes = operation.attributes.get('padding_algorithm', 'EXPLICIT'), operation.attributes['paddings']
    if how == 'SAME':
        _require(operation, dilations=[1, 1])
        return {
            'auto_pad': 'SAME_UPPER'
        }  # where the sum is odd, the larger half is at the bottom and right, as in Paddle
    if how == 'VALID':
        return {}
    if len(sizes) == 2:
        return {'pads': [*sizes, *sizes]}
    top, bottom, left, right = sizes
    return {'pads': [top, left, bottom, right]}


def dropout(writer, operation, x, seed=''):
    _require(operation, is_test=True, mode='upscale_in_train')
    return x


def elu(writer, operation, x):
    return writer.node('Elu', x, alpha=operation.attributes['alpha'])


def flatten(writer, operation, x):
    axes = len(writer.graph.shapes[operation.inputs[0]])
    _require(operation, start_axis=1)
    if operation.attributes['stop_axis'] % axes != axes - 1:
        raise Unsupported('the operation flatten up to an axis before the last')
    return writer.node('Flatten', x, axis=1)


def flip(writer, operation, x):
    """The rows or columns in reverse order by index, which every engine has; WebGPU may lack slices of negative steps."""
    for axis in operation.attributes['axis']:
        size = writer.graph.shapes[operation.inputs[0]][axis]
        if size < 0:
            raise Unsupported(f'the operation {operation.kind} of images of any size')
        x = writer.node('Gather', x, writer.constant(np.arange(size)[::-1], np.int64), axis=axis)
    return x


def gelu(writer, operation, x):
    """x (1 + erf(x / sqrt 2)) / 2, in the form that the engines know as GELU (ONNX has it from opset 20)."""
    _require(operation, approximate=False)
    inner = writer.node('Erf', writer.node('Div', x, writer.constant(math.sqrt(2))))
    both = writer.node('Mul', x, writer.node('Add', inner, writer.constant(1)))
    return writer.node('Mul', both, writer.constant(0.5))


def hardsigmoid(writer, operation, x):
    return writer.node('HardSigmoid', x, alpha=operation.attributes['slope'], beta=operation.attributes['offset'])


def hardswish(writer, operation, x):
    _require(operation, threshold=6.0, scale=6.0, offset=3.0)  # of Paddle 2; Paddle 3 has no others
    return writer.node('HardSwish', x)


def layer_norm(writer, operation, x, scale, shift):
    first, epsilon = operation.attributes['begin_norm_axis'], operation.attributes['epsilon']
    return writer.node('LayerNormalization', x, scale, shift, axis=first, epsilon=epsilon)


def matmul(writer, operation, x, y):
    _require(operation, transpose_x=False, transpose_y=False)
    return writer.node('MatMul', x, y)


def max_pool2d_with_index(writer, operation, x):
    """An adaptive pool, of which the indices are not used."""
    _require(operation, adaptive=True)
    return _adaptive_pool(writer, operation, 'Max', x)


def mean(writer, operation, x):
    _require(operation, reduce_all=False)
    return writer.node(
        'ReduceMean', x, axes=operation.attributes['axis'], keepdims=int(operation.attributes['keepdim'])
    )


def pool2d(writer, operation, x):
    _require(operation, data_format='NCHW', ceil_mode=False, global_pooling=False)
    attributes = operation.attributes
    name = {'max': 'Max', 'avg': 'Average'}[attributes['pooling_type']]
    if attributes['adaptive']:
        return _adaptive_pool(writer, operation, name, x)
    size = {'kernel_shape': attributes['kernel_size'], 'strides': attributes['strides'], **_padding(operation)}
    if name == 'Average':
        size['count_include_pad'] = int(not attributes['exclusive'])
    return writer.node(f'{name}Pool', x, **size)


def _adaptive_pool(writer, operation, name, x):
    """A pool with a given number of cells, which must be one or divide the size of the image."""
    cells, sizes = operation.attributes['kernel_size'], writer.graph.shapes[operation.inputs[0]][2:]
    if [*cells] == [1, 1]:
        return writer.node(f'Global{name}Pool', x)
    if any(size < 0 or size % count for size, count in zip(sizes, cells)):
        raise Unsupported(
            f'the operation {operation.kind} from {sizes[0]} x {sizes[1]} to {cells[0]} x {cells[1]} cells'
        )
    cell = [size // count for size, count in zip(sizes, cells)]
    return writer.node(f'{name}Pool', x, kernel_shape=cell, strides=cell)


def relu6(writer, operation, x):
    return writer.node('Clip', x, writer.constant(0), writer.constant(6))


def reshape(writer, operation, x):
    shape = operation.attributes['shape']
    if x in writer.constants:  # the bias of a convolution: the engines join it only as a constant
        return writer.constant(writer.constants[x].reshape(shape))
    return writer.node('Reshape', x, writer.constant(shape, np.int64))


def scale(writer, operation, x):
    """x scale + bias"""
    _require(operation, bias_after_scale=True)
    factor, bias = operation.attributes['scale'], operation.attributes['bias']
    if factor != 1:
        x = writer.node('Mul', x, writer.constant(factor))
    return writer.node('Add', x, writer.constant(bias)) if bias else x


def softmax(writer, operation, x):
    return writer.node('Softmax', x, axis=operation.attributes['axis'])


def transpose(writer, operation, x):
    return writer.node('Transpose', x, perm=operation.attributes['perm'])


OPERATIONS = {
    'add': as_it_is('Add'),
    'batch_norm_': batch_norm,
    'cast': cast,
    'conv2d': conv2d,
    'depthwise_conv2d': conv2d,
    'divide': as_it_is('Div'),
    'dropout': dropout,
    'elu': elu,
    'flatten': flatten,
    'flip': flip,
    'gelu': gelu,
    'hardsigmoid': hardsigmoid,
    'hardswish': hardswish,
    'layer_norm': layer_norm,
    'matmul': matmul,
    'max_pool2d_with_index': max_pool2d_with_index,
    'mean': mean,
    'multiply': as_it_is('Mul'),
    'pool2d': pool2d,
    'relu': as_it_is('Relu'),
    'relu6': relu6,
    'reshape': reshape,
    'scale': scale,
    'softmax': softmax,
    'subtract': as_it_is('Sub'),
    'transpose': transpose,
}
