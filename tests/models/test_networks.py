"""The networks, their table, heads from a list, and loading a network from a checkpoint."""

import functools
import math
import os

import numpy as np
import pytest
import sklearn.datasets
from conftest import ROOT

import config
from dataset import eval_transform
from zodiac.base import networks, packages
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.images import transforms
from zodiac.models import builder, efficientnet_lite, freezing, heads, pretrained, wrappers
from zodiac.models.resnet9 import Conv
from zodiac.report import gradcam
from zodiac.training import checkpoint

nn = paddle.nn

FOUR = ['a', 'b', 'c', 'd']


def random_images(count, size, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, size, size), dtype=np.float32)


def settled(network, size):
    """The network in eval mode with the BatchNorm statistics of random images, so that its logits are small."""
    norms = [layer for layer in network.sublayers() if isinstance(layer, (nn.BatchNorm1D, nn.BatchNorm2D))]
    momenta = [norm._momentum for norm in norms]
    for norm in norms:
        norm._momentum = 0.0
    network.train()
    logits_of(network, random_images(8, size, seed=1))
    for norm, momentum in zip(norms, momenta):
        norm._momentum = momentum
    network.eval()
    return network


def logits_of(network, images):
    with paddle.no_grad():
        return network(paddle.to_tensor(images)).numpy()


# The table


@pytest.mark.parametrize('arch', networks.NETWORKS)
def test_the_table_has_the_parameters_and_features_of_the_built_network(arch):
    network, facts = of_1000_classes(arch), networks.NETWORKS[arch]
    assert sum(parameter.size for parameter in network.parameters() if not parameter.stop_gradient) == facts.parameters
    head = [layer for layer in network.sublayers() if isinstance(layer, nn.Linear)][-1]
    assert head.weight.shape == [facts.features, 1000]


def test_docs_have_the_table_of_networks():
    page = (ROOT / 'docs' / 'recipes.md').read_text(encoding='utf-8')
    begin, end = '<!-- python -m zodiac.base.networks -->\n', '\n<!-- end -->'
    assert page.partition(begin)[2].partition(end)[0].strip() == networks.as_markdown()


SMALL = [(arch, size) for arch in ('resnet9', 'cifarnet') for size in networks.NETWORKS[arch].sizes]


@pytest.mark.parametrize(('arch', 'size'), [*SMALL, ('resnet9', 48)])
def test_small_networks_give_logits_at_every_size_of_the_table(arch, size):
    network = builder.build(arch, 5, size)
    network.eval()
    assert logits_of(network, random_images(2, size)).shape == (2, 5)


@pytest.mark.parametrize(('arch', 'size'), SMALL)
def test_small_networks_refuse_other_sizes_heads_and_zero_init(arch, size):
    outside = size - 1 if size == networks.NETWORKS[arch].sizes[0] else size + 1
    with pytest.raises(UsageError, match=r'image\.size from {} to {}'.format(*networks.NETWORKS[arch].sizes)):
        builder.build(arch, 10, outside)
    with pytest.raises(UsageError, match=r'model\.head=auto'):
        builder.build(arch, 10, size, ['flatten', 'linear'])
    with pytest.raises(UsageError, match='zero_init_residual'):
        builder.build(arch, 10, size, zero_init_residual=True)


# ResNet9


@pytest.fixture(scope='module')
def resnet9():
    """An untrained ResNet9 of 10 classes; tests do not change it."""
    paddle.seed(0)
    return builder.build('resnet9', 10, 32)


def leaves(layer):
    return [inner for inner in layer.sublayers() if not list(inner.children())]


def plain_block(layers, x):
    """Convolution with bias, BatchNorm with the batch's statistics, and ReLU, from their formulas."""
    conv, norm = layers[0], layers[1]
    x = nn.functional.conv2d(x, conv.weight, conv.bias, stride=1, padding=1)
    mean = x.mean([0, 2, 3], keepdim=True)
    x = (x - mean) / (((x - mean) ** 2).mean([0, 2, 3], keepdim=True) + 1e-5).sqrt()
    x = x * norm.weight.reshape([1, -1, 1, 1]) + norm.bias.reshape([1, -1, 1, 1])
    return nn.functional.relu(x)


