"""doctor.py: each check on what it may find; the script without packages, with a broken one, and where all is well."""

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
from zodiac.doctor import check_machine, check_packages, probe

INSTALL, UNINSTALL = 'pip install -r requirements-cpu.txt', 'pip uninstall -y'
BOUNDS = [('>=', '2.6.2'), ('<', '3.4')]
GOOD = {'paddle': {'version': '3.3.1', 'cuda': ''}}
HEADER = '| NVIDIA-SMI 535.104.05             Driver Version: 535.104.05   CUDA Version: 12.2     |\n'
TABLE = 'name, compute_cap, driver_version, memory.total [MiB]\n{}, 535.104.05, 15360 MiB\n'
LABELS = ['cat', 'dog']


def told(finding):
    return finding.state, f'{finding.found} -> {finding.mend}'


def paddle(versions, imported=GOOD, avx=True):
    return check_packages.paddle(versions, imported, BOUNDS, avx, INSTALL, UNINSTALL)


# Python and Paddle


@pytest.mark.parametrize(
    'version, installed, state, words',
    [
        ((3, 11), '3.3.1', 'ok', 'Python 3.11'),
        ((3, 9), '', 'ok', 'Python 3.9'),
        ((3, 8), '', 'failure', 'Python 3.8 is too old, 3.9 or newer'),
        ((3, 14), '', 'failure', '3.9 to 3.13'),
        ((3, 13), '2.6.2', 'warning', '3.9 to 3.12'),
        ((3, 13), '3.0.0', 'ok', 'Python 3.13'),
        ((3, 14), '3.4.0', 'ok', 'Python 3.14'),  # not known to be missing
    ],
)
def test_python_must_be_one_that_paddle_is_published_for(version, installed, state, words):
    found, text = told(check_packages.python(version, installed))
    assert found == state and words in text


def test_paddle_that_is_not_there_is_installed_by_the_requirements():
    assert told(paddle({}, {'paddle': {'error': 'ModuleNotFoundError'}})) == ('failure', f'not installed -> {INSTALL}')


def test_both_builds_are_uninstalled_together():
    state, text = told(paddle({'paddlepaddle': '3.3.1', 'paddlepaddle-gpu': '2.6.2'}))
    assert state == 'failure'
    assert f'{UNINSTALL} paddlepaddle paddlepaddle-gpu && {INSTALL}; see docs/troubleshooting.md#both-paddles' in text


def test_numpy_2_breaks_paddle_2_6_and_no_later_one():
    old = {'paddle': {'version': '2.6.2', 'cuda': ''}}
    state, text = told(paddle({'paddlepaddle': '2.6.2', 'numpy': '2.1.0'}, old))
    assert state == 'failure' and text.endswith("pip install 'numpy<2'; see docs/troubleshooting.md#numpy-2")
    assert paddle({'paddlepaddle': '2.6.2', 'numpy': '1.26.4'}, old).state == 'ok'
    assert paddle({'paddlepaddle': '3.3.1', 'numpy': '2.4.6'}).state == 'ok'


@pytest.mark.parametrize(
    'version, state', [('2.5.2', 'failure'), ('2.6.2.post120', 'ok'), ('3.4.0', 'warning'), ('0.0.0', 'warning')]
)
def test_paddle_outside_of_the_bounds_is_told(version, state):
    assert paddle({'paddlepaddle': version}, {'paddle': {'version': version, 'cuda': ''}}).state == state


