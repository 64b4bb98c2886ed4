"""What is installed (see `probe`), judged: ok, a warning (works, but slower or less) or a failure, and what mends it.

Pure functions, and syntax of Python 3.8; `check_machine` has those for the machine and the images.
"""

import re
from typing import NamedTuple

from zodiac.base.packages import BUILDS, NEWEST_FOR_ONNX, module_of, remedy

OK, WARNING, FAILURE = 'ok', 'warning', 'failure'
NOT_NEEDED = ('simplejpeg', 'optuna')  # there is another way, a slower one; only sweep.py needs it
OLDEST = (3, 9)  # Python that these scripts run on
NEWEST_WHEELS = ((3, 9), (3, 13))
# Paddle: the oldest and the newest Python that it is published for
WHEELS = {(2, 6): ((3, 8), (3, 12)), (3, 0): ((3, 8), (3, 13)), **{(3, minor): NEWEST_WHEELS for minor in (1, 2, 3)}}
VENV = 'python3.12 -m venv .venv, or with another Python from'
# Compute capabilities that kernels are for, in wheels that do not tell it as Paddle 3.3 does. No PTX, so nothing for newer cards.
ARCHS_OF_2_6_2 = (61, 70, 75, 80, 86)  # for CUDA 11.8


class Finding(NamedTuple):
    """What one check has found. `mend`: the next step, '' where all is well."""

    name: str
    state: str
    found: str
    mend: str = ''


def numbers(version):
    """The leading numbers of a version as a tuple: '2.6.2.post120' -> (2, 6, 2)."""
    return tuple(int(part) for part in re.match(r'\d+(\.\d+)*|', version).group().split('.') if part)


def requirements(text):
    """{package: [(operator, version), ...]} of the lines of a requirements file that name a package."""
    found = {}
    for line in text.splitlines():
        match = re.match(r'([A-Za-z][\w.-]*)([<>=!][^#;]*)?', line)
        if match:
            found[match.group(1).lower()] = re.findall(r'(<=|>=|==|!=|<|>)\s*([\w.]+)', match.group(2) or '')
    return found


def outside(version, bounds):
    """-1 where a version is below its bounds, 1 where it is above, 0 within."""
    own = numbers(version)
    for operator, text in bounds:
        bound = numbers(text)
        length = max(len(own), len(bound))
        left, right = (number + (0,) * (length - len(number)) for number in (own, bound))
        if (operator in ('>=', '==') and left < right) or (operator == '>' and left <= right):
            return -1
        if (operator in ('<=', '==') and left > right) or (operator == '<' and left >= right):
            return 1
        if operator == '!=' and left == right:
            return 1
    return 0


def causes(imported):
    """What `probe.imports` tells, without the errors that follow from another: of all that need NumPy, of what needs Paddle."""
    failed = [name for name, about in imported.items() if 'error' in about]
    for base, needing in (('numpy', failed), ('paddle', ['paddle2onnx'])):
        if base in failed:
            return {
                name: about
                for name, about in imported.items()
                if name not in needing or name not in failed or name == base
            }
    return imported


def python(version, paddle):
    """version: (major, minor); paddle: version text of the one that is installed, '' without."""
    name = '.'.join(map(str, version))
    if version < OLDEST:
        return Finding('python', FAILURE, f'Python {name} is too old, 3.9 or newer', f'{VENV} 3.9 to 3.13')
    oldest, newest = WHEELS.get(numbers(paddle)[:2], (OLDEST, version)) if paddle else NEWEST_WHEELS
    if oldest <= version <= newest:
        return Finding('python', OK, f'Python {name}')
    between = ' to '.join('.'.join(map(str, end)) for end in (max(oldest, OLDEST), newest))
    state, of = (
        (WARNING, f'Paddle {paddle}') if paddle else (FAILURE, 'Paddle')
    )  # of an installed one, its import is the proof
    return Finding('python', state, f'{of} is not published for Python {name}', f'{VENV} {between}')


