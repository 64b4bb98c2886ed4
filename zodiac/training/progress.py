"""Progress on stderr: messages, and a bar that becomes a line now and then where stderr is not a terminal."""

import sys
import time

from tqdm import tqdm

from zodiac.base import device


def note(text):
    """Print a message to stderr; of several processes, only the first one does."""
    if device.rank() == 0:
        print(text, file=sys.stderr)


class Bar:
    """A progress bar over `total` steps; without a terminal, a line every `every` seconds.

    Args:
        title: text before the bar.
        done: steps that are already done.
    """

    def __init__(self, title, total, done=0, every=20.0):
        self.title, self.total, self.done, self.every = title, total, done, every
        self.bar = tqdm(total=total, initial=done, desc=title, unit='step', leave=False, disable=None)
        self.printed = time.monotonic()

    def update(self, scores):
        """One more step is done; `scores` is a text that is shown beside the bar."""
        self.done += 1
        self.bar.set_postfix_str(scores, refresh=False)
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.printed > self.every:
            self.printed = time.monotonic()
            print(f'{self.title}, step {self.done}/{self.total}: {scores}', file=sys.stderr, flush=True)

    def close(self):
        self.bar.close()


class Quiet:
    """A stream in place of stderr: writes lines to the file `log`, warnings to `shown` too, and bars only to `shown`."""

    def __init__(self, log, shown):
        self.log, self.shown, self.line = log, shown, ''

    def write(self, text):
        if '\r' in text:  # of a bar, which needs a terminal
            return self.shown.write(text)
        *lines, self.line = (self.line + text).split('\n')
        for line in lines:
            self.log.write(f'{line}\n')
            if line.lower().startswith('warning: '):
                self.shown.write(f'\n{line}\n')
        return len(text)

    def __getattr__(self, name):
        return getattr(self.shown, name)