@pytest.mark.parametrize(
    'error, avx, words',
    [
        ('killed by SIGILL', False, 'no AVX'),
        ('killed by SIGSEGV', True, f'{UNINSTALL} paddlepaddle && {INSTALL}'),
        (
            'TypeError: Descriptors cannot be created directly.',
            True,
            "'protobuf>=3.20.2,<4'; see docs/troubleshooting.md#protobuf",
        ),
        ("ImportError: cannot import name 'runtime_version' from 'google.protobuf'", True, '--upgrade protobuf'),
        ('ImportError: numpy.core.multiarray failed to import', True, "'numpy<2'; see docs/troubleshooting.md#numpy-2"),
        ('ImportError: libgomp.so.1: cannot open shared object file', True, 'apt-get install libgomp1'),
    ],
)
def test_what_ends_the_import_of_paddle_is_told_with_what_mends_it(error, avx, words):
    state, text = told(paddle({'paddlepaddle': '3.3.1'}, {'paddle': {'error': error}}, avx))
    assert state == 'failure' and error in text and words in text


# packages


def test_the_bounds_of_every_requirement_are_read():
    for path in ROOT.glob('requirements*.txt'):
        found = check_packages.requirements(path.read_text(encoding='utf-8'))
        lines = [line for line in path.read_text(encoding='utf-8').splitlines() if line[:1].isalpha()]
        assert len(found) == len(lines) and all(found.values())
    marked = "onnx>=1.16.1,<1.18; python_version < '3.13'  # why"
    assert check_packages.requirements(marked) == {'onnx': [('>=', '1.16.1'), ('<', '1.18')]}
    assert check_packages.requirements('numpy>=1.24,<3  # with Paddle 2.6: numpy<2') == {
        'numpy': [('>=', '1.24'), ('<', '3')]
    }


def test_where_onnx_is_not_published_for_the_python_the_doctor_says_so():
    (finding,) = check_packages.converter({}, '3.3.1', 'pip install', (3, 13))
    assert finding.state == 'warning' and 'Python 3.13: export.py writes no ONNX' in finding.found
    assert finding.mend.endswith('Python 3.12 or older')
    assert check_packages.converter({}, '3.3.1', 'pip install', (3, 12)) == []


@pytest.mark.parametrize(('python', 'expected'), [((3, 12, 9), ['onnx', 'pillow']), ((3, 13, 0), ['pillow'])])
def test_a_package_for_older_pythons_is_not_asked_for(tmp_path, monkeypatch, python, expected):
    (tmp_path / 'some.txt').write_text("onnx>=1.16; python_version < '3.13'\npillow>=10\n", encoding='utf-8')
    monkeypatch.setattr(probe, 'ROOT', str(tmp_path))
    monkeypatch.setattr(sys, 'version_info', python)
    assert list(check_packages.requirements(probe.requirements('some.txt'))) == expected


@pytest.mark.parametrize(
    'version, side', [('1.23.5', -1), ('1.24', 0), ('1.24.0', 0), ('2.9.9rc1', 0), ('3', 1), ('3.0.0', 1), ('10.0', 1)]
)
def test_versions_are_compared_number_by_number(version, side):
    assert check_packages.outside(version, [('>=', '1.24'), ('<', '3')]) == side


def packages(
    versions,
    imported=None,
    worst='failure',
    file='requirements-base.txt',
    text='numpy>=1.24,<3\npillow>=10.0\nsimplejpeg>=1\n',
):
    return check_packages.packages(file, text, versions, imported or {}, f'pip install -r {file}', worst)


def test_packages_within_their_bounds_are_one_line():
    (finding,) = packages({'numpy': '2.0', 'pillow': '13.0', 'simplejpeg': '1.9'})
    assert (finding.name, finding.state) == ('base packages', 'ok')


def test_missing_packages_are_named_with_the_file_that_brings_them():
    (finding,) = packages({'pillow': '13.0', 'simplejpeg': '1.9'})
    assert told(finding) == ('failure', 'not installed: numpy -> pip install -r requirements-base.txt')
    (finding,) = packages({'numpy': '2.0', 'pillow': '13.0'})  # decoding is slower without
    assert finding.state == 'warning'


def test_a_package_that_is_too_old_fails_and_one_that_is_newer_than_tested_warns():
    others = {'pillow': '13.0', 'simplejpeg': '1.9'}
    old, new = packages({'numpy': '1.20', **others}), packages({'numpy': '3.1', **others})
    assert (old[0].name, old[0].state, old[0].mend) == ('numpy', 'failure', "pip install 'numpy>=1.24,<3'")
    assert new[0].state == 'warning'


