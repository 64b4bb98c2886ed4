"""The application: which requests it answers, which it refuses, and its metrics and page."""

import asyncio
import base64
import concurrent.futures
import contextlib
import hashlib
import io
import os
import re
import threading
import time

import hypothesis
import numpy as np
import pytest
from conftest import picture
from hypothesis import strategies
from image_files import jpeg_of_scans
from PIL import Image
from small_server import LABELS, TRANSFORM, encoded, filled, limits, model_of, served, shares

from zodiac.images import decoding, transforms
from zodiac.inference import exported_model

pytest.importorskip('fastapi', reason='requirements-serve.txt is not installed')
from fastapi.testclient import TestClient

from zodiac.serving import application, uploads


def client_of(allowed=None, token=None, predict=shares):
    return TestClient(application.create(served(model_of(predict)), allowed or limits(), token=token))


@pytest.fixture
def client():
    with client_of() as client:
        yield client


RED = filled('red')
IMAGE = {'headers': {'Content-Type': 'image/png'}}


def upload(*contents, name='a.png'):
    return [('file', (name, content, 'image/png')) for content in contents]


def test_one_image_in_a_form_is_answered_with_its_prediction(client):
    answer = client.post('/predict', files=upload(RED))

    assert answer.status_code == 200
    found = answer.json()
    assert found['label'] == '红'
    assert found['probability'] == pytest.approx(1.01 / 1.03, abs=1e-4)
    assert [guess['label'] for guess in found['top']] == LABELS
    assert found['top'][0] == {'label': found['label'], 'probability': found['probability']}
    assert (found['engine'], found['precision']) == ('paddle', 'fp32')


@pytest.mark.parametrize('kind', ['image/png', 'image/jpeg', 'application/octet-stream', 'Image/PNG; charset=binary'])
def test_one_image_may_be_the_body_itself(client, kind):
    answer = client.post('/predict', content=filled('blue'), headers={'Content-Type': kind})

    assert (answer.status_code, answer.json()['label']) == (200, 'blue')


def test_several_images_are_answered_in_their_order(client):
    colours = ['blue', 'red', 'lime', 'blue', 'lime']
    answer = client.post('/predict', files=upload(*map(filled, colours)))

    names = {'red': '红', 'lime': 'green', 'blue': 'blue'}
    assert [found['label'] for found in answer.json()['predictions']] == [names[colour] for colour in colours]


@pytest.mark.parametrize(('top', 'count'), [(1, 1), (2, 2), (5, 3), (1000, 3)])
def test_top_sets_the_number_of_labels(client, top, count):
    assert len(client.post(f'/predict?top={top}', files=upload(RED)).json()['top']) == count


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_an_answer_has_the_probabilities_of_the_model(client, kind, mode):
    content = encoded(picture(3, mode=mode), kind)
    expected = shares(transforms.apply(TRANSFORM, decoding.decode(io.BytesIO(content)))[None])[0]

    found = client.post('/predict', files=upload(content)).json()

    got = {guess['label']: guess['probability'] for guess in found['top']}
    assert [got[label] for label in LABELS] == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_model_with_reject_tells_whether_it_knows_the_image_and_the_set(monkeypatch):
    found = [(0.5, [0]), (-1.25, [0, 2]), (float('nan'), [0])]

    def answers(model, batch):
        return [exported_model.Answer(row, None, *found.pop(0)) for row in shares(batch)]

    monkeypatch.setattr(exported_model.ExportedModel, 'answers', answers)
    with client_of() as client:
        known, strange, nan = (client.post('/predict', files=upload(RED)) for _ in range(3))
    assert {**known.json(), 'top': None, 'probability': None} == {
        'label': '红',
        'probability': None,
        'known': True,
        'score': 0.5,
        'set': ['红'],
        'top': None,
        'engine': 'paddle',
        'precision': 'fp32',
    }
    assert [strange.json()[name] for name in ('label', 'known', 'score', 'set')] == ['红', False, -1.25, ['红', 'blue']]
    assert nan.status_code == 500


