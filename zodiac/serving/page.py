"""The web page (page.html) and its headers, which let it run only its own scripts and load nothing from outside."""

import os

from zodiac.pages import render as pages

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


def render(model):
    """(HTML, headers) of the page for an ExportedModel."""
    rejects = model.rejection is not None
    page = pages.render(PATH, name=model.name, labels=model.labels, measured=model.measured, rejects=rejects)
    policy = [
        "default-src 'none'",
        'img-src blob: data:',
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        *(f'{tag}-src {" ".join(pages.digests(page, tag))}' for tag in ('script', 'style')),
    ]
    return page, {'Content-Security-Policy': '; '.join(policy), 'Referrer-Policy': 'no-referrer'}
