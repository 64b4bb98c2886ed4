"""The web page (page.html) and its headers, which let it run only its own scripts and load nothing from outside."""

import base64
import hashlib
import os
import re

from zodiac.pages import render as pages

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


def render(model):
    """(HTML, headers) of the page for an ExportedModel."""
    rejects = model.rejection is not None
    page = pages.render(PATH, name=model.name, labels=model.labels, measured=model.measured, rejects=rejects)
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
        *(f'{tag}-src {" ".join(_digests(page, tag))}' for tag in ('script', 'style')),
    ]
    return {'Content-Security-Policy': '; '.join(policy), 'Referrer-Policy': 'no-referrer'}


def _digests(page, tag):
    contents = re.findall(f'<{tag}>(.*?)</{tag}>', page, re.S)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" for content in contents]
