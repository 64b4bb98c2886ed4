"""The web page (page.html) and its headers, which let it run only its own script and load nothing from outside."""

import base64
import hashlib
import html
import os
import re

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


def render(model):
    """(HTML, headers) of the page for an ExportedModel."""
    with open(PATH, encoding='utf-8') as file:
        page = file.read()
    page = page.replace('{{ name }}', html.escape(model.name)).replace('{{ classes }}', str(len(model.labels)))
    policy = [
        "default-src 'none'",
        'img-src blob: data:',
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        *(f"{tag}-src 'sha256-{_digest(page, tag)}'" for tag in ('script', 'style')),
    ]
    return page, {'Content-Security-Policy': '; '.join(policy), 'Referrer-Policy': 'no-referrer'}


def _digest(page, tag):
    content = re.search(f'<{tag}>(.*?)</{tag}>', page, re.S)[1]
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
