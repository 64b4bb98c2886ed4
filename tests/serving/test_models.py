"""Several models in a server, their versions, and new exports that are put in place of those that are served."""

import asyncio
import concurrent.futures
import contextlib
import gc
import shutil
import sys
import threading
import time
import weakref

import pytest
from conftest import ROOT, assert_message, run_script
from small_server import filled, limits, model_of, picture_of, served, shares

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.inference import export_folder

httpx = pytest.importorskip('httpx', reason='requirements-dev.txt is not installed')
pytest.importorskip('uvicorn', reason='requirements-serve.txt is not installed')
from fastapi.testclient import TestClient  # noqa: E402

from zodiac.serving import application  # noqa: E402
from zodiac.serving.models import Models  # noqa: E402

sys.path.append(str(ROOT / 'benchmarks'))
from served import export_colours, serving  # noqa: E402

CLIENTS = 8
GERMAN = ['rot', 'grün', 'blau']


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    return export_colours(tmp_path_factory.mktemp('colours') / 'infer')


def changed(folder, **others):
    """Change entries of inference.yaml, as if it had been exported so."""
    export_folder.write_manifest(folder, {**export_folder.read_manifest(folder), **others})


def put(exported, infer, **others):
    """Export again, as export.py does: the new folder replaces the old one in one step."""
    with files.atomic_folder(str(infer)) as folder:
        shutil.copytree(exported, folder, dirs_exist_ok=True)
        changed(folder, **others)


def label_of(address, path='/predict'):
    return httpx.post(f'{address}{path}', files={'file': picture_of('blue')}).json()['label']


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def text_of(said):
    said.seek(0)
    return said.read()


@contextlib.contextmanager
def clients(address, count=CLIENTS):
    """`count` clients that send a photo again and again in the block; yields the answers, (status, label or reason)."""
    done, found = threading.Event(), []

    def send():
        with httpx.Client(base_url=address, timeout=30) as client:
            while not done.is_set():
                try:
                    answer = client.post('/predict', files={'file': picture_of('blue')})
                    found.append((answer.status_code, answer.json().get('label')))
                except httpx.HTTPError as error:
                    found.append((None, repr(error)))

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        sending = [pool.submit(send) for _ in range(count)]
        try:
            yield found
        finally:
            done.set()
            for one in sending:
                one.result()


def test_no_request_is_lost_while_new_exports_are_taken(exported, tmp_path):
    infer = tmp_path / 'infer'
    shutil.copytree(exported, infer)
    with serving(infer, '--watch', '0.1', '--no-access-log') as (address, _, said):
        version = httpx.get(f'{address}/readyz').json()['version']
        with clients(address) as found:
            for labels, expected in ((GERMAN, 'blau'), (['r', 'g', 'b'], 'b'), (GERMAN, 'blau')):
                put(exported, infer, labels=labels)
                wait_until(lambda: label_of(address) == expected)  # noqa: B023
        assert {status for status, _ in found} == {200}, found[:3]
        assert {label for _, label in found} >= {'blue', 'blau', 'b'} and len(found) > 50
        assert httpx.get(f'{address}/readyz').json()['version'] != version
        metrics = httpx.get(f'{address}/metrics').text
        assert 'zodiac_new_exports_total{model="colours",result="taken"} 3.0' in metrics
        assert metrics.count('zodiac_model_info{') == 1
        assert '<li>blau</li>' in httpx.get(address).text
        assert text_of(said).count('colours: serving version') == 3


def rename(infer, name):
    """Give an export another name, which its files have too."""
    about = export_folder.read_manifest(infer)
    for file in about['sha256']:
        (infer / file).rename(infer / file.replace('colours', name))
    hashes = {file.replace('colours', name): digest for file, digest in about['sha256'].items()}
    changed(infer, name=name, sha256=hashes)


def write_other_weights(infer):
    (infer / 'colours.pdiparams').write_bytes(b'x')
    changed(infer, labels=GERMAN)


BROKEN = {
    'colours.pdiparams: was changed': write_other_weights,
    'inference.yaml: was changed': lambda infer: (infer / 'inference.yaml').write_text('name: colours\n'),
    'it is named cats': lambda infer: rename(infer, 'cats'),
}


@pytest.mark.parametrize('words', BROKEN)
def test_a_broken_export_is_refused_and_the_old_one_stays(exported, tmp_path, words):
    infer = tmp_path / 'infer'
    shutil.copytree(exported, infer)
    with serving(infer, '--watch', '0.1', '--no-access-log') as (address, process, said):
        BROKEN[words](infer)
        wait_until(lambda: 'the new export is refused' in text_of(said))
        assert words in text_of(said) and 'Traceback' not in text_of(said)
        assert label_of(address) == 'blue' and httpx.get(f'{address}/readyz').status_code == 200
        assert 'zodiac_new_exports_total{model="colours",result="refused"} 1.0' in httpx.get(f'{address}/metrics').text
        put(exported, infer, labels=GERMAN)
        wait_until(lambda: label_of(address) == 'blau')
        assert process.poll() is None