def test_optional_packages_only_warn_and_may_be_absent():
    text = 'onnx>=1.16.1,<1.18\nonnxruntime>=1.16\n'
    options = {'worst': 'warning', 'file': 'requirements-deploy.txt', 'text': text}
    assert packages({}, **options)[0].state == 'ok'
    assert packages({'onnx': '1.17.0'}, **options)[0].state == 'warning'
    newer = packages({'onnx': '1.18.0', 'onnxruntime': '1.20'}, **options)[0]
    assert newer.state == 'warning' and newer.mend.endswith(
        "'onnx>=1.16.1,<1.18'; see docs/troubleshooting.md#onnx-export"
    )


def test_a_package_that_cannot_be_imported_is_told_and_not_those_that_need_it():
    broken = {'error': 'ImportError: stub', 'file': '/home/me/numpy.py'}
    imported = {'numpy': broken, 'paddle': {'error': 'ImportError: stub'}, 'PIL': {'version': '13.0'}}
    left = check_packages.causes(imported)
    assert left == {'numpy': broken, 'PIL': {'version': '13.0'}}
    (finding,) = packages({'numpy': '2.0', 'pillow': '13.0', 'simplejpeg': '1.9'}, left)
    assert finding.state == 'failure' and 'rename /home/me/numpy.py' in finding.mend
    assert told(paddle({'paddlepaddle': '3.3.1', 'numpy': '2.0'}, left)) == (
        'failure',
        'Paddle 3.3.1: not tried, for NumPy cannot be imported -> mend numpy first',
    )


def test_visualdl_that_does_not_fit_protobuf_is_told():
    error = 'TypeError: Descriptors cannot be created directly.'
    imported = {'visualdl': {'error': error, 'file': '/x/site-packages/visualdl/__init__.py'}}
    (finding,) = packages({'visualdl': '2.5.3'}, imported, text='visualdl>=2.5.3,<3\n')
    assert finding.state == 'failure' and finding.mend.endswith('see docs/troubleshooting.md#protobuf')


@pytest.mark.parametrize(
    'version, of, state',
    [('2.1.0', '3.3.1', 'ok'), ('1.3.1', '2.6.2', 'ok'), ('1.3.1', '3.3.1', 'warning'), ('2.1.0', '2.6.2', 'warning')],
)
def test_paddle2onnx_must_be_of_paddles_generation(version, of, state):
    (finding,) = check_packages.converter({'paddle2onnx': version}, of, 'pip install')
    assert finding.state == state
    assert state == 'ok' or finding.mend.endswith('see docs/troubleshooting.md#onnx-export')
    assert check_packages.converter({}, of, 'pip install') == []


# the GPU: no card here, so what nvidia-smi prints is given


def gpu(card, device='auto', header=HEADER, smi=None, **about):
    about = {
        'version': '3.3.1',
        'cuda': '12.6',
        'cudnn': '9.5.1',
        'archs': [75, 80, 86, 89, 90],
        'gpus': 1,
        'missing': [],
        **about,
    }
    return check_packages.gpu(smi or {'header': header, 'table': TABLE.format(card)}, about, device, 'REINSTALL')


def test_a_gpu_that_paddle_uses_is_well():
    state, text = told(gpu('Tesla T4, 7.5'))
    assert state == 'ok' and '1 x Tesla T4, driver 535.104.05; Paddle for CUDA 12.6, cuDNN 9.5.1' in text


def test_without_a_gpu_only_a_run_that_wants_one_fails():
    assert check_packages.gpu(None, {}, 'auto', '').state == 'ok'
    assert check_packages.gpu(None, {}, 'gpu:0', '').state == 'failure'


