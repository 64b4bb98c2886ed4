"""Paddle Inference runs a static graph, with oneDNN or, where that fails, without it."""

import numpy as np
import pytest

from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.inference import paddle_engine
from zodiac.models import convert

BATCH = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)


class Enlarging(paddle.nn.Layer):
    """float32 [N, 3, 8, 8] -> [N, 3]; Paddle 3.3 does not pass the scale of `interpolate` to oneDNN, and fails at the first batch."""

    def __init__(self):
        super().__init__()
        self.convolution = paddle.nn.Conv2D(3, 3, 3)

    def forward(self, image):
        return paddle.nn.functional.interpolate(self.convolution(image), scale_factor=2, mode='bilinear').mean([2, 3])


@pytest.fixture
def enlarging(tmp_path):
    """A layer, and the files of its static graph."""
    layer = Enlarging()
    layer.eval()
    convert.save_static(layer, str(tmp_path / 'a'), [-1, 3, 8, 8], 'float32')
    graph = next(str(path) for path in tmp_path.iterdir() if path.suffix in ('.json', '.pdmodel'))
    return layer, graph, str(tmp_path / 'a.pdiparams')


def test_a_graph_that_fails_with_onednn_runs_without_it(enlarging, capsys):
    layer, graph, weights = enlarging
    run = paddle_engine.runner(graph, weights, 'cpu')
    for count in (2, 1):
        expected = layer(paddle.to_tensor(BATCH[:count])).numpy()
        np.testing.assert_allclose(run(BATCH[:count])[0], expected, atol=1e-5)
    if paddle.__version__.startswith('3.3'):
        printed = capsys.readouterr().err
        assert printed.count('\n') == 1 and printed.startswith(f'{graph}: oneDNN cannot run it (')
        assert 'ConvertPirAttribute2RuntimeAttribute' in printed and printed.endswith(
            'docs/troubleshooting.md#onednn\n'
        )


class Failing:
    """A predictor that raises where oneDNN is on, or always."""

    def __init__(self, predictor, fails):
        self.predictor, self.fails = predictor, fails

    def __getattr__(self, name):
        return getattr(self.predictor, name)

    def run(self):
        if self.fails:
            raise NotImplementedError('stack\n(Unimplemented) no such attribute  (at /paddle/onednn.cc:116)\n')
        return self.predictor.run()


@pytest.mark.parametrize('place', ['first run', 'creation'])
def test_the_first_failure_of_onednn_turns_it_off_and_is_reported_once(enlarging, monkeypatch, capsys, place):
    layer, graph, weights = enlarging
    create, modes = paddle.inference.create_predictor, []

    def created(config):
        modes.append(config.mkldnn_enabled())
        if place == 'creation' and modes[-1]:
            raise RuntimeError('could not create a primitive descriptor')
        return Failing(create(config), modes[-1])

    monkeypatch.setattr(paddle.inference, 'create_predictor', created)
    run = paddle_engine.runner(graph, weights, 'cpu')
    for _ in range(3):
        np.testing.assert_allclose(run(BATCH)[0], layer(paddle.to_tensor(BATCH)).numpy(), atol=1e-5)
    assert modes == [True, False]
    assert capsys.readouterr().err.count('oneDNN cannot run it') == 1


def test_a_graph_that_fails_without_onednn_too_is_an_error_that_does_not_blame_onednn(enlarging, monkeypatch, capsys):
    _, graph, weights = enlarging
    create = paddle.inference.create_predictor
    monkeypatch.setattr(paddle.inference, 'create_predictor', lambda config: Failing(create(config), True))
    with pytest.raises(UserError, match=r'Paddle cannot run it \(\(Unimplemented\) no such attribute\)'):
        paddle_engine.runner(graph, weights, 'cpu')(BATCH)
    assert 'oneDNN' not in capsys.readouterr().err
