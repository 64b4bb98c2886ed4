"""doctor.py: each check on what it may find; the script with no packages, with a broken one, and on a working installation."""

import ast
import io
import json
import re
import signal
import subprocess
import sys
import time
import venv

import pytest
from conftest import ROOT, everything_below, make_tree, run_script

import doctor
from zodiac.base import packages
from zodiac.doctor import check_machine, check_packages, probe

LABELS = ['cat', 'dog']
GOOD = {'version': '3.3.1', 'cuda': ''}


def text(finding):
    return finding.state, f'{finding.found} -> {finding.mend}'


@pytest.fixture
def installed(monkeypatch):
    """installed(numpy='2.0') makes these packages the only ones that are installed."""

    def pretend(**versions):
        versions = {name.replace('_', '-'): version for name, version in versions.items()}
        monkeypatch.setattr(
            packages, 'installed_version', lambda *names: next(filter(None, map(versions.get, names)), '')
        )

    return pretend


# Python and Paddle


def test_a_python_newer_than_the_tested_ones_is_a_warning():
    assert check_packages.python((3, 9)).state == check_packages.python((3, 13)).state == 'ok'
    state, words = text(check_packages.python((3, 14)))
    assert state == 'warning' and 'the newest that is tested is 3.13' in words


def test_a_missing_paddle_is_installed_from_the_requirements(installed):
    installed()
    assert text(check_packages.paddle({'error': 'ModuleNotFoundError'})) == (
        'failure',
        f'not installed -> {packages.install(["paddle"])}',
    )


def test_both_builds_of_paddle_are_a_failure(installed):
    installed(paddlepaddle='3.3.1', paddlepaddle_gpu='2.6.2')
    state, words = text(check_packages.paddle(GOOD))
    assert state == 'failure' and 'pip uninstall -y paddlepaddle paddlepaddle-gpu' in words
    assert words.endswith('#both-paddles')


@pytest.mark.parametrize(
    'version, state', [('2.5.2', 'failure'), ('2.6.2.post120', 'ok'), ('3.4.0', 'warning'), ('0.0.0', 'warning')]
)
def test_a_paddle_outside_the_bounds_is_reported(installed, version, state):
    installed(paddlepaddle=version)
    assert check_packages.paddle({**GOOD, 'version': version}).state == state


@pytest.mark.parametrize(
    'error, words',
    [
        ('killed by SIGILL', 'AVX'),
        ('killed by SIGSEGV', 'pip uninstall -y paddlepaddle paddlepaddle-gpu'),
        (
            'TypeError: Descriptors cannot be created directly.',
            "'protobuf>=3.20.2,<4'; see docs/troubleshooting.md#protobuf",
        ),
        ("ImportError: cannot import name 'runtime_version' from 'google.protobuf'", '--upgrade protobuf'),
        ('ImportError: numpy.core.multiarray failed to import', "'numpy<2'; see docs/troubleshooting.md#numpy-2"),
        ('ImportError: libgomp.so.1: cannot open shared object file', 'apt-get install libgomp1'),
    ],
)
def test_a_paddle_that_cannot_be_imported_is_reported_with_the_fix(installed, error, words):
    installed(paddlepaddle='3.3.1')
    state, found = text(check_packages.paddle({'error': error}))
    assert state == 'failure' and error in found and words in found


# packages


@pytest.mark.parametrize(
    'version, side', [('1.23.5', -1), ('1.24', 0), ('1.24.0', 0), ('2.9.9rc1', 0), ('3', 1), ('3.0.0', 1), ('10.0', 1)]
)
def test_versions_are_compared_number_by_number(version, side):
    assert check_packages.outside(version, '>=1.24,<3') == side


