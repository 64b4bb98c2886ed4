"""The web page (page.html) and its headers, which let it run only its own scripts and load nothing from outside."""

import base64
import hashlib
import os
import re

from zodiac.pages import render as pages

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


def render(model, root='', others=()):
    """(HTML, headers) of the page for an ExportedModel.

    Args:
        root: where / is, relative to the page: '' or '../../'.
        others: [(name, address)] of the other models of the server.
    """
    content = {'name': model.name, 'labels': model.labels, 'measured': model.measured, 'root': root, 'others': others}
    page = pages.render(PATH, rejects=model.rejection is not None, **content)
    policy = [
        "default-src 'none'",
        'img-src blob: data:',
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        *(f'{tag}-src {" ".join(_digests(page, tag))}' for tag in ('script', 'style')),
    ]
    return page, {'Content-Security-Policy': '; '.join(policy), 'Referrer-Policy': 'no-referrer'}


def _digests(page, tag):
    contents = re.findall(f'<{tag}>(.*?)</{tag}>', page, re.S)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" for content in contents]
