"""Tensors of the Open Inference Protocol: a request from its body, an answer to one. In JSON, or in Triton's binary form behind it.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md and extension_classification.md
"""

import base64
import binascii
import functools
import json
import struct
from dataclasses import dataclass
from typing import List, Optional

import numpy as np
from fastapi import HTTPException
from PIL import Image

from zodiac.images import transforms

INPUT = 'image'
DATATYPES = {'float32': 'FP32', 'uint8': 'UINT8'}
HEADER = 'Inference-Header-Content-Length'  # bytes of JSON; the rest of the body is binary
SMALL = 1 << 16  # bytes of JSON that are parsed at once
MOST_VALUES = 10**6  # of JSON: more would stop the server for seconds, and take much memory
ROUNDING = 0.1  # of the range of the input: other programs scale with other filters, which overshoot


@dataclass
class Output:
    """An output that a request asks for."""

    name: str
    binary: bool
    classes: int = 0  # number of classes to return as text, value:index:label; 0 for the tensor


@dataclass
class Request:
    id: Optional[str]
    encoded: bool  # whether the inputs are image files, else inputs of the network
    inputs: list  # (name for messages, function that returns the file, or the input)
    outputs: List[Output]


def outputs(model):
    """[(name, datatype, shape)] of what a model answers with."""
    classes = [-1, len(model.labels)]
    found = [('probabilities', 'FP32', classes), ('label', 'BYTES', [-1])]
    if model.has_logits:
        found.append(('logits', 'FP32', classes))
    if model.rejection is not None:
        found += [('known', 'BOOL', [-1]), ('score', 'FP32', [-1]), ('set', 'BYTES', [-1])]
    return found


def columns(answers, model):
    """{name: values} of `outputs`, one value or row per exported_model.Answer. A set of labels is JSON."""
    found = {
        'probabilities': np.stack([answer.probabilities for answer in answers]),
        'label': [model.labels[answer.probabilities.argmax()] for answer in answers],
    }
    if model.has_logits:
        found['logits'] = np.stack([answer.logits for answer in answers])
    if model.rejection is not None:
        found['known'] = np.array([answer.known for answer in answers], bool)
        found['score'] = np.array([answer.score for answer in answers], np.float32)
        sets = [[model.labels[number] for number in answer.labels] for answer in answers]
        found['set'] = [json.dumps(labels, ensure_ascii=False) for labels in sets]
    return found


def json_size(headers, size):
    """Bytes of JSON in a body of `size` bytes. Raises HTTPException 400."""
    text = headers.get(HEADER, str(size))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= size):
        raise _wrong(f'{HEADER}: must be the number of bytes of JSON at the start of the body, at most {size}')
    return int(text)


def parse(start, upload, served, most):
    """The Request in a body.

    Args:
        start: bytes of JSON at its start, see `json_size`.
        upload: uploads.Upload with the body.
        served: models.Served.
        most: number of images.
    Raises: HTTPException 400, or 413 for more than `most` images or MOST_VALUES.
    """
    content = _json(upload.part(0, start))
    _check(isinstance(content, dict), 'the body', 'must be a JSON object with inputs')
    name = content.get('id')
    _check(name is None or isinstance(name, str), 'id', 'must be a string')
    given = content.get('inputs')
    one = isinstance(given, list) and len(given) == 1 and isinstance(given[0], dict)
    _check(one and given[0].get('name') == INPUT, 'inputs', f'must be a list of one input, named {INPUT}')
    encoded, inputs = _inputs(given[0], start, upload, served, most)
    return Request(name, encoded, inputs, _outputs(content, served.model))