@pytest.fixture
def required(monkeypatch):
    """`check_packages.required` with a short requirements file."""
    short = {'numpy': '>=1.24,<3', 'pillow': '>=10.0', 'simplejpeg': '>=1'}
    monkeypatch.setattr(
        packages, 'requirements', lambda file: short if 'base' in file else {'onnx': '<1.18', 'zip': '<2'}
    )
    return lambda file='requirements-base.txt', imported=(), **how: check_packages.required(file, dict(imported), **how)


def test_packages_within_their_bounds_share_one_line(installed, required):
    installed(numpy='2.0', pillow='13.0', simplejpeg='1.9')
    (finding,) = required()
    assert (finding.name, finding.state) == ('base packages', 'ok')


def test_missing_packages_are_named_with_the_file_that_lists_them(installed, required):
    installed(pillow='13.0', simplejpeg='1.9')
    (finding,) = required()
    assert (finding.state, finding.found) == ('failure', 'not installed: numpy')
    assert finding.mend.endswith('requirements-base.txt')
    installed(numpy='2.0', pillow='13.0')
    assert required()[0].state == 'warning'  # decoding is slower


@pytest.mark.parametrize('version, state', [('1.20', 'failure'), ('3.1', 'warning')])
def test_a_package_that_is_too_old_fails_and_a_newer_one_warns(installed, required, version, state):
    installed(numpy=version, pillow='13.0', simplejpeg='1.9')
    (finding,) = required()
    assert (finding.name, finding.state) == ('numpy', state)
    assert finding.mend.endswith("pip install 'numpy>=1.24,<3'")


def test_optional_packages_only_warn_and_may_be_missing(installed, required):
    installed()
    assert required('requirements-deploy.txt', optional=True)[0].state == 'ok'
    installed(onnx='1.17.0')
    assert required('requirements-deploy.txt', optional=True)[0].state == 'warning'
    installed(onnx='1.18.0', zip='1')
    (finding,) = required('requirements-deploy.txt', optional=True)
    assert finding.state == 'warning' and finding.mend.endswith("'onnx<1.18'")


def test_a_broken_numpy_is_reported_and_not_the_packages_that_need_it(installed, required):
    installed(numpy='2.0', pillow='13.0', simplejpeg='1.9', paddlepaddle='3.3.1')
    broken = {'error': 'ImportError: stub', 'file': '/home/me/numpy.py'}
    imported = {'numpy': broken, 'paddle': {'error': 'ImportError: stub'}, 'PIL': {'version': '13.0'}}
    left = check_packages.without_consequences(imported)
    assert left == {'numpy': broken, 'PIL': {'version': '13.0'}}
    (finding,) = required(imported=left)
    assert finding.state == 'failure' and 'rename /home/me/numpy.py' in finding.mend
    assert check_packages.paddle({}).mend == 'fix numpy first'


# the GPU: there is none here, so the output of nvidia-smi is given


def gpu(device='auto', smi=None, **about):
    about = {'version': '3.3.1', 'cuda': '12.6', 'gpus': 1, **about}
    return check_packages.gpu(smi or {'cards': ['Tesla T4, 535.104.05']}, about, device)


def test_a_gpu_that_paddle_sees_is_ok():
    assert text(gpu()) == ('ok', '1 x Tesla T4, 535.104.05; Paddle for CUDA 12.6 -> ')


def test_a_machine_without_a_gpu_fails_only_runs_that_ask_for_one():
    assert check_packages.gpu(None, {}, 'auto').state == 'ok'
    assert check_packages.gpu(None, {}, 'gpu:0').state == 'failure'


@pytest.mark.parametrize('device, state', [('auto', 'warning'), ('gpu', 'failure')])
def test_a_gpu_that_paddle_cannot_use_is_reported(device, state):
    for finding, words in (
        (gpu(device, {'error': "couldn't communicate with the driver"}), "couldn't communicate with the driver"),
        (gpu(device, cuda=''), 'pip uninstall -y paddlepaddle paddlepaddle-gpu'),
        (gpu(device, gpus=0), 'CUDA_VISIBLE_DEVICES'),
    ):
        assert finding.state == state and words in text(finding)[1]