def paddle(versions, imported, bounds, avx, install, uninstall):
    """Which Paddle there is, and whether it starts.

    Args:
        versions: {package: version}, installed; imported: {module: what `probe.imports` tells}.
        bounds: of requirements; avx: whether the processor has it, None where unknown.
        install: command that installs the right one; uninstall: 'pip uninstall -y' as this Python has it.
    """
    pip = install.partition(' install -r ')[0]
    builds = [name for name in BUILDS if name in versions]
    if len(builds) > 1:
        text = ' and '.join(f'{name} {versions[name]}' for name in builds)
        mend = f'{uninstall} {" ".join(BUILDS)} && {install}; see docs/troubleshooting.md#both-paddles'
        return Finding('paddle', FAILURE, f'{text} are both installed, in one folder: one of them is broken', mend)
    about = imported.get('paddle', {})
    version = about.get('version') or ''.join(versions[name] for name in builds)
    if not version:
        return Finding('paddle', FAILURE, 'not installed', install)
    if numbers(version)[:2] == (2, 6) and numbers(versions.get('numpy', '')) >= (2,):
        found = f'Paddle {version} is built for NumPy 1, this is NumPy {versions["numpy"]}'
        return Finding('paddle', FAILURE, found, f"{pip} install 'numpy<2'; see docs/troubleshooting.md#numpy-2")
    if not about:
        return Finding(
            'paddle', FAILURE, f'Paddle {version}: not tried, for NumPy cannot be imported', 'mend numpy first'
        )
    if 'error' in about:
        again = f'{uninstall} {" ".join(builds)} && {install}' if builds else install
        return cannot_import('paddle', version, about, avx, pip, again)
    side = outside(version, bounds)
    if side:
        state = FAILURE if side < 0 and numbers(version) > (0, 0, 0) else WARNING
        return Finding('paddle', state, f'Paddle {version}; these scripts are tested with {as_text(bounds)}', install)
    return Finding('paddle', OK, f'Paddle {version}, for {"CUDA " + about["cuda"] if about["cuda"] else "the CPU"}')


def as_text(bounds):
    return ','.join(operator + version for operator, version in bounds) or 'any version'


def cannot_import(name, version, about, avx, pip, again, state=FAILURE):
    """A package that is there, but cannot be imported: what is known of such errors.

    Args:
        about: what `probe.imports` tells of it; pip: 'pip' as this Python has it; again: command that installs it again.
    """
    error, place = about['error'], about.get('file', '')
    if 'SIGILL' in error and avx is False:
        mend = 'this processor has no AVX, which Paddle is built for: use another machine'
    else:
        mend = remedy(error, place, pip, again)
    return Finding(name, state, f'{name} {version} cannot be imported ({error})'.replace('  ', ' '), mend)


def packages(file, text, versions, imported, install, worst=FAILURE):
    """The packages of one requirements file: a finding for each that is wrong, else one for all.

    Args:
        worst: WARNING where the scripts work without them; that none is there is well then.
    """
    wanted, wrong = requirements(text), []
    pip = install.partition(' install -r ')[0]
    title = file[len('requirements-') : -len('.txt')] + ' packages'
    missing = [name for name in wanted if name not in versions]
    if worst == WARNING and len(missing) == len(wanted):
        return [Finding(title, OK, f'not installed; where wanted: {install}')]
    for name, bounds in wanted.items():
        version = versions.get(name)
        about = imported.get(module_of(name), {})
        least = WARNING if name in NOT_NEEDED else worst
        side = outside(version, bounds) if version else 0
        if version and 'error' in about:
            again = f'{pip} install --force-reinstall --no-deps {name}=={version}'
            wrong.append(cannot_import(name, version, about, None, pip, again, least))
        elif side:
            state = least if side < 0 else WARNING
            anchor = '; see docs/troubleshooting.md#onnx-export' if name in ('onnx', 'paddle2onnx') else ''
            found = f'{name} {version} is {"older" if side < 0 else "newer"} than what is tested, {as_text(bounds)}'
            wrong.append(Finding(name, state, found, f"{pip} install '{name}{as_text(bounds)}'" + anchor))
    if missing:
        state = WARNING if set(missing) <= set(NOT_NEEDED) else worst
        wrong.append(Finding(title, state, f'not installed: {", ".join(missing)}', install))
    return wrong or [Finding(title, OK, f'{len(wanted)} as {file} has them')]


def converter(versions, paddle_version, pip, python=NEWEST_FOR_ONNX):
    """Whether export.py can write an ONNX file here: a finding in a list, which is empty where nobody has asked for one.

    Args:
        pip: 'pip install' as this Python has it; python: (major, minor).
    """
    version = versions.get('paddle2onnx')
    if python > NEWEST_FOR_ONNX and not version:
        name, newest = ('.'.join(map(str, number)) for number in (python, NEWEST_FOR_ONNX))
        found = f'paddle2onnx and its onnx are not published for Python {name}: export.py writes no ONNX file'
        return [Finding('onnx export', WARNING, found, f'where one is needed, export with Python {newest} or older')]
    if not version or not paddle_version:
        return []
    old = numbers(paddle_version)[:1] == (2,)
    if (numbers(version) < (2,)) == old:
        return [Finding('onnx export', OK, f'paddle2onnx {version} for Paddle {paddle_version}')]
    right = "'paddle2onnx<2'" if old else "'paddle2onnx>=2,<3'"
    found = f'paddle2onnx {version} is not for Paddle {paddle_version}: no ONNX file will be written'
    return [Finding('onnx export', WARNING, found, f'{pip} {right}; see docs/troubleshooting.md#onnx-export')]