def plain_resnet9(network, x):
    """The forward pass of the tutorials for 32 pixels, without dropout."""

    def halved(x):
        return nn.functional.max_pool2d(x, 2, 2)

    x = halved(plain_block(network.con2, plain_block(network.con1, x)))
    x = plain_block(network.r1[1], plain_block(network.r1[0], x)) + x
    x = halved(plain_block(network.con4, halved(plain_block(network.con3, x))))
    x = plain_block(network.r2[1], plain_block(network.r2[0], x)) + x
    x = x.max([2, 3])
    return x @ network.classifier[3].weight + network.classifier[3].bias


def test_resnet9_computes_what_the_tutorials_compute():
    paddle.seed(0)
    network = builder.build('resnet9', 10, 32)
    network.classifier[2].eval()
    images = paddle.to_tensor(random_images(4, 32))
    with paddle.no_grad():
        np.testing.assert_allclose(network(images).numpy(), plain_resnet9(network, images).numpy(), atol=1e-3)


def test_conv_equals_conv2d_forward_and_backward():
    ours, theirs = Conv(3, 8), nn.Conv2D(3, 8, 3, padding=1)
    theirs.set_state_dict(ours.state_dict())
    factors = paddle.to_tensor(np.random.default_rng(2).standard_normal((2, 8, 9, 7), dtype=np.float32))
    results = []
    for layer in (ours, theirs):
        x = paddle.to_tensor(random_images(2, 9)[..., :7], stop_gradient=False)
        y = layer(x)
        (y * factors).sum().backward()
        results.append([tensor.numpy() for tensor in (y, x.grad, layer.weight.grad, layer.bias.grad)])
    for one, other in zip(*results):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_resnet9_starts_from_pytorchs_uniform_weights(resnet9):
    for layer in leaves(resnet9):
        if not isinstance(layer, (nn.Conv2D, nn.Linear)):
            continue
        shape = layer.weight.shape
        bound = (9 * shape[1] if len(shape) == 4 else shape[0]) ** -0.5
        for values in (layer.weight.numpy(), layer.bias.numpy()):
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            if values.size > 30:  # a uniform distribution fills its range
                assert values.max() > 0.8 * bound and values.min() < -0.8 * bound
            if values.size > 1000:
                assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_the_initial_loss_of_resnet9_is_that_of_guessing(resnet9):
    resnet9.eval()
    labels = paddle.to_tensor(np.arange(30) % 10)
    logits = paddle.to_tensor(logits_of(resnet9, random_images(30, 32)))
    resnet9.train()
    assert float(nn.functional.cross_entropy(logits, labels)) == pytest.approx(math.log(10), abs=0.02)


# CifarNet


@pytest.fixture(scope='module')
def cifarnet():
    """A whitened CifarNet of 4 classes in eval mode, settled on 32 px; tests do not change it."""
    paddle.seed(0)
    network = builder.build('cifarnet', 4, 32)
    network.learn_from(paddle.to_tensor(smooth_images(64, 32)))
    return settled(network, 32)


def smooth_images(count, size):
    """Images with similar neighbouring pixels, as in photos."""
    return random_images(count, size).cumsum(2).cumsum(3) / 4


def test_the_whitening_filters_of_cifarnet_give_uncorrelated_values_of_variance_1(cifarnet):
    images = paddle.to_tensor(smooth_images(64, 32))
    with paddle.no_grad():
        values = nn.functional.conv2d(images, cifarnet.whiten.weight).numpy()
    covariance = np.cov(values.transpose(1, 0, 2, 3).reshape(24, -1))
    assert cifarnet.whiten.weight.stop_gradient
    np.testing.assert_allclose(covariance[:12, :12], np.eye(12), atol=0.05)
    np.testing.assert_allclose(values[:, 12:], -values[:, :12], atol=1e-4)


