"""Ctrl-C and SIGTERM end a script at any time, with the right status, one line, and no unfinished files."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, assert_message, make_tree, run_script

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='signals')


def script(code, cwd=None, **options):
    """Start code as a prepared script in a new session; its function `stop(number)` sends a signal to itself."""
    head = 'from zodiac.base import start; start.prepare()\nimport os, signal, time\nfrom zodiac.base import errors, files, stops\n'
    head += 'def stop(number=signal.SIGINT): os.kill(os.getpid(), number)\n'
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', head + code]
    return subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, **{**pipes, **options})


def ended(process):
    out, said = process.communicate(timeout=30)
    return process.returncode, out, said


MOMENTS = {
    'import': 'open("late.py", "w").write("import __main__; __main__.stop()")\ntry: import late\nexcept ImportError: late = 0',
    'destructor': 'class A:\n  def __del__(self): stop()\ndel [A()][0]',
    'bare except': 'try: stop()\nexcept: pass',
    'work': 'def main():\n  try: stop()\n  except: pass\nerrors.run(main)',
    'exit': 'import atexit\natexit.register(stop)\nerrors.run(lambda: 0)',
    'printing': 'import sys, threading\nthreading.Timer(0.2, stop).start()\ndef main():\n'
    '  while True: sys.stderr.write("x")\nerrors.run(main)',
}


@pytest.mark.parametrize('moment', MOMENTS)
def test_a_signal_ends_a_script_wherever_it_is(tmp_path, moment):
    status, out, said = ended(script(f'{MOMENTS[moment]}\nprint("went on")', tmp_path))
    assert (status, out) == (130, '')
    assert said.lstrip('x') == 'interrupted\n'


def test_sigterm_during_imports_waits_until_they_end(tmp_path):
    code = 'stop(signal.SIGTERM)\nprint("imported", flush=True)\nerrors.run(lambda: print("went on"))'
    assert ended(script(code, tmp_path)) == (143, 'imported\n', 'interrupted\n')


def test_unfinished_files_are_removed_and_old_ones_kept(tmp_path):
    (tmp_path / 'report').mkdir()
    (tmp_path / 'report/old').touch()
    (tmp_path / 'table.csv').write_text('old')
    code = (
        'with files.atomic_folder("report") as a, files.atomic_write(f"{a}/new") as b, files.atomic_write("table.csv") as c:\n'
        '  with files.temporary_folder() as d:\n    c.write("x"); print(d, flush=True)\n    errors.run(stop)'
    )
    status, out, said = ended(script(code, tmp_path))
    assert (status, said) == (130, 'interrupted\n') and not os.path.exists(out.strip())
    assert sorted(os.listdir(tmp_path)) == ['report', 'table.csv'] and os.listdir(tmp_path / 'report') == ['old']
    assert (tmp_path / 'table.csv').read_text() == 'old'


def test_a_second_signal_ends_the_script_at_once():
    code = 'with stops.at_stop(lambda: (print("begun", flush=True), time.sleep(60))): errors.run(stop)'
    with script(code) as process:
        assert process.stdout.readline() == 'begun\n'
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


WORKERS = """
import concurrent.futures, multiprocessing, sys
stops.leave_on_signals()
pool = concurrent.futures.ProcessPoolExecutor(2, initializer=stops.work_for_parent)
with stops.noted() as came:
    with stops.held():
        done = pool.map(time.sleep, [1.5, 1.5])
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    list(done)
    pool.shutdown()
print(*came)
"""


def alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


linux = pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='reads /proc')


@linux
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_workers_finish_their_work_after_a_signal_to_the_process_group(number):
    with script(WORKERS) as process:
        process.stdout.readline()
        os.killpg(process.pid, number)
        assert ended(process) == (0, f'{number.value}\n', '')


@linux
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(number):
    code = WORKERS.replace('1.5', '60').replace('stops.noted()', '__import__("contextlib").nullcontext([])')
    with script(code) as process:
        workers = process.stdout.readline().split()
        os.kill(process.pid, number)
        assert process.wait(20) in (130, -signal.SIGKILL)
        deadline = time.monotonic() + 20
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(workers) == 2 and not any(map(alive, workers))


# Closed standard streams, and file names in an ASCII locale

LABELS = ['牛', '老虎']
NAMED = ['-o', 'data.root=照片', f'data.labels=[{",".join(LABELS)}]']
ASCII = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0', 'PYTHONIOENCODING': ''}


@pytest.mark.parametrize('closed', ['<&-', '>&-', '2>&-', '<&- >&- 2>&-'])
def test_scripts_work_with_closed_streams_and_print_into_no_file(tmp_path, closed):
    make_tree(tmp_path / '照片', LABELS, {'train': 3, 'valid': 1, 'test': 1})
    command = f'"$@" {closed}'
    for expected in (0, 0):
        done = subprocess.run(
            ['sh', '-c', command, 'sh', sys.executable, str(ROOT / 'annotate.py'), *NAMED],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == expected, done.stderr
        assert 'Traceback' not in done.stderr
    assert (tmp_path / '照片/train.txt').read_text(encoding='utf-8').count('\n') == 6
    wrong = ['sh', '-c', command, 'sh', sys.executable, str(ROOT / 'train.py'), '-o', 'trian.epochs=1']
    done = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr


def test_in_an_ascii_locale_files_are_found_and_messages_are_escaped(tmp_path):
    make_tree(tmp_path / '照片', LABELS, {'train': 3, 'valid': 1, 'test': 1})
    done = run_script('annotate.py', *NAMED, cwd=tmp_path, env=ASCII)
    assert_message(done, 0)
    assert '\\u8001\\u864e' in done.stdout and done.stdout.isascii()
    assert (tmp_path / '照片/train.txt').read_text(encoding='utf-8').startswith('照片/train/牛/')
    missing = run_script('annotate.py', '-o', 'data.root=没有', cwd=tmp_path, env=ASCII)
    assert_message(missing, 1, '\\u6ca1\\u6709')
    assert missing.stderr.isascii()
