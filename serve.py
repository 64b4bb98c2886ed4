"""Serve an exported model over HTTP, with a web page.

    python serve.py zodiac                                       # the run output/zodiac, or its folder, or that of its export
    python serve.py zodiac models/pets                           # several; models/pets/1 and models/pets/2 are versions of one
    curl -F file=@cat.jpg http://127.0.0.1:8000/predict

/ is the page, /predict classifies images, /v2 is the Open Inference Protocol (KServe, Triton), /docs describes both; /healthz,
/readyz and /metrics are for operators. A new export in place of a served one is taken without losing a request. Only this machine
can reach the server unless --host says otherwise; then set the environment variable ZODIAC_TOKEN, which clients send as
`Authorization: Bearer TOKEN`. Needs requirements-serve.txt.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare(
        'requirements-serve.txt',
        'fastapi fastapi_offline uvicorn python_multipart prometheus_client jinja2 numpy PIL yaml tqdm',
    )

import argparse
import contextlib
import ipaddress
import math
import os
import re
import sys

from zodiac.base import calls, device
from zodiac.base.errors import UsageError, UserError, run
from zodiac.inference import choice, exported_model
from zodiac.serving import folders

CONNECTIONS = 4  # per request of --max-requests


def main():
    args = parse()
    if args.explain:
        for folder in folders.exports(map(folders.find, args.models)):
            print(exported_model.explain(folder, args.device, args.engine, args.precision))
    else:
        serve(args)


def serve(args):
    """Load the models, run each once for each batch size, and answer requests until a signal arrives."""
    from zodiac.serving import application, connections, uploads  # FastAPI takes half a second, too long for --help
    from zodiac.serving.models import Models

    token = read_token()
    most = CONNECTIONS * args.max_requests
    limits = uploads.Limits(
        requests=args.max_requests,
        images=args.max_images,
        body=args.max_mb << 20,
        total=(args.max_total_mb << 20) - most * connections.BUFFERS,
        pixels=args.max_megapixels * 10**6,
        seconds=args.timeout,
    )
    listener = connections.bind(args.host, args.port)

    def load(folder, old=None):
        if old is not None:  # measuring all engines beside requests would take long, and time them wrongly
            with contextlib.suppress(UserError):
                return exported_model.load(folder, args.device, old.engine, old.precision)
        return exported_model.load(folder, args.device, args.engine, args.precision)

    models = Models([*map(folders.find, args.models)], load, args.batch_size, args.max_delay / 1000)
    app = application.create(models, limits, token, args.watch)
    connections.listen(listener)
    host, port = listener.getsockname()[:2]
    if not token and not ipaddress.ip_address(host).is_loopback:
        print(
            f'warning: {host}: other machines can reach this server; set ZODIAC_TOKEN to require a token',
            file=sys.stderr,
        )
    address = f'http://{f"[{host}]" if ":" in host else host}:{port}'
    print(f'serving {models} at {address} (Ctrl-C stops)', flush=True)
    settings = connections.Settings(
        connections=most,
        keep_alive=args.keep_alive,
        drain=args.drain,
        stop=math.ceil(args.timeout) + 1,
        proxies=args.proxy,
        root=args.root_path,
        origins=args.cors_origin,
        log=not args.no_access_log,
    )
    connections.serve(app, listener, settings)


def make_parser():
    parser = argparse.ArgumentParser(**calls.how_called(__doc__))
    parser.add_argument(
        'models',
        nargs='+',
        metavar='RUN',
        help='a run, such as pets or output/pets, or the folder that export.py wrote, or one with versions of it, named 1, 2, ...; the '
        'first of several is that of /predict and the page',
    )
    add = parser.add_argument
    add('--host', default='127.0.0.1', help='address to listen on; 0.0.0.0 is all (default: 127.0.0.1)')
    add('--port', type=_number(int, 0, 65535), default=8000, help='0 picks a free one (default: 8000)')
    add('--device', type=device.checked, default='auto', help='auto, cpu, gpu or gpu:N (default: auto)')
    choice.add_options(parser)

    def limit(name, default, text, kind=int, low=1, high=10**6):
        add(name, type=_number(kind, low, high), default=default, metavar='N', help=f'{text} (default: {default})')

    limit('--batch-size', 8, 'largest number of images per run of the network', high=256)
    limit('--max-delay', 2, 'milliseconds an image may wait for others to share its batch', float, 0)
    limit('--max-requests', 128, 'requests in progress whose body has arrived; more get 503')
    limit('--max-images', 16, 'images per request; more get 413')
    limit('--max-mb', 16, 'megabytes per request, held in memory; more get 413')
    limit(
        '--max-total-mb', 512, 'megabytes of memory for all uploads together; the largest one still arriving gets 503'
    )
    limit('--max-megapixels', 32, 'megapixels per image; more get 413')
    limit('--timeout', 30, 'seconds for a request, from its first byte to the answer', float)
    limit(
        '--watch',
        1,
        'seconds between two looks for new exports in place of those that are served; 0 for none',
        float,
        0,
    )
    limit('--keep-alive', 75, 'seconds an idle connection stays open; must exceed that of a proxy in front', float)
    limit('--drain', 2, 'seconds after SIGTERM in which requests are accepted while /readyz returns 503', float, 0)
    help_on_proxy = 'address or network of a proxy whose X-Forwarded-For is trusted; repeatable (default: none)'
    add('--proxy', type=_network, action='append', default=[], metavar='ADDRESS', help=help_on_proxy)
    help_on_root = (
        'path under which a proxy shows this server, like /zodiac; the proxy may remove it or not (default: none)'
    )
    add('--root-path', type=_root, default='', metavar='PATH', help=help_on_root)
    help_on_cors = (
        "origin whose pages may call this server, like https://example.org, or '*'; repeatable (default: none)"
    )
    add('--cors-origin', type=_origin, action='append', default=[], metavar='ORIGIN', help=help_on_cors)
    add('--no-access-log', action='store_true', help='do not log each request as a line of JSON on stderr')
    return parser


def parse():
    parser = make_parser()
    args = parser.parse_intermixed_args()  # models may also stand behind options
    buffers = math.ceil(1.5 * args.max_requests)  # MB: connections.BUFFERS for CONNECTIONS
    if args.max_total_mb < args.max_mb + buffers:
        least = (
            f'{args.max_mb + buffers}: {args.max_mb} for --max-mb and {buffers} for the connections of --max-requests'
        )
        parser.error(f'argument --max-total-mb: must be at least {least}')
    return args


def _number(kind, low, high):
    def number(text):
        if not low <= kind(text) <= high:
            raise argparse.ArgumentTypeError(f'must be from {low} to {high}')
        return kind(text)

    return number


def _network(text):
    try:
        return str(ipaddress.ip_network(text) if '/' in text else ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            'must be an IP address, like 127.0.0.1, or a network, like 10.0.0.0/8'
        ) from None


def _root(text):
    if not re.fullmatch(r'(/[\w.~-]+)*/?', text, re.ASCII):
        raise argparse.ArgumentTypeError('must be a path like /zodiac, of letters, digits and -_.~')
    return text.rstrip('/')


def _origin(text):
    if text != '*' and not re.fullmatch(r'https?://[^/?#@\s]+', text):
        raise argparse.ArgumentTypeError("must be like https://example.org, with no path, or '*'")
    return text


def read_token():
    """The token that clients must send, or None. Raises UsageError for one that a header cannot carry."""
    token = os.environ.get('ZODIAC_TOKEN')
    if token is not None and not (token.isascii() and token.isprintable() and token.split() == [token]):
        raise UsageError('ZODIAC_TOKEN: must be one word of ASCII characters; try: openssl rand -hex 16')
    return token


if __name__ == '__main__':
    run(main)
