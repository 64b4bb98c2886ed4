"""The Open Inference Protocol: what its routes answer and refuse, in JSON and in Triton's binary form."""

import base64
import json
import struct

import numpy as np
import pytest
from conftest import picture
from PIL import Image
from small_server import LABELS, TRANSFORM, encoded, filled, limits, model_of, served, shares

from zodiac.images import transforms
from zodiac.inference import exported_model

pytest.importorskip('fastapi', reason='requirements-serve.txt is not installed')
import hypothesis
from fastapi.testclient import TestClient
from hypothesis import strategies

from zodiac.serving import application, tensors

RED, BLUE = filled('red'), filled('blue')
INFER = '/v2/models/colours/infer'


def client_of(allowed=None, models=None, token=None):
    return TestClient(application.create(models or served(), allowed or limits(), token=token))


@pytest.fixture(scope='module')
def client():
    with client_of() as client:
        yield client


def text(content):
    return base64.b64encode(content).decode()


def files(*contents, **others):
    data = [text(content) for content in contents]
    return {'name': 'image', 'datatype': 'BYTES', 'shape': [len(data)], 'data': data, **others}


def body(given, **others):
    return {'json': {'inputs': [given], **others}}


def binary(given, content, **others):
    """A request with binary data behind its JSON."""
    given = {**given, 'parameters': {'binary_data_size': len(content)}}
    head = json.dumps({'inputs': [given], **others}).encode()
    return {'content': head + content, 'headers': {tensors.HEADER: str(len(head))}}


def packed(*contents):
    return b''.join(struct.pack('<I', len(content)) + content for content in contents)


def outputs_of(answer):
    assert answer.status_code == 200, answer.text
    return {output['name']: output for output in answer.json()['outputs']}


def test_the_server_and_its_model_are_described(client):
    about = client.get('/v2').json()
    assert about['name'] == 'zodiac' and about['extensions'] == ['binary_tensor_data', 'classification']
    assert client.get('/v2/models').json() == {'models': ['colours']}
    assert client.get('/v2/health/live').json() == {'live': True}
    assert client.get('/v2/health/ready').json() == {'ready': True}
    assert client.get('/v2/models/colours/versions/1/ready').json() == {'name': 'colours', 'ready': True}
    model = client.get('/v2/models/colours').json()
    assert model == client.get('/v2/models/colours/versions/1').json()
    assert (model['versions'], model['platform']) == (['1'], 'zodiac_paddle')
    tensor = {'datatype': 'FP32', 'shape': [-1, 3, 8, 8]}
    assert model['inputs'] == [{'name': 'image', 'datatype': 'BYTES', 'shape': [-1], 'parameters': {'tensor': tensor}}]
    assert model['outputs'] == [
        {'name': 'probabilities', 'datatype': 'FP32', 'shape': [-1, 3], 'parameters': {'labels': LABELS}},
        {'name': 'label', 'datatype': 'BYTES', 'shape': [-1]},
    ]


def test_image_files_are_answered_in_their_order(client):
    answer = client.post(INFER, **body(files(RED, BLUE), id='42'))

    about, found = answer.json(), outputs_of(answer)
    assert (about['model_name'], about['model_version'], about['id']) == ('colours', '1', '42')
    assert found['label'] == {'name': 'label', 'datatype': 'BYTES', 'shape': [2], 'data': ['红', 'blue']}
    assert found['probabilities']['shape'] == [2, 3]
    one = client.post('/predict', files={'file': RED}).json()
    assert found['probabilities']['data'][0] == pytest.approx(one['probability'])


@pytest.mark.parametrize('shape', [[2], [2, 1]])
def test_files_may_be_binary_data(client, shape):
    given = {'name': 'image', 'datatype': 'BYTES', 'shape': shape}
    answer = client.post(INFER, **binary(given, packed(BLUE, RED)))
    assert outputs_of(answer)['label']['data'] == ['blue', '红']