@pytest.mark.parametrize(
    'body, found', [('echo T4, 535', {'cards': ['T4, 535']}), ('echo no driver; exit 9', {'error': 'no driver'})]
)
def test_nvidia_smi_is_asked_for_cards_and_drivers(tmp_path, monkeypatch, body, found):
    (tmp_path / 'nvidia-smi').write_text(f'#!/bin/sh\n{body}\n')
    (tmp_path / 'nvidia-smi').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    assert probe.nvidia_smi() == found


# the machine


def machine(**other):
    known = {'cores': 8, 'quota': None, 'memory': 16 << 30, 'available': 12 << 30, 'omp': '', 'system': 'Linux'}
    return {**known, **other}


@pytest.mark.parametrize(
    'found, state, words',
    [
        ({}, 'ok', '8'),
        ({'omp': '8'}, 'ok', '8'),
        ({'omp': '1'}, 'warning', 'unset OMP_NUM_THREADS; see docs/troubleshooting.md#slow-cpu'),
        ({'quota': 2.0}, 'warning', 'export OMP_NUM_THREADS=2; see docs/troubleshooting.md#slow-cpu'),
        ({'quota': 2.0, 'omp': '2'}, 'ok', '2'),
        ({'quota': 0.5}, 'warning', 'export OMP_NUM_THREADS=1'),
        ({'quota': 64.0}, 'ok', '8'),
    ],
)
def test_there_should_be_as_many_threads_as_usable_cores(found, state, words):
    got, line = text(check_machine.threads(machine(**found)))
    assert got == state and words in line


def test_too_little_memory_for_a_step_is_reported_with_a_batch_size_that_fits():
    assert check_machine.memory(machine(), 'resnet50', 224, 32, 2).state == 'ok'
    short = check_machine.memory(machine(available=3 << 30), 'resnet50', 224, 32, 2)
    assert short.state == 'warning' and 'train.batch_size=8' in short.mend
    never = check_machine.memory(machine(available=3 << 30, memory=4 << 30), 'resnet50', 224, 32, 2)
    assert never.state == 'failure'
    assert check_machine.memory(machine(available=3 << 30), 'resnet50', 224, 32, 0).state == 'ok'  # on a GPU
    assert check_machine.memory(machine(available=None), 'resnet50', 224, 32, 1).state == 'ok'  # not Linux


def test_limits_of_a_container_are_read_from_both_versions_of_control_groups(tmp_path):
    def machine_with(folder, **contents):
        for name, content in contents.items():
            path = tmp_path / folder / name.replace('__', '/').replace('_DOT_', '.')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        found = probe.machine(str(tmp_path / 'proc'), str(tmp_path / folder))
        return found['quota'], found['memory'], found['available']

    no_limit = machine_with(
        'proc', meminfo='MemTotal: 16777216 kB\nMemAvailable: 12582912 kB\n', self__cgroup='0::/a/b\n'
    )
    assert no_limit == (None, 16 << 30, 12 << 30)
    two = {'a__b__cpu_DOT_max': 'max 100000\n', 'a__cpu_DOT_max': '150000 100000\n', 'a__b__memory_DOT_max': 'max\n'}
    two.update(a__memory_DOT_max=f'{4 << 30}\n', a__memory_DOT_current=f'{1 << 30}\n')
    assert machine_with('two', **two) == (1.5, 4 << 30, 3 << 30)
    one = {'cpu__cpu_DOT_cfs_quota_us': '200000', 'cpu__cpu_DOT_cfs_period_us': '100000'}
    one.update(memory__memory_DOT_limit_in_bytes=f'{2 << 30}', memory__memory_DOT_usage_in_bytes=f'{1 << 30}')
    assert machine_with('one', **one) == (2.0, 2 << 30, 1 << 30)
    assert probe.machine(str(tmp_path / 'none'), str(tmp_path / 'none'))['memory'] is None


