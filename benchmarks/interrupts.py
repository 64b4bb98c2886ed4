"""Stop each script in a terminal with Ctrl-C or SIGTERM at a random moment: part `doors` of survive.py."""

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

from training_runs import ROOT, SETTINGS, damaged, expect, run, wait

import demo
from zodiac.inference import export_folder

SCRIPTS = {  # title: command line, where `...` stands for -o and SETTINGS; the run `made` exists already
    'annotate': ['annotate.py', ..., 'annotate.workers=2'],
    'train': ['train.py', '--nproc', '1', ..., 'name=door', 'train.epochs=99', 'data.num_workers=1'],
    'train, 2 processes': ['train.py', '--nproc', '2', ..., 'name=door', 'train.epochs=99', 'data.num_workers=1'],
    'evaluate': ['evaluate.py', ..., 'name=made', 'data.num_workers=1'],
    'export': ['export.py', ..., 'name=made'],
    'predict': ['predict.py', 'output/made/infer', 'photos', '--csv', 'door.csv'],
    'serve': ['serve.py', 'output/made/infer', '--port', '0'],
    'sweep': ['zodiac', 'sweep', '-s', 'seed=[0, 1]', ..., 'name=door', 'train.epochs=2'],
    'demo': [
        'demo.py',
        ...,
        'name=door',
        'data.root=drawn',
        f'data.labels={[*demo.DRAWINGS]}',
        'model.zero_init_residual=false',
        'train.epochs=1',
    ],
    'doctor': ['doctor.py', ...],
}
LONGEST = 30  # seconds of a script in which it is stopped


def doors(rng, count):
    """Stop each script `count` times."""
    for script in ('train.py', 'evaluate.py', 'export.py'):
        expect(run(script, 'name=made'))
    for title, parts in SCRIPTS.items():
        command = [word for part in parts for word in (['-o', *SETTINGS] if part is ... else [part])]
        lost, seconds = [], LONGEST + press(command, signal.SIGINT, LONGEST)[1]
        for _ in range(count):
            number, delay = rng.choice([signal.SIGINT, signal.SIGTERM]), rng.uniform(0, min(seconds, LONGEST))
            status, after, output = press(command, number, delay)
            reasons = damaged('door') + damaged('made') + unfinished()
            if status != 128 + number and (status or after > 1):  # it may have been about to end
                reasons.append(f'exit status {status}')
            if 'Traceback' in output or output.count('interrupted') > (status != 0):
                reasons.append('too much output')
            if not os.path.isfile('output/made/report/report.html') or not export_folder.is_export('output/made/infer'):
                reasons.append('report or export is gone')
            lost += [f'{number.name} after {delay:.2f} s: {reasons}: {output[-300:]!r}'] if reasons else []
            for path in Path('output').glob('door*'):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield f'Ctrl-C or SIGTERM at a random moment: {title}', count, lost


def press(command, number, delay):
    """Run a script in its own terminal; `delay` seconds after it handles signals press Ctrl-C there, or send SIGTERM.

    Returns: exit status; seconds from the signal to its end, below 0 if it ended before; its output.
    """
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, str(ROOT / command[0]), *command[1:]])
    while not handles_signals(process):
        time.sleep(0.001)
    output, sent, moment = b'', False, time.monotonic() + delay
    while True:
        ready = select.select([terminal], [], [], 60 if sent else max(0, moment - time.monotonic()))[0]
        try:
            output += os.read(terminal, 1 << 16) if ready else b''
        except OSError:  # all have closed it
            break
        if not sent and time.monotonic() >= moment:
            sent = True
            os.write(terminal, b'\3') if number == signal.SIGINT else os.kill(process, number)
    status = wait(process)
    os.close(terminal)
    return status, time.monotonic() - moment, output.decode(errors='replace')


def handles_signals(process):
    """Whether a process has its own handler of SIGTERM, or has ended."""
    text = Path(f'/proc/{process}/status').read_text()
    caught = re.search('SigCgt:\\s*(.*)', text)
    return 'State:\tZ' in text or bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def unfinished():
    """Partly written files, and processes that do not end within a second."""
    found = [str(path) for path in Path().rglob('.*') if path.suffix in ('.part', '.old')]
    deadline = time.monotonic() + 1
    while (left := processes_here()) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return [*found, *(f'process {process}' for process in left)]


def processes_here():
    """Other processes in this working directory."""
    found = []
    for process in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):
            if os.readlink(f'/proc/{process}/cwd') == os.getcwd() and int(process) != os.getpid():
                found.append(int(process))
    return found
