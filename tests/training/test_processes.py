"""Runs of several processes on the CPU, started by Paddle's launcher or --nproc, equal runs of one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_runs
from conftest import ROOT, assert_message, make_tree, run_script
from small_runs import log_of, write_index

from zodiac.base import device
from zodiac.models import weights
from zodiac.training import processes

SETTINGS = [
    *(*small_runs.SETTINGS, 'train.batch_size=5', 'train.epochs=2', 'optim.name=momentum', 'train.save_steps=1'),
    'train.keep_checkpoints=9',
]
RUNS = """
import json, sys
sys.path.insert(0, {root!r})
import train
from zodiac.base import device, errors
from zodiac.base.paddle_setup import paddle
from zodiac.models import freezing
from zodiac.training import callbacks
nn = paddle.nn

class Network(nn.Layer):
    def __init__(self, norm, kept):
        super().__init__()
        parts = [nn.BatchNorm2D(4)] * norm + [nn.Dropout(0.3)] * (norm and not kept)
        self.stem = nn.Conv2D(3, 3, 1)
        self.stage = nn.Sequential(nn.Conv2D(3, 4, 3), *parts, nn.ReLU(), nn.Flatten())
        self.fc = nn.Linear(144, 3)

    def forward(self, x):
        return self.fc(self.stage(self.stem(x)))

class Interrupts(callbacks.Interrupts):
    def on_train_batch_begin(self, step, logs=None):
        if self.clock.step + 1 == asked and device.rank() == paddle.distributed.get_world_size() - 1:
            self.asked = 15

callbacks.Interrupts = Interrupts
for name, norm, asked, arguments in json.load(open('runs.json')):
    def build(cfg, *_, **__):
        paddle.seed(0)
        kept = cfg.train.batch_norm == 'keep'
        network = Network(norm, kept)
        return network, freezing.freeze(network, cfg.model.freeze, kept)
    train.build_network = build
    sys.argv = ['train.py', '-o', *{settings!r}, 'name=' + name, *arguments]
    try:
        with paddle.utils.unique_name.guard():  # as in a new process
            train.main()
    except errors.Stopped as stop:
        assert asked and stop.status == 143
"""
WEIGHTED = ['train.class_weights=balanced', 'optim.schedule=constant']
CUT = {
    'weighted': WEIGHTED,
    # 14 images in steps of 7, in batches of 4 and 3; in one batch of 7 for two processes, where one would get a single image
    'weighted and smoothed in two batches': [*WEIGHTED, 'train.label_smoothing=0.2', 'train.accumulate=2'],
}
GRADUAL = [
    *('-o', 'model.freeze=backbone', 'model.unfreeze_epoch=2', 'model.unfreeze_every=1', 'train.epochs=3'),
    *('train.batch_norm=keep', 'model.pretrained=true', 'optim.layer_decay=0.5'),
]
LAUNCH = ['-m', 'paddle.distributed.launch', '--nproc_per_node', '2', '--log_dir', 'logs']


def start(folder, runs, prefix=(), settings=(), wait=True):
    """Run `runs`, each (name, with BatchNorm and dropout, step at which one process gets SIGTERM or 0, flags).

    With train.batch_norm=keep there is no dropout, which differs between one process and two.
    """
    (folder / 'runs.json').write_text(json.dumps(runs))
    (folder / 'runs.py').write_text(RUNS.format(root=str(ROOT), settings=[*SETTINGS, *settings]))
    process = subprocess.Popen(
        [sys.executable, *prefix, 'runs.py'],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    if wait:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
    return process


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with 14 training and 7 validation images and the runs of one and of two processes."""
    path = tmp_path_factory.mktemp('processes')
    rng = np.random.default_rng(0)
    for split, count in (('train', 14), ('valid', 7)):
        write_index(split, rng.permutation(np.arange(count) % 3), path)
    cut = [['one ' + name, False, 0, ['-o', *settings]] for name, settings in CUT.items()]
    start(path, [['one', False, 0, []], *cut, ['one gradual', True, 0, GRADUAL]])
    stopped = [['stopped', True, 2, []], ['stopped', True, 5, ['--resume']], ['stopped', True, 0, ['--resume']]]
    shrunk = [['shrunk', True, 4, []]]
    cut = [['two ' + name, False, 0, ['-o', *settings]] for name, settings in CUT.items()]
    gradual = [['two gradual', True, 0, GRADUAL], ['stopped gradual', True, 5, GRADUAL]]
    gradual += [['stopped gradual', True, step, ['--resume', *GRADUAL]] for step in (7, 0)]
    start(path, [['two', False, 0, []], *cut, ['whole', True, 0, []], *stopped, *shrunk, *gradual], LAUNCH)
    cut = [['three ' + name, False, 0, ['-o', *settings]] for name, settings in CUT.items()]
    start(path, cut, [number.replace('2', '3') for number in LAUNCH])
    return path