def test_a_small_shared_memory_is_judged_by_the_setting(monkeypatch):
    monkeypatch.setattr(check_machine.device, 'shared_memory_fits', lambda setting, need: need < 1 << 20)
    assert check_machine.shared_memory(1 << 10, 'auto').state == 'ok'
    found = check_machine.shared_memory(1 << 30, 'auto')
    assert found.state == 'warning' and found.mend.endswith('--shm-size=2g; see docs/troubleshooting.md#small-devshm')
    assert check_machine.shared_memory(1 << 30, True).state == 'failure'
    assert check_machine.shared_memory(1 << 30, False).state == check_machine.shared_memory(0, 'auto').state == 'ok'


@pytest.mark.parametrize('free, state', [(100, 'ok'), (20, 'warning'), (5, 'failure')])
def test_a_disk_must_have_room_for_a_run(free, state):
    place = {'folder': '/here', 'free': free << 30, 'problem': ''}
    finding = check_machine.disk('output', place, 10 << 30, 'free some')
    assert finding.state == state
    assert state == 'ok' or finding.mend == 'free some; see docs/troubleshooting.md#disk'


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    place = probe.space('/proc/output/zodiac')
    assert place['folder'] == '/proc' and place['problem']
    assert check_machine.disk('output', place, 0, 'x').state == 'failure'
    (tmp_path / 'output').write_text('a file')
    assert probe.space(str(tmp_path / 'output' / 'zodiac'))['problem']
    found = probe.space(str(tmp_path / 'other' / 'zodiac'))
    assert (found['folder'], found['problem']) == (str(tmp_path), '')
    assert sorted(everything_below(tmp_path)) == ['output']


def test_chinese_class_names_need_a_font():
    none = {'fonts': [], 'cache': '/c'}
    assert check_machine.fonts(['cat'], none).state == 'ok'
    finding = check_machine.fonts(['cat', '猫'], none)
    assert finding.state == 'warning'
    assert finding.mend.startswith('apt-get install fonts-noto-cjk && rm -f /c/fontlist-*.json; see ')
    assert check_machine.fonts(['猫'], {'fonts': ['SimHei'], 'cache': '/c'}).state == 'ok'
    assert check_machine.fonts(['猫'], {}).state == 'ok'


# the images and the index


def findings(labels=LABELS, unknown_class='stop'):
    """The findings on photos/ in the working directory: of its images, and of its index."""
    cfg = doctor.config.load(
        overrides=['data.root=photos', f'data.labels={labels}', f'annotate.unknown_class={unknown_class}']
    )
    found = [finding for name, check in doctor.data(cfg, 'ANNOTATE') for finding in doctor.examine(name, check)]
    assert [finding.name for finding in found] == ['images', 'index']
    return found


@pytest.fixture
def photos(workdir, call_script, monkeypatch):
    monkeypatch.setattr(doctor, 'imported', lambda: {'numpy': {'version': '2.0'}})
    make_tree(workdir / 'photos', LABELS, {'train': 3, 'valid': 1, 'test': 1})
    assert call_script('annotate.py', '-o', 'data.root=photos', 'data.labels=[cat,dog]', cwd=workdir).returncode == 0
    return workdir / 'photos'


def test_without_images_or_an_index_the_next_step_is_given(workdir):
    images, index = findings()
    assert images.state == index.state == 'warning'
    assert 'photos/<class>/' in images.mend and index.mend == 'ANNOTATE'
    make_tree(workdir / 'photos', LABELS, {'train': 1})
    assert [finding.state for finding in findings()] == ['ok', 'warning']


def test_folders_that_annotate_would_refuse_are_reported(workdir):
    make_tree(workdir / 'photos', ['cat', 'cow'], {'': 1})
    state, words = text(findings()[0])
    assert state == 'failure' and 'photos/cow: the folder' in words
    state, words = text(findings(unknown_class='skip')[0])
    assert state == 'failure' and 'no files for dog' in words


