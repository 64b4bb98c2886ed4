"""Send serve.py thousands of malformed requests, with good ones in between.

    python benchmarks/uploads.py                                  # a small network
    python benchmarks/uploads.py --infer output/demo/infer        # your own model
    python benchmarks/uploads.py --malformed 300 --good 500       # a part

Starts serve.py. Clients then send empty, cut off, damaged, oversized and mistyped images, decompression bombs, broken multipart
forms and broken HTTP, and bodies without an end, while others send a byte now and then, or request much and read nothing. Every answer
must be 4xx or 503, the server must stay alive and disconnect slow clients, every good request must get the same answer as before, and
memory must not grow with good requests. A second server then gets 16 MB on each of --flood connections at a time: its memory may grow
by --max-total-mb, and good requests must be answered. Prints a table and, last, one JSON line; exit status 1 if a check fails.
"""

import collections
import concurrent.futures
import io
import json
import random
import re
import socket
import struct
import sys
import tempfile
import urllib.parse
import zlib

import flood
import httpx
import numpy as np
import slow_clients
from PIL import Image
from ratios import command_line, run
from served import COLOURS, export_colours, serving

CLIENTS = 8
HANG_UP = 'we hang up'
GOOD_EVERY = 5  # malformed requests
LIMITS = ['--max-mb', '2', '--max-megapixels', '4', '--timeout', '10']
MAX_HELD = (
    25  # seconds of a slow client: --timeout, connections.WAIT_SECONDS for the rest of its body, and a busy machine
)


