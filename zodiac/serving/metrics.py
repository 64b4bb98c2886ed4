"""What the server counts for Prometheus, and an answer to every request, whatever goes wrong."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.responses import JSONResponse

from zodiac.base.errors import one_line
from zodiac.serving.rate_limit import Seldom


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
    """ASGI middleware: counts and times the requests to /predict, and answers with 500 where an exception escapes the application."""

    def __init__(self, app, metrics):
        self.app, self.metrics, self._log = app, metrics, Seldom()

    async def __call__(self, scope, receive, send):
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        status, start = None, time.perf_counter()

        async def note(message):
            nonlocal status
            status = message.get('status', status)
            await send(message)

        counted = scope['path'] == '/predict'
        self.metrics.progress.inc(counted)
        try:
            await self.app(scope, receive, note)
        except (
            Exception
        ) as error:  # a fault of ours: clients are told no more than that, the log has the first one in full
            self._log.error(f'a request failed: {one_line(error)}', error)
            if status is None:  # else uvicorn closes the connection in the midst of the answer
                await JSONResponse({'detail': 'the server failed; its log says why'}, 500)(scope, receive, note)
        finally:
            self.metrics.progress.dec(counted)
            if counted:
                self.metrics.requests.labels(status or 500).inc()
                self.metrics.seconds.observe(time.perf_counter() - start)
