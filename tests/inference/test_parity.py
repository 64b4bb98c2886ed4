"""The limits for the difference between an exported model and the network, in each precision."""

import numpy as np
import pytest

import config
from zodiac.base.errors import UserError
from zodiac.inference import parity
from zodiac.inference.exported_model import softmax

N, CLASSES = 40, 5
LABELS = np.arange(N) % CLASSES
LOGITS = np.random.default_rng(0).normal(0, 3, (N, CLASSES)).astype('float32')
LOGITS[np.arange(N), LABELS] += 6


def compare(got, precision='fp32', engine='openvino', expected=LOGITS, probabilities=None, **settings):
    exports = config.Export(**settings)
    outputs = {'probabilities': softmax(got) if probabilities is None else probabilities, 'logits': got}
    return parity.compare(engine, precision, expected, outputs, LABELS, exports)


def off_by(share, logits=LOGITS):
    """Logits changed by a share of their spread, up or down at random."""
    signs = np.random.default_rng(1).choice([-1, 1], logits.shape)
    return (logits + share * parity.spread(logits) * signs).astype('float32')


def test_loss_and_accuracy_are_computed_from_the_logits():
    logits = np.array([[2, 0], [0, 2], [1000, -1000]], 'float32')
    one = np.log(1 + np.exp(-2))
    assert parity.quality(logits[:2], np.array([0, 0])) == {'top1': 0.5, 'loss': pytest.approx((one + 2 + one) / 2)}
    assert parity.quality(logits[2:], np.array([1])) == {'top1': 0.0, 'loss': pytest.approx(2000)}


def test_the_spread_is_between_the_classes_of_an_image_not_between_images():
    assert parity.spread(np.array([[1, -1], [101, 99]], 'float32')) == pytest.approx(1)


@pytest.mark.parametrize(('precision', 'passes', 'fails'), [('fp32', 1e-5, 3e-3), ('int8', 0.1, 0.3)])
@pytest.mark.parametrize('factor', [1, 1000])
def test_a_network_with_probabilities_of_0_and_1_is_compared_as_strictly_as_others(precision, passes, fails, factor):
    logits = factor * LOGITS
    kept = compare(off_by(passes, logits), precision, expected=logits)
    assert kept['logit_difference'] == pytest.approx(passes, rel=0.1) and kept['precision'] == precision
    assert kept['allowed']['logit_difference'] == parity.LOGITS[precision]
    with pytest.raises(UserError, match=f'openvino .*{precision}.* a logit by .* export.logit_tolerance = '):
        compare(off_by(fails, logits), precision, expected=logits)


def test_a_softmax_in_8_bits_is_found_although_the_logits_are_right():
    """Its steps of 1/255 and zeros doubled the loss."""
    with pytest.raises(UserError, match='a probability by 1 of itself from the softmax of its own logits'):
        compare(LOGITS, 'int8', probabilities=np.round(softmax(LOGITS) * 255) / 255)


def test_a_worse_loss_is_found_although_each_image_keeps_its_class():
    """All logits closer together, as with a wrong temperature."""
    with pytest.raises(UserError, match=r'the loss by 0\.\d+ \(limit: export.loss_tolerance = 0.05\)'):
        compare(LOGITS * 0.3, 'int8', logit_tolerance=10.0)


def test_another_class_for_too_many_images_is_found():
    swapped = LOGITS.copy()
    swapped[:2] = swapped[:2, ::-1]
    settings = {'logit_tolerance': 100.0, 'loss_tolerance': 10.0}
    with pytest.raises(UserError, match=r'same top-1 on 95\.0% .*export.agreement = 0.98'):
        compare(swapped, 'int8', **settings)
    assert compare(swapped, 'int8', agreement=0.9, **settings)['top1_agreement'] == 0.95
    with pytest.raises(UserError, match='export.tolerance = '):
        compare(swapped, **settings)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_nan_and_infinity_exceed_every_limit(value):
    broken = LOGITS.copy()
    broken[3, 2] = value
    with np.errstate(invalid='ignore'), pytest.raises(UserError, match='by inf'):
        compare(broken, 'int8', probabilities=softmax(LOGITS))


def test_differences_of_equal_logits_are_not_divided_by_their_spread():
    flat = np.zeros_like(LOGITS)
    assert compare(flat + 1e-7, expected=flat)['logit_difference'] < 1e-3
    with pytest.raises(UserError, match='a logit'):
        compare(flat + 0.01, expected=flat)
