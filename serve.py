"""Serve an exported model over HTTP, with a page for people.

    python serve.py output/zodiac/infer
    curl -F file=@cat.jpg http://127.0.0.1:8000/predict

/ is the page, /predict takes images, /docs describes it, /healthz, /readyz and /metrics are for whoever runs it. Only this machine
can reach it unless --host says otherwise; then set the environment variable ZODIAC_TOKEN, which clients send as `Authorization:
Bearer TOKEN`. Needs requirements-serve.txt.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare(
        'requirements-serve.txt',
        'fastapi fastapi_offline uvicorn python_multipart prometheus_client numpy PIL yaml tqdm',
    )

import argparse
import ipaddress
import math
import os
import re
import sys

from zodiac.base import device
from zodiac.base.errors import UsageError, run
from zodiac.inference import runtime

CONNECTIONS = 4  # for each request of --max-requests


def main():
    serve(parse())


def serve(args):
    """Load the model, run it once, and answer requests until a signal comes."""
    from zodiac.serving import application, connections, uploads

    token = read_token()
    links = CONNECTIONS * args.max_requests
    total = (args.max_total_mb << 20) - links * connections.BUFFERS
    sizes = {'body': args.max_mb << 20, 'total': total, 'pixels': args.max_megapixels * 10**6}
    limits = uploads.Limits(requests=args.max_requests, images=args.max_images, seconds=args.timeout, **sizes)
    listener = connections.bind(args.host, args.port)
    model = runtime.load(args.infer_dir, args.device, args.engine)
    app = application.create(model, limits, args.batch_size, args.max_delay / 1000, token, warm_up=True)
    connections.listen(listener)
    host, port = listener.getsockname()[:2]
    if not token and not ipaddress.ip_address(host).is_loopback:
        print(
            f'warning: {host}: others can reach this server; set ZODIAC_TOKEN to ask them for a token', file=sys.stderr
        )
    address = f'http://{f"[{host}]" if ":" in host else host}:{port}'
    print(f'serving {model.name} with {model.engine} at {address} (Ctrl-C stops)', flush=True)
    settings = connections.Settings(
        connections=links,
        keep_alive=args.keep_alive,
        drain=args.drain,
        stop=math.ceil(args.timeout) + 1,
        proxies=args.proxy,
        origins=args.cors_origin,
        log=not args.no_access_log,
    )
    connections.serve(app, listener, settings)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('infer_dir', help='folder that export.py wrote')
    add = parser.add_argument
    add('--host', default='127.0.0.1', help='address to listen at; 0.0.0.0 is all (default: 127.0.0.1)')
    add('--port', type=_number(int, 0, 65535), default=8000, help='0 takes a free one (default: 8000)')
    add('--device', type=device.checked, default='auto', help='auto, cpu, gpu or gpu:N (default: auto)')
    help_on_engine = 'what runs the model; auto is the fastest that export.py has checked (default: auto)'
    add('--engine', choices=['auto', *runtime.ENGINES], default='auto', help=help_on_engine)

    def limit(name, default, text, kind=int, low=1, high=10**6):
        add(name, type=_number(kind, low, high), default=default, metavar='N', help=f'{text} (default: {default})')

    limit('--batch-size', 8, 'most images a run of the network', high=256)
    limit('--max-delay', 2, 'milliseconds that an image may wait for others to share its batch', float, 0)
    limit('--max-requests', 128, 'requests that have arrived, in progress; more get 503')
    limit('--max-images', 16, 'images of a request; more get 413')
    limit('--max-mb', 16, 'megabytes of a request, which are held in memory; more get 413')
    limit(
        '--max-total-mb',
        512,
        'megabytes of memory that all uploads together take; the largest that still arrives gets 503',
    )
    limit('--max-megapixels', 32, 'megapixels of an image; more get 413')
    limit('--timeout', 30, 'seconds for a request, from its first byte to the answer', float)
    limit(
        '--keep-alive',
        75,
        'seconds that a connection stays open for another request; more than a proxy in front has',
        float,
    )
    limit('--drain', 2, 'seconds after SIGTERM in which requests are still taken, while /readyz says 503', float, 0)
    help_on_proxy = (
        'address or network of a proxy that is believed who its client is (X-Forwarded-For); may be repeated'
    )
    add('--proxy', type=_network, action='append', default=[], metavar='ADDRESS', help=help_on_proxy)
    help_on_cors = (
        "origin of a page whose scripts may ask this server, like https://example.org, or '*'; may be repeated"
    )
    add('--cors-origin', type=_origin, action='append', default=[], metavar='ORIGIN', help=help_on_cors)
    add('--no-access-log', action='store_true', help='do not write a line of JSON to stderr for each request')
    args = parser.parse_args()
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


def _origin(text):
    if text != '*' and not re.fullmatch(r'https?://[^/?#@\s]+', text):
        raise argparse.ArgumentTypeError("must be like https://example.org, with no path, or '*'")
    return text


def read_token():
    """The token that clients must send, or None. Raises UsageError for one that no header can carry."""
    token = os.environ.get('ZODIAC_TOKEN')
    if token is not None and not (token.isascii() and token.isprintable() and token.split() == [token]):
        raise UsageError('ZODIAC_TOKEN: must be one word of ASCII characters; try: openssl rand -hex 16')
    return token


if __name__ == '__main__':
    run(main)
