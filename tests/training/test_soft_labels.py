"""Soft labels, mixup, CutMix, their loss, class weights and balanced sampling."""

import numpy as np
import pytest
from conftest import picture
from PIL import Image

import config
from dataset import Loader, ZodiacDataset
from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle
from zodiac.data.sampler import balanced_order
from zodiac.training.soft_labels import Loss, Mixer, balanced_weights, build_mixer

functional = paddle.nn.functional
KINDS = pytest.mark.parametrize('kind', ['mixup', 'cutmix'])


def numbered(count, height=20, width=14):
    """Images whose pixels all have the image's number, and the numbers as labels."""
    values = np.arange(count, dtype=np.float32)
    images = np.broadcast_to(values[:, None, None, None], (count, 3, height, width))
    return paddle.to_tensor(images.copy()), paddle.arange(count, dtype='int64')


def mixed(count=6, seed=0, height=20, width=14, **settings):
    """Images and labels, as arrays, after mixing numbered images with `count` classes."""
    images, labels = numbered(count, height, width)
    images, shares = Mixer(count, **settings)(images, labels, np.random.default_rng(seed))
    return images.numpy(), shares.numpy()


def partners(shares):
    """The weight of the first image of each pair and the number of the second, from labels where each image has its own class."""
    for row, values in enumerate(shares):
        assert np.count_nonzero(values) <= 2 and values[row] > 0
    others = [int(np.argmax(np.delete(values, row, 0))) for row, values in enumerate(shares)]
    others = [other + (other >= row) if np.count_nonzero(shares[row]) == 2 else row for row, other in enumerate(others)]
    share = [shares[row, row] for row, other in enumerate(others) if other != row]
    assert np.ptp(share) < 1e-6
    return float(share[0]), others


class Draws:
    """A numpy Generator whose Beta distribution always gives `share`."""

    def __init__(self, share, seed=0):
        rng = np.random.default_rng(seed)
        self.integers, self.permutation = rng.integers, rng.permutation
        self.beta = lambda a, b: share


# Labels


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.5])
def test_smoothing_spreads_probability_over_all_classes(smoothing):
    images, labels = numbered(3)
    same, shares = Mixer(4, smoothing)(images, labels, np.random.default_rng(0))
    expected = np.full((3, 4), smoothing / 4)
    expected[range(3), range(3)] = 1 - smoothing + smoothing / 4
    assert same is images
    assert (shares.dtype, shares.shape) == (paddle.float32, [3, 4])
    assert shares.numpy() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
@KINDS
def test_the_probabilities_of_a_label_sum_to_one(kind, smoothing):
    for seed in range(5):
        _, shares = mixed(seed=seed, smoothing=smoothing, **{kind: 1.0})
        assert shares.sum(1) == pytest.approx(np.ones(6), abs=1e-6)
        assert (shares >= 0).all()


@KINDS
def test_smoothed_labels_are_mixed_with_the_same_weight_as_plain_ones(kind):
    for seed in range(5):
        plain_images, plain = mixed(seed=seed, **{kind: 1.0})
        images, shares = mixed(seed=seed, smoothing=0.3, **{kind: 1.0})
        assert np.array_equal(images, plain_images)
        assert shares == pytest.approx(plain * 0.7 + 0.3 / 6, abs=1e-6)


# Images


def test_mixup_blends_images_and_labels_with_the_same_weight():
    rng = np.random.default_rng(3)
    pixels = rng.normal(size=(6, 3, 5, 4)).astype(np.float32)
    for seed in range(8):
        images, shares = Mixer(6, mixup=1.0)(
            paddle.to_tensor(pixels), paddle.arange(6, dtype='int64'), np.random.default_rng(seed)
        )
        share, others = partners(shares.numpy())
        assert sorted(others) == list(range(6))
        assert 0 < share < 1
        assert images.numpy() == pytest.approx(share * pixels + (1 - share) * pixels[others], abs=1e-5)
        for row, other in enumerate(others):
            assert shares.numpy()[row, other] == pytest.approx(1 if other == row else 1 - share, abs=1e-6)


@pytest.mark.parametrize('alpha', [0.2, 1.0, 4.0])
def test_the_weight_of_mixup_is_beta_distributed(alpha):
    drawn = np.array([mixed(2, seed, 1, 1, mixup=alpha)[0].ravel()[0] for seed in range(600)])
    drawn = drawn[drawn > 0]  # otherwise each image was its own partner
    assert 200 < len(drawn) < 400
    assert drawn.mean() == pytest.approx(0.5, abs=0.1)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)