@pytest.mark.parametrize('device, state', [('auto', 'warning'), ('gpu', 'failure')])
def test_what_keeps_paddle_from_a_gpu_is_told(device, state):
    unseen = {'error': "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."}
    for finding, words in (
        (gpu('', device, smi=unseen), 'communicate'),
        (gpu('', device, smi={'header': HEADER, 'table': ''}), '--gpus all'),
        (gpu('Tesla T4, 7.5', device, cuda='', cudnn=''), 'REINSTALL'),
        (gpu('Tesla T4, 7.5', device, gpus=0), 'CUDA_VISIBLE_DEVICES'),
        (gpu('Tesla T4, 7.5', device, header=HEADER.replace('12.2', '11.4')), 'the driver ends at CUDA 11.4'),
    ):
        assert finding.state == state and words in told(finding)[1]


@pytest.mark.parametrize(
    'card, runs',
    [
        *(('Tesla V100-SXM2-16GB, 7.0', True), ('Tesla T4, 7.5', True), ('NVIDIA A100-SXM4-40GB, 8.0', True)),
        *(('NVIDIA GeForce RTX 3090, 8.6', True), ('NVIDIA GeForce RTX 4090, 8.9', True)),  # 8.6's kernels run on 8.9
        *(
            ('NVIDIA H100 80GB HBM3, 9.0', False),
            ('NVIDIA GeForce RTX 5090, 12.0', False),
            ('Tesla P100-PCIE-16GB, 6.0', False),
        ),
    ],
)
def test_paddle_2_6_2_has_kernels_for_some_cards(card, runs):
    finding = gpu(card, version='2.6.2', cuda='11.8', cudnn='8.6.0', archs=[])
    assert finding.state == ('ok' if runs else 'failure')
    assert runs or finding.mend.endswith('see docs/troubleshooting.md#gpu-arch')


def test_a_wheel_that_tells_its_architectures_is_believed_and_one_that_does_not_is_not_judged():
    assert 'paddlepaddle-gpu==2.6.2' in gpu('NVIDIA GeForce GTX 1080, 6.1').mend
    assert 'another card' in gpu('Tesla K80, 3.7').mend
    assert gpu('NVIDIA GeForce RTX 5090, 12.0').mend.startswith('try cu129')
    assert gpu('NVIDIA H100 80GB HBM3, 9.0', cuda='11.8', archs=[75, 80, 86]).mend.startswith('REINSTALL')
    state, text = told(gpu('NVIDIA GeForce GTX 1080, 6.1', archs=[]))
    assert state == 'ok' and 'is not known' in text
    older_driver = {'header': HEADER, 'table': 'name, driver_version\nTesla T4, 450.80\n'}
    assert 'is not known' in told(gpu('', smi=older_driver))[1]


def test_libraries_of_cuda_that_are_not_found_are_named():
    state, text = told(gpu('Tesla T4, 7.5', missing=['libcudnn.so.9']))
    assert state == 'warning' and 'libcudnn.so.9' in text and 'LD_LIBRARY_PATH' in text


# the machine


def machine(**other):
    known = {
        'cores': 8,
        'quota': None,
        'memory': 16 << 30,
        'available': 12 << 30,
        'avx': True,
        'omp': '',
        'system': 'Linux',
    }
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
def test_threads_are_those_of_the_cores_that_may_be_used(found, state, words):
    got, text = told(check_machine.threads(machine(**found)))
    assert got == state and words in text


def test_memory_that_does_not_hold_a_step_is_told_with_a_batch_that_fits():
    assert check_machine.memory(machine(), 'resnet50', 224, 32, 2).state == 'ok'
    short = check_machine.memory(machine(available=3 << 30), 'resnet50', 224, 32, 2)
    assert short.state == 'warning' and 'train.batch_size=8' in short.mend
    never = check_machine.memory(machine(available=3 << 30, memory=4 << 30), 'resnet50', 224, 32, 2)
    assert never.state == 'failure'
    assert check_machine.memory(machine(available=3 << 30), 'resnet50', 224, 32, 0).state == 'ok'  # on a GPU
    assert check_machine.memory(machine(available=None), 'resnet50', 224, 32, 1).state == 'ok'  # not Linux