def test_a_fresh_index_is_ok(photos):
    images, index = findings()
    assert images.state == 'ok' and images.found == 'photos: 10 files in 2 classes'
    assert (index.state, index.found) == ('ok', '6 train, 2 valid, 2 test')


@pytest.mark.parametrize(
    'harm, words',
    [
        (lambda photos: (photos / 'valid.txt').unlink(), 'valid.txt: no such index'),
        (lambda photos: (photos / 'valid.txt').write_text(''), 'valid.txt: lists no images'),
        (lambda photos: (photos / 'train.txt').write_text('photos/train/cat/cat_0.jpg 0\n'), 'train.txt:1'),
        (lambda photos: (photos / 'train/dog/dog_1.jpg').unlink(), '1 of 6 images looked for are gone'),
    ],
)
def test_a_broken_index_is_reported(photos, harm, words):
    harm(photos)
    state, found = text(findings()[1])
    assert state == 'failure' and words in found and 'ANNOTATE' in found


def test_images_added_since_the_index_was_written_are_reported(photos):
    (photos / 'train/cat/new.jpg').write_bytes((photos / 'train/cat/cat_0.jpg').read_bytes())
    state, words = text(findings()[1])
    assert state == 'warning' and '11 files now, 10 when' in words


# child processes


def test_a_module_that_crashes_hangs_or_exits_is_reported_and_the_others_are_still_tried(tmp_path, monkeypatch):
    for name, body in {
        'crashes': 'import os, signal; os.kill(os.getpid(), signal.SIGSEGV)',
        'hangs': 'import time; time.sleep(600)',
        'leaves': 'raise SystemExit(3)',
        'raises': 'print("noise"); raise TypeError("Descriptors cannot be created directly.")',
        'works': '__version__ = "1.2"; print("noise")',
    }.items():
        (tmp_path / f'{name}.py').write_text(body)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    found = probe.imports(['crashes', 'hangs', 'leaves', 'raises', 'works', 'absent'], seconds=5)
    assert found['crashes']['error'] == 'killed by SIGSEGV'
    assert found['hangs']['error'] == 'not done after 5 seconds'
    assert found['leaves']['error'] == 'SystemExit: 3'
    error = 'TypeError: Descriptors cannot be created directly.'
    assert found['raises'] == {'error': error, 'file': str(tmp_path / 'raises.py')}
    assert found['works'] == {'version': '1.2'}
    assert found['absent']['error'].startswith('ModuleNotFoundError')


def test_a_child_that_takes_too_long_ends_with_all_that_it_started(tmp_path):
    sign = tmp_path / 'sign'
    code = f"import subprocess, time; subprocess.Popen(['sh', '-c', 'sleep 2; touch {sign}']); print('begun', flush=True); time.sleep(60)"
    status, out, _ = probe.run_child([sys.executable, '-c', code], 1)
    assert (status, out) == (None, 'begun\n')
    time.sleep(2)
    assert not sign.exists()


def test_the_error_of_a_child_is_its_last_error_line():
    assert probe.last_line('warning\nerror: data.root: wrong\nend\n') == 'error: data.root: wrong'
    assert probe.last_line('Traceback\n  x\nValueError: y\n\n') == 'ValueError: y'
    assert probe.how_it_ended(-signal.SIGILL, '', 1) == 'killed by SIGILL'
    assert 'no output' in probe.how_it_ended(1, '', 1)


# the script


def test_a_check_that_raises_is_a_failure_of_that_check():
    (finding,) = doctor.examine('memory', lambda: {}['MemTotal'])
    assert (finding.name, finding.state) == ('memory', 'failure')
    assert "KeyError: 'MemTotal'" in finding.found


