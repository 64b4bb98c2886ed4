"""Answer requests within the limits: receive the upload, decode its images, run the model."""

import asyncio
import contextlib
import functools
import io
import time

from fastapi import HTTPException

from zodiac.base import device
from zodiac.images import decoding, transforms
from zodiac.inference import exported_model
from zodiac.serving import tensors, uploads
from zodiac.serving.batcher import NetworkError
from zodiac.serving.uploads import busy


class Classifier:
    """What both APIs do with a request.

    Args:
        limits: uploads.Limits.
        decoders: Decoders.
        counts: metrics.Metrics.
    """

    def __init__(self, limits, decoders, counts):
        self._limits, self._decoders, self._counts = limits, decoders, counts
        self._memory, self._in_progress = uploads.Memory(limits.total), set()

    async def predict(self, request, served, top):
        """One dict per image of a request to /predict, as `exported_model.as_dict` returns it. Raises HTTPException."""
        async with self._received(request, uploads.images) as (files, end):
            inputs = [(name, self._decoding(served, name, file)) for name, file in files]
            answers = await self._answers(served, inputs, end)
        return [
            exported_model.as_dict(
                exported_model.top_labels(answer.probabilities, served.model.labels, top), answer, served.model
            )
            for answer in answers
        ]

    async def infer(self, request, served):
        """(tensors.Request, list of exported_model.Answer) of a request of the Open Inference Protocol. Raises HTTPException."""
        async with self._received(request, uploads.whole) as (upload, end):
            size = tensors.json_size(request.headers, upload.size)
            parse = functools.partial(tensors.parse, size, upload, served, self._limits.images)
            asked = await self._in_time(self._parsed(size, parse), end)
            if size == upload.size:  # all of it is in `asked` now
                upload.close()
            inputs = [
                (name, self._decoding(served, name, make, 400) if asked.encoded else make)
                for name, make in asked.inputs
            ]
            return asked, await self._answers(served, inputs, end)

    @contextlib.asynccontextmanager
    async def _received(self, request, take):
        """(what `take` returns of the body, when the answer is due). In the block, the request is in progress."""
        end = time.monotonic() + self._limits.seconds
        with self._memory.upload() as upload:
            content = await uploads.read(request, self._limits, self._memory, upload, take)
            if len(self._in_progress) >= self._limits.requests:
                raise busy(f'{self._limits.requests} requests are in progress')
            self._in_progress.add(request)
            try:
                yield content, end
            finally:
                self._in_progress.remove(request)

    async def _parsed(self, size, parse):
        if size <= tensors.SMALL:
            return parse()
        async with self._decoders.alone:  # its objects take many times the memory of the text
            return await self._decoders.run(parse)

    def _decoding(self, served, name, file, unreadable=422):
        """A function that decodes an image for a model; `unreadable` is the status if that fails."""

        def decode():
            try:
                return transforms.read(served.model.transform, io.BytesIO(file()), max_pixels=self._limits.pixels)
            except decoding.ImageError as error:
                status = 413 if error.reason == decoding.TOO_MANY_PIXELS else unreadable
                raise HTTPException(status, str(error).replace('image', name, 1)) from None

        return decode

    async def _answers(self, served, inputs, end):
        """The answer to each of `inputs`: [(name for messages, function that makes the input of the network)]."""
        turn = asyncio.Semaphore(device.cores())  # leaves room for the images of other requests
        tasks = [asyncio.ensure_future(self._answer(served, name, make, turn)) for name, make in inputs]
        try:
            return await self._in_time(asyncio.gather(*tasks), end)
        finally:
            for task in tasks:  # if one has failed, the others are of no use
                task.cancel()

    async def _answer(self, served, name, make, turn):
        async with contextlib.AsyncExitStack() as held:
            async with turn:
                await held.enter_async_context(served.places)
                with served.batcher.announced():
                    image = await self._decoders.run(make)
            try:
                answer = await served.batcher.predict(image)
            except NetworkError as error:
                raise HTTPException(500, f'{name}: {error}') from None
        self._counts.images.labels(*served.labels).inc()
        return answer

    async def _in_time(self, work, end):
        try:
            return await asyncio.wait_for(work, end - time.monotonic())
        except asyncio.TimeoutError:
            raise busy(f'no answer within {self._limits.seconds:g} seconds') from None
