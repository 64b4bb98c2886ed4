"""A small review to serve: six drawn photos of two classes, and one without a label."""

from conftest import make_tree, picture

from zodiac.review import server

HOST, TOKEN = '127.0.0.1:8001', 'secret'


def item(number, kind, label, suggested, twin=None):
    return {
        'number': number,
        'path': PATHS[number],
        'kind': kind,
        'label': label,
        'suggested': suggested,
        'top': [[suggested, 0.9], ['cat' if suggested == 'dog' else 'dog', 0.1]],
        'near': [[name, [1, 2] if name == 'cat' else [3, 4]] for name in dict.fromkeys([label, suggested]) if name],
        'twin': twin,
    }


PATHS = [*(f'photos/{label}/{label}_{number}.png' for label in ('cat', 'dog') for number in range(3)), 'new/n.png']


def make(workdir):
    """A server.Review in the working directory."""
    make_tree(workdir / 'photos', ['cat', 'dog'], {'': 3}, '.png')
    (workdir / 'new').mkdir()
    picture(100).save(workdir / 'new/n.png')
    items = [
        item(0, 'label', 'cat', 'dog'),
        item(3, 'copy', 'dog', 'cat', twin=1),
        item(5, 'outlier', 'dog', 'dog'),
        item(6, 'new', '', 'dog'),
    ]
    return server.Review('pets', 'photos', ['cat', 'dog'], items, PATHS)
