"""What the server counts for Prometheus, and what every answer of it carries."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

HEADERS = {b'x-content-type-options': b'nosniff', b'content-security-policy': b"frame-ancestors 'none'"}


class Metrics:
    """The numbers that Prometheus asks for."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter('zodiac_requests', 'Requests to /predict', ['status'], registry=self.registry)
        self.seconds = Histogram('zodiac_request_seconds', 'Time of a request to /predict', registry=self.registry)
        self.images = Counter('zodiac_images', 'Images classified', registry=self.registry)
        self.batches = Histogram(
            'zodiac_batch_images',
            'Images a run of the network',
            buckets=[1, 2, 4, 8, 16, 32, 64, 128, 256],
            registry=self.registry,
        )
        self.progress = Gauge('zodiac_requests_in_progress', 'Requests not answered yet', registry=self.registry)


class Watch:
    """ASGI middleware: counts and times the requests to /predict, and gives every answer HEADERS, unless it has others."""

    def __init__(self, app, metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope, receive, send):
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def note(message):
            nonlocal status
            if message['type'] == 'http.response.start':
                status, given = message['status'], {name for name, _ in message['headers']}
                more = [header for header in HEADERS.items() if header[0] not in given]
                message = {**message, 'headers': [*message['headers'], *more]}
            await send(message)

        if scope['path'] != '/predict':
            await self.app(scope, receive, note)
            return
        self.metrics.progress.inc()
        try:
            await self.app(scope, receive, note)
        finally:
            self.metrics.progress.dec()
            self.metrics.requests.labels(status).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)
