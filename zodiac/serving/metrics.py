"""Prometheus metrics, and a 500 answer for exceptions that escape the application."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.responses import JSONResponse

from zodiac.base.errors import one_line
from zodiac.serving.logs import RateLimitedLog


class Metrics:
    """What /metrics reports."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter('zodiac_requests', 'Requests to /predict', ['status'], registry=self.registry)
        self.seconds = Histogram('zodiac_request_seconds', 'Time of a request to /predict', registry=self.registry)
        self.images = Counter('zodiac_images', 'Images classified', registry=self.registry)
        self.batches = Histogram(
            'zodiac_batch_images',
            'Images per run of the network',
            buckets=[1, 2, 4, 8, 16, 32, 64, 128, 256],
            registry=self.registry,
        )
        self.in_progress = Gauge('zodiac_requests_in_progress', 'Requests not answered yet', registry=self.registry)


class Middleware:
    """ASGI middleware that counts and times requests to /predict, and answers 500 when an exception escapes the application."""

    def __init__(self, app, metrics):
        self.app, self.metrics, self._log = app, metrics, RateLimitedLog()

    async def __call__(self, scope, receive, send):
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        status, start = None, time.perf_counter()

        async def note_status(message):
            nonlocal status
            status = message.get('status', status)
            await send(message)

        counted = scope['path'] == scope.get('root_path', '') + '/predict'
        self.metrics.in_progress.inc(counted)
        try:
            await self.app(scope, receive, note_status)
        except Exception as error:  # a bug of ours: the details go to the log, not to the client
            self._log.error(f'a request failed: {one_line(error)}', error)
            if status is None:  # else uvicorn closes the connection in the middle of the answer
                await JSONResponse({'detail': 'the server failed; see its log'}, 500)(scope, receive, note_status)
        finally:
            self.metrics.in_progress.dec(counted)
            if counted:
                self.metrics.requests.labels(status or 500).inc()
                self.metrics.seconds.observe(time.perf_counter() - start)