def _json(text):
    if sum(map(text.count, b',[{')) > MOST_VALUES:
        raise HTTPException(
            413, f'more than {MOST_VALUES:,} values in JSON; send image files, or tensors as binary data ({HEADER})'
        )
    try:  # integers of a million digits would take minutes
        return json.loads(text.decode(), parse_int=float, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = 'too deep' if isinstance(error, RecursionError) else str(error)[:100]
        raise _wrong(f'the body: not JSON ({reason})') from None


def _no_constant(name):
    raise ValueError(f'{name} is no number of JSON')


def _inputs(given, start, upload, served, most):
    """(whether they are image files, [(name, function)])."""
    datatype = DATATYPES[served.blank.dtype.name]
    whole = list(served.blank.shape)
    shape, kind = given.get('shape'), given.get('datatype')
    _check(kind in ('BYTES', datatype), INPUT, f'datatype must be BYTES, for image files, or {datatype}')
    _check(
        isinstance(shape, list) and shape and all(isinstance(side, float) and side.is_integer() for side in shape),
        INPUT,
        'shape must be a list of integers',
    )
    fits = shape[1:] in ([], [1]) if kind == 'BYTES' else shape[1:] == whole
    _check(
        fits and shape[0] >= 1, INPUT, f'shape must be {"[N]" if kind == "BYTES" else ["N", *whole]}'.replace("'", '')
    )
    if shape[0] > most:
        raise HTTPException(413, f'more than {most} images in a request')
    count = int(shape[0])
    names = [f'image {number}' for number in range(1, count + 1)] if count > 1 else [INPUT]
    binary, size = _parameters(given, INPUT).get('binary_data_size'), upload.size
    if binary is None:
        _check(start == size, INPUT, 'binary_data_size is missing, and the body is longer than its JSON')
        read = _texts if kind == 'BYTES' else _numbers
        values = read(given.get('data'), count, served.blank)
    else:
        _check('data' not in given, INPUT, 'has data and binary_data_size; give one of them')
        _check(binary == size - start, INPUT, f'binary_data_size must be {size - start}, the bytes behind the JSON')
        read = _pieces if kind == 'BYTES' else _rows
        values = read(start, upload, count, served.blank)
    if kind != 'BYTES':
        values = [functools.partial(_in_range, value, served) for value in values]
    return kind == 'BYTES', list(zip(names, values))


def _texts(data, count, _):
    data = _flat(data)
    texts = isinstance(data, list) and all(isinstance(text, str) for text in data)
    _check(texts and len(data) == count, INPUT, f'data must be {count} image files as base64 text')

    def decoded(text):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise _wrong(f'{INPUT}: data is not base64') from None

    return [functools.partial(decoded, text) for text in data]


def _flat(data):
    if isinstance(data, list) and data and all(isinstance(row, list) for row in data):
        return [value for row in data for value in row]
    return data


def _numbers(data, count, blank):
    try:
        values = np.asarray(data if isinstance(data, list) else [])
    except ValueError:  # rows of different lengths
        values = np.empty(0)
    good = values.dtype.kind == 'f' and values.size == count * blank.size
    _check(good, INPUT, f'data must be {count * blank.size} numbers')
    if blank.dtype == np.uint8:
        _check(
            ((values >= 0) & (values <= 255) & (values == values.round())).all(), INPUT, 'data must be from 0 to 255'
        )
    with np.errstate(over='ignore'):  # `_in_range` refuses infinity
        return [functools.partial(np.asarray, row) for row in values.reshape(count, *blank.shape).astype(blank.dtype)]


def _pieces(start, upload, count, _):
    found, size, part = [], upload.size, upload.part
    while start < size:
        _check(start + 4 <= size and len(found) < count, INPUT, f'the binary data is not {count} elements')
        (length,) = struct.unpack('<I', part(start, start + 4))
        _check(start + 4 + length <= size, INPUT, 'the binary data ends within an element')
        found.append(functools.partial(part, start + 4, start + 4 + length))
        start += 4 + length
    _check(len(found) == count, INPUT, f'the binary data is not {count} elements')
    return found


def _rows(start, upload, count, blank):
    _check(upload.size - start == count * blank.nbytes, INPUT, f'the binary data must be {count * blank.nbytes} bytes')

    def row(number):
        content = upload.part(start + number * blank.nbytes, start + (number + 1) * blank.nbytes)
        return np.frombuffer(content, blank.dtype.newbyteorder('<')).reshape(blank.shape)

    return [functools.partial(row, number) for number in range(count)]


def _in_range(make, served):
    """The input that `make` returns, if it can come from the transform of the model: others make some networks return NaN."""
    values = make()
    low, high = served.range
    slack = ROUNDING * (high - low)
    if not (values.min() >= low - slack and values.max() <= high + slack):
        raise _wrong(
            f'{INPUT}: the values must be from {low:.3g} to {high:.3g}, as the transform in inference.yaml makes them'
        )
    return values


def input_range(transform):
    """(least, greatest) value of the inputs that a transform makes."""
    black, white = (transforms.apply(transform, Image.new('RGB', (8, 8), (value,) * 3)) for value in (0, 255))
    return float(black.min()), float(white.max())


def _outputs(content, model):
    """The outputs that a request asks for; all of them in the order of `outputs` if it names none."""
    binary, known = _parameters(content, 'the request').get('binary_data_output', False), {}
    _check(isinstance(binary, bool), 'binary_data_output', 'must be true or false')
    names = [name for name, _, _ in outputs(model)]
    asked = content.get('outputs')
    if asked is None or asked == []:
        return [Output(name, binary) for name in names]
    _check(
        isinstance(asked, list) and all(isinstance(one, dict) for one in asked), 'outputs', 'must be a list of objects'
    )
    for one in asked:
        name = one.get('name')
        _check(name in names and name not in known, 'outputs', f'each must be another one of {", ".join(names)}')
        about = _parameters(one, name)
        wish = about.get('binary_data', binary)
        _check(isinstance(wish, bool), f'{name}: binary_data', 'must be true or false')
        classes = about.get('classification', 0.0)
        number = isinstance(classes, float) and classes.is_integer() and classes >= 0
        _check(number, f'{name}: classification', 'must be a number of classes')
        _check(not classes or name in ('probabilities', 'logits'), name, 'has no classification')
        known[name] = Output(name, wish, int(min(classes, len(model.labels))))
    return list(known.values())


def _parameters(item, name):
    found = item.get('parameters', {})
    _check(isinstance(found, dict), name, 'parameters must be an object')
    _check('shared_memory_region' not in found, name, 'shared memory is not supported; send the data')
    return found


def answer(asked, answers, served):
    """(content, bytes of JSON at its start) of the answer to a Request; the two are as long if nothing is binary."""
    kinds = {name: kind for name, kind, _ in outputs(served.model)}
    values = columns(answers, served.model)
    listed, binary = [], []
    for output in asked.outputs:
        kind, found = kinds[output.name], values[output.name]
        if output.classes:
            kind, found = 'BYTES', [_classes(row, served.model.labels, output.classes) for row in found]
        entry = {'name': output.name, 'datatype': kind, 'shape': list(np.shape(found))}
        if output.binary:
            binary.append(_packed(found) if kind == 'BYTES' else found.tobytes())
            entry['parameters'] = {'binary_data_size': len(binary[-1])}
        else:
            entry['data'] = _flat(found) if kind == 'BYTES' else found.ravel().tolist()
        listed.append(entry)
    about = {'model_name': served.name, 'model_version': served.version, 'outputs': listed}
    if asked.id is not None:
        about['id'] = asked.id
    text = json.dumps(about, ensure_ascii=False, allow_nan=False).encode()
    return b''.join([text, *binary]), len(text)


def _classes(row, labels, count):
    """Triton's text for the `count` greatest values: value:index:label."""
    return [f'{row[number]:f}:{number}:{labels[number]}' for number in np.argsort(-row, kind='stable')[:count]]


def _packed(texts):
    encoded = [text.encode() for text in _flat(texts)]
    return b''.join(struct.pack('<I', len(text)) + text for text in encoded)


def _wrong(text):
    return HTTPException(400, text)


def _check(fine, name, text):
    if not fine:
        raise _wrong(f'{name}: {text}')
