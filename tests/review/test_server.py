"""The server of the page: what it answers, what it refuses, and what it keeps."""

import io
import json

import pytest

pytest.importorskip('cleanlab', reason='requirements-review.txt is not installed')

from conftest import files_below
from fastapi.testclient import TestClient
from PIL import Image
from small_review import HOST, TOKEN, make

from zodiac.data import corrections
from zodiac.review import server

ORIGIN = {'origin': f'http://{HOST}'}


@pytest.fixture
def client(workdir):
    return TestClient(
        server.create(make(workdir), TOKEN, [HOST, 'localhost:8001']), f'http://{HOST}', raise_server_exceptions=False
    )


def decide(client, number=0, action='keep', label='', reason='', seen=0, headers=ORIGIN):
    body = {'number': number, 'action': action, 'label': label, 'reason': reason, 'seen': seen}
    return client.post(f'/{TOKEN}/decide', json=body, headers=headers)


def state(client):
    return client.get(f'/{TOKEN}/state').json()


def test_a_decision_is_in_the_file_before_it_is_answered_and_in_the_state(client):
    answer = decide(client, action='relabel', label='dog', reason='it barks')
    assert answer.status_code == 200
    kept = corrections.read('photos')['photos/cat/cat_0.png']
    assert (kept.action, kept.label, kept.given, kept.reason) == ('relabel', 'dog', 'cat', 'it barks')
    expected = {'action': 'relabel', 'label': 'dog', 'reason': 'it barks', 'line': 2}
    assert answer.json() == state(client)['items'][0]['decision'] == expected


def test_undo_is_another_line_and_photos_are_not_changed(client, workdir):
    before = {path: content for path, content in files_below('.').items() if path.endswith('.png')}
    for action, seen in (('drop', 0), ('undo', 2)):
        assert decide(client, action=action, seen=seen).status_code == 200
    assert (workdir / 'photos/corrections.csv').read_text().count('\n') == 3
    assert {path: content for path, content in files_below('.').items() if path.endswith('.png')} == before


def test_a_second_tab_does_not_overwrite_the_first(client):
    assert decide(client, action='drop').status_code == 200
    answer = decide(client, action='keep')
    assert answer.status_code == 409 and answer.json()['decision']['action'] == 'drop'
    assert corrections.read('photos')['photos/cat/cat_0.png'].action == 'drop'
    assert decide(client, action='keep', seen=2).status_code == 200


def test_a_decision_on_another_photo_does_not_disturb(client):
    assert decide(client, 0, 'keep').status_code == 200
    assert decide(client, 3, 'drop').status_code == 200


def test_a_new_photo_gets_a_label(client):
    assert decide(client, 6, 'label', 'cat').status_code == 200
    assert corrections.read('photos')['new/n.png'][2:5] == ('label', 'cat', '')


@pytest.mark.parametrize(
    'wrong',
    [
        {'number': 1},  # is shown beside others only
        {'number': None},
        {'action': 'delete'},
        {'action': 'label', 'label': 'dog'},  # it has a label
        {'action': 'relabel', 'label': 'cow'},
        {'action': 'relabel', 'label': ['dog']},
        {'number': 6, 'action': 'keep'},
        {'reason': None},
        {'seen': None},
        {'seen': True},
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(client, wrong):
    body = {'number': 0, 'action': 'keep', 'label': '', 'reason': '', 'seen': 0, **wrong}
    assert client.post(f'/{TOKEN}/decide', json=body, headers=ORIGIN).status_code == 422
    assert corrections.read('photos') == {}


@pytest.mark.parametrize(
    ('content', 'status'), [(b'', 422), (b'[]', 422), (b'{', 422), (b'\xff', 422), (b'{"a": "' + b'x' * 20000, 413)]
)
def test_bodies_that_are_no_decision_are_refused(client, content, status):
    headers = {**ORIGIN, 'content-type': 'application/json'}
    assert client.post(f'/{TOKEN}/decide', content=content, headers=headers).status_code == status


@pytest.mark.parametrize(
    ('path', 'headers'),
    [
        ('/', {}),
        ('/state', {}),
        ('/guess/state', {}),
        (f'/{TOKEN}', {}),
        (f'/{TOKEN}/state', {'host': 'evil.example'}),  # DNS rebinding
        (f'/{TOKEN}/state', {'host': '127.0.0.1:9999'}),
        (f'/{TOKEN}/state', {'origin': 'http://evil.example'}),
        (f'/{TOKEN}/state', {'origin': 'null'}),
        (f'/{TOKEN}/photo/0', {'sec-fetch-site': 'cross-site'}),
    ],
)
def test_only_the_page_itself_reads(client, path, headers):
    answer = client.get(path, headers=headers)
    assert answer.status_code == 403 and 'photos' not in answer.text
    assert not any(name.startswith('access-control') for name in answer.headers)


@pytest.mark.parametrize(
    'headers', [{}, {'origin': 'http://evil.example'}, {'origin': 'null'}, {**ORIGIN, 'content-type': 'text/plain'}]
)
def test_only_the_page_itself_decides(client, headers):
    body = json.dumps({'number': 0, 'action': 'drop', 'label': '', 'reason': '', 'seen': 0})
    answer = client.post(f'/{TOKEN}/decide', content=body, headers={'content-type': 'application/json', **headers})
    assert answer.status_code == 403 and corrections.read('photos') == {}


def test_other_sites_get_no_permission_to_ask(client):
    answer = client.options(f'/{TOKEN}/decide', headers={'origin': 'http://evil.example'})
    assert answer.status_code == 403 and not any(name.startswith('access-control') for name in answer.headers)


def test_the_page_may_load_nothing_from_elsewhere(client):
    answer = client.get(f'/{TOKEN}/')
    policy = answer.headers['content-security-policy']
    assert "default-src 'none'" in policy and "img-src 'self'" in policy and 'unsafe' not in policy
    assert answer.headers['referrer-policy'] == 'no-referrer' and answer.headers['cache-control'] == 'no-store'


def test_photos_are_sent_by_number_upright_and_not_larger_than_needed(client, workdir):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (3000, 1000), 'red').save('photos/cat/cat_0.png', exif=exif)
    sizes = []
    for query in ('', '?small=true'):
        answer = client.get(f'/{TOKEN}/photo/0{query}')
        assert answer.headers['content-type'] == 'image/jpeg'
        sizes.append(Image.open(io.BytesIO(answer.content)).size)
    assert [max(size) for size in sizes] == [1600, 320] and all(height > width for width, height in sizes)


@pytest.mark.parametrize('number', ['7', '-1', '../../etc/passwd', '%2e%2e%2fx', 'a'])
def test_other_files_are_not_sent(client, number):
    assert client.get(f'/{TOKEN}/photo/{number}').status_code in (403, 404, 422)


def test_a_photo_that_is_gone_is_a_404(client, workdir):
    (workdir / 'photos/cat/cat_0.png').unlink()
    assert client.get(f'/{TOKEN}/photo/0').status_code == 404


def test_a_file_with_a_bad_line_is_reported(client, workdir):
    (workdir / 'photos/corrections.csv').write_text('no\n')
    for answer in (client.get(f'/{TOKEN}/state'), decide(client)):
        assert answer.status_code == 500 and 'corrections.csv, line 1' in answer.json()['detail']