def assert_same(folder, name, expected):
    for file in sorted((folder / f'output/{expected}').rglob('*.pd*')) + [folder / f'output/{expected}.pdparams']:
        ours = Path(str(file).replace(f'output/{expected}', f'output/{name}'))
        for key, value in weights.read(str(file)).items():
            assert np.array_equal(weights.read(str(ours))[key], value), (file, key)
    assert log_of(folder / 'output' / name) == log_of(folder / 'output' / expected)


def assert_nearly_same(folder, name, expected):
    """The log and the last weights are the same up to rounding."""
    ours, theirs = log_of(folder / 'output' / name), log_of(folder / 'output' / expected)
    assert len(ours) == len(theirs)
    for row, other in zip(ours, theirs):
        for key in ('train_loss', 'train_top1', 'valid_loss', 'valid_top1'):
            if other[key]:
                assert float(row[key]) == pytest.approx(float(other[key]), rel=1e-5), key
    trained = weights.read(f'{folder}/output/{expected}.pdparams')
    for key, value in weights.read(f'{folder}/output/{name}.pdparams').items():
        assert value == pytest.approx(trained[key], abs=1e-6), key


def test_two_processes_train_like_one(folder):
    assert [row['step'] for row in log_of(folder / 'output/two')] == ['3', '6']
    assert [row['lr'] for row in log_of(folder / 'output/two')] == [row['lr'] for row in log_of(folder / 'output/one')]
    assert_nearly_same(folder, 'two', 'one')


@pytest.mark.parametrize('name', CUT)
def test_class_weights_are_normalised_over_the_whole_step(folder, name):
    for number in ('two', 'three'):
        assert_nearly_same(folder, f'{number} {name}', f'one {name}')


def test_two_processes_unfreeze_stages_like_one(folder):
    assert_nearly_same(folder, 'two gradual', 'one gradual')
    files = [f'{folder}/output/two gradual/checkpoints/step_{step:07d}/model.pdparams' for step in (1, 3, 6, 9)]
    states = [weights.read(file) for file in files]
    seen = []
    for before, after in zip(states, states[1:]):
        seen.append({name for name in after if not np.array_equal(before[name], after[name])})
    assert {name for name in states[0] if name not in seen[2]} == {'stage.1._mean', 'stage.1._variance'}
    assert [sorted({name.split('.')[0] for name in names}) for names in seen] == [
        ['fc'],
        ['fc', 'stage'],
        ['fc', 'stage', 'stem'],
    ]


def test_resuming_two_processes_is_exact(folder):
    assert_same(folder, 'stopped', 'whole')
    assert_same(folder, 'stopped gradual', 'two gradual')


def test_one_process_resumes_a_run_of_two(folder):
    """The images already done in the epoch are not repeated, and the log counts them."""
    before = json.loads((folder / 'output/shrunk/checkpoints/step_0000004/state.json').read_text())
    start(folder, [['shrunk', True, 0, ['--resume']]])
    after = json.loads((folder / 'output/shrunk/checkpoints/step_0000005/state.json').read_text())
    assert (before['images'], after['images']) == (5, 10)
    assert [state['sums']['images'] for state in (before, after)] == [5, 10]
    assert [row['step'] for row in log_of(folder / 'output/shrunk')] == ['3', '6']


def test_killed_processes_lose_at_most_one_step(folder):
    process = start(folder, [['killed', True, 0, []]], LAUNCH, ['train.epochs=12'], wait=False)
    reached = folder / 'output/killed/checkpoints/step_0000007'
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not reached.is_dir():
        time.sleep(0.02)
    children = subprocess.run(['pgrep', '-f', f'{folder}|runs.py'], capture_output=True, text=True).stdout.split()
    for child in children:
        if os.path.realpath(f'/proc/{child}/cwd') == str(folder):
            os.kill(int(child), signal.SIGKILL)
    process.communicate(timeout=60)
    start(folder, [['killed', True, 0, ['--resume']], ['alive', True, 0, []]], LAUNCH, ['train.epochs=12'])
    assert_same(folder, 'killed', 'alive')


# train.py --nproc


def suited(folder, monkeypatch, cores, batch, training=99, validation=99, setting='cpu', threads=''):
    """The default number of processes on a machine with `cores`, for so many images."""
    monkeypatch.setenv('OMP_NUM_THREADS', threads)
    monkeypatch.setattr(device, 'cores', lambda: cores)
    for split, count in (('train', training), ('valid', validation)):
        (folder / f'{split}.txt').write_text(''.join(f'{number}.png\t0\n' for number in range(count)))
    return processes.suited(setting, batch, folder / 'train.txt', folder / 'valid.txt')