def cards(smi):
    """[(name, compute capability such as 86 or None, driver)] of nvidia-smi's table, see `probe.nvidia_smi`."""
    titles, *rows = [
        [cell.strip() for cell in line.split(',')] for line in smi['table'].splitlines() if ',' in line
    ] or [[]]
    found = [dict(zip(titles, row)) for row in rows]
    capability = [re.sub(r'\D', '', row.get('compute_cap', '')) for row in found]
    return [
        (row['name'], int(digits) if digits else None, row['driver_version']) for row, digits in zip(found, capability)
    ]


def runs_on(capability, archs):
    """Whether kernels compiled for `archs` (80: compute capability 8.0) run on a card: of the same generation, no newer."""
    return any(arch // 10 == capability // 10 and arch <= capability for arch in archs)


def gpu(smi, about, device, right_build):
    """The NVIDIA GPU, its driver, and what this Paddle makes of them.

    Args:
        smi: of `probe.nvidia_smi`; about: what `probe.imports` tells of Paddle; device: the setting.
        right_build: commands that put Paddle for GPUs in the place of the one that is there.
    """
    wanted = device.startswith('gpu')
    bad, instead = FAILURE if wanted else WARNING, '; or -o device=cpu'
    driver = f'install the NVIDIA driver; in Docker, start the container with --gpus all{instead}'
    if smi is None:
        if wanted:
            return Finding('gpu', FAILURE, f'device = {device}, and there is no nvidia-smi', driver)
        return Finding('gpu', OK, 'none; everything runs on the CPU')
    found = [] if 'error' in smi else cards(smi)
    if not found:
        return Finding('gpu', bad, f'nvidia-smi sees none ({smi.get("error") or "an empty table"})', driver)
    name, capability, version = found[0]
    text = f'{len(found)} x {name}, driver {version}'
    if 'cuda' not in about:
        return Finding('gpu', WARNING, f'{text}; not tried, for Paddle cannot be imported', 'mend paddle first')
    if not about['cuda']:
        return Finding('gpu', bad, f'{text}; but this Paddle is built for the CPU', right_build)
    text = f'{text}; Paddle for CUDA {about["cuda"]}, cuDNN {about["cudnn"]}'
    newest = re.search(r'CUDA Version: *([\d.]+)', smi['header'])
    if newest and numbers(newest.group(1))[:1] < numbers(about['cuda'])[:1]:
        mend = f'install a newer NVIDIA driver, or Paddle for CUDA {newest.group(1)} or older: the index in requirements.txt'
        return Finding('gpu', bad, f'{text}; the driver ends at CUDA {newest.group(1)}', mend + instead)
    archs = about['archs'] or (ARCHS_OF_2_6_2 if (about['version'], about['cuda']) == ('2.6.2', '11.8') else ())
    if capability and archs and not runs_on(capability, archs):
        if 90 == capability > max(archs) and not about['cuda'].startswith('12'):
            mend = right_build
        elif capability > max(archs):
            mend = f'try cu129 for cu126 in requirements.txt: {right_build}'
        elif runs_on(capability, ARCHS_OF_2_6_2):
            mend = "Paddle 2.6.2 has kernels for it: 'paddlepaddle-gpu==2.6.2' with 'numpy<2', on Python 3.12 or older"
        else:
            mend = 'another card'
        built = ' '.join(map(str, archs))
        found = f'{text}; its kernels are for compute capability {built}, this card has {capability}'
        return Finding('gpu', FAILURE, found, mend + instead + '; see docs/troubleshooting.md#gpu-arch')
    if not about['gpus']:
        return Finding(
            'gpu', bad, f'{text}; Paddle sees none of them', f'unset CUDA_VISIBLE_DEVICES, or a newer driver{instead}'
        )
    if about['missing']:
        mend = 'where the self-test fails too: add their folder to LD_LIBRARY_PATH' + instead
        return Finding('gpu', WARNING, f'{text}; not found: {", ".join(about["missing"])}', mend)
    known = '' if archs and capability else '; which cards its kernels are for is not known, the self-test shows it'
    return Finding('gpu', OK, text + known)
