"""Check the machine, its disks and the images, from what `probe` finds."""

import os
import re
import shlex

from zodiac.base import calls, device, files, networks
from zodiac.doctor.check_packages import FAILURE, OK, WARNING, Finding

GB, MB = 1 << 30, 1 << 20
LOOKED_AT = 500  # paths of an index


def threads(machine):
    """Whether Paddle can use all cores; machine: of `probe.machine`."""
    cores, quota, omp = machine['cores'], machine['quota'], machine['omp']
    usable = cores if quota is None else max(1, min(cores, round(quota)))
    see = '; see docs/troubleshooting.md#slow-cpu'
    if omp and (not omp.isdigit() or int(omp) < usable):
        found = f'OMP_NUM_THREADS={omp} uses fewer threads than the {usable} cores'
        return Finding('cores', WARNING, found, 'unset OMP_NUM_THREADS' + see)
    if usable < cores and (not omp or int(omp) > usable):
        found = f'the container may use {quota:g} of {cores} cores, but Paddle would start {omp or cores} threads'
        return Finding('cores', WARNING, found, f'export OMP_NUM_THREADS={usable}' + see)
    return Finding('cores', OK, f'{usable}')


def step_bytes(arch, size, batch, processes=1):
    """Memory of a training step on a CPU, None for a network that has not been measured."""
    if networks.NETWORKS[arch].step_mb is None:
        return None
    fixed, image = networks.NETWORKS[arch].step_mb
    return int((processes * fixed + batch * image * (size / 224) ** 2) * MB)


def memory(machine, arch, size, batch, processes):
    """Compare the free memory with what a step needs; processes: how many share the batch, 0 if it is trained on a GPU."""
    free, total = machine['available'], machine['memory']
    if not free or not total:
        return Finding('memory', OK, f'unknown on {machine["system"]}')
    text = f'{free / GB:.1f} of {total / GB:.1f} GB free'
    need = step_bytes(arch, size, batch, processes) if processes else None
    if need is None or need < free:
        return Finding('memory', OK, text + (f'; a step needs about {need / GB:.1f} GB' if need else ''))
    smaller = batch
    while smaller > 1 and step_bytes(arch, size, smaller) > 0.8 * free:
        smaller //= 2
    fix = calls.command('train', '--nproc', '1', '-o', f'train.batch_size={smaller}')
    if step_bytes(arch, size, smaller) >= free:
        fix = '-o model.arch=resnet18, or close other programs'
    found = f'{text}; {arch} with {batch} images of {size} pixels needs about {need / GB:.1f} GB'
    return Finding('memory', FAILURE if need > total else WARNING, found, fix)


def shared_memory(need, setting):
    """Check that the batches in transit fit in /dev/shm; need: their bytes; setting: data.shared_memory."""
    if setting is False or not need:
        return Finding('shared memory', OK, 'not used')
    if device.shared_memory_fits('auto', need):
        return Finding('shared memory', OK, f'/dev/shm has room for {need / MB:.0f} MB of batches')
    found = f'/dev/shm has no room for twice the {need / MB:.0f} MB of batches in transit'
    fix = f'docker run --shm-size={max(1, -(-2 * need // GB))}g; see docs/troubleshooting.md#small-devshm'
    if setting is True:
        return Finding('shared memory', FAILURE, found, f'-o data.shared_memory=auto, or {fix}')
    return Finding('shared memory', WARNING, f'{found}, so they take a slower way', fix)


def run_bytes(arch, keep):
    """Size of output/<name>: weights and momentum of the checkpoints and of one being written, best/, the last weights, the export."""
    return int(networks.NETWORKS[arch].weights_mb * (2 * (keep + 1) + 5) * MB)