def test_cutmix_pastes_one_box_and_weights_the_label_by_its_area():
    areas = []
    for seed in range(30):
        images, shares = mixed(seed=seed, cutmix=1.0, height=64, width=48)
        boxes = set()
        for row in range(6):
            values, counts = np.unique(images[row], return_counts=True)
            assert row in values or len(values) == 1
            assert set(np.flatnonzero(shares[row])) == set(values.astype(int))
            for value, count in zip(values.astype(int), counts):
                assert shares[row, value] == pytest.approx(count / images[row].size, abs=1e-6)
            pasted = images[row] != row
            if pasted.any():
                assert (pasted == pasted[0]).all()  # the same in each channel
                y, x = (np.flatnonzero(pasted[0].any(axis)) for axis in (1, 0))
                assert pasted[0].sum() == (y[-1] - y[0] + 1) * (x[-1] - x[0] + 1)
                boxes.add((y[0], y[-1], x[0], x[-1]))
        assert len(boxes) <= 1
        areas += [(bottom - top + 1) * (right - left + 1) for top, bottom, left, right in boxes]
    assert min(areas) < 300 and max(areas) > 1000


@pytest.mark.parametrize('share', [0.0, 0.25, 0.75, 0.99])
def test_a_cutmix_box_covers_about_the_drawn_share_of_the_area(share):
    seen = []
    for seed in range(40):
        images, labels = numbered(4, 40, 40)
        _, shares = Mixer(4, cutmix=1.0)(images, labels, Draws(share, seed))
        seen.append(partners(shares.numpy())[0] if shares.numpy().max() < 1 else 1.0)
    assert all(left >= share - 0.02 for left in seen)  # a box across the edge is clipped
    if share >= 0.75:
        assert min(seen) == pytest.approx(share, abs=0.02)


def test_a_cutmix_box_without_a_pixel_changes_nothing():
    images, labels = numbered(4)
    same, shares = Mixer(4, cutmix=1.0)(images, labels, Draws(1.0))
    assert np.array_equal(same.numpy(), images.numpy())
    assert np.array_equal(shares.numpy(), np.eye(4, dtype=np.float32))


def test_cutmix_works_with_a_small_alpha():
    for seed in range(20):
        mixed(seed=seed, cutmix=0.1)


def test_with_mixup_and_cutmix_each_batch_gets_one_of_them():
    kinds = []
    for seed in range(40):
        images, shares = mixed(seed=seed, mixup=1.0, cutmix=1.0, height=32, width=32)
        share, others = partners(shares)
        mine, theirs = (np.array(numbers).reshape(-1, 1, 1, 1) for numbers in (range(6), others))
        blend = np.abs(images - (share * mine + (1 - share) * theirs)).max() < 1e-4
        pasted = ((images == mine) | (images == theirs)).all()
        assert blend != pasted
        kinds.append(blend)
    assert 10 < sum(kinds) < 30


@pytest.mark.parametrize('settings', [{'mixup': 0.4}, {'cutmix': 1.0}, {'mixup': 0.4, 'cutmix': 1.0}])
def test_mixing_is_a_function_of_the_generator(settings):
    first, again, other = (mixed(seed=seed, smoothing=0.1, **settings) for seed in (7, 7, 8))
    assert all(np.array_equal(*pair) for pair in zip(first, again))
    assert not any(np.array_equal(*pair) for pair in zip(first, other))


@KINDS
def test_the_input_batch_is_not_changed(kind):
    images, labels = numbered(6)
    Mixer(6, 0.1, **{kind: 1.0})(images, labels, np.random.default_rng(0))
    assert np.array_equal(images.numpy(), numbered(6)[0].numpy())
    assert labels.numpy().tolist() == list(range(6))


@KINDS
def test_a_batch_of_one_image_is_not_changed(kind):
    image, label = paddle.to_tensor(np.full((1, 3, 20, 14), 3, np.float32)), paddle.to_tensor([2])
    images, shares = Mixer(4, **{kind: 1.0})(image, label, np.random.default_rng(0))
    assert images.numpy() == pytest.approx(image.numpy(), rel=1e-6)
    assert shares.numpy() == pytest.approx(np.eye(4)[[2]], abs=1e-6)


# The loss


def logits_of(images=5, classes=4, seed=0):
    return np.random.default_rng(seed).normal(size=(images, classes)).astype(np.float32) * 3


def log_softmax(logits):
    shifted = logits.astype(float) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def soft(images=5, classes=4, seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), images).astype(np.float32)


