"""Serve an exported model over HTTP, with a page for people.

    python serve.py output/zodiac/infer
    curl -F file=@cat.jpg http://127.0.0.1:8000/predict

/ is the page, /predict takes images, /docs describes it, /healthz, /readyz and /metrics are for whoever runs it. Only this machine
can reach it unless --host says otherwise; then set the environment variable ZODIAC_TOKEN, which clients send as `Authorization:
Bearer TOKEN`. Needs requirements-serve.txt.
"""

if __name__ == '__main__':
    from zodiac import start

    start.prepare()  # before the other imports, which take long

import argparse
import ipaddress
import math
import os
import sys

from zodiac import device, inference
from zodiac.errors import UsageError, UserError, run


def main():
    serve(parse())


def serve(args):
    """Load the model, run it once, and answer requests until a signal comes."""
    try:
        from zodiac import connections, service, uploads
    except ImportError as error:
        raise UserError(f'{error.name} is not installed; pip install -r requirements-serve.txt') from None

    token = read_token()
    sizes = {'body': args.max_mb << 20, 'pixels': args.max_megapixels * 10**6}
    limits = uploads.Limits(requests=args.max_requests, images=args.max_images, seconds=args.timeout, **sizes)
    listener = connections.bind(args.host, args.port)
    model = inference.load(args.infer_dir, args.device, args.engine)
    app = service.create(model, limits, args.batch_size, args.max_delay / 1000, token, warm_up=True)
    connections.listen(listener)
    host, port = listener.getsockname()[:2]
    if not token and not ipaddress.ip_address(host).is_loopback:
        print(
            f'warning: {host}: others can reach this server; set ZODIAC_TOKEN to ask them for a token', file=sys.stderr
        )
    address = f'http://{f"[{host}]" if ":" in host else host}:{port}'
    print(f'serving {model.name} with {model.engine} at {address} (Ctrl-C stops)', flush=True)
    connections.serve(app, listener, 4 * args.max_requests, math.ceil(args.timeout) + 1)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('infer_dir', help='folder that export.py wrote')
    add = parser.add_argument
    add('--host', default='127.0.0.1', help='address to listen at; 0.0.0.0 is all (default: 127.0.0.1)')
    add('--port', type=_number(int, 0, 65535), default=8000, help='0 takes a free one (default: 8000)')
    add('--device', type=device.checked, default='auto', help='auto, cpu, gpu or gpu:N (default: auto)')
    help_on_engine = 'what runs the model; auto is the fastest that export.py has checked (default: auto)'
    add('--engine', choices=['auto', *inference.ENGINES], default='auto', help=help_on_engine)

    def limit(name, default, text, kind=int, low=1, high=10**6):
        add(name, type=_number(kind, low, high), default=default, metavar='N', help=f'{text} (default: {default})')

    limit('--batch-size', 8, 'most images a run of the network', high=256)
    limit('--max-delay', 2, 'milliseconds that an image may wait for others to share its batch', float, 0)
    limit('--max-requests', 128, 'requests that have arrived, in progress; more get 503')
    limit('--max-images', 16, 'images of a request; more get 413')
    limit('--max-mb', 16, 'megabytes of a request; more get 413')
    limit('--max-megapixels', 32, 'megapixels of an image; more get 413')
    limit('--timeout', 30, 'seconds for a request, from its first byte to the answer', float)
    return parser.parse_args()


def _number(kind, low, high):
    def number(text):
        if not low <= kind(text) <= high:
            raise argparse.ArgumentTypeError(f'must be from {low} to {high}')
        return kind(text)

    return number


def read_token():
    """The token that clients must send, or None. Raises UsageError for one that no header can carry."""
    token = os.environ.get('ZODIAC_TOKEN')
    if token is not None and not (token.isascii() and token.isprintable() and token.split() == [token]):
        raise UsageError('ZODIAC_TOKEN: must be one word of ASCII characters; try: openssl rand -hex 16')
    return token


if __name__ == '__main__':
    run(main)
