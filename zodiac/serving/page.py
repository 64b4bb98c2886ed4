"""The web page (page.html) and its headers, which let it run only its own scripts and load nothing from outside."""

import base64
import io
import os

from PIL import Image

from zodiac.pages import render as pages

EXAMPLES = 12  # photos that the page shows at most
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


def render(model, root='', others=(), private=False):
    """(HTML, headers) of the page for an ExportedModel.

    Args:
        root: where / is, relative to the page: '' or '../../'.
        others: [(name, address)] of the other models of the server.
        private: leave out its example photos; the page itself needs no token.
    """
    page = pages.render(
        PATH,
        name=model.name,
        labels=model.labels,
        measured=model.measured,
        rejects=model.rejection is not None,
        examples=[] if private else [_address(pixels) for pixels in model.examples[:EXAMPLES]],
        root=root,
        others=others,
    )
    return page, headers(page)


def headers(page, images='blob: data:'):
    """The headers of a page, HTML: it may run its own scripts, ask this server, and show images from the sources `images`."""
    policy = [
        "default-src 'none'",
        f'img-src {images}',
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        *(f'{tag}-src {" ".join(pages.digests(page, tag))}' for tag in ('script', 'style')),
    ]
    return {'Content-Security-Policy': '; '.join(policy), 'Referrer-Policy': 'no-referrer'}


def _address(pixels):
    """A data: address of an image, uint8 [height, width, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'JPEG', quality=90)
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'