def value_and_gradient(loss, logits, labels):
    """The weighted mean of a `Loss` over its images, or the value of a Paddle function, and its gradient."""
    logits = paddle.to_tensor(logits, stop_gradient=False)
    value = loss(logits, paddle.to_tensor(labels))
    if isinstance(value, tuple):
        value = value[0] / value[1]
    value.backward()
    return float(value), logits.grad.numpy()


def test_hard_and_one_hot_labels_give_paddles_cross_entropy():
    logits, labels = logits_of(), np.array([0, 3, 1, 1, 2])
    expected = value_and_gradient(functional.cross_entropy, logits, labels)
    for given in (labels, np.eye(4, dtype=np.float32)[labels]):
        value, gradient = value_and_gradient(Loss(), logits, given)
        assert value == pytest.approx(expected[0], rel=1e-6)
        assert gradient == pytest.approx(expected[1], abs=1e-6)


def test_soft_labels_give_the_cross_entropy():
    logits, shares = logits_of(), soft()
    value, gradient = value_and_gradient(Loss(), logits, shares)
    assert value == pytest.approx(-(shares * log_softmax(logits)).sum(1).mean(), rel=1e-5)
    assert gradient == pytest.approx((np.exp(log_softmax(logits)) - shares) / 5, abs=1e-6)


def test_huge_logits_give_a_finite_loss():
    logits = np.array([[1e4, -1e4, 0]], np.float32)
    value, gradient = value_and_gradient(Loss(), logits, np.array([[0, 1, 0]], np.float32))
    assert value > 50 and np.isfinite(value) and np.isfinite(gradient).all()


def test_class_weights_apply_to_soft_labels():
    logits, weights = logits_of(), [0.5, 1, 2, 8]
    for shares in (soft(), np.eye(4, dtype=np.float32)[[0, 3, 1, 1, 2]]):
        value, _ = value_and_gradient(Loss(weights), logits, shares)
        of_image = shares @ np.array(weights)
        expected = -((shares * log_softmax(logits)).sum(1) * of_image).sum() / of_image.sum()
        assert value == pytest.approx(expected, rel=1e-5)


def test_class_weights_of_hard_labels_match_paddle():
    logits, labels, weights = logits_of(), np.array([0, 3, 1, 1, 2]), [0.5, 1.0, 2.0, 8.0]

    def paddles(logits, labels):
        return functional.cross_entropy(logits, labels, paddle.to_tensor(weights))

    expected = value_and_gradient(paddles, logits, labels)
    for given in (labels, np.eye(4, dtype=np.float32)[labels]):
        value, gradient = value_and_gradient(Loss(weights), logits, given)
        assert value == pytest.approx(expected[0], rel=1e-5)
        assert gradient == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize('weights', [None, [0.5, 1, 2, 8]])
def test_the_loss_returns_the_weighted_sum_and_the_sum_of_weights(weights):
    labels = np.array([0, 3, 1, 1, 2])
    for given in (labels, np.eye(4, dtype=np.float32)[labels]):
        loss, weight = Loss(weights)(paddle.to_tensor(logits_of()), paddle.to_tensor(given))
        parts = [
            Loss(weights)(paddle.to_tensor(logits_of()[part]), paddle.to_tensor(given[part]))
            for part in ([0, 1], [2, 3, 4])
        ]
        assert float(weight) == pytest.approx(5 if weights is None else 12.5)
        assert float(loss) == pytest.approx(sum(float(part) for part, _ in parts), rel=1e-6)
        assert (loss.shape, loss.dtype, weight.shape, weight.dtype) == ([], paddle.float32, [], paddle.float32)


# Settings


def settings(*overrides):
    return config.load(overrides=['data.labels=[a,b,c]', 'image.size=16', 'data.num_workers=0', *overrides])


def test_labels_stay_class_numbers_without_soft_label_settings():
    assert build_mixer(settings('train.accumulate=2', 'train.class_weights=balanced').train, 3) is None
    assert build_mixer(settings('train.label_smoothing=0.1').train, 3).alphas == {}
    mixer = build_mixer(settings('train.label_smoothing=0.1', 'train.mixup=0.2', 'train.cutmix=1').train, 3)
    assert (mixer.num_classes, mixer.smoothing, mixer.alphas) == (3, 0.1, {'mixup': 0.2, 'cutmix': 1.0})


@KINDS
def test_mixing_needs_a_batch_of_two(kind):
    with pytest.raises(UsageError, match=rf'train\.{kind}.*train\.batch_size'):
        build_mixer(settings(f'train.{kind}=0.2', 'train.batch_size=1').train, 3)
    build_mixer(settings(f'train.{kind}=0.2', 'train.batch_size=2').train, 3)


