"""Prometheus metrics, and a 500 answer for exceptions that escape the application."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from zodiac.base.errors import one_line
from zodiac.serving.logs import RateLimitedLog
from zodiac.serving.refusals import PREDICTIONS, path_of, refusal

MODEL = ['model', 'version']  # empty for a request that names no model that there is


class Metrics:
    """What /metrics reports."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def add(kind, name, text, labels=(), **others):
            return kind(name, text, labels, registry=self.registry, **others)

        self.requests = add(Counter, 'zodiac_requests', 'Requests for predictions', ['status', *MODEL])
        self.seconds = add(Histogram, 'zodiac_request_seconds', 'Time of a request for predictions', MODEL)
        self.images = add(Counter, 'zodiac_images', 'Images classified', MODEL)
        buckets = [1, 2, 4, 8, 16, 32, 64, 128, 256]
        self.batches = add(Histogram, 'zodiac_batch_images', 'Images per run of the network', MODEL, buckets=buckets)
        self.in_progress = add(Gauge, 'zodiac_requests_in_progress', 'Requests not answered yet')
        self.models = add(Gauge, 'zodiac_model_info', '1 for each model that answers', [*MODEL, 'engine', 'precision'])
        self.exports = add(
            Counter, 'zodiac_new_exports', 'Exports found while serving: taken or refused', ['model', 'result']
        )


class Middleware:
    """ASGI middleware that counts and times requests for predictions, and answers 500 when an exception escapes the application.

    The application puts the model that answers, a models.Served, into the state of the request as `served`.
    """

    def __init__(self, app, metrics):
        self.app, self.metrics, self._log = app, metrics, RateLimitedLog()

    async def __call__(self, scope, receive, send):
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        status, start, state = None, time.perf_counter(), scope.setdefault('state', {})

        async def note_status(message):
            nonlocal status
            status = message.get('status', status)
            await send(message)

        counted = bool(PREDICTIONS.fullmatch(path_of(scope)))
        self.metrics.in_progress.inc(counted)
        try:
            await self.app(scope, receive, note_status)
        except Exception as error:  # a bug of ours: the details go to the log, not to the client
            self._log.error(f'a request failed: {one_line(error)}', error)
            if status is None:  # else uvicorn closes the connection in the middle of the answer
                await refusal(scope, 500, 'the server failed; see its log')(scope, receive, note_status)
        finally:
            self.metrics.in_progress.dec(counted)
            if counted:
                model = state['served'].labels if 'served' in state else ('', '')
                self.metrics.requests.labels(status or 500, *model).inc()
                self.metrics.seconds.labels(*model).observe(time.perf_counter() - start)