def test_lines_are_coloured_on_a_terminal_only_and_not_with_no_color(monkeypatch):
    finding = check_packages.Finding('cores', 'warning', 'few', 'more')
    terminal = type('Terminal', (io.StringIO,), {'isatty': lambda self: True, 'encoding': 'utf-8'})()
    monkeypatch.delenv('NO_COLOR', raising=False)
    assert doctor.line(finding) == '! cores: few -> more'
    monkeypatch.setattr(sys, 'stdout', terminal)
    assert doctor.line(finding) == '\033[33m!\033[0m cores: few -> more'
    monkeypatch.setenv('NO_COLOR', '1')
    assert doctor.line(finding) == '! cores: few -> more'
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO(), encoding='ascii'))
    assert doctor.line(check_packages.Finding('cores', 'ok', '8')) == 'ok cores: 8'


def test_an_old_python_can_read_the_script_that_calls_it_too_old():
    ast.parse((ROOT / 'doctor.py').read_text(encoding='utf-8'), feature_version=(3, 6))


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
    """A Python without any package."""
    folder = tmp_path_factory.mktemp('bare')
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / 'bin' / 'python'


def test_without_any_package_it_reports_what_to_install(bare, tmp_path):
    done = subprocess.run([bare, ROOT / 'doctor.py'], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == ''
    assert re.search(r'paddle: not installed -> .* -m pip install -r .*requirements(-cpu)?\.txt\n', done.stdout)
    assert re.search(r'base packages: not installed: .*numpy', done.stdout)
    assert re.search(r'settings: cannot be read .*yaml', done.stdout)
    assert 'self-test: not run' in done.stdout
    assert everything_below(tmp_path) == {}


def test_a_broken_numpy_is_the_only_import_that_is_reported(tmp_path):
    (tmp_path / 'stub').mkdir()
    (tmp_path / 'stub' / 'numpy.py').write_text("raise ImportError('libfoo.so: cannot open shared object file')")
    done = run_script('doctor.py', cwd=tmp_path, env={'PYTHONPATH': str(tmp_path / 'stub')})
    failed = [line for line in done.stdout.splitlines() if line.startswith('✗')]
    assert done.returncode == 1 and 'Traceback' not in done.stderr + done.stdout
    assert len(failed) == 2 and 'paddle' in failed[0]
    assert 'libfoo.so' in failed[1] and f'rename {tmp_path}/stub/numpy.py' in failed[1]


def test_a_wrong_setting_ends_with_status_2(tmp_path):
    done = run_script('doctor.py', '-o', 'trian.epochs=1', cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ''
    assert 'did you mean train.epochs' in done.stderr


def test_ctrl_c_ends_it_with_130(tmp_path):
    child = subprocess.Popen(
        [sys.executable, ROOT / 'doctor.py'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.readline()  # the line for Python: it has started
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, 'interrupted\n')


def test_on_a_working_installation_it_trains_exports_predicts_and_leaves_nothing(photos):
    settings = ['data.root=photos', 'data.labels=[cat,dog]', 'device=cpu']
    done = run_script('doctor.py', '--json', '-o', *settings, cwd=photos.parent)
    document = json.loads(done.stdout)
    states = {check['name']: (check['state'], check['found']) for check in document['checks']}
    wrong = {name: found for name, found in states.items() if found[0] == 'failure'}
    assert not wrong and done.returncode == 0, wrong
    assert document['failures'] == 0 and set(document['checks'][0]) == {'name', 'state', 'found', 'mend'}
    assert states['self-test'][1].startswith('drew, trained, exported and predicted in ')
    assert states['index'] == ('ok', '6 train, 2 valid, 2 test')
    assert [path.name for path in photos.parent.iterdir()] == ['photos']


def test_a_self_test_that_fails_shows_the_last_error():
    finding = doctor.self_test('gpu:7')
    assert finding.state == 'failure' and 'device = gpu:7' in finding.found
    assert check_machine.self_test(1, 3, 'error: m.json: Paddle Inference cannot load it').mend.endswith('#onednn')
    assert check_machine.self_test(None, 180, 'not done after 180 seconds').state == 'failure'