def disk(name, place, need, fix):
    """Check free space and the right to write; place: of `probe.space`; need: bytes."""
    folder, free, fix = place['folder'], place['free'], f'{fix}; see docs/troubleshooting.md#disk'
    if place['problem']:
        return Finding(name, FAILURE, f'{folder}: cannot write ({place["problem"]})', fix)
    if free is None:
        return Finding(name, OK, f'{folder}: free space unknown')
    found = f'{folder}: {free / GB:.1f} GB free'
    if free < 3 * need:
        state = FAILURE if free < need else WARNING
        return Finding(name, state, f'{found}, {need / GB:.1f} GB needed', fix)
    return Finding(name, OK, found)


def home(problem):
    """problem: of `zodiac.base.home`."""
    if not problem:
        return Finding('home', OK, 'writable')
    found = f'{problem}; Paddle keeps its files, such as ImageNet weights, in a temporary folder instead'
    return Finding('home', WARNING, found, 'export HOME=FOLDER')


def fonts(labels, about):
    """Check for a font for Chinese class names; about: the entry of Matplotlib in `probe.imports`."""
    if 'fonts' not in about:
        return Finding('fonts', OK, 'unknown without Matplotlib')
    chinese = [label for label in labels if re.search('[\u2e80-\u9fff\uf900-\ufaff]', label)]
    if about['fonts'] or not chinese:
        return Finding('fonts', OK, (about['fonts'] or ['no class name needs a Chinese one'])[0])
    fix = f'apt-get install fonts-noto-cjk && rm -f {shlex.quote(about["cache"])}/fontlist-*.json'
    found = f'none for Chinese: plots show boxes instead of {chinese[0]}'
    return Finding('fonts', WARNING, found, f'{fix}; see docs/troubleshooting.md#chinese-fonts')


def images(root, labels, tree, annotate):
    """Check the image folders; tree: of `probe.images`; annotate: the command."""
    if tree is None:
        fix = f'put the images into {root}/<class>/, or set data.root; then {annotate}'
        return Finding('images', WARNING, f'{root}: no such folder yet', fix)
    if tree['problem']:
        return Finding('images', FAILURE, tree['problem'], f'then {annotate}')
    empty = [label for label in labels if label not in tree['found']]
    if empty:
        found = f'{root}: no files for {", ".join(empty[:5])}{" ..." if len(empty) > 5 else ""}'
        return Finding('images', FAILURE, found, 'add images of each class, or remove the class from data.labels')
    return Finding('images', OK, f'{root}: {sum(tree["found"].values())} files in {len(tree["found"])} classes')


def index(root, tree, splits, annotate):
    """Check that the images of the index files exist, and that there are no new ones.

    Args:
        tree: of `probe.images`; splits: {split: its paths}; annotate: the command.
    """
    for split, paths in splits.items():
        some = paths[:: 1 + len(paths) // LOOKED_AT]
        gone = [path for path in some if not os.path.isfile(path)]
        if gone:
            found = f'{root}/{split}.txt: {len(gone)} of {len(some)} images looked for are gone, such as {gone[0]}'
            return Finding('index', FAILURE, found, f'work in the folder where annotate.py was run, or {annotate}')
    annotation = files.read_json(f'{root}/annotation.json')
    found = ', '.join(f'{len(paths)} {split}' for split, paths in splits.items())
    if tree and isinstance(annotation, dict) and 'accepted' in annotation:
        before, now = annotation['accepted'] + len(annotation.get('rejected', ())), sum(tree['found'].values())
        if before != now:
            found = f'{found}; {now} files now, {before} when annotate.py was run'
            return Finding('index', WARNING, found, annotate)
    return Finding('index', OK, found)


def self_test(status, seconds, error):
    """status: exit status of the self-test, None if it took too long; error: the last error that it printed."""
    if status == 0:
        return Finding('self-test', OK, f'drew, trained, exported and predicted in {seconds:.0f} s')
    known = '.md#' in error or not re.search('one?dnn|mkldnn|Paddle Inference', error, re.IGNORECASE)
    anchor = '' if known else '; see docs/troubleshooting.md#onednn'
    fix = f'{calls.command("demo")} shows the whole output{anchor}'
    return Finding('self-test', FAILURE, error or 'failed with no output', fix)