def test_balanced_class_weights_are_inverse_to_class_counts():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = balanced_weights(labels, 3)
    assert weights == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert (weights * np.bincount(labels)).sum() == pytest.approx(10)


# Balanced sampling


def draw_index(labels, pictures):
    """An index whose image i has label labels[i]."""
    lines = []
    for number, (label, image) in enumerate(zip(labels, pictures)):
        image.save(f'{number}.png')
        lines.append(f'{number}.png\t{label}\n')
    with open('train.txt', 'w', encoding='utf-8') as file:
        file.writelines(lines)


def greys(count):
    return [Image.new('RGB', (16, 16), (2 * number,) * 3) for number in range(count)]


def balanced_loader(*overrides, augment=False, mixer=None):
    cfg = settings('data.root=.', 'image.mean=[0,0,0]', 'image.std=[1,1,1]', *overrides)
    return Loader(ZodiacDataset('train', augment, cfg), 32, cfg, shuffle=True, mixer=mixer, balanced=True)


def one_pass(loader, epoch=0):
    """Numbers of the grey images in one pass, and their labels."""
    loader.set_epoch(epoch)
    parts = [(np.round(images.numpy()[:, 0, 8, 8] * 127.5).astype(int), labels.numpy()) for images, labels in loader]
    return tuple(np.concatenate(part) for part in zip(*parts))


def test_balanced_sampling_draws_classes_and_images_within_them_evenly():
    labels = np.array([0] * 900 + [1] * 100)
    drawn = np.stack([balanced_order(labels, np.random.default_rng(seed)) for seed in range(50)])
    assert drawn.shape == (50, 1000)
    shares = labels[drawn].mean(1)
    assert shares == pytest.approx(np.full(50, 0.5), abs=0.1)
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    times = np.bincount(drawn.ravel(), minlength=1000) / 50
    assert times[:900].mean() == pytest.approx(500 / 900, rel=0.02)
    assert times[900:].mean() == pytest.approx(5, rel=0.02)
    assert times[:900].min() > 0.1 and times[900:].min() > 3 and times[900:].max() < 7


def test_balanced_sampling_skips_a_class_without_images():
    drawn = balanced_order(np.array([0] * 50 + [2] * 50), np.random.default_rng(0))
    assert len(drawn) == 100


def test_a_balanced_epoch_has_the_usual_length_and_matching_labels(workdir):
    labels = [0] * 90 + [1] * 10
    draw_index(labels, greys(100))
    numbers, drawn = one_pass(balanced_loader())
    assert len(numbers) == 100
    assert np.array_equal(drawn, np.array(labels)[numbers])
    assert 30 < drawn.sum() < 70
    assert len(set(numbers)) < 80


def test_a_balanced_order_is_a_function_of_seed_and_epoch(workdir):
    draw_index([0] * 90 + [1] * 10, greys(100))
    loader = balanced_loader()
    passes = [one_pass(loader, epoch)[0].tolist() for epoch in (0, 1, 2, 1)]
    passes.append(one_pass(balanced_loader('seed=1'), 0)[0].tolist())
    assert passes[1] == passes[3] == one_pass(balanced_loader(), 1)[0].tolist()
    assert len(set(map(tuple, passes))) == 4


def test_an_image_drawn_twice_is_augmented_differently(workdir):
    draw_index([0, 1], [picture(0, (40, 40)), picture(1, (40, 40))])
    loader = balanced_loader('augment=[random_resized_crop]', augment=None)
    loader.images.use_order([1, 1])
    loader.images.epoch = 0
    images, labels = next(iter(loader))
    assert labels.numpy().tolist() == [1, 1]
    assert not np.array_equal(images[0].numpy(), images[1].numpy())


def test_mixing_in_a_loader_is_a_function_of_seed_and_epoch(workdir):
    draw_index([0, 1, 2] * 20, greys(60))

    def passed(seed, epoch):
        loader = balanced_loader(f'seed={seed}', mixer=Mixer(3, mixup=1.0))
        loader.set_epoch(epoch)
        return [(images.numpy(), shares.numpy()) for images, shares in loader]

    first, again = passed(0, 0), passed(0, 0)
    assert [shares.shape for _, shares in first] == [(30, 3), (30, 3)]
    assert all(np.array_equal(*pair) for batch in zip(first, again) for pair in zip(*batch))
    for other in (passed(0, 1), passed(1, 0)):
        assert not any(np.array_equal(*pair) for batch in zip(first, other) for pair in zip(*batch))
    assert first[0][1].max(1).tolist() != first[1][1].max(1).tolist()  # drawn anew for each batch