def test_a_column_of_files_may_be_nested(client):
    nested = {**files(RED), 'shape': [2, 1], 'data': [[text(RED)], [text(BLUE)]]}
    assert outputs_of(client.post(INFER, **body(nested)))['label']['data'] == ['红', 'blue']


@pytest.mark.parametrize('form', ['flat', 'nested', 'binary'])
def test_a_tensor_is_the_input_of_the_network(client, form):
    batch = np.stack([transforms.apply(TRANSFORM, picture(seed)) for seed in (1, 2)])
    given = {'name': 'image', 'datatype': 'FP32', 'shape': [2, 3, 8, 8]}
    if form == 'binary':
        request = binary(given, batch.astype('<f4').tobytes())
    else:
        request = body({**given, 'data': (batch.ravel() if form == 'flat' else batch).tolist()})
    found = outputs_of(client.post(INFER, **request))['probabilities']
    assert found['data'] == pytest.approx(shares(batch).ravel().tolist(), abs=1e-6)


def test_a_model_with_preprocessing_takes_pixels():
    model = exported_model.ExportedModel(
        'pixels', LABELS, TRANSFORM[:-1], {}, lambda batch: shares(batch.swapaxes(1, 3))
    )
    red = np.array(Image.new('RGB', (8, 8), 'red'))
    given = {'name': 'image', 'datatype': 'UINT8', 'shape': [1, 8, 8, 3]}
    with client_of(models=served(model)) as client:
        assert client.get('/v2/models/pixels').json()['inputs'][0]['parameters']['tensor']['datatype'] == 'UINT8'
        for request in (binary(given, red.tobytes()), body({**given, 'data': red.tolist()})):
            assert outputs_of(client.post('/v2/models/pixels/infer', **request))['label']['data'] == ['红']
        for wrong in (256, -1, 0.5):
            answer = client.post('/v2/models/pixels/infer', **body({**given, 'data': [wrong] * 192}))
            assert (answer.status_code, 'from 0 to 255' in answer.text) == (400, True)


def test_outputs_may_be_binary_data(client):
    asked = [{'name': 'label', 'parameters': {'binary_data': True}}, {'name': 'probabilities'}]
    for request, kinds in (
        (body(files(RED, BLUE), outputs=asked), (True, False)),
        (body(files(RED, BLUE), parameters={'binary_data_output': True}), (True, True)),
    ):
        answer = client.post(INFER, **request)
        size = int(answer.headers[tensors.HEADER])
        assert answer.headers['Content-Type'] == 'application/octet-stream'
        found = {output['name']: output for output in json.loads(answer.content[:size])['outputs']}
        assert found['label']['parameters'] == {'binary_data_size': len(packed('红'.encode(), b'blue'))}
        assert packed('红'.encode(), b'blue') in answer.content[size:]
        assert ('data' not in found['label'], 'data' not in found['probabilities']) == kinds
        if kinds[1]:
            rows = np.frombuffer(answer.content[size : size + 24], '<f4').reshape(2, 3)
            assert rows.argmax(1).tolist() == [0, 2]


def test_only_the_outputs_that_are_asked_for_are_returned(client):
    answer = client.post(INFER, **body(files(RED), outputs=[{'name': 'label'}]))
    assert list(outputs_of(answer)) == ['label']


def test_classification_returns_the_greatest_values_with_their_labels(client):
    asked = [{'name': 'probabilities', 'parameters': {'classification': 2}}]
    found = outputs_of(client.post(INFER, **body(files(RED, BLUE), outputs=asked)))['probabilities']
    assert (found['datatype'], found['shape']) == ('BYTES', [2, 2])
    assert [entry.split(':')[1:] for entry in found['data'][::2]] == [['0', '红'], ['2', 'blue']]
    asked[0]['parameters']['classification'] = 1000
    found = outputs_of(client.post(INFER, **body(files(RED), outputs=asked)))['probabilities']
    assert found['shape'] == [1, 3]


