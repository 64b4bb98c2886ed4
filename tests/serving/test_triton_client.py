"""NVIDIA's client for the Open Inference Protocol against serve.py as a process."""

import shutil
import sys
import urllib.parse

import numpy as np
import pytest
from conftest import ROOT
from small_server import picture_of

tritonclient = pytest.importorskip('tritonclient.http', reason='requirements-dev.txt is not installed')
httpx = pytest.importorskip('httpx', reason='requirements-dev.txt is not installed')
pytest.importorskip('uvicorn', reason='requirements-serve.txt is not installed')
from tritonclient.utils import InferenceServerException  # noqa: E402

sys.path.append(str(ROOT / 'benchmarks'))
from served import export_colours, serving  # noqa: E402


@pytest.fixture(scope='module')
def infer(tmp_path_factory):
    return export_colours(tmp_path_factory.mktemp('colours') / 'infer')


@pytest.fixture(scope='module')
def address(infer, tmp_path_factory):
    versions = tmp_path_factory.mktemp('versions')
    for number in ('2', '10'):
        shutil.copytree(infer, versions / number)
    with serving(versions) as (address, _, _):
        yield address


@pytest.fixture
def client(address):
    with tritonclient.InferenceServerClient(urllib.parse.urlsplit(address).netloc) as client:
        yield client


def files(*contents, binary=True):
    found = tritonclient.InferInput('image', [len(contents)], 'BYTES')
    found.set_data_from_numpy(np.array(contents, object), binary_data=binary)
    return found


def test_it_reads_what_the_server_has(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()['extensions'] == ['binary_tensor_data', 'classification']
    assert client.is_model_ready('colours') and client.is_model_ready('colours', '2')
    assert not client.is_model_ready('cats')
    about = client.get_model_metadata('colours')
    assert about['versions'] == ['2', '10']
    assert [output['name'] for output in about['outputs']] == ['probabilities', 'label', 'logits']


def test_image_files_give_the_answers_of_predict(client, address):
    colours = ['红', 'green', 'blue', 'green']
    result = client.infer('colours', [files(*map(picture_of, colours))], request_id='7')
    assert result.get_response()['id'] == '7'
    assert [label.decode() for label in result.as_numpy('label')] == colours
    probabilities = result.as_numpy('probabilities')
    assert (probabilities.shape, probabilities.dtype) == ((4, 3), np.float32)
    known = httpx.post(f'{address}/predict?top=1', files={'file': picture_of('blue')}).json()
    assert probabilities[2].max() == pytest.approx(known['probability'])
    logits = np.exp(result.as_numpy('logits'))
    assert logits / logits.sum(1, keepdims=True) == pytest.approx(probabilities, abs=1e-6)


@pytest.mark.parametrize('binary', [True, False])
def test_tensors_and_outputs_may_be_binary_or_json(client, binary):
    tensor = tritonclient.InferInput('image', [1, 3, 32, 32], 'FP32')
    red = np.zeros((1, 3, 32, 32), np.float32)
    red[:, 0] = 1
    tensor.set_data_from_numpy(red, binary_data=binary)
    outputs = [tritonclient.InferRequestedOutput(name, binary_data=binary) for name in ('label', 'probabilities')]
    result = client.infer('colours', [tensor], outputs=outputs)
    assert result.as_numpy('label').tolist() == (['红'.encode()] if binary else ['红'])
    assert result.as_numpy('probabilities').argmax() == 0
    assert result.as_numpy('logits') is None


def test_it_asks_for_a_version_and_for_classification(client):
    outputs = [tritonclient.InferRequestedOutput('probabilities', class_count=2)]
    for version, expected in (('2', '2'), ('10', '10'), ('', '10')):
        result = client.infer('colours', [files(picture_of('blue'))], model_version=version, outputs=outputs)
        assert result.get_response()['model_version'] == expected
        value, number, label = result.as_numpy('probabilities')[0, 0].decode().split(':')
        assert (float(value) > 0.9, number, label) == (True, '2', 'blue')


@pytest.mark.parametrize(
    ('model', 'version', 'content', 'status', 'words'),
    [
        ('cats', '', picture_of('blue'), '404', 'no model'),
        ('colours', '3', picture_of('blue'), '404', 'no version'),
        ('colours', '', b'hello', '400', 'not an image'),
    ],
)
def test_it_shows_why_a_request_was_refused(client, model, version, content, status, words):
    with pytest.raises(InferenceServerException, match=words) as refused:
        client.infer(model, [files(content)], model_version=version)
    assert refused.value.status() == status


def test_it_sends_the_token(infer, monkeypatch):
    monkeypatch.setenv('ZODIAC_TOKEN', 'secret')
    with (
        serving(infer) as (address, _, _),
        tritonclient.InferenceServerClient(urllib.parse.urlsplit(address).netloc) as client,
    ):
        with pytest.raises(InferenceServerException, match='Authorization'):
            client.infer('colours', [files(picture_of('blue'))])
        headers = {'Authorization': 'Bearer secret'}
        result = client.infer('colours', [files(picture_of('blue'))], headers=headers)
        assert result.as_numpy('label').tolist() == [b'blue']