def test_limits_of_a_container_are_read_from_either_version_of_control_groups(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace('__', '/').replace('_DOT_', '.')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write(proc__meminfo='MemTotal:       16777216 kB\nMemAvailable:   12582912 kB\n', proc__self__cgroup='0::/a/b\n')
    write(
        two__a__b__cpu_DOT_max='max 100000\n',
        two__a__cpu_DOT_max='150000 100000\n',
        two__a__memory_DOT_max=f'{4 << 30}\n',
    )
    write(two__a__memory_DOT_current=f'{1 << 30}\n', two__a__b__memory_DOT_max='max\n')
    found = probe.machine(str(tmp_path / 'proc'), str(tmp_path / 'two'))
    assert (found['quota'], found['memory'], found['available']) == (1.5, 4 << 30, 3 << 30)

    write(one__cpu__cpu_DOT_cfs_quota_us='200000', one__cpu__cpu_DOT_cfs_period_us='100000')
    write(one__memory__memory_DOT_limit_in_bytes=f'{2 << 30}', one__memory__memory_DOT_usage_in_bytes=f'{1 << 30}')
    found = probe.machine(str(tmp_path / 'proc'), str(tmp_path / 'one'))
    assert (found['quota'], found['memory'], found['available']) == (2.0, 2 << 30, 1 << 30)

    found = probe.machine(str(tmp_path / 'proc'), str(tmp_path / 'none'))
    assert (found['quota'], found['memory'], found['available']) == (None, 16 << 30, 12 << 30)
    assert probe.machine(str(tmp_path / 'none'), str(tmp_path / 'none'))['memory'] is None


def test_a_small_shared_memory_is_told_as_the_setting_makes_it():
    small, large = ({'folder': '/dev/shm', 'free': size << 20, 'problem': ''} for size in (64, 4096))
    batch = 64 * 3 * 224**2
    assert check_machine.shared_memory(large, 4, batch, 'auto').state == 'ok'
    found = check_machine.shared_memory(small, 4, batch, 'auto')
    assert found.state == 'warning' and found.mend.endswith('--shm-size=1g; see docs/troubleshooting.md#small-devshm')
    assert check_machine.shared_memory(small, 4, batch, True).state == 'failure'
    assert check_machine.shared_memory(small, 4, batch, False).state == 'ok'
    assert check_machine.shared_memory(small, 0, batch, 'auto').state == 'ok'
    assert check_machine.shared_memory(None, 4, batch, 'auto').state == 'ok'


@pytest.mark.parametrize('free, state', [(100, 'ok'), (20, 'warning'), (5, 'failure')])
def test_a_disk_must_hold_a_run(free, state):
    place = {'folder': '/here', 'free': free << 30, 'problem': ''}
    finding = check_machine.disk('output', place, 10 << 30, 'free some')
    assert finding.state == state
    assert state == 'ok' or finding.mend == 'free some; see docs/troubleshooting.md#disk'


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    place = probe.space('/proc/output/zodiac')
    assert place['folder'] == '/proc' and place['problem']
    assert check_machine.disk('output', place, 0, 'x').state == 'failure'
    (tmp_path / 'output').write_text('a file')
    assert probe.space(str(tmp_path / 'output' / 'zodiac'))['problem']
    found = probe.space(str(tmp_path / 'other' / 'zodiac'))
    assert (found['folder'], found['problem']) == (str(tmp_path), '')
    assert sorted(everything_below(tmp_path)) == ['output']


def test_chinese_class_names_want_a_font():
    none = {'fonts': [], 'cache': '/c'}
    assert check_machine.fonts(['cat'], none).state == 'ok'
    finding = check_machine.fonts(['cat', '猫'], none)
    assert finding.state == 'warning'
    assert (
        finding.mend
        == 'apt-get install fonts-noto-cjk && rm -f /c/fontlist-*.json; see docs/troubleshooting.md#chinese-fonts'
    )
    assert check_machine.fonts(['猫'], {'fonts': ['SimHei'], 'cache': '/c'}).state == 'ok'
    assert check_machine.fonts(['猫'], {}).state == 'ok'


# the images and the index


WRITABLE = {'folder': '.', 'free': 1 << 40, 'problem': ''}


def look(labels=LABELS):
    """The findings on photos/ in the working directory: of its images, and of its index."""
    tree = probe.images('photos', labels)
    splits = {split: probe.index(f'photos/{split}.txt', len(labels)) for split in ('train', 'valid', 'test')}
    annotation = probe.annotation('photos/annotation.json')
    images = check_machine.images('photos', labels, tree, WRITABLE, 'ANNOTATE')
    return images, check_machine.index('photos', labels, tree, splits, annotation, 'ANNOTATE')


@pytest.fixture
def photos(workdir, call_script):
    make_tree(workdir / 'photos', LABELS, {'train': 3, 'valid': 1, 'test': 1})
    assert call_script('annotate.py', '-o', 'data.root=photos', 'data.labels=[cat,dog]', cwd=workdir).returncode == 0
    return workdir / 'photos'


def test_without_images_or_an_index_the_next_step_is_told(workdir):
    images, index = look()
    assert images.state == index.state == 'warning'
    assert 'photos/<class>/' in images.mend and index.mend == 'ANNOTATE'
    make_tree(workdir / 'photos', LABELS, {'train': 1})
    assert [finding.state for finding in look()] == ['ok', 'warning']


def test_classes_without_a_folder_are_named(workdir):
    make_tree(workdir / 'photos', ['cat'], {'': 2})
    state, text = told(look()[0])
    assert state == 'failure' and 'no files for dog' in text


def test_what_annotate_would_stop_at_is_told(workdir):
    make_tree(workdir / 'photos', ['cat', 'dog', 'cow'], {'': 1})
    state, text = told(look()[0])
    assert state == 'failure' and 'photos/cow: the folder is not in data.labels' in text
    assert probe.images('photos', LABELS, 'skip')['problem'] == ''


def test_a_folder_that_annotate_could_not_write_to_is_told():
    place = {**WRITABLE, 'problem': 'Read-only file system'}
    finding = check_machine.images('photos', LABELS, {'found': {}, 'problem': ''}, place, 'ANNOTATE')
    assert finding.state == 'warning' and 'Read-only' in finding.found


def test_a_fresh_index_is_well(photos):
    images, index = look()
    assert images.state == 'ok' and images.found == 'photos: 10 files in 2 classes'
    assert (index.state, index.found) == ('ok', '6 train, 2 valid, 2 test')


def _append(text):
    return lambda photos: (photos / 'train.txt').write_text((photos / 'train.txt').read_text() + text)


@pytest.mark.parametrize(
    'harm, words',
    [
        (lambda photos: (photos / 'valid.txt').unlink(), 'valid.txt: missing'),
        (lambda photos: (photos / 'valid.txt').write_text(''), 'valid.txt: empty'),
        (_append('photos/train/cat/cat_0.jpg 0\n'), 'train.txt, line 7'),
        (_append('photos/train/cat/cat_0.jpg\t2\n'), 'not "path, tab, number from 0 to 1"'),
        (_append('photos/train/cat/cat_0.jpg\t0\n'), 'has 7 images'),
        (lambda photos: (photos / 'train/dog/dog_1.jpg').unlink(), '1 of 6 images looked for are gone'),
        (lambda photos: (photos / 'annotation.json').write_text('{'), 'cannot be read'),
    ],
)
def test_a_broken_index_is_told(photos, harm, words):
    harm(photos)
    state, text = told(look()[1])
    assert state == 'failure' and words in text and 'ANNOTATE' in text


def test_an_index_of_other_classes_is_told(photos):
    state, text = told(look(['dog', 'cat'])[1])
    assert state == 'failure' and 'other data.labels' in text
    (photos / 'annotation.json').unlink()
    state, text = told(look(['cat', 'dog', 'cow'])[1])
    assert state == 'failure' and 'no image of cow' in text


def test_images_that_came_after_the_index_are_told(photos):
    (photos / 'train/cat/new.jpg').write_bytes((photos / 'train/cat/cat_0.jpg').read_bytes())
    state, text = told(look()[1])
    assert state == 'warning' and '11 files now, 10 when' in text


def test_of_a_long_index_some_paths_are_looked_for(workdir):
    (workdir / 'long.txt').write_text(''.join(f'images/{number}.jpg\t{number % 3}\n' for number in range(5000)))
    found = probe.index('long.txt', 3)
    assert found['lines'] == 5000 and found['classes'] == [0, 1, 2] and found['bad'] == ''
    assert probe.LOOKED_AT / 2 <= found['looked_at'] <= 2 * probe.LOOKED_AT
    assert len(found['missing']) == found['looked_at']


def test_a_byte_order_mark_in_an_index_is_no_part_of_its_first_path(workdir):
    (workdir / 'a.jpg').touch()
    (workdir / 'train.txt').write_text('\ufeffa.jpg\t0\n', encoding='utf-8')
    assert probe.index('train.txt', 1)['missing'] == []


# children


def test_a_module_that_crashes_hangs_or_exits_is_told_and_the_others_are_still_tried(tmp_path, monkeypatch):
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
    assert found['raises'] == {
        'error': 'TypeError: Descriptors cannot be created directly.',
        'file': str(tmp_path / 'raises.py'),
    }
    assert found['works'] == {'version': '1.2'}
    assert found['absent']['error'].startswith('ModuleNotFoundError')


def test_a_child_that_is_out_of_time_ends_with_all_that_it_started(tmp_path):
    sign = tmp_path / 'sign'
    code = f"import subprocess, time; subprocess.Popen(['sh', '-c', 'sleep 2; touch {sign}']); print('begun', flush=True); time.sleep(60)"
    status, out, _ = probe.run_child([sys.executable, '-c', code], 1)
    assert (status, out) == (None, 'begun\n')
    time.sleep(2)
    assert not sign.exists()


def test_the_error_of_a_child_is_its_last_line_of_error():
    assert probe.last_line('warning\nerror: data.root: wrong\nend\n') == 'error: data.root: wrong'
    assert probe.last_line('Traceback\n  x\nValueError: y\n\n') == 'ValueError: y'
    assert probe.how_it_ended(-signal.SIGILL, '', 1) == 'killed by SIGILL'
    assert 'without a word' in probe.how_it_ended(1, '', 1)


def pretend(folder, package, version):
    """Leave what pip leaves beside an installed package."""
    about = folder / f'{package.replace("-", "_")}-{version}.dist-info'
    about.mkdir()
    (about / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n')


def test_two_distributions_of_paddle_are_both_seen(tmp_path, monkeypatch):
    for name in check_packages.BUILDS:
        pretend(tmp_path, name, '2.6.2')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert probe.installed([*check_packages.BUILDS, 'absent-of-course']) == {
        'paddlepaddle': '2.6.2',
        'paddlepaddle-gpu': '2.6.2',
    }


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


READ_FIRST = (
    'doctor/probe',
    'doctor/check_packages',
    'doctor/check_machine',
    'base/schema',
    'base/errors',
    'base/device',
    'training/processes',
    'data/scan',
    'data/entry',
    'base/files',
)


@pytest.mark.parametrize('name', ['doctor', 'config', *(f'zodiac/{room}' for room in READ_FIRST)])
def test_what_the_doctor_imports_can_be_read_by_python_3_8(name):
    ast.parse((ROOT / f'{name}.py').read_text(encoding='utf-8'), feature_version=(3, 8))


def test_lines_name_only_sections_that_the_documentation_has():
    sources = ''.join(
        (ROOT / 'zodiac' / name).read_text(encoding='utf-8')
        for name in ('doctor/check_packages.py', 'doctor/check_machine.py')
    )
    named = set(re.findall(r"see\('([^']+)'\)", sources))
    assert named <= {
        *(
            'small-devshm',
            'workers',
            'slow-cpu',
            'gpu-arch',
            'both-paddles',
            'numpy-2',
            'protobuf',
            'onnx-export',
            'onednn',
        ),
        *('chinese-fonts', 'disk'),
    }
    page = ROOT / 'docs' / 'troubleshooting.md'
    if page.is_file():
        text = page.read_text(encoding='utf-8').lower()
        sections = {
            re.sub(r'[^\w -]', '', title).replace(' ', '-') for title in re.findall(r'^#+ (.+)$', text, re.MULTILINE)
        }
        assert named <= sections | set(re.findall(r'(?:id|name)="([^"]+)"', text))


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
    """A Python without any package."""
    folder = tmp_path_factory.mktemp('bare')
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / 'bin' / 'python'


def test_without_any_package_it_tells_what_to_install(bare, tmp_path):
    done = subprocess.run([bare, ROOT / 'doctor.py'], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == ''
    assert re.search(r'paddle: not installed -> .* -m pip install -r .*requirements(-cpu)?\.txt\n', done.stdout)
    assert re.search(r'base packages: not installed: .*numpy', done.stdout)
    assert 'self-test: not run' in done.stdout
    assert everything_below(tmp_path) == {}


def test_with_paddle_alone_it_tells_to_install_the_base(bare, tmp_path):
    pretend(tmp_path, 'paddlepaddle', '3.3.1')
    command = [bare, ROOT / 'doctor.py', '--json', '--no-self-test', '-c', ROOT / 'configs' / 'demo.yaml']
    done = subprocess.run(
        command, cwd=tmp_path, env={'PYTHONPATH': str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    checks = {check['name']: check for check in json.loads(done.stdout)['checks']}
    assert checks['base packages']['mend'].endswith('requirements-base.txt')
    assert checks['settings']['state'] == 'failure' and 'yaml' in checks['settings']['found']


def test_a_broken_numpy_is_named_and_not_what_needs_it(tmp_path):
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


def test_help_shows_an_example(tmp_path):
    done = run_script('doctor.py', '--help', cwd=tmp_path)
    assert done.returncode == 0 and 'python doctor.py -c configs/flowers.yaml' in done.stdout


def test_ctrl_c_ends_it_with_130(tmp_path):
    child = subprocess.Popen(
        [sys.executable, ROOT / 'doctor.py'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.readline()  # Python: it is at work
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert (child.returncode, said) == (130, 'interrupted\n')


def test_where_all_is_well_it_trains_exports_predicts_and_leaves_nothing(tmp_path, photos):
    done = run_script(
        'doctor.py', '--json', '-o', 'data.root=photos', 'data.labels=[cat,dog]', 'device=cpu', cwd=photos.parent
    )
    document = json.loads(done.stdout)
    states = {check['name']: (check['state'], check['found']) for check in document['checks']}
    wrong = {name: found for name, found in states.items() if found[0] == 'failure'}
    assert not wrong and done.returncode == 0, wrong
    assert document['failures'] == 0 and set(document['checks'][0]) == {'name', 'state', 'found', 'mend'}
    assert states['self-test'][1].startswith('drawn, trained, exported and predicted in ')
    assert states['index'] == ('ok', '6 train, 2 valid, 2 test')
    assert [path.name for path in photos.parent.iterdir()] == ['photos']


def test_a_self_test_that_fails_shows_the_last_error():
    finding = doctor.self_test('gpu:7')
    assert finding.state == 'failure' and 'device = gpu:7' in finding.found
    assert check_machine.self_test(1, 3, 'error: m.json: Paddle Inference cannot load it').mend.endswith('#onednn')
    assert check_machine.self_test(None, 180, 'not done after 180 seconds').state == 'failure'