def test_logits_and_what_reject_adds_are_outputs_where_the_export_has_them(monkeypatch):
    def answers(model, batch):
        return [exported_model.Answer(row, None, -1.25, [2, 0], np.log(row)) for row in shares(batch)]

    monkeypatch.setattr(exported_model.ExportedModel, 'answers', answers)
    with client_of(models=served(model_of(has_logits=True, rejection=object()))) as client:
        listed = [(output['name'], output['datatype']) for output in client.get('/v2/models/colours').json()['outputs']]
        found = outputs_of(client.post(INFER, **body(files(RED))))
    names = ['probabilities', 'label', 'logits', 'known', 'score', 'set']
    assert listed == list(zip(names, ['FP32', 'BYTES', 'FP32', 'BOOL', 'FP32', 'BYTES']))
    assert list(found) == names
    assert np.exp(found['logits']['data']) == pytest.approx(found['probabilities']['data'])
    assert [found[name]['data'] for name in names[3:]] == [[False], [-1.25], ['["blue", "红"]']]


FP32 = {'name': 'image', 'datatype': 'FP32', 'shape': [1, 3, 8, 8]}
GOOD = [0.5] * 192
REFUSED = {
    'no JSON': ({'content': b'hello'}, 400, 'not JSON'),
    'no body': ({}, 400, 'not JSON'),
    'no UTF-8': ({'content': b'{"id": "\xff"}'}, 400, 'not JSON'),
    'deep': ({'content': b'[' * 100_000}, 400, 'too deep'),
    'NaN': ({'content': json.dumps({'inputs': [{**FP32, 'data': [float('nan')]}]}).encode()}, 400, 'NaN is no number'),
    'a list': ({'json': []}, 400, 'must be a JSON object'),
    'no inputs': ({'json': {}}, 400, 'one input, named image'),
    'two inputs': ({'json': {'inputs': [files(RED), files(RED)]}}, 400, 'one input, named image'),
    'other name': (body(files(RED, name='x')), 400, 'one input, named image'),
    'id': (body(files(RED), id=7), 400, 'id: must be a string'),
    'datatype': (body(files(RED, datatype='FP16')), 400, 'must be BYTES, for image files, or FP32'),
    'shape missing': (body({'name': 'image', 'datatype': 'BYTES', 'data': [text(RED)]}), 400, 'shape must be a list'),
    'shape of text': (body(files(RED, shape=['1'])), 400, 'shape must be a list'),
    'shape without images': (body(files(shape=[0])), 400, 'shape must be [N]'),
    'shape infinite': (
        {'content': json.dumps({'inputs': [files(RED)]}).replace('[1]', '[1e999]').encode()},
        400,
        'shape',
    ),
    'shape of tensor': (body({**FP32, 'shape': [1, 3, 8], 'data': GOOD}), 400, 'shape must be [N, 3, 8, 8]'),
    'shape and data': (body(files(RED, shape=[2])), 400, '2 image files as base64'),
    'many images': (body(files(*[RED] * 5)), 413, 'more than 4 images'),
    'no data': (body({**FP32}), 400, '192 numbers'),
    'few numbers': (body({**FP32, 'data': GOOD[:-1]}), 400, '192 numbers'),
    'text numbers': (body({**FP32, 'data': ['0.5'] * 192}), 400, '192 numbers'),
    'ragged': (body({**FP32, 'data': [[0.5], [0.5, 0.5]]}), 400, '192 numbers'),
    'large numbers': (body({**FP32, 'data': [1e30] * 192}), 400, 'must be from 0 to 1'),
    'larger numbers': (body({**FP32, 'data': [1e300] * 192}), 400, 'must be from 0 to 1'),
    'pixels for a tensor': (body({**FP32, 'data': [128] * 192}), 400, 'must be from 0 to 1'),
    'binary NaN': (binary(FP32, np.full(192, np.nan, '<f4').tobytes()), 400, 'must be from 0 to 1'),
    'no base64': (body(files(RED, data=['***'])), 400, 'not base64'),
    'no image': (body(files(b'hello')), 400, 'image: not an image'),
    'one of two': (body(files(RED, b'hello')), 400, 'image 2: not an image'),
    'many pixels': (body(files(filled('red', (1100, 1000)))), 413, '1100x1000'),
    'binary too short': (binary(FP32, bytes(700)), 400, 'must be 768 bytes'),
    'binary cut off': (binary({**FP32, 'datatype': 'BYTES', 'shape': [1]}, packed(RED)[:-1]), 400, 'within an element'),
    'binary of two': (binary({**FP32, 'datatype': 'BYTES', 'shape': [1]}, packed(RED, RED)), 400, 'not 1 elements'),
    'binary of less': (binary({**FP32, 'datatype': 'BYTES', 'shape': [3]}, packed(RED)), 400, 'not 3 elements'),
    'data twice': (binary({**FP32, 'data': GOOD}, bytes(768)), 400, 'give one of them'),
    'header': ({'content': b'{}', 'headers': {tensors.HEADER: '3'}}, 400, tensors.HEADER),
    'header of text': ({'content': b'{}', 'headers': {tensors.HEADER: '-1'}}, 400, tensors.HEADER),
    'parameters': (body(files(RED, parameters=[])), 400, 'parameters must be an object'),
    'shared memory': (body(files(RED, parameters={'shared_memory_region': 'x'})), 400, 'shared memory'),
    'unknown output': (body(files(RED), outputs=[{'name': 'x'}]), 400, 'probabilities, label'),
    'output twice': (body(files(RED), outputs=[{'name': 'label'}] * 2), 400, 'another one of'),
    'outputs of text': (body(files(RED), outputs=['label']), 400, 'list of objects'),
    'output as binary': (
        body(files(RED), outputs=[{'name': 'label', 'parameters': {'binary_data': 1}}]),
        400,
        'label: binary_data',
    ),
    'classification': (
        body(files(RED), outputs=[{'name': 'probabilities', 'parameters': {'classification': -1}}]),
        400,
        'number of classes',
    ),
    'classes of labels': (
        body(files(RED), outputs=[{'name': 'label', 'parameters': {'classification': 1}}]),
        400,
        'no classification',
    ),
    'large body': ({'content': b'x' * 200_001}, 413, 'larger'),
    'coding': ({'content': b'x', 'headers': {'Content-Encoding': 'gzip'}}, 415, 'Encoding gzip'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_a_refused_request_gets_the_reason_and_the_next_one_is_answered(case):
    request, status, words = REFUSED[case]
    with client_of(limits(images=4, body=200_000, pixels=1_000_000)) as client:
        answer = client.post(INFER, **request)
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == ['error'] and words in answer.json()['error']
        assert len(answer.content) < 400
        assert client.get('/v2/health/ready').status_code == 200
        assert outputs_of(client.post(INFER, **body(files(RED))))['label']['data'] == ['红']


def test_json_of_more_values_than_are_parsed_is_refused():
    with client_of(limits(body=4 << 20)) as client:
        for content in (b'[' + b'[],' * 600_000 + b'[]]', b'{"inputs": [' + b'1,' * 1_000_000 + b'1]}'):
            answer = client.post(INFER, content=content)
            assert (answer.status_code, 'more than 1,000,000 values' in answer.text) == (413, True)
        answer = client.post(INFER, content=b'{"id": ' + b'1' * 3_000_000 + b'}')
        assert answer.status_code == 400


def test_large_json_is_parsed_beside_other_requests(client):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    request = body(files(encoded(Image.fromarray(noise))))
    assert len(json.dumps(request['json'])) > tensors.SMALL
    assert client.post(INFER, **request).status_code == 200


@pytest.mark.parametrize(
    ('method', 'path', 'status'),
    [
        ('GET', '/v2/models/cats', 404),
        ('GET', '/v2/models/cats/ready', 404),
        ('POST', '/v2/models/cats/infer', 404),
        ('GET', '/v2/models/colours/versions/2', 404),
        ('POST', '/v2/models/colours/versions/2/infer', 404),
        ('GET', '/v2/nothing', 404),
        ('GET', INFER, 405),
        ('POST', '/v2', 405),
    ],
)
def test_errors_have_the_form_of_the_protocol(client, method, path, status):
    answer = client.request(method, path, **({'json': {}} if method == 'POST' else {}))
    assert (answer.status_code, list(answer.json())) == (status, ['error'])


def test_infer_requires_the_token():
    with client_of(token='secret') as client:
        for header, status in ((None, 401), ('Bearer wrong', 401), ('Bearer secret', 200)):
            headers = {'Authorization': header} if header else {}
            answer = client.post(INFER, headers=headers, **body(files(RED)))
            assert answer.status_code == status
            assert ('error' in answer.json()) == (status == 401)
        assert client.get('/v2/health/ready').status_code == client.get('/v2/models/colours').status_code == 200


def test_a_model_that_fails_gives_500_and_is_not_ready():
    network = [lambda batch: 1 / 0]
    with client_of(models=served(model_of(lambda batch: network[0](batch)))) as client:
        answer = client.post(INFER, **body(files(RED)))
        assert (answer.status_code, answer.json()) == (500, {'error': 'image: the model failed'})
        for path in ('/v2/health/ready', '/v2/models/colours/ready'):
            answer = client.get(path)
            assert (answer.status_code, answer.headers['Retry-After'], list(answer.json())) == (503, '1', ['error'])
        network[0] = shares
        assert client.get('/v2/models/colours/ready').status_code == 200


def test_requests_beyond_the_limit_get_503():
    with client_of(limits(requests=0)) as client:
        answer = client.post(INFER, **body(files(RED)))
        assert (answer.status_code, answer.headers['Retry-After']) == (503, '1')
        assert 'in progress' in answer.json()['error']


def test_the_metrics_count_the_requests_of_both_apis(client):
    with client_of() as client:
        client.post(INFER, **body(files(RED, RED)))
        client.post('/v2/models/colours/versions/1/infer', **body(files(RED)))
        client.post('/predict', files={'file': RED})
        client.post('/v2/models/cats/infer', **body(files(RED)))
        lines = dict(line.rsplit(' ', 1) for line in client.get('/metrics').text.splitlines() if line[0] != '#')
    assert float(lines['zodiac_requests_total{model="colours",status="200",version="1"}']) == 3
    assert float(lines['zodiac_requests_total{model="",status="404",version=""}']) == 1
    assert float(lines['zodiac_images_total{model="colours",version="1"}']) == 4
    assert float(lines['zodiac_model_info{engine="paddle",model="colours",precision="fp32",version="1"}']) == 1


VALUES = strategies.sampled_from([None, True, 0, 1, -1, 1e300, 'image', 'BYTES', 'FP32', [], [1], [[1]], {}, text(RED)])
ANY = strategies.recursive(
    VALUES,
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=2),
)
INPUTS = strategies.fixed_dictionaries(
    {'name': strategies.just('image'), 'datatype': strategies.sampled_from(['BYTES', 'FP32'])},
    optional={'shape': ANY, 'data': ANY, 'parameters': ANY},
)
REQUESTS = strategies.fixed_dictionaries(
    {'inputs': strategies.lists(INPUTS, max_size=2)}, optional={'outputs': ANY, 'id': ANY}
)


@hypothesis.settings(max_examples=200, derandomize=True, deadline=None)
@hypothesis.given(
    request=REQUESTS, header=strategies.sampled_from([None, '0', '10', '999999']), more=strategies.binary()
)
def test_no_request_causes_a_server_error(client, request, header, more):
    content = json.dumps(request).encode()
    headers = {tensors.HEADER: header} if header else {}
    answer = client.post(INFER, content=content + (more if header else b''), headers=headers)
    assert answer.status_code in (200, 400, 413), answer.text