def test_a_model_without_reject_answers_as_before(client):
    assert set(client.post('/predict', files=upload(RED)).json()) == {
        'label',
        'probability',
        'top',
        'engine',
        'precision',
    }
    schema = client.get('/openapi.json').json()['components']['schemas']['Prediction']
    assert {schema['properties'][name]['type'] for name in ('known', 'score', 'set')} == {'boolean', 'number', 'array'}
    assert not {'known', 'score', 'set'} & set(schema['required'])


def jpeg_as_eps():
    return b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n'


def form(body, boundary='b'):
    return {'content': body, 'headers': {'Content-Type': f'multipart/form-data; boundary={boundary}'}}


END = b'\r\n--b--\r\n'
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
REFUSED = {
    'text': ({'files': upload(b'hello')}, 422, 'a.png: not an image'),
    'empty file': ({'files': upload(b'')}, 422, 'not an image'),
    'cut off': ({'files': upload(encoded(picture(1), 'JPEG')[:300])}, 422, 'truncated'),
    'one of two': ({'files': upload(RED, b'hello')}, 422, 'not an image'),
    'postscript': ({'files': upload(jpeg_as_eps())}, 422, 'a.png: EPS, which is not read'),
    'body is text': ({'content': b'hello', 'headers': {'Content-Type': 'image/png'}}, 422, 'the body: not an image'),
    'empty body': ({'content': b'', 'headers': {'Content-Type': 'image/png'}}, 422, 'not an image'),
    'json': ({'json': {'path': '/etc/passwd'}}, 415, 'application/json'),
    'nothing': ({}, 415, 'no Content-Type'),
    'urlencoded': ({'data': {'file': '/etc/passwd'}}, 415, 'multipart/form-data'),
    'no file': ({'files': [('image', ('a.png', RED))]}, 400, 'field file'),
    'text field': (form(PART.replace(b'; filename="a.png"', b'') + b'/etc/passwd' + END), 400, 'field file'),
    'no boundary': ({'content': b'x', 'headers': {'Content-Type': 'multipart/form-data'}}, 400, 'damaged'),
    'wrong boundary': (form(PART + RED + b'\r\n--b--\r\n', 'other'), 400, 'damaged'),
    'no end': (form(PART + RED), 400, 'end is missing'),
    'no name': (form(b'--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n'), 400, 'damaged'),
    'garbage': (form(bytes(range(256)) * 40), 400, 'damaged'),
    'empty form': (form(b''), 400, 'end is missing'),
    'many images': ({'files': upload(*[RED] * 5)}, 413, '4 images'),
    'many fields': ({'files': upload(RED), 'data': {f'f{n}': 'x' for n in range(200)}}, 400, 'fields'),
    'large body': ({'content': b'x' * 200_001, 'headers': {'Content-Type': 'image/png'}}, 413, '0.190735 MB'),
    'large file': ({'files': upload(b'x' * 200_001)}, 413, 'larger'),
    'endless': ({'content': (b'x' * 1000 for _ in range(300)), **IMAGE}, 413, 'larger'),
    'many pixels': ({'files': upload(filled('red', (1100, 1000)))}, 413, '1100x1000'),
    'bomb': ({'files': upload(encoded(Image.new('1', (14000, 14000))))}, 413, 'too many pixels'),
    'long type': ({'content': b'', 'headers': {'Content-Type': 'y' * 30_000}}, 415, 'yyy…: send'),
    'many scans': ({'files': upload(jpeg_of_scans(3000))}, 422, 'a.png: too many scans'),
    'coding': ({'content': RED, 'headers': {**IMAGE['headers'], 'Content-Encoding': 'gzip'}}, 415, 'Encoding gzip'),
    'long part header': (form(PART + RED + b'\r\n--b\r\nX: ' + b'x' * 100_000 + END), 400, 'damaged'),
    'long form type': (form(PART + RED + END, 'b; a="' + ';' * 10_000), 400, 'Content-Type has more'),
    'long boundary': (form(PART + RED, 'b' * 1000), 400, 'boundary'),
    'long name': ({'files': upload(b'hello', name='n' * 500)}, 422, 'n…: not an image'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_a_refused_request_gets_the_reason_and_the_next_one_is_answered(case):
    request, status, words = REFUSED[case]
    with client_of(limits(images=4, body=200_000, pixels=1_000_000)) as client:
        answer = client.post('/predict', **request)

        assert answer.status_code == status, answer.text
        assert words in answer.json()['detail']
        assert len(answer.content) < 400
        assert client.post('/predict', files=upload(RED)).json()['label'] == '红'


@pytest.mark.parametrize('top', ['0', '-1', '1001', 'many', ''])
def test_a_wrong_number_of_labels_is_refused(client, top):
    answer = client.post(f'/predict?top={top}', files=upload(RED))
    assert answer.status_code == 422
    assert answer.json()['detail'].startswith('top: Input should be')


def at_once(client, count):
    """The answers to `count` concurrent requests."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [*pool.map(lambda _: client.post('/predict', files=upload(RED)), range(count))]


def test_too_many_requests_get_503_and_retry_after():
    def slow(batch):
        time.sleep(0.3)
        return shares(batch)

    with client_of(limits(requests=3), predict=slow) as client:
        answers = at_once(client, 8)
        later = client.post('/predict', files=upload(RED))

    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [200] * 3 + [503] * 5
    assert all(int(answer.headers['Retry-After']) >= 1 for answer in answers if answer.status_code == 503)
    assert later.status_code == 200


def test_a_request_that_takes_too_long_gets_503():
    gate = threading.Event()
    with client_of(limits(seconds=0.3), predict=lambda batch: gate.wait(20) and shares(batch)) as client:
        answer = client.post('/predict', files=upload(RED))
        gate.set()
        assert (answer.status_code, answer.headers['Retry-After']) == (503, '1')
        assert '0.3 seconds' in answer.json()['detail']
        assert client.post('/predict', files=upload(RED)).status_code == 200


def raises(batch):
    raise RuntimeError('of the engine: /srv/model.onnx')


def test_a_network_that_fails_gives_500_and_the_next_request_is_answered():
    turns = iter([raises])
    with client_of(predict=lambda batch: next(turns, shares)(batch)) as client:
        answer = client.post('/predict', files=upload(RED))
        assert (answer.status_code, answer.json()['detail']) == (500, 'a.png: the model failed')
        assert client.post('/predict', files=upload(RED)).status_code == 200


@pytest.mark.parametrize(
    'header', [None, 'Bearer wrong', 'Bearer', 'Basic c2VjcmV0', 'Bearer secret2', 'Bearer s\xe9cret']
)
def test_predict_and_metrics_require_the_token(header):
    headers = {'Authorization': header.encode('latin-1')} if header else {}
    with client_of(token='secret') as client:
        for status, given in ((401, headers), (200, {'Authorization': 'Bearer secret'})):
            for answer in (
                client.post('/predict', files=upload(RED), headers=given),
                client.get('/metrics', headers=given),
            ):
                assert answer.status_code == status
                assert (answer.headers.get('WWW-Authenticate') == 'Bearer') == (status == 401)
        assert {client.get(path).status_code for path in ('/', '/healthz', '/readyz')} == {200}


def test_health_and_readiness(client):
    assert client.get('/healthz').text == 'ok'
    ready = {'model': 'colours', 'version': '1', 'classes': 3, 'engine': 'paddle', 'precision': 'fp32'}
    assert client.get('/readyz').json() == ready


def test_readyz_fails_after_the_network_and_recovers_without_a_request():
    network = [raises]
    with client_of(predict=lambda batch: network[0](batch)) as client:
        assert client.get('/readyz').status_code == 200
        client.post('/predict', files=upload(RED))
        answer = client.get('/readyz')
        assert (answer.status_code, answer.headers['Retry-After']) == (503, '1')
        assert 'failed' in answer.json()['detail']
        network[0] = shares
        assert client.get('/readyz').status_code == 200


def test_readyz_fails_while_a_batch_hangs():
    gate = threading.Event()
    with client_of(limits(seconds=0.2), predict=lambda batch: gate.wait(20) and shares(batch)) as client:
        client.post('/predict', files=upload(RED))
        time.sleep(0.2)  # the batch began after the request
        assert '0.2 seconds' in client.get('/readyz').json()['detail']
        gate.set()
        assert client.post('/predict', files=upload(RED)).status_code == 200
        assert client.get('/readyz').status_code == 200


def test_readyz_fails_while_all_decoders_hang(monkeypatch):
    gate, read = threading.Event(), transforms.read
    monkeypatch.setattr(transforms, 'read', lambda *args, **others: gate.wait(20) and read(*args, **others))
    monkeypatch.setattr(application.device, 'cores', lambda: 2)
    with client_of(limits(seconds=0.2)) as client:
        client.post('/predict', files=upload(RED))
        assert client.get('/readyz').status_code == 200
        client.post('/predict', files=upload(RED))
        time.sleep(0.2)  # decoding began after the request
        assert 'decode' in client.get('/readyz').json()['detail']
        gate.set()
        assert client.post('/predict', files=upload(RED)).status_code == 200
        assert client.get('/readyz').status_code == 200


def test_the_largest_arriving_upload_is_refused_when_the_memory_is_full():
    async def scenario():
        memory = uploads.Memory(19 << 19)
        with contextlib.ExitStack() as opened:
            large, arrived, small = (opened.enter_context(memory.upload()) for _ in range(3))
            for upload in (large, small):
                upload.task = asyncio.ensure_future(asyncio.sleep(20))
            memory.take(arrived, 5 << 20)
            memory.take(large, 3 << 20)
            memory.take(small, 1 << 20)
            assert await asyncio.wait([large.task, small.task], timeout=0.01) == (set(), {large.task, small.task})
            memory.take(small, 1 << 20)
            await asyncio.wait([large.task], timeout=5)
            assert (large.evicted, large.task.cancelled()) == (True, True)
            with pytest.raises(uploads.HTTPException, match='503'):
                memory.take(small, 9 << 20)
            small.task.cancel()
        with memory.upload() as upload:
            memory.take(upload, 9 << 20)  # the memory of the others is free again

    asyncio.run(scenario())


def test_an_upload_beyond_the_memory_for_uploads_gets_503():
    with client_of(limits(body=4 << 20, total=2 << 20)) as client:
        large = RED + bytes(3 << 20)
        for request in ({'files': upload(large)}, {'content': large, **IMAGE}):
            answer = client.post('/predict', **request)
            assert (answer.status_code, answer.headers['Retry-After']) == (503, '1')
            assert 'memory' in answer.json()['detail']
            assert client.post('/predict', files=upload(RED)).status_code == 200


def test_an_upload_that_the_machine_has_no_memory_for_gets_503(client, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(uploads.mmap, 'mmap', lambda *args: os.stat('/nowhere'))
        answer = client.post('/predict', files=upload(RED))
        assert (answer.status_code, answer.headers['Retry-After']) == (503, '1')
    assert client.post('/predict', files=upload(RED)).status_code == 200


def test_an_unexpected_exception_gives_500_and_is_logged_once(client, monkeypatch, caplog):
    async def fails(*args):
        raise ZeroDivisionError('of a library')

    monkeypatch.setattr(uploads, 'read', fails)
    for _ in range(3):
        answer = client.post('/predict', files=upload(RED))
        assert (answer.status_code, answer.json()['detail'][:17]) == (500, 'the server failed')
    assert 'zodiac_requests_total{model="colours",status="500",version="1"} 3.0' in client.get('/metrics').text
    (record,) = [record for record in caplog.records if record.levelname == 'ERROR']
    assert record.exc_info and 'of a library' in record.getMessage()


CHARSETS = ['utf-8', 'punycode', 'idna', 'undefined', 'utf-7', 'rot13', 'hex', 'no-such', '"']


@pytest.mark.parametrize('charset', CHARSETS)
def test_the_charset_of_a_form_is_ignored(client, charset):
    """Some Python codecs take minutes for a megabyte, and some raise unusual exceptions."""
    part = 'Content-Disposition: form-data; name="file"; filename="红.png"\r\n\r\nhello\r\n'
    fields = 'Content-Disposition: form-data; name="a"\r\n\r\n' + 'xn--a-b.' * 10_000 + 'a' * 50_000 + '-\r\n'
    body = f'--b\r\n{fields}--b\r\n{part}--b--\r\n'.encode()
    headers = {'Content-Type': f'multipart/form-data; boundary=b; charset={charset}'}
    answer = client.post('/predict', content=body, headers=headers)
    assert (answer.status_code, answer.json()['detail']) == (422, '红.png: not an image')


def test_a_file_without_a_name_is_numbered_in_messages(client):
    body = PART + RED + b'\r\n' + PART.replace(b'a.png', b'') + b'\r\n--b--\r\n'
    answer = client.post('/predict', **form(body))
    assert (answer.status_code, answer.json()['detail']) == (422, 'file 2: not an image (the file is empty)')


BETWEEN = b"""--b|--b\r\n|--b--|\r\n|\r\n\r\n|\r|--|a: b\r\n|Content-Disposition: |form-data; name="file"|; name=|; filename""".split(
    b'|'
)
PIECES = [PART, RED, b'x' * 9000, bytes(range(256)), b"; filename*=x'y'%ff", b'; filename="\xff', *BETWEEN]


@hypothesis.settings(max_examples=200, derandomize=True, deadline=None)
@hypothesis.given(
    pieces=strategies.lists(strategies.sampled_from(PIECES), max_size=12),
    cuts=strategies.lists(strategies.integers(1, 300), min_size=1, max_size=5),
)
def test_no_form_causes_a_server_error_however_its_bytes_arrive(fuzzed, pieces, cuts):
    body = b'--b\r\n' + b''.join(pieces)
    chunks, start = [], 0
    while start < len(body):
        chunks.append(body[start : start + cuts[len(chunks) % len(cuts)]])
        start += len(chunks[-1])
    headers = {'Content-Type': 'multipart/form-data; boundary=b'}
    answer = fuzzed.post('/predict', content=iter(chunks), headers=headers)
    assert answer.status_code in (200, 400, 413, 422)


@pytest.fixture(scope='module')
def fuzzed():
    with client_of() as client:
        yield client


def test_the_images_of_one_request_do_not_delay_those_of_another(monkeypatch):
    read, order, gate = transforms.read, [], threading.Event()

    def note(transform, file, **others):
        order.append(len(file.getvalue()))
        assert gate.wait(20)
        return read(transform, file, **others)

    monkeypatch.setattr(transforms, 'read', note)
    monkeypatch.setattr(application.device, 'cores', lambda: 1)
    large = filled('blue', (300, 200))
    with client_of() as client, concurrent.futures.ThreadPoolExecutor(2) as pool:
        many = pool.submit(client.post, '/predict', files=upload(*[large] * 10))
        while not order:
            time.sleep(0.01)
        one = pool.submit(client.post, '/predict', files=upload(RED))
        while 'in_progress 2.0' not in client.get('/metrics').text:
            time.sleep(0.01)
        time.sleep(0.2)  # wait until it has arrived
        gate.set()
        assert one.result().status_code == many.result().status_code == 200
    assert order.index(len(RED)) <= 2


def test_options_lists_the_methods(client):
    for path, methods in {'/predict': 'OPTIONS, POST', '/readyz': 'GET, HEAD, OPTIONS'}.items():
        answer = client.options(path)
        assert (answer.status_code, answer.headers['Allow']) == (200, methods)
        answer = client.delete(path)
        assert (answer.status_code, answer.headers['Allow']) == (405, methods)


def test_the_rest_of_a_request_is_cancelled_once_an_image_is_refused(monkeypatch):
    read, started = transforms.read, []

    def slow(*args, **others):
        started.append(1)
        time.sleep(0.1)
        return read(*args, **others)

    monkeypatch.setattr(transforms, 'read', slow)
    monkeypatch.setattr(application.device, 'cores', lambda: 1)
    with client_of() as client:
        assert client.post('/predict', files=upload(b'hello', *[RED] * 10)).status_code == 422
        assert client.post('/predict', files=upload(RED)).status_code == 200
    assert len(started) < 5


def test_there_are_no_redirects_to_the_host_in_the_request(client):
    answer = client.post('/predict/', headers={'Host': 'evil.example'}, follow_redirects=False)
    assert (answer.status_code, 'Location' in answer.headers) == (404, False)


def test_the_api_description_includes_401_and_retry_after():
    paths = application.create(served(), limits(), token='secret').openapi()['paths']
    assert '401' in paths['/metrics']['get']['responses']
    assert 'Retry-After' in paths['/predict']['post']['responses']['503']['headers']


def test_metrics(client):
    client.post('/predict', files=upload(RED, RED))
    client.post('/predict', files=upload(b'hello'))

    answer = client.get('/metrics')
    assert answer.headers['Content-Type'] == 'text/plain; version=0.0.4; charset=utf-8'
    lines = dict(line.rsplit(' ', 1) for line in answer.text.splitlines() if line[0] != '#')

    assert float(lines['zodiac_requests_total{model="colours",status="200",version="1"}']) == 1
    assert float(lines['zodiac_requests_total{model="colours",status="422",version="1"}']) == 1
    assert float(lines['zodiac_images_total{model="colours",version="1"}']) == 2
    assert float(lines['zodiac_batch_images_sum{model="colours",version="1"}']) == 2
    assert float(lines['zodiac_request_seconds_count{model="colours",version="1"}']) == 2
    assert float(lines['zodiac_requests_in_progress']) == 0


def test_no_route_takes_a_path():
    app = application.create(served(), limits())
    described = app.openapi()
    assert list(described['paths'])[:5] == ['/predict', '/models/{name}/predict', '/healthz', '/readyz', '/metrics']
    parameters = [
        parameter
        for path in described['paths'].values()
        for way in path.values()
        for parameter in way.get('parameters', [])
    ]
    assert {parameter['name'] for parameter in parameters} == {'top', 'name', 'version'}


@pytest.mark.parametrize('address', ['/', '/docs'])
def test_pages_load_nothing_from_other_hosts(client, address):
    answer = client.get(address)
    assert answer.status_code == 200
    assert re.findall(r'(?:https?:)?//[\w.-]+\.\w+', answer.text) == []


def test_the_page_may_only_run_its_own_scripts(client):
    answer = client.get('/')
    policy = answer.headers['Content-Security-Policy']
    for kind, tag, count in (('script-src', 'script', 2), ('style-src', 'style', 1)):
        contents = re.findall(f'<{tag}>(.*?)</{tag}>', answer.text, re.S)
        assert len(contents) == count
        digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents]
        assert f'{kind} ' + ' '.join(f"'sha256-{digest}'" for digest in digests) in policy
    assert "default-src 'none'" in policy and 'unsafe' not in policy


def test_the_page_gives_the_classes_and_the_accuracy_that_was_measured():
    measured = {'n': 612, 'top1': 0.9722, 'interval_95': [0.956, 0.9826], 'guess': 0.149, 'folds': 5}
    for known in (measured, {**measured, 'folds': None}, None):
        model = exported_model.ExportedModel('pets', LABELS, TRANSFORM, {}, shares, measured=known)
        with TestClient(application.create(served(model), limits())) as client:
            page = client.get('/').text
        assert all(f'<li>{label}</li>' in page for label in LABELS)
        assert ('612 photos' in page and '95.6% to 98.3%; guessing: 14.9%' in page) == bool(known)
        assert ('Over 5 folds of 612 photos' in page) == bool(known and known['folds'])


def test_the_page_shows_the_photos_of_the_export_unless_a_token_is_required():
    photos = np.zeros((14, 8, 8, 3), np.uint8)
    model = exported_model.ExportedModel('pets', LABELS, TRANSFORM, {}, shares, examples=photos)
    for token, shown in ((None, 12), ('secret', 0)):
        with TestClient(application.create(served(model), limits(), token=token)) as client:
            assert client.get('/').text.count('<img src="data:image/jpeg;base64,') == shown


def test_a_name_cannot_break_the_page():
    model = exported_model.ExportedModel('<script>x', LABELS, TRANSFORM, {}, shares)
    with TestClient(application.create(served(model), limits())) as client:
        assert '<h1>&lt;script&gt;x</h1>' in client.get('/').text
