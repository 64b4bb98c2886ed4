"""Photos that look the same and have different labels."""

import pytest

pytest.importorskip('cleanlab', reason='requirements-review.txt is not installed')

from conftest import picture

from zodiac.review import twins


@pytest.fixture
def prints(workdir):
    """Fingerprints of: a photo; a copy of its file; a near-copy; another photo; a file that is no image."""
    picture(0, (96, 80)).save('0.png')
    picture(0, (96, 80)).save('1.png')
    picture(0, (96, 80)).resize((60, 50)).save('2.jpg', quality=80)
    picture(1, (96, 80)).save('3.png')
    (workdir / '4.png').write_bytes(b'no image')
    return twins.fingerprints(['0.png', '1.png', '2.jpg', '3.png', '4.png'], '.', 'convert', 1)


@pytest.mark.parametrize(
    ('labels', 'found'),
    [
        ([0, 0, 0, 1, 1], {}),
        ([0, 1, 0, 1, 0], {0: 1, 1: 0, 2: 1}),
        ([0, 0, 1, 1, 0], {0: 2, 1: 2, 2: 1}),
        ([3, 3, 5, 1, 0], {0: 2, 1: 2, 2: 1}),
    ],
)
def test_copies_of_another_class_are_found_in_both_directions(prints, labels, found):
    assert twins.pairs(prints, labels) == found


def test_the_cache_of_annotate_saves_the_decoding(workdir, monkeypatch):
    from conftest import make_tree

    import annotate
    import config
    from zodiac.data import entry, inspection

    monkeypatch.setattr(entry, 'SETTLED', 0)
    make_tree('photos', ['cat', 'dog'], {'': 5}, '.png')
    annotate.annotate(config.load(overrides=['data.root=photos', 'data.labels=auto', 'annotate.non_rgb=convert']))
    monkeypatch.setattr(inspection, 'inspect_all', lambda paths, *_: pytest.fail(f'decoded {paths}') if paths else [])
    assert all(twins.fingerprints(['photos/cat/cat_0.png', 'photos/dog/dog_1.png'], 'photos', 'convert', 1))