def test_versions_come_and_go_with_their_folders(exported, tmp_path):
    shutil.copytree(exported, tmp_path / '1')
    with serving(tmp_path, '--watch', '0.1', '--no-access-log') as (address, _, said):
        put(exported, tmp_path / '2', labels=GERMAN)
        wait_until(lambda: label_of(address) == 'blau')
        assert httpx.get(f'{address}/v2/models/colours').json()['versions'] == ['1', '2']
        shutil.rmtree(tmp_path / '2')
        wait_until(lambda: label_of(address) == 'blue')
        shutil.rmtree(tmp_path / '1')  # the last one stays
        time.sleep(0.5)
        assert label_of(address) == 'blue'
        assert 'version 2 is gone' in text_of(said)


def test_an_old_model_answers_its_requests_and_is_then_freed():
    async def scenario():
        models, new = served(), served().get()
        await models.start()
        with models.use() as old:
            await models.replace('colours', new)
            assert models.get() is new
            await asyncio.sleep(0.2)
            assert (await old.batcher.predict(old.blank)).finite
        freed = weakref.ref(old.model)
        del old
        await asyncio.sleep(0.2)
        gc.collect()
        assert freed() is None
        await models.stop()

    asyncio.run(scenario())


def test_the_first_model_stays_the_first_when_its_versions_change():
    async def scenario():
        models = served(model_of(), model_of(name='other'))
        await models.start()
        await models.replace('colours/2', served().get())
        models.drop('colours')
        assert models.names == ['colours', 'other'] and models.get().name == 'colours'
        await models.stop()

    asyncio.run(scenario())


def test_each_model_answers_at_its_own_address():
    inverted = model_of(lambda batch: shares(1 - batch), 'inverted <i>')
    with TestClient(application.create(served(model_of(), inverted), limits())) as client:
        upload = {'files': {'file': filled((0, 255, 255))}}
        assert client.post('/predict', **upload).json()['label'] != '红'
        assert client.post('/models/inverted <i>/predict', **upload).json()['label'] == '红'
        assert client.post('/models/cats/predict', **upload).status_code == 404
        assert client.get('/v2/models').json() == {'models': ['colours', 'inverted <i>']}
        assert client.get('/readyz').json()['model'] == 'colours'
        page, other = client.get('/').text, client.get('/models/inverted <i>/').text
        assert '<a href="models/inverted%20%3Ci%3E/">inverted &lt;i&gt;</a>' in page
        assert '<a href="../../">colours</a>' in other and '<a href="../../docs">' in other
        assert client.get('/models/inverted <i>').status_code == client.get('/models/cats/').status_code == 404
        metrics = client.get('/metrics').text
        assert 'zodiac_images_total{model="inverted <i>",version="1"} 1.0' in metrics


def test_a_model_that_fails_makes_the_server_not_ready_and_the_others_answer():
    with TestClient(application.create(served(model_of(), model_of(lambda batch: 1 / 0, 'bad')), limits())) as client:
        upload = {'files': {'file': filled('red')}}
        assert client.post('/models/bad/predict', **upload).status_code == 500
        assert client.post('/predict', **upload).status_code == 200
        assert client.get('/readyz').json()['detail'].startswith('bad: the model failed')
        assert client.get('/v2/models/bad/ready').status_code == 503
        assert client.get('/v2/models/colours/ready').status_code == 200


def test_exports_of_the_same_name_need_folders_with_numbers(exported, tmp_path):
    for name in ('a', 'b'):
        shutil.copytree(exported, tmp_path / name)
    result = run_script('serve.py', 'a', '--port', '0', 'b', cwd=tmp_path)
    assert_message(result, 2, 'b: there is another export named colours', 'colours/1')


def test_a_folder_without_exports_ends_in_a_message(tmp_path):
    (tmp_path / '1').mkdir()
    assert_message(run_script('serve.py', '.', cwd=tmp_path), 1, 'not an exported model')


def test_an_export_that_changes_while_it_is_read_is_not_taken(exported, tmp_path):
    shutil.copytree(exported, tmp_path / 'infer')

    def load(folder, old):
        changed(folder, labels=GERMAN)
        return model_of()

    with pytest.raises(UserError, match='exported again while it was being read'):
        Models([str(tmp_path / 'infer')], load)