def test_the_convolutions_of_cifarnet_start_as_the_identity(cifarnet):
    convs = [layer for layer in cifarnet.groups.sublayers() if isinstance(layer, nn.Conv2D)]
    assert [conv.weight.shape[:2] for conv in convs] == [[64, 24], [64, 64], [256, 64], *[[256, 256]] * 3]
    for conv in convs:
        channels = conv.weight.shape[1]
        x = paddle.rand([2, channels, 5, 5])
        with paddle.no_grad():
            np.testing.assert_allclose(conv(x)[:, :channels].numpy(), x.numpy(), atol=1e-5)


# ResNets


RESNETS = {  # blocks and output channels of each stage (He et al. 2016, table 1)
    'resnet18': ([2, 2, 2, 2], [64, 128, 256, 512]),
    'resnet34': ([3, 4, 6, 3], [64, 128, 256, 512]),
    'resnet50': ([3, 4, 6, 3], [256, 512, 1024, 2048]),
    'resnet101': ([3, 4, 23, 3], [256, 512, 1024, 2048]),
    'resnet152': ([3, 8, 36, 3], [256, 512, 1024, 2048]),
}


@functools.lru_cache(None)
def of_1000_classes(arch):
    """A network of the table, ResNets with zero_init_residual."""
    return builder.build(arch, 1000, max(32, networks.NETWORKS[arch].sizes[0]), zero_init_residual=arch in RESNETS)


@pytest.fixture(scope='module', params=RESNETS)
def zero_init(request):
    """(name, network of 1000 classes with zero_init_residual) for each ResNet."""
    return request.param, of_1000_classes(request.param)


def stages_of(network):
    return [network.layer1, network.layer2, network.layer3, network.layer4]


def blocks_of(network):
    return [block for stage in stages_of(network) for block in stage]


def test_a_resnet_has_the_stages_of_its_paper(zero_init):
    arch, network = zero_init
    blocks, channels = RESNETS[arch]
    assert [len(stage) for stage in stages_of(network)] == blocks
    assert network.conv1.weight.shape == [64, 3, 7, 7]
    assert network.fc.weight.shape == [channels[-1], 1000]
    deep = channels[0] == 256
    for stage, width in zip(stages_of(network), [64, 128, 256, 512]):
        for block in stage:
            kernels = [[1, 1], [3, 3], [1, 1]] if deep else [[3, 3], [3, 3]]
            convs = [block.conv1, block.conv2, *([block.conv3] if deep else [])]
            assert [conv.weight.shape[2:] for conv in convs] == kernels
            assert [conv.weight.shape[0] for conv in convs] == [width] * 2 + [4 * width] * deep
    weighted = sum(isinstance(layer, (nn.Conv2D, nn.Linear)) for layer in leaves(network))
    shortcuts = sum(block.downsample is not None for block in blocks_of(network))
    assert weighted - shortcuts == int(arch[len('resnet') :])