def main():
    parser = command_line(__doc__)
    parser.add_argument('--infer', metavar='INFER_DIR', help='folder that export.py wrote (default: a small network)')
    parser.add_argument('--malformed', type=int, default=5000, help='malformed requests (default: 5000)')
    parser.add_argument('--slow', type=int, default=50, help='slow clients at the same time (default: 50)')
    parser.add_argument(
        '--good', type=int, default=10000, help='good requests while memory is watched (default: 10000)'
    )
    parser.add_argument('--flood', type=int, default=500, help='connections that fill the memory, or 0 (default: 500)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='uploads') as folder:
        infer = args.infer or export_colours(folder)
        with serving(infer, *LIMITS) as (address, process, log):
            found = attack(address, args.malformed, args.slow)
            found['memory_growth'] = round(grow(address, args.good), 4)
            found['alive'] = process.poll() is None
            log.seek(0)
            found['tracebacks'] = log.read().count('Traceback')
        if args.flood:
            found['flood'] = fill(infer, args.flood)
    print(f'{"request":<24}{"sent":>7}  answers')
    for name, answers in sorted(found.pop('kinds').items()):
        print(f'{name:<24}{sum(answers.values()):>7}  {", ".join(f"{n} x {a}" for a, n in sorted(answers.items()))}')
    found['lost'] = found['unexpected'] + found['good_wrong'] + found['tracebacks'] + (not found['alive'])
    found['lost'] += (found['memory_growth'] >= 0.05) + found['slow_not_cut_off']
    if args.flood:
        found['lost'] += (found['flood']['grown_mb'] > found['flood']['limit_mb']) + found['flood']['bad']
    print(json.dumps({'benchmark': 'uploads', 'malformed': args.malformed, 'good_for_memory': args.good, **found}))
    sys.exit(1 if found['lost'] else 0)


def attack(address, count, slow):
    """Send `count` malformed requests and good ones in between, beside `slow` slow clients; count the answers."""
    kinds, wrong, good = collections.defaultdict(collections.Counter), [], [0]
    expected = [answer_to_good(address, colour) for colour in COLOURS]

    def work(number):
        rng = random.Random(number)
        name = sorted(MALFORMED)[number % len(MALFORMED)]
        kinds[name][send_raw(address, MALFORMED[name](rng), name.startswith(HANG_UP))] += 1
        if number % GOOD_EVERY == 0:
            colour = rng.randrange(len(COLOURS))
            good[0] += 1
            if not same(answer_to_good(address, list(COLOURS)[colour]), expected[colour]):
                wrong.append(number)

    with (
        slow_clients.at_work(address, slow, MAX_HELD + 5) as held,
        concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool,
    ):
        list(pool.map(work, range(count)))
    allowed = re.compile(rf'4\d\d|503|{HANG_UP}')
    bad = sum(n for answers in kinds.values() for answer, n in answers.items() if not allowed.fullmatch(answer))
    return {
        'kinds': kinds,
        'unexpected': bad,
        'slow_clients': slow,
        'slow_longest_seconds': round(max(held, default=0), 1),
        'slow_not_cut_off': sum(seconds > MAX_HELD for seconds in held),
        'good_between': good[0],
        'good_wrong': len(wrong),
    }


def grow(address, count):
    """Relative growth of the server's resident memory over `count` good requests, after a tenth as many to warm up."""
    with httpx.Client(base_url=address) as client:

        def memory():
            return float(re.search(r'^process_resident_memory_bytes (\S+)', client.get('/metrics').text, re.M)[1])

        def send(number):
            assert client.post('/predict', files={'file': photo(number)}).status_code == 200

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(send, range(max(200, count // 10))))
            before = memory()
            list(pool.map(send, range(count)))
        return memory() / before - 1


def fill(infer, connections, most=16, total=512, seconds=40):
    """Flood a server with `connections` clients of `most` MB each, where `total` MB are allowed for all."""
    limits = ['--max-mb', most, '--max-total-mb', total, '--max-requests', connections // 4 + 3]
    with serving(infer, *limits) as (address, process, _):
        expected = answer_to_good(address, 'blue')

        def good():
            return same(answer_to_good(address, 'blue'), expected)

        return {'limit_mb': total, **flood.flood(address, process.pid, connections, most << 20, good, seconds)}


def answer_to_good(address, colour):
    answer = httpx.post(f'{address}/predict', files={'file': png(COLOURS[colour], (64, 48))}, timeout=60)
    return answer.json() if answer.status_code == 200 else {'status': answer.status_code}


def same(one, other):
    """Whether two answers agree up to rounding, which depends on the batch size."""
    if one.get('label') != other.get('label') or 'top' not in one:
        return False
    first, second = ({guess['label']: guess['probability'] for guess in answer['top']} for answer in (one, other))
    return all(abs(first.get(label, 0) - share) < 1e-4 for label, share in second.items() if share > 1e-3)


def png(colour, size):
    return encode(Image.new('RGB', size, tuple(colour)), 'PNG')


def photo(number):
    """A JPEG of random blocks, whose size depends on the number."""
    rng = np.random.default_rng(number)
    blocks = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return encode(blocks.resize((64 + number % 200, 64 + number % 150), Image.Resampling.BILINEAR), 'JPEG')


def encode(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


HEAD = b'POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n'
BOMB = encode(Image.new('1', (20000, 20000)), 'PNG')


def many_scans(count, side):
    """A progressive JPEG in colour whose scans of 15 bytes each cost a decoder a pass over all pixels."""

    def segment(marker, content):
        return b'\xff' + marker + struct.pack('>H', 2 + len(content)) + content

    def scan(bits):
        return segment(b'\xda', b'\x03\x01\x00\x02\x00\x03\x00\x00\x00' + bits) + b'\x00'

    tables = segment(b'\xdb', b'\x00' + b'\x01' * 64) + segment(b'\xc4', b'\x00\x01' + b'\x00' * 16)
    frame = segment(b'\xc2', struct.pack('>BHHB', 8, side, side, 3) + b'\x01\x11\x00\x02\x11\x00\x03\x11\x00')
    return b'\xff\xd8' + tables + frame + scan(b'\x01') + count * scan(b'\x10') + b'\xff\xd9'


def many_chunks(count):
    """A PNG of 8 x 8 pixels, with `count` empty chunks of 12 bytes before them."""

    def chunk(kind, content=b''):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    pixels = chunk(b'IDAT', zlib.compress(bytes(8 * 25)))
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', 8, 8, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + count * chunk(b'teSt') + pixels + chunk(b'IEND')


MANY_SCANS = many_scans(4000, 2000)
MANY_CHUNKS = many_chunks(150_000)


def request(kind, body, length=None):
    size = len(body) if length is None else length
    return HEAD + b'Content-Type: %s\r\nContent-Length: %d\r\n\r\n' % (kind, size) + body


def image(body):
    return request(b'image/jpeg', body)


def form(body, boundary=b'b'):
    return request(b'multipart/form-data; boundary=' + boundary, body)


def part(content, name=b'a.jpg'):
    return b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\n' + content + b'\r\n'


def noise(rng, count):
    return rng.randbytes(count)


def damaged(rng):
    """A JPEG or PNG with a broken header and other bits flipped."""
    content = bytearray(photo(rng.randrange(1000)) if rng.random() < 0.5 else png((1, 2, 3), (50, 50)))
    for _ in range(20):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    content[0] ^= 0x10
    return bytes(content)


def chunked(*chunks):
    return HEAD + b'Content-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n' + b''.join(chunks)


MALFORMED = {
    'empty': lambda rng: image(b''),
    'empty file': lambda rng: form(part(b'') + b'--b--\r\n'),
    'cut off': lambda rng: image(photo(rng.randrange(1000))[: rng.randrange(1, 600)]),
    'noise': lambda rng: image(noise(rng, rng.randrange(1, 5000))),
    'damaged': lambda rng: image(damaged(rng)),
    'text': lambda rng: form(part(b'hello, I am a text') + b'--b--\r\n'),
    'bomb': lambda rng: image(BOMB),
    'bomb in a form': lambda rng: form(part(BOMB) + b'--b--\r\n'),
    'many scans': lambda rng: image(MANY_SCANS),
    'many chunks': lambda rng: image(MANY_CHUNKS),
    'oversized': lambda rng: image(b'\xff\xd8' + b'x' * 3_000_000),
    'oversized form': lambda rng: form(part(b'x' * 3_000_000) + b'--b--\r\n'),
    'claims to be oversized': lambda rng: request(b'image/jpeg', b'x', 10**15),
    'too many images': lambda rng: form(part(png((1, 2, 3), (8, 8))) * 40 + b'--b--\r\n'),
    'wrong boundary': lambda rng: form(part(photo(1)) + b'--b--\r\n', b'c'),
    'no boundary': lambda rng: request(b'multipart/form-data', part(photo(1))),
    'no end': lambda rng: form(part(photo(1))),
    'no name': lambda rng: form(b'--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n'),
    'long part header': lambda rng: form(part(b'x', b'n' * 100_000) + b'--b--\r\n'),
    'noise in a form': lambda rng: form(b'--b\r\n' + noise(rng, 3000)),
    'wrong type': lambda rng: request(b'application/json', b'{"path": "/etc/passwd"}'),
    'path as field': lambda rng: form(
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n/etc/passwd\r\n--b--\r\n'
    ),
    'postscript': lambda rng: image(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n'),
    'we hang up': lambda rng: request(b'image/jpeg', b'x' * 100, 1000),
    'we hang up in a form': lambda rng: form(part(photo(1)))[:-200],
    'chunked without end': lambda rng: chunked(*[b'10000\r\n' + b'x' * 65536 + b'\r\n'] * 64),
    'wrong chunk size': lambda rng: chunked(b'zz\r\nhello\r\n'),
    'no HTTP': lambda rng: noise(rng, 200) + b'\r\n\r\n',
    'long header': lambda rng: b'POST /predict HTTP/1.1\r\nX: ' + b'y' * 200_000 + b'\r\n\r\n',
    'wrong length': lambda rng: HEAD + b'Content-Type: image/jpeg\r\nContent-Length: -5\r\n\r\nhello',
    'other method': lambda rng: b'DELETE /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    'other address': lambda rng: b'GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    'wrong top': lambda rng: image(photo(1)).replace(b'/predict', b'/predict?top=-1', 1),
}


def connect(address):
    host = urllib.parse.urlsplit(address)
    return socket.create_connection((host.hostname, host.port), timeout=30)


def send_raw(address, content, hang_up):
    """The status of the answer, as text."""
    with connect(address) as link:
        try:
            link.sendall(content)
            if hang_up:
                return HANG_UP
        except OSError:
            pass  # it may have answered and closed already
        received = b''
        try:
            while b'\r\n' not in received and (got := link.recv(4096)):
                received += got
        except OSError as error:
            return f'no answer ({type(error).__name__})'
    if not received:
        return 'no answer (closed)'
    return received.split(b' ', 2)[1].decode()


if __name__ == '__main__':
    run(main)
