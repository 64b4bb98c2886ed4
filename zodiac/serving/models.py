"""The models that a server answers with: their versions, and what happens when a new export is put in place of one."""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import urllib.parse

from fastapi import HTTPException
from PIL import Image

from zodiac.base.errors import UsageError, UserError, one_line
from zodiac.images import transforms
from zodiac.serving import folders, page, tensors
from zodiac.serving.batcher import Batcher, NetworkError
from zodiac.serving.logs import RateLimitedLog
from zodiac.serving.metrics import Metrics

LOG = logging.getLogger('zodiac')


class Served:
    """A version of a model that answers requests.

    Args:
        model: zodiac.inference.exported_model.ExportedModel.
        version: number of its folder, or the start of its digest.
        size, delay: of the Batcher.
        counts: Metrics.
    """

    def __init__(self, model, version, size, delay, counts):
        self.model, self.name, self.version = model, model.name, version
        self.labels = (model.name, version)  # of its metrics
        self.users = 0  # requests that it answers now
        self.digest = None  # of its export
        self.pages = {}  # prefix of links -> (HTML, headers)
        self.blank = transforms.apply(model.transform, Image.new('RGB', (64, 64)))
        self.range = tensors.input_range(model.transform)
        observe = counts.batches.labels(*self.labels).observe
        self.batcher = Batcher(model.answers, size, delay, observe, lambda answer: answer.finite)
        self._decoded = 4 * size
        self.places = None  # a semaphore for the decoded images in memory; the others wait undecoded

    def warm_up(self):
        """Run the network once for each batch size. Raises UserError when it fails."""
        try:
            self.batcher.warm_up(self.blank)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise UserError(
                f'{self.name}: {self.model.engine} cannot run it ({one_line(error)}); try another --engine, or export the model again'
            ) from error

    async def start(self):
        self.places = asyncio.Semaphore(self._decoded)  # with Python 3.9 it belongs to the loop that runs now
        await self.batcher.__aenter__()

    async def stop(self):
        await self.batcher.__aexit__()

    async def trouble(self, seconds):
        """A line that says why it does not answer, or None. A batch may take `seconds`."""
        if self.batcher.trouble(seconds) == Batcher.FAILED:
            # a server that is not ready gets no requests: only this shows that it works again
            with contextlib.suppress(NetworkError, asyncio.TimeoutError):
                await asyncio.wait_for(self.batcher.predict(self.blank), seconds)
        return self.batcher.trouble(seconds)