def test_the_stages_of_a_resnet_reduce_the_image_by_4_8_16_and_32(zero_init):
    arch, network = zero_init
    network.eval()
    size = 224 if arch == 'resnet18' else 64
    shapes = []
    with paddle.no_grad():
        x = network.relu(network.bn1(network.conv1(paddle.zeros([1, 3, size, size]))))
        assert list(x.shape) == [1, 64, size // 2, size // 2]
        x = network.maxpool(x)
        for stage in stages_of(network):
            x = stage(x)
            shapes.append(list(x.shape))
    sides = [size // 4, size // 8, size // 16, size // 32]
    assert shapes == [[1, channels, side, side] for channels, side in zip(RESNETS[arch][1], sides)]


@pytest.mark.parametrize('training', [False, True])
def test_with_zero_init_residual_each_block_is_its_shortcut(zero_init, training):
    _, network = zero_init
    network.train() if training else network.eval()
    plain = 0
    with paddle.no_grad():
        for block in blocks_of(network):
            x = paddle.rand([2, block.conv1.weight.shape[1], 4, 4])  # not negative, as after a ReLU
            expected = x if block.downsample is None else nn.functional.relu(block.downsample(x))
            plain += block.downsample is None
            assert np.array_equal(block(x).numpy(), expected.numpy())
    assert plain >= 4


def test_zero_init_residual_lets_every_block_learn():
    network = builder.build('resnet18', 4, zero_init_residual=True)
    network(paddle.rand([4, 3, 32, 32])).square().sum().backward()
    assert all(float(block.bn2.weight.grad.abs().sum()) > 0 for block in blocks_of(network))


def test_resnet50_of_12_classes_has_the_total_of_the_notebooks_summary():
    network = builder.build('resnet50', 12)
    assert sum(tensor.size for tensor in network.state_dict().values()) == 23_585_740
    assert paddle.summary(network, (1, 3, 32, 32))['total_params'] == 23_585_740


def test_a_second_network_in_a_process_has_the_same_parameter_names():
    first, second = ([parameter.name for parameter in builder.build('resnet18', 3).parameters()] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


# Networks for photos

PHOTO = [f'efficientnet_lite{number}' for number in range(3)] + ['mobilenet_v3_large', 'convnext_tiny']


@functools.lru_cache(None)
def for_photos(arch):
    """A network of 3 classes in eval mode, settled on 64 px."""
    paddle.seed(0)
    return settled(builder.build(arch, 3, 64), 64)


@pytest.mark.parametrize('arch', PHOTO)
def test_backbone_and_rest_give_what_the_network_gives(arch):
    network, images = for_photos(arch), paddle.to_tensor(random_images(2, 64))
    backbone, rest = builder.split(network)
    with paddle.no_grad():
        features = backbone(images)
        np.testing.assert_allclose(rest(features).numpy(), network(images).numpy(), rtol=1e-4, atol=1e-5)
    assert features.shape == [2, networks.NETWORKS[arch].features]


@pytest.mark.parametrize(
    ('arch', 'until'), [('efficientnet_lite0', 'stage4'), ('mobilenet_v3_large', 'hidden'), ('convnext_tiny', 'stage2')]
)
def test_networks_for_photos_train_a_step_above_a_frozen_stage(arch, until):
    network = builder.build(arch, 3, 64)
    frozen = freezing.freeze(network, until)
    before = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    nn.functional.cross_entropy(
        network(paddle.to_tensor(random_images(4, 64))), paddle.to_tensor([0, 1, 2, 0])
    ).backward()
    optimizer.step()
    stages = [name for name, child in network.named_children() if child.parameters()]
    kept = stages[: stages.index(until) + 1]
    for name, parameter in network.named_parameters():
        if '_mean' not in name and '_variance' not in name:
            assert (parameter.grad is None) == (name.split('.')[0] in kept) == (name in frozen), name
    after = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert all(np.array_equal(after[name], before[name]) for name in after if name.split('.')[0] in kept)
    assert not any(np.array_equal(after[name], before[name]) for name in after if name.startswith('fc.'))


@pytest.mark.parametrize('arch', [*PHOTO[:1], *PHOTO[3:]])
def test_grad_cam_shows_the_last_map_of_networks_for_photos(arch):
    heat = gradcam.heat(for_photos(arch), random_images(2, 128))
    assert heat.shape == (2, 4, 4) and heat.max() == 1


@pytest.mark.parametrize(
    ('kernel', 'stride', 'size'), [(3, 1, 7), (3, 2, 8), (3, 2, 7), (5, 2, 14), (5, 2, 15), (5, 1, 4)]
)
def test_same_padding_is_tensorflows(kernel, stride, size):
    layer = efficientnet_lite.ConvNorm(2, 4, kernel, stride).conv
    images = paddle.rand([1, 2, size, size])
    total = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)  # the larger half comes after
    padded = nn.functional.pad(images, [total // 2, total - total // 2] * 2)
    expected = nn.functional.conv2d(padded, layer.weight, stride=stride)
    np.testing.assert_allclose(layer(images).numpy(), expected.numpy(), atol=1e-5)


def test_a_list_head_goes_on_efficientnet_lite_too():
    network = builder.build('efficientnet_lite0', 3, 64, FLAT_HEAD)
    assert network.fc[1].weight.shape == [4 * 1280, 3]
    assert logits_of(network, random_images(2, 64)).shape == (2, 3)


@pytest.mark.parametrize('arch', PHOTO[:3])
def test_imagenet_weights_know_a_palace(arch):
    """A photo of the Summer Palace, which scikit-learn contains; 698 is the ImageNet class "palace"."""
    if not packages.is_there(networks.NETWORKS[arch].imagenet.module):
        pytest.skip('requirements-weights.txt is not installed')
    cfg = config.load(os.devnull, [f'model.arch={arch}'])
    network = builder.build(arch, 1000, cfg.image.size)
    pretrained.load_pretrained(network, arch, True)
    network.eval()
    photo = os.path.join(os.path.dirname(sklearn.datasets.__file__), 'images', 'china.jpg')
    assert logits_of(network, transforms.read(eval_transform(cfg), photo)[None]).argmax() == 698


# Heads

DEEP_HEAD = [
    'flatten',
    {'dropout': 0.4},
    {'linear': 512},
    'elu',
    {'dropout': 0.4},
    {'linear': 64},
    'elu',
    {'dropout': 0.4},
    {'linear': 'classes'},
]
FLAT_HEAD = ['flatten', {'linear': 'classes'}]
NORM_HEAD = ['flatten', 'dropout', {'linear': 16}, 'elu', 'batch_norm', 'linear']


@pytest.fixture(scope='module')
def plain():
    """A resnet18 of 4 classes in eval mode, settled on 64 px; tests change none of these networks."""
    paddle.seed(0)
    return settled(builder.build('resnet18', 4, 64), 64)


@pytest.fixture(scope='module')
def headed():
    """The same with NORM_HEAD."""
    paddle.seed(0)
    return settled(builder.build('resnet18', 4, 64, NORM_HEAD), 64)


@pytest.fixture(scope='module')
def small():
    """The same with resnet9 on 32 px."""
    paddle.seed(0)
    return settled(builder.build('resnet9', 4, 32), 32)


@pytest.fixture(scope='module')
def deep_headed():
    """A fresh resnet50 of 8 classes for 64 px with DEEP_HEAD."""
    return builder.build('resnet50', 8, 64, DEEP_HEAD)


def test_a_list_head_is_fc_and_building_it_leaves_the_rest_new(deep_headed):
    names = [name for name, _ in deep_headed.named_parameters()]
    assert [name for name in names if name.startswith('fc.')] == [
        f'fc.{number}.{kind}' for number in (2, 5, 8) for kind in ('weight', 'bias')
    ]
    assert all(name.startswith(('conv1.', 'bn1.', 'layer', 'fc.')) for name in names)
    assert builder.head_of(deep_headed) == 'fc.'
    norms = [layer for layer in leaves(deep_headed) if isinstance(layer, nn.BatchNorm2D)]
    assert len(norms) == 53
    assert all((norm._mean == 0).all() and (norm._variance == 1).all() for norm in norms)
    assert all(layer.training for layer in deep_headed.sublayers(include_self=True))


def test_a_list_head_gets_the_last_feature_map(deep_headed):
    deep_headed.eval()
    images = random_images(3, 64)
    with paddle.no_grad():
        x = deep_headed.maxpool(deep_headed.relu(deep_headed.bn1(deep_headed.conv1(paddle.to_tensor(images)))))
        for stage in stages_of(deep_headed):
            x = stage(x)
        x = x.reshape([3, -1])
        for number in (2, 5, 8):
            x = x @ deep_headed.fc[number].weight + deep_headed.fc[number].bias
            x = x if number == 8 else paddle.where(x > 0, x, paddle.exp(x.clip(max=0)) - 1)
    got = logits_of(deep_headed, images)
    deep_headed.train()
    assert got.shape == (3, 8)
    np.testing.assert_allclose(got, x.numpy(), rtol=1e-3, atol=1e-3 * np.abs(got).max())


def test_a_pooled_list_head_equals_the_networks_own(plain):
    pooled = builder.build('resnet18', 4, 64, ['global_avg_pool', *FLAT_HEAD])
    for own, other in zip(pooled.state_dict().values(), plain.state_dict().values()):
        own.set_value(other)
    pooled.eval()
    images = random_images(3, 64)
    np.testing.assert_allclose(logits_of(pooled, images), logits_of(plain, images), rtol=1e-4, atol=1e-5)


def head(items, classes=3, shape=(1, 6, 2, 2)):
    return heads.build_head(items, paddle.ones(list(shape)), classes)


@pytest.mark.parametrize('name', heads.HEAD_LAYERS)
def test_every_layer_can_be_in_a_head(name):
    built = head([name, *FLAT_HEAD] if name.startswith('global') else ['flatten', name, 'linear'])
    assert all(layer.training for layer in built.sublayers(include_self=True))
    assert all((norm._mean == 0).all() for norm in built if isinstance(norm, nn.BatchNorm1D))
    assert built(paddle.rand([4, 6, 2, 2])).shape == [4, 3]


def test_a_head_pools_to_the_mean_or_the_maximum_of_each_channel():
    x = paddle.rand([2, 6, 2, 2])
    for name, expected in (('global_avg_pool', x.mean([2, 3])), ('global_max_pool', x.max([2, 3]))):
        pooled = head([name, 'flatten'], classes=6)(x)
        np.testing.assert_allclose(pooled.numpy(), expected.numpy(), rtol=1e-6)


def test_a_layer_without_a_setting_has_the_default():
    built = head(['flatten', 'dropout', {'dropout': None}, {'dropout': 0}, 'linear'], classes=7)
    assert [layer.p for layer in built if isinstance(layer, nn.Dropout)] == [0.5, 0.5, 0]
    assert built[-1].weight.shape == [24, 7]
    assert head(['flatten', {'linear': None}])[1].weight.shape == [24, 3]


REFUSED = [  # head, number of the wrong item, words of the message
    (['flatten', 'swish', 'linear'], 2, ["'swish'", *heads.HEAD_LAYERS]),
    (['flatten', {'swish': 1}], 2, ['swish', *heads.HEAD_LAYERS]),
    (['flatten', {}], 2, list(heads.HEAD_LAYERS)),
    (['flatten', {3: 4}], 2, list(heads.HEAD_LAYERS)),
    ([*FLAT_HEAD, 'softmax'], 3, ['leave it out', 'loss', 'exported model']),
    ([*FLAT_HEAD, {'softmax': 1}], 3, ['leave it out']),
    (['linear'], 1, ['put flatten before it']),
    (['global_avg_pool', 'linear'], 2, ['put flatten before it']),
    (['batch_norm', *FLAT_HEAD], 1, ['put flatten before it']),
    ([{'dropout': 1.0}, *FLAT_HEAD], 1, ['0 or more and below 1']),
    ([{'dropout': -1}, *FLAT_HEAD], 1, ['0 or more and below 1']),
    ([{'dropout': 'x'}, *FLAT_HEAD], 1, ['0 or more and below 1']),
    ([{'dropout': True}, *FLAT_HEAD], 1, ['0 or more and below 1']),
    ([{'dropout': float('nan')}, *FLAT_HEAD], 1, ['0 or more and below 1']),
    ([{'dropout': 'classes'}, *FLAT_HEAD], 1, ['0 or more and below 1']),
    (['flatten', {'linear': 0}], 2, ['above 0, or classes']),
    (['flatten', {'linear': 'x'}], 2, ['above 0, or classes']),
    (['flatten', {'linear': 2.0}], 2, ['above 0, or classes']),
    (['flatten', {'linear': True}], 2, ['above 0, or classes']),
    (['flatten', {'linear': [4]}], 2, ['above 0, or classes']),
    (['flatten', {'linear': 'classes', 'dropout': 0.5}], 2, ['write a name or {name: setting}']),
    ([{'flatten': 1}, 'linear'], 1, ['flatten takes no setting']),
    (['flatten', {'relu': False}, 'linear'], 2, ['relu takes no setting']),
    (['flatten', 'global_avg_pool', 'linear'], 2, ['no feature map left', 'put it first']),
    (['flatten', 'global_max_pool', 'linear'], 2, ['no feature map left', 'put it first']),
]


@pytest.mark.parametrize(('items', 'number', 'words'), REFUSED, ids=str)
def test_a_wrong_item_of_a_head_is_named_with_what_it_must_be(items, number, words):
    with pytest.raises(UsageError) as caught:
        head(items)
    for word in (f'model.head, item {number}: {items[number - 1]!r}', *words):
        assert word in str(caught.value)


@pytest.mark.parametrize('items', [[], ['flatten'], ['flatten', {'linear': 4}], ['global_avg_pool']])
def test_a_head_that_does_not_end_with_the_classes_is_refused(items):
    with pytest.raises(UsageError, match='model.head: gives .*end it with linear: classes'):
        head(items)


# From a checkpoint


def identity_of(arch, head, size):
    cfg = config.load(overrides=[f'data.labels={FOUR}', f'image.size={size}', f'model.arch={arch}'])
    cfg.model.head = head
    return cfg.identity


@pytest.mark.parametrize(('arch', 'items', 'size'), [('resnet18', NORM_HEAD, 64), ('resnet9', 'auto', 32)])
def test_a_network_is_restored_from_a_checkpoint(tmp_path, headed, small, arch, items, size):
    network = headed if arch == 'resnet18' else small
    identity = identity_of(arch, items, size)
    checkpoint.save(str(tmp_path / 'best'), {checkpoint.WEIGHTS: network.state_dict()}, {'identity': identity})
    loaded, facts = checkpoint.load_network(str(tmp_path), 'best', identity)
    assert facts['weights'] == f'{tmp_path}/best/{checkpoint.WEIGHTS}'
    assert not any(layer.training for layer in loaded.sublayers(include_self=True))
    one, other = network.state_dict(), loaded.state_dict()
    assert list(one) == list(other)
    assert all(np.array_equal(one[name].numpy(), other[name].numpy()) for name in one)
    images = random_images(3, size)
    np.testing.assert_allclose(logits_of(loaded, images), logits_of(network, images), rtol=1e-5, atol=1e-6)


def test_a_network_from_a_checkpoint_can_average_over_mirror_images(tmp_path, small):
    identity = identity_of('resnet9', 'auto', 32)
    checkpoint.save(str(tmp_path / 'best'), {checkpoint.WEIGHTS: small.state_dict()}, {'identity': identity})
    averaged, _ = checkpoint.load_network(str(tmp_path), 'best', identity, flip_average=True)
    images = random_images(3, 32)
    mean = (logits_of(small, images) + logits_of(small, images[..., ::-1].copy())) / 2
    assert not any(layer.training for layer in averaged.sublayers(include_self=True))
    np.testing.assert_allclose(logits_of(averaged, images), mean, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_another_head_is_refused(tmp_path, small):
    identity = identity_of('resnet9', 'auto', 32)
    checkpoint.save(str(tmp_path / 'best'), {checkpoint.WEIGHTS: small.state_dict()}, {'identity': identity})
    with pytest.raises(UserError, match='model.head'):
        checkpoint.load_network(str(tmp_path), 'best', {**identity, 'model.head': NORM_HEAD})


class Slope(nn.Layer):
    """Logits that differ between an image and its mirror image."""

    def forward(self, x):
        return (x * paddle.arange(x.shape[3], dtype='float32')).sum([2, 3])


def test_flip_average_is_the_mean_of_both_mirror_images(small, cifarnet):
    images = random_images(3, 32)
    mirrored = images[:, :, :, ::-1].copy()
    for network in (Slope(), small, cifarnet):
        average = wrappers.FlipAverage(network)
        average.eval()
        one, other = logits_of(network, images), logits_of(network, mirrored)
        assert np.abs(one - other).max() > 1e-3
        np.testing.assert_allclose(logits_of(average, images), (one + other) / 2, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(logits_of(average, images), logits_of(average, mirrored), rtol=1e-5, atol=1e-5)
