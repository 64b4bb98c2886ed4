"""Check Python, the packages of the requirements files, and the GPU that Paddle uses."""

import re
from typing import NamedTuple

from zodiac.base import packages

OK, WARNING, FAILURE = 'ok', 'warning', 'failure'
NOT_NEEDED = ('simplejpeg',)  # without: slower decoding


class Finding(NamedTuple):
    """The result of a check. `mend`: how to fix it, '' if there is nothing to fix. `doctor.py --json` prints these names."""

    name: str
    state: str
    found: str
    mend: str = ''


def numbers(version):
    """The leading numbers of a version, without zeros at the end: '2.6.0.post120' -> (2, 6)."""
    text = re.match(r'[\d.]*', version).group().strip('.')
    found = [int(part) for part in text.split('.') if part]
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def outside(version, bounds):
    """-1 if a version is below the bounds, such as '>=1.24,<3', 1 if above, else 0."""
    for operator, bound in re.findall(r'(>=|<)([\w.]+)', bounds):
        below = numbers(version) < numbers(bound)
        if below == (operator == '>='):
            return -1 if below else 1
    return 0


def without_consequences(imported):
    """The results of `probe.imports` without failures that most likely follow from an earlier one, of NumPy or Paddle."""
    cause = next((name for name in ('numpy', 'paddle') if 'error' in imported.get(name, {})), None)
    return {name: about for name, about in imported.items() if cause in (None, name) or 'error' not in about}


def python(version):
    """version: (major, minor); older ones than 3.9 do not get here, see doctor.py."""
    name = '.'.join(map(str, version))
    if version <= packages.NEWEST_PYTHON:
        return Finding('python', OK, f'Python {name}')
    newest = '.'.join(map(str, packages.NEWEST_PYTHON))
    fix = f'if Paddle cannot be installed: python{newest} -m venv .venv'
    return Finding('python', WARNING, f'Python {name}; the newest that is tested is {newest}', fix)


def paddle(about):
    """about: the entry of Paddle in `without_consequences`, {} if it is not there."""
    versions = {name: version for name in packages.BUILDS if (version := packages.installed_version(name))}
    if len(versions) > 1:
        both = ' and '.join(map(' '.join, versions.items()))
        fix = f'{packages.reinstall(packages.BUILDS[0])}; see docs/troubleshooting.md#both-paddles'
        return Finding('paddle', FAILURE, f'{both} are both installed and overwrite each other', fix)
    build, version = next(iter(versions.items()), ('paddle', about.get('version')))
    if not version:
        return Finding('paddle', FAILURE, 'not installed', packages.install(['paddle']))
    if not about:
        return Finding('paddle', FAILURE, f'Paddle {version}: not tried, because NumPy fails', 'fix numpy first')
    if 'error' in about:
        return cannot_import(build, version, about)._replace(name='paddle')
    bounds = packages.requirements('requirements.txt')['paddlepaddle-gpu']
    side = outside(version, bounds)
    if side:
        state = FAILURE if side < 0 and numbers(version) else WARNING  # 0.0.0 is a nightly build
        return Finding('paddle', state, f'Paddle {version}; tested: {bounds}', packages.install(['paddle']))
    return Finding('paddle', OK, f'Paddle {version}, for {"CUDA " + about["cuda"] if about["cuda"] else "the CPU"}')


def cannot_import(package, version, about, state=FAILURE):
    """The finding on a package that is installed but cannot be imported; about: its entry in `probe.imports`."""
    fix = packages.remedy(about['error'], about.get('file', ''), package)
    return Finding(package, state, f'{package} {version} cannot be imported ({about["error"]})', fix)


def required(file, imported, before=(), optional=False):
    """Check the packages of a requirements file: a finding for each that is wrong, or one for all of them.

    Args:
        before: requirements files whose packages have been checked already.
        optional: whether the pipeline works without them; then it is fine if none is installed.
    """
    title = file[len('requirements-') : -len('.txt')] + ' packages'
    done = {name for earlier in before for name in packages.requirements(earlier)}
    bounds = {name: text for name, text in packages.requirements(file).items() if name not in done}
    versions = {name: packages.installed_version(name) for name in bounds}
    missing = [name for name in bounds if not versions[name]]
    install = packages.install(list(map(packages.module_of, missing or bounds)), file)
    if optional and len(missing) == len(bounds):
        return [Finding(title, OK, f'not installed; to install them: {install}')]
    wrong = []
    for name, version in versions.items():
        about = imported.get(packages.module_of(name), {})
        state = WARNING if optional or name in NOT_NEEDED else FAILURE
        side = outside(version, bounds[name]) if version else 0
        if version and 'error' in about:
            wrong.append(cannot_import(name, version, about, state))
        elif side:
            found = f'{name} {version} is {"older" if side < 0 else "newer"} than the tested versions, {bounds[name]}'
            fix = f"{packages.pip()} install '{name}{bounds[name]}'"
            wrong.append(Finding(name, state if side < 0 else WARNING, found, fix))
    if missing:
        state = WARNING if optional or set(missing) <= set(NOT_NEEDED) else FAILURE
        wrong.append(Finding(title, state, f'not installed: {", ".join(missing)}', install))
    return wrong or [Finding(title, OK, f'{len(bounds)} installed, as in {file}')]


def prediction(has_bf16):
    """The engines that predict.py can choose from on a CPU, and the fastest precision that it takes unasked."""
    versions = {name: packages.installed_version(name) for name in ('openvino', 'onnxruntime')}
    engines = ', '.join(f'{name} {version}' for name, version in versions.items() if version)
    precision = 'bf16' if has_bf16 and versions['openvino'] else 'fp32'
    why = '' if has_bf16 else ' (this processor has no bfloat16)'
    return Finding('prediction', OK, f'{engines or "Paddle only"}; up to {precision}{why}: predict.py RUN --explain')


def gpu(smi, about, device):
    """Check that Paddle sees the NVIDIA GPUs; that it can compute on them is left to the self-test, which trains on `device`.

    Args:
        smi: of `probe.nvidia_smi`; about: the entry of Paddle in `probe.imports`; device: the setting.
    """
    asked, on_cpu = device.startswith('gpu'), '; or set device=cpu'
    bad = FAILURE if asked else WARNING
    driver = f'install the NVIDIA driver; in Docker, start the container with --gpus all{on_cpu}'
    if smi is None:
        if asked:
            return Finding('gpu', FAILURE, f'device = {device}, but there is no nvidia-smi', driver)
        return Finding('gpu', OK, 'none; everything runs on the CPU')
    if 'error' in smi:
        return Finding('gpu', bad, f'nvidia-smi finds no GPU ({smi["error"]})', driver)
    found = f'{len(smi["cards"])} x {smi["cards"][0]}'
    if 'cuda' not in about:
        return Finding('gpu', WARNING, f'{found}; not tried, because Paddle cannot be imported', 'fix paddle first')
    if not about['cuda']:
        fix = packages.reinstall(packages.BUILDS[0]) + on_cpu
        return Finding('gpu', bad, f'{found}; but this Paddle is built for the CPU', fix)
    found += f'; Paddle for CUDA {about["cuda"]}'
    if not about['gpus']:
        fix = f'unset CUDA_VISIBLE_DEVICES, or install a newer driver{on_cpu}; see docs/troubleshooting.md#gpu-arch'
        return Finding('gpu', bad, f'{found} sees none of them', fix)
    return Finding('gpu', OK, found)
