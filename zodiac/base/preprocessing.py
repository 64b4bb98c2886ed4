"""Preprocessing that belongs to a network: which values of the section `image` come from the table of networks."""

from zodiac.base import networks

OF_NETWORK = ('size', 'mean', 'std', 'interpolation')


def resolve(image, arch, given):
    """Fill the section `image` in place: a setting that is 'auto' or not given gets the value of the network.

    Args:
        given: keys that were set, such as 'image.size', in order: of image.fit and image.resize=squash, which mean the same, the last
            one counts.
    """
    facts = networks.NETWORKS[arch]
    for name in OF_NETWORK:
        if f'image.{name}' not in given or getattr(image, name) == 'auto':
            value = getattr(facts, name)
            setattr(image, name, list(value) if isinstance(value, tuple) else value)
    if image.resize == 'squash':
        places = [key for key in given if key in ('image.fit', 'image.resize')]
        if places[-1] == 'image.resize':
            image.fit = 'squash'
        elif image.fit != 'squash':
            image.resize = 'auto'


def identity(image):
    """dict: the settings that weights depend on, as checkpoints have them since before `fit` and `interpolation` existed."""
    parts = {'size': image.size, 'resize': 'squash' if image.fit == 'squash' else image.resize}
    parts.update(mean=image.mean, std=image.std)
    if image.fit == 'pad':
        parts['fit'] = image.fit
    if image.interpolation != 'bilinear':
        parts['interpolation'] = image.interpolation
    return parts


def differences(image, arch, trained=None):
    """List of texts: settings that differ from the preprocessing of pretrained weights.

    Args:
        trained: `identity` of the images that the weights were trained on; None for that of the network's ImageNet weights.
    """
    facts = networks.NETWORKS[arch]
    texts = []
    for name in ('mean', 'std', 'interpolation'):
        expected = trained.get(name, 'bilinear') if trained else getattr(facts, name)
        ours = getattr(image, name)
        if name != 'interpolation':
            same = len(expected) == len(ours) and all(abs(one - other) < 0.002 for one, other in zip(expected, ours))
            expected = [round(value, 4) for value in expected]
        else:
            same = expected == ours
        if not same:
            texts.append(f'image.{name} = {ours}, but the pretrained weights were trained with {expected}')
    return texts