@pytest.mark.parametrize(
    ('cores', 'batch', 'training', 'validation', 'expected'),
    [
        *((2, 32, 99, 99, 2), (1, 32, 99, 99, 1), (8, 32, 99, 99, 2), (8, 128, 99, 99, 8), (3, 500, 99, 99, 3)),
        *((2, 16, 99, 99, 1), (2, 1, 99, 99, 1)),  # at least 16 images of a batch each
        *((4, 64, 40, 40, 4), (4, 64, 40, 3, 3), (4, 64, 5, 9, 2), (4, 64, 3, 9, 1), (4, 64, 40, 1, 1)),
    ],
)
def test_the_default_on_a_cpu_is_one_process_per_core_with_enough_images_each(
    tmp_path, monkeypatch, cores, batch, training, validation, expected
):
    assert suited(tmp_path, monkeypatch, cores, batch, training, validation) == expected


def test_the_default_is_one_process_on_a_gpu_with_omp_num_threads_or_without_an_index(tmp_path, monkeypatch):
    assert suited(tmp_path, monkeypatch, 8, 512) == 8
    assert suited(tmp_path, monkeypatch, 8, 512, setting='gpu') == 1
    assert processes.suited('cpu', 512, 'nowhere', 'nowhere') == 1
    assert suited(tmp_path, monkeypatch, 8, 512, threads='4') == 1


SMALL = [
    *(
        '-o',
        'data.root=photos',
        'data.labels=[cat,dog]',
        'image.size=32',
        'model.arch=cifarnet',
        'model.pretrained=false',
    ),
    *('device=cpu', 'train.batch_size=4', 'train.epochs=2', 'data.num_workers=0'),
]


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    path = tmp_path_factory.mktemp('nproc')
    make_tree(path / 'photos', ['cat', 'dog'], {'train': 6, 'valid': 2, 'test': 1})
    assert_message(run_script('annotate.py', *SMALL, cwd=path), 0)
    return path


def test_nproc_starts_the_processes_and_prints_the_results_once(photos):
    result = run_script('train.py', '--nproc', 2, *SMALL, cwd=photos)
    assert_message(result, 0, 'epoch 1/2: train loss', 'epoch 2/2: train loss')
    assert [line.split(':')[0].split()[0] for line in result.stdout.splitlines()] == ['best', 'last', 'curves', 'next']
    assert [row['step'] for row in log_of(photos / 'output/zodiac')] == ['3', '6']


def test_the_process_that_launches_the_others_does_not_import_paddle(photos):
    code = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
from zodiac.training import processes
processes.launch = lambda *_: print('launched', 'paddle' in sys.modules) or 3
sys.argv = [{str(ROOT / 'train.py')!r}, '--nproc', '2', *{SMALL}]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=photos, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, 'launched False\n'), done.stderr


def test_an_error_of_all_processes_is_printed_once_with_its_status(photos):
    result = run_script('train.py', '--nproc', 2, *SMALL, 'optim.schedule=one_cycle', 'train.batch_size=99', cwd=photos)
    assert_message(result, 2, 'one_cycle')
    assert result.stderr.count('error: ') == 1 and result.stdout == ''


def test_an_error_of_the_second_process_is_printed(photos):
    images = [line.split('\t')[0] for line in (photos / 'photos/valid.txt').read_text().splitlines()]
    bad = photos / images[-1]  # goes to the second process
    content = bad.read_bytes()
    bad.write_bytes(content[:100])
    try:
        result = run_script('train.py', '--nproc', 2, *SMALL, 'name=bad', cwd=photos)
    finally:
        bad.write_bytes(content)
    assert_message(result, 1, images[-1], 'repair or remove the file')
    assert result.stderr.count('error: ') == 1


def test_a_large_batch_starts_several_processes_by_default(photos):
    settings = ['train.batch_size=32', 'train.epochs=1', 'name=unasked']
    result = run_script('train.py', *SMALL, *settings, cwd=photos, env={'OMP_NUM_THREADS': ''})
    assert_message(result, 0, 'epoch 1/1')
    assert (photos / 'output/unasked.processes').is_dir() == (device.cores() > 1)
    assert result.stdout.count('best epoch') == 1


def test_more_processes_than_images_are_refused(photos):
    result = run_script('train.py', '--nproc', 2, *SMALL, 'train.batch_size=1', cwd=photos)
    assert_message(result, 2, '--nproc 2', 'train.batch_size')


def test_sigterm_stops_all_processes_between_two_steps(photos):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'train.py'), '--nproc', '2', *SMALL, 'train.epochs=5000', 'name=stopped'],
        cwd=photos,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
        if list(photos.glob('output/stopped/checkpoints/step_*')):
            break
    process.send_signal(signal.SIGTERM)
    results, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert 'the same command with --resume resumes the run' in said and 'Traceback' not in said and results == ''
    result = run_script('train.py', '--nproc', 2, *SMALL, 'train.epochs=1', 'name=stopped', '--resume', cwd=photos)
    assert_message(result, 0, 'changed since: train.epochs: 5000 -> 1')


@pytest.mark.parametrize('number', ['0', '-2'])
def test_a_number_of_processes_below_one_is_refused(photos, number):
    assert_message(run_script('train.py', f'--nproc={number}', *SMALL, cwd=photos), 2, '--nproc', '1 or more')