class Models:
    """The models of a server.

    Args:
        roots: folders, each an export, or one whose folders with numbers as names are exports: versions of a model.
        load: function, folder and the ExportedModel that answers until now, or None -> ExportedModel.
        size, delay: of each Batcher: largest number of images per run of the network; seconds an image may wait for others.
    Raises: UserError when an export cannot be loaded or run; UsageError when two cannot be told apart.
    """

    def __init__(self, roots, load, size=8, delay=0.002):
        self._roots, self._load, self._size, self._delay = roots, load, size, delay
        self.counts = Metrics()
        self._private = False
        self.names = []  # of the models; the first is the one of /predict and the page
        self._served, self._seen = {}, {}  # folder -> Served; folder -> its state when it was last looked at
        self._tasks, self._thread, self._log = set(), None, RateLimitedLog()
        for folder, state in self._look().items():
            self._seen[folder] = state
            self.add(self._read(folder), folder)

    def add(self, served, folder=None):
        """Serve one more. Raises UsageError if it cannot be told from another."""
        same = [other for other in self._served.values() if other.name == served.name]
        versions = {one.version for one in (*same, served)}
        if same and not (len(versions) == len(same) + 1 and all(map(folders.is_number, versions))):
            raise UsageError(
                f'{folder}: there is another export named {served.name}; put versions of a model into folders with numbers, like '
                f'{served.name}/1 and {served.name}/2, and name the folder above: {served.name}'
            )
        self._served[folder or served.name] = served
        if not same:
            self.names.append(served.name)

    def __str__(self):
        several = len(self._served) > len(self.names)
        return ', '.join(
            f'{one.name}{f" {one.version}" if several else ""} with {one.model.engine} in {one.model.precision}'
            for one in self._served.values()
        )

    def versions(self, name):
        """The versions of a model, oldest first."""
        return [served.version for served in sorted(self._served.values(), key=_age) if served.name == name]

    def get(self, name=None, version=None):
        """The Served of a model, by default the first one; by default its latest version. Raises HTTPException 404."""
        name = name or self.names[0]
        found = [served for served in self._served.values() if served.name == name]
        if not found:
            raise HTTPException(404, f'no model {name[:100]!r}; there is {", ".join(self.names)}')
        chosen = max((served for served in found if version in (None, served.version)), key=_age, default=None)
        if chosen is None:
            raise HTTPException(404, f'{name}: no version {version[:100]!r}; there is {", ".join(self.versions(name))}')
        return chosen

    @contextlib.contextmanager
    def use(self, name=None, version=None):
        """As `get`; in the block, it is not stopped."""
        served = self.get(name, version)
        served.users += 1
        try:
            yield served
        finally:
            served.users -= 1

    async def trouble(self, seconds):
        """A line that says which model does not answer, and why, or None. A batch may take `seconds`."""
        for served in list(self._served.values()):
            trouble = await served.trouble(seconds)
            if trouble:
                return f'{served.name}: {trouble}' if len(self._served) > 1 else trouble
        return None

    async def start(self, watch=0, private=False):
        """Start to answer.

        Args:
            watch: seconds between two looks for new exports; 0 for none.
            private: leave the example photos of the exports out of the pages.
        """
        self._private = private
        self._thread = concurrent.futures.ThreadPoolExecutor(1, 'load')
        for served in self._served.values():
            self._draw(served)
            await served.start()
        self._count()
        if watch:
            self._run(self._watch(watch))

    async def stop(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)
        for served in self._served.values():
            await served.stop()

    async def _watch(self, seconds):
        waiting = {}
        while True:
            await asyncio.sleep(seconds)
            try:
                states = await self._in_thread(self._look)
                for folder, state in states.items():
                    # twice the same: nobody is copying files into it any more
                    if state not in (self._seen.get(folder), None) and state == waiting.get(folder):
                        await self._take(folder, state)
                there = {served.name for folder, served in self._served.items() if folder in states}
                for folder in self._served.keys() - states:
                    if (
                        self._served[folder].name in there
                    ):  # else it is the last version, or its folder is being replaced
                        self.drop(folder)
                waiting = states
            except Exception as error:  # whatever it is, look again
                self._log.error(f'the folders of the models cannot be read: {one_line(error)}', error)

    def _look(self):
        """{folder: state} of the exports that there are now."""
        return {folder: folders.state(folder) for folder in folders.exports(self._roots)}

    async def _take(self, folder, state):
        """Load and warm up what is new in a folder, then let it answer. If that fails, say so; what answers now stays."""
        old, self._seen[folder] = self._served.get(folder), state
        try:
            if old is not None and old.digest == folders.digest(folder):
                return
            new = await self._in_thread(self._read, folder, self._like(folder))
            if new.name not in ([old.name] if old else self.names):
                raise UserError(f'it is named {new.name}; start the server again to serve another model')
            await self.replace(folder, new)
        except Exception as error:  # whatever an engine raises, the server goes on
            stays = f'; version {old.version} stays' if old else ''
            LOG.warning('%s: the new export is refused (%s)%s', folder, one_line(error), stays)
            self.counts.exports.labels(old.name if old else '', 'refused').inc()
            return
        self.counts.exports.labels(new.name, 'taken').inc()
        LOG.warning(
            '%s: serving version %s with %s in %s', new.name, new.version, new.model.engine, new.model.precision
        )

    async def replace(self, folder, new):
        """Let a Served answer from now on; the one of this folder stops once it has answered its requests."""
        old = self._served.get(folder)
        await self._in_thread(self._draw, new)
        await new.start()
        self._served[folder] = new
        self._count()
        if old:
            self._run(_retire(old))

    def drop(self, folder):
        """Stop a version, which must not be the last one of its model, once it has answered its requests."""
        old = self._served.pop(folder)
        self._seen.pop(folder, None)
        self._count()
        LOG.warning('%s: version %s is gone', old.name, old.version)
        self._run(_retire(old))

    def _read(self, folder, old=None):
        """The Served of a folder, warmed up. Raises UserError."""
        digest = folders.digest(folder)
        model = self._load(folder, old)
        if folders.digest(folder) != digest:
            raise UserError(f'{folder}: was exported again while it was being read; start again')
        served = Served(model, folders.version(folder, digest), self._size, self._delay, self.counts)
        served.digest = digest
        served.warm_up()
        return served

    def _like(self, folder):
        """The ExportedModel of the folder, or of another version beside it; None without one."""
        beside = [served for other, served in self._served.items() if os.path.dirname(other) == os.path.dirname(folder)]
        known = self._served.get(folder) or max(beside, key=_age, default=None)
        return known and known.model

    def _draw(self, served):
        """Make the pages of a model: at / if it is the first one, and at /models/NAME/."""
        first, *others = self.names
        links = {first: '', **{name: f'models/{urllib.parse.quote(name, safe="")}/' for name in others}}
        for prefix in ('', '../../'):
            other = [(name, f'{prefix}{link}' or './') for name, link in links.items() if name != served.name]
            served.pages[prefix] = page.render(served.model, prefix, other, self._private)

    def _count(self):
        self.counts.models.clear()
        for served in self._served.values():
            self.counts.models.labels(*served.labels, served.model.engine, served.model.precision).set(1)

    def _in_thread(self, work, *arguments):
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _run(self, work):
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _age(served):
    return int(served.version) if folders.is_number(served.version) else 0


async def _retire(served):
    """Stop a model once it has answered its last request."""
    while served.users:
        await asyncio.sleep(0.05)
    await served.stop()
