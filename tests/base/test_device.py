"""Threads, workers and shared memory follow the machine; user settings are kept."""

import collections
import os
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

from zodiac.base import device, paddle_setup
from zodiac.base.errors import UsageError, UserError
from zodiac.data import inspection

REPORT = 'from zodiac.base import paddle_setup; import os; paddle_setup.import_paddle(); print(*[os.environ.get(n) for n in {names}])'


def environment_after_import(names, **given):
    """Values of environment variables in a process that has called import_paddle, and its stderr."""
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    result = subprocess.run(
        [sys.executable, '-c', REPORT.format(names=list(names))],
        cwd=ROOT,
        env={**inherited, **given},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout.split(), result.stderr


def test_all_cores_are_used_without_a_warning():
    values, said = environment_after_import(['OMP_NUM_THREADS', 'MKL_DEBUG_CPU_TYPE'])

    assert values == [str(device.cores()), '5' if paddle_setup._is_amd_with_avx2() else 'None']
    assert 'OMP_NUM_THREADS' not in said and 'ccache' not in said


def test_the_thread_settings_of_the_user_are_kept():
    values, _ = environment_after_import(
        ['OMP_NUM_THREADS', 'MKL_DEBUG_CPU_TYPE'], OMP_NUM_THREADS='3', MKL_DEBUG_CPU_TYPE='4'
    )

    assert values[0] == '3'
    assert values[1] == '4'


@pytest.mark.parametrize(
    ('setting', 'driver', 'expected'),
    [('cpu', True, True), ('auto', True, False), ('auto', False, True), ('gpu', False, False), ('gpu:1', True, False)],
)
def test_use_of_the_cpu_is_known_without_paddle(monkeypatch, setting, driver, expected):
    monkeypatch.setattr(device.shutil, 'which', lambda name: '/usr/bin/nvidia-smi' if driver else None)
    assert device.is_cpu(setting) is expected


FAULTS = """
import ctypes, resource
from zodiac.base import paddle_setup
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(1 << 26))
    libc.memset(block, 1, 1 << 26)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='settings of glibc')
@pytest.mark.parametrize(('given', 'kept'), [({}, True), ({'MALLOC_MMAP_MAX_': '65536'}, False)])
def test_freed_memory_is_kept_unless_the_user_has_configured_malloc(given, kept):
    inherited = {name: value for name, value in os.environ.items() if name not in paddle_setup.MALLOC_SETTINGS}
    command = [sys.executable, '-c', FAULTS]
    result = subprocess.run(command, cwd=ROOT, env={**inherited, **given}, capture_output=True, text=True, check=True)
    faults = int(result.stdout)
    assert faults < 100 if kept else faults > 10000  # 16,384 pages of 4 KiB


def test_several_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(device, 'cores', lambda: 8)
    monkeypatch.setattr(paddle_setup, '_is_amd_with_avx2', lambda: False)
    for name, value in (('PADDLE_LOCAL_SIZE', '4'), ('OMP_NUM_THREADS', '1'), ('GLOG_minloglevel', '2')):
        monkeypatch.setenv(name, value)

    paddle_setup.import_paddle()

    assert os.environ['OMP_NUM_THREADS'] == '2'


@pytest.mark.parametrize(
    ('cores', 'processes', 'on_gpu', 'expected'),
    [(1, 1, False, 0), (2, 1, False, 1), (2, 2, False, 0), (16, 1, False, 1), (4, 1, True, 4), (64, 1, True, 8)],
)
def test_the_number_of_workers_follows_cores_and_device(monkeypatch, cores, processes, on_gpu, expected):
    monkeypatch.setattr(device, 'cores', lambda: cores)
    monkeypatch.setenv('PADDLE_LOCAL_SIZE', str(processes))

    assert device.loader_workers('auto', on_gpu) == expected
    assert device.loader_workers(5, on_gpu) == 5


def test_small_shared_memory_is_used_only_if_set(monkeypatch):
    usage = collections.namedtuple('usage', 'total used free')
    monkeypatch.setattr(device.shutil, 'disk_usage', lambda path: usage(64 << 20, 0, 64 << 20))
    monkeypatch.setattr(device.os.path, 'isdir', lambda path: True)

    assert device.shared_memory_fits('auto', 10 << 20)
    assert not device.shared_memory_fits('auto', 40 << 20)
    assert device.shared_memory_fits(True, 40 << 20)
    assert not device.shared_memory_fits(False, 1)


def test_the_message_on_a_missing_gpu_names_the_setting_to_change(monkeypatch):
    import paddle

    monkeypatch.setattr(paddle.device.cuda, 'device_count', lambda: 0)

    with pytest.raises(UsageError, match=r'device = gpu: .*device=cpu'):
        device.choose('gpu')
    assert device.choose('auto') == 'cpu'


@pytest.mark.parametrize(
    'name', ['toaster', 'gpu:x', 'gpu:', 'gpu:-1', 'gpu:1:2', 'gpu:²', 'cpu:1', '', 'GPU', 'xpu', 'npu:0']
)
@pytest.mark.parametrize(('function', 'option'), [(device.checked, '--device'), (device.choose, 'device =')])
def test_a_wrong_device_name_is_refused_with_the_allowed_ones(function, option, name):
    with pytest.raises(UsageError, match=f'{option} {name}: must be auto, cpu, gpu or gpu:N'):
        function(name)


def test_device_names_are_accepted():
    names = ['auto', 'cpu', 'gpu', 'gpu:0', 'gpu:15']
    assert [device.checked(name) for name in names] == names


class Unpicklable(Exception):
    def __init__(self, words, other):
        super().__init__(words)
        self.other = lambda: other


def test_an_unexpected_exception_in_a_thread_names_the_file():
    def work(path):
        if path == 'b.jpg':
            raise Unpicklable('odd words', 1)
        return path

    found = device.in_threads(work, ['a.jpg', 'b.jpg', 'c.jpg'], 2)
    assert next(found) == 'a.jpg'
    with pytest.raises(UserError, match=r'^b\.jpg: Unpicklable: odd words \(test_device\.py, line '):
        next(found)


@pytest.mark.parametrize('workers', [1, 2])
def test_an_unexpected_exception_in_a_process_of_annotate_names_the_file(monkeypatch, workers):
    def fail(path, *_):
        raise Unpicklable('odd words', 1)

    monkeypatch.setattr(inspection, '_inspect', fail)  # inherited by forked processes
    with pytest.raises(UserError, match=r'^0\.jpg: Unpicklable: odd words \('):
        list(inspection.inspect_all([f'{number}.jpg' for number in range(70)], True, workers))
