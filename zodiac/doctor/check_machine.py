"""The machine, its disks and the images (see `probe`), judged as in `check_packages`: pure functions, and syntax of Python 3.8."""

import re
import shlex

from zodiac.base import networks
from zodiac.doctor.check_packages import FAILURE, OK, WARNING, Finding

GB, MB = 1 << 30, 1 << 20


def threads(machine):
    """Cores, and what keeps Paddle from using them: see `probe.machine`."""
    cores, quota, omp = machine['cores'], machine['quota'], machine['omp']
    usable = cores if quota is None else max(1, min(cores, round(quota)))
    if omp and (not omp.isdigit() or int(omp) < usable):
        found = f'OMP_NUM_THREADS={omp}: one process of fewer threads than the {usable} cores'
        return Finding('cores', WARNING, found, 'unset OMP_NUM_THREADS; see docs/troubleshooting.md#slow-cpu')
    if usable < cores and (not omp or int(omp) > usable):
        found = f'the container may use {quota:g} of {cores} cores, and Paddle would start {omp or cores} threads'
        return Finding(
            'cores', WARNING, found, f'export OMP_NUM_THREADS={usable}; see docs/troubleshooting.md#slow-cpu'
        )
    return Finding('cores', OK, f'{usable}')


def step_bytes(arch, size, batch, processes=1):
    """Memory of a training step on a CPU, None for a network that has not been measured."""
    if networks.NETWORKS[arch].step_mb is None:
        return None
    fixed, image = networks.NETWORKS[arch].step_mb
    return int((processes * fixed + batch * image * (size / 224) ** 2) * MB)


def memory(machine, arch, size, batch, processes):
    """Free memory against what a step needs; processes: that share it, 0 where a GPU does the work with memory of its own."""
    free, total = machine['available'], machine['memory']
    if not free or not total:
        return Finding('memory', OK, f'not known on {machine["system"]}')
    text = f'{free / GB:.1f} of {total / GB:.1f} GB free'
    need = step_bytes(arch, size, batch, processes) if processes else None
    if need is None or need < free:
        return Finding('memory', OK, text + (f'; a step needs about {need / GB:.1f}' if need else ''))
    smaller = batch
    while smaller > 1 and step_bytes(arch, size, smaller) > 0.8 * free:
        smaller //= 2
    fits = step_bytes(arch, size, smaller) < free
    mend = (
        f'train.py --nproc 1 -o train.batch_size={smaller}'
        if fits
        else '-o model.arch=resnet18, or close other programs'
    )
    found = f'{text}; {arch} on {batch} images of {size} pixels needs about {need / GB:.1f}'
    return Finding('memory', FAILURE if need > total else WARNING, found, mend)


def shared_memory(shm, workers, batch_bytes, setting):
    """/dev/shm against the batches that wait there.

    Args:
        shm: `probe.space` of it, None where there is none; setting: data.shared_memory.
    """
    need = 2 * workers * batch_bytes
    if setting is False or not workers or shm is None:
        return Finding(
            'shared memory', OK, 'not used: ' + ('data.shared_memory=false' if setting is False else 'no need of it')
        )
    free = shm['free'] or 0
    text = f'/dev/shm has {free / MB:.0f} MB free; {workers} loading processes want {2 * need / MB:.0f}'
    if not shm['problem'] and free > 2 * need:
        return Finding('shared memory', OK, text)
    mend = f'docker run --shm-size={max(1, -(-2 * need // GB))}g' + (
        ', or -o data.shared_memory=auto' if setting is True else ''
    )
    state, what = (FAILURE, 'and are killed') if setting is True else (WARNING, 'so batches take a slower way')
    return Finding('shared memory', state, f'{text}, {what}', mend + '; see docs/troubleshooting.md#small-devshm')


def run_bytes(arch, keep):
    """What output/<name> comes to: weights and momentum of the checkpoints and of one being written, best/, the last, the export."""
    return int(networks.NETWORKS[arch].weights_mb * (2 * (keep + 1) + 5) * MB)


def disk(name, place, need, mend):
    """Free space and the right to write at `place` `probe.space`; need: bytes."""
    folder, free = place['folder'], place['free']
    if place['problem']:
        return Finding(
            name, FAILURE, f'{folder}: cannot write ({place["problem"]})', mend + '; see docs/troubleshooting.md#disk'
        )
    if free is None:
        return Finding(name, OK, f'{folder}: free space not known')
    text = f'{folder}: {free / GB:.1f} GB free'
    if free < need:
        return Finding(name, FAILURE, f'{text}, {need / GB:.1f} GB wanted', mend + '; see docs/troubleshooting.md#disk')
    if free < 3 * need:
        return Finding(
            name, WARNING, f'{text}, {need / GB:.1f} GB wanted for a run', mend + '; see docs/troubleshooting.md#disk'
        )
    return Finding(name, OK, text)


def home(problem):
    """The home folder; problem: of `zodiac.base.home`."""
    if not problem:
        return Finding('home', OK, 'can be written to')
    found = f'{problem}; what Paddle keeps there, such as ImageNet weights, goes to a temporary folder'
    return Finding('home', WARNING, found, 'export HOME=FOLDER')


def fonts(labels, about):
    """Fonts for Chinese class names in the pictures; about: what `probe.imports` tells of Matplotlib."""
    if about.get('fonts'):
        return Finding('fonts', OK, about['fonts'][0])
    if 'fonts' not in about:
        return Finding('fonts', OK, 'not known without Matplotlib')
    chinese = [label for label in labels if re.search('[\u2e80-\u9fff\uf900-\ufaff]', label)]
    if not chinese:
        return Finding('fonts', OK, 'none for Chinese, and no class name needs one')
    mend = (
        f'apt-get install fonts-noto-cjk && rm -f {shlex.quote(about["cache"])}/fontlist-*.json'
        + '; see docs/troubleshooting.md#chinese-fonts'
    )
    return Finding('fonts', WARNING, f'none for Chinese: pictures show boxes for {chinese[0]}', mend)


def images(root, labels, tree, place, annotate):
    """The folders of the images `probe.images`; place: of `probe.space`; annotate: the command."""
    if tree is None:
        mend = f'put the images into {root}/<class>/, or set data.root; then {annotate}'
        return Finding('images', WARNING, f'{root}: no such folder yet', mend)
    if place['problem']:
        found = f'{root}: cannot write ({place["problem"]}), and annotate.py puts the index files there'
        return Finding(
            'images', WARNING, found, 'make the folder writable, or link its class folders into another data.root'
        )
    if tree['problem']:
        return Finding('images', FAILURE, tree['problem'], f'then {annotate}')
    empty = [label for label in labels if label not in tree['found']]
    if empty:
        found = (
            f'{root}: no files for {", ".join(empty[:5])}{" ..." if len(empty) > 5 else ""}, of {len(labels)} classes'
        )
        return Finding('images', FAILURE, found, 'add images of each class, or leave the class out of data.labels')
    return Finding('images', OK, f'{root}: {sum(tree["found"].values())} files in {len(labels)} classes')


def index(root, labels, tree, splits, annotation, annotate):
    """The index files that train.py reads.

    Args:
        tree: of `probe.images`; splits: {split: of `probe.index`}; annotation: of `probe.annotation`; annotate: the command.
    """

    def broken(found, mend=annotate):
        return Finding('index', FAILURE, found, mend)

    absent = [f'{root}/{split}.txt' for split, lines in splits.items() if lines is None]
    if len(absent) == len(splits):
        return Finding('index', WARNING, f'{root}: not annotated yet', annotate)
    if absent:
        return broken(f'{", ".join(absent)}: missing')
    annotation_labels = (annotation or {}).get('labels', labels)
    if annotation_labels != labels:
        found = f'{root}: annotated with {len(annotation_labels)} other classes than the {len(labels)} of data.labels'
        return broken(found if len(annotation_labels) != len(labels) else f'{root}: annotated with other data.labels')
    for split, lines in splits.items():
        path = f'{root}/{split}.txt'
        if lines['bad']:
            return broken(f'{path}, {lines["bad"]}: not "path, tab, number from 0 to {len(labels) - 1}"')
        if not lines['lines']:
            return broken(f'{path}: empty')
        counts = (annotation or {}).get('splits', {}).get(split)
        if counts and lines['lines'] != sum(count['accepted'] for count in counts.values()):
            return broken(f'{path}: has {lines["lines"]} images, annotation.json tells of another number')
        if lines['missing']:
            found = f'{path}: {len(lines["missing"])} of {lines["looked_at"]} images looked for are gone, {lines["missing"][0]} one'
            return broken(found, f'run in the folder that annotate.py was run in, or {annotate}')
    untaught = [label for number, label in enumerate(labels) if number not in splits['train']['classes']]
    if untaught:
        return broken(f'{root}/train.txt: no image of {", ".join(untaught[:5])}', f'add some, then {annotate}')
    if annotation == {}:
        return broken(f'{root}/annotation.json: cannot be read')
    text = ', '.join(f'{lines["lines"]} {split}' for split, lines in splits.items())
    if annotation and tree and 'accepted' in annotation:
        seen, there = annotation['accepted'] + len(annotation.get('rejected', ())), sum(tree['found'].values())
        if seen != there:
            return Finding('index', WARNING, f'{text}; {there} files now, {seen} when annotate.py read them', annotate)
    return Finding('index', OK, text)


def self_test(status, seconds, what):
    """status: exit status of the run, None where time was up; what: the last it has said of an error."""
    if status == 0:
        return Finding('self-test', OK, f'drawn, trained, exported and predicted in {seconds:.0f} s')
    anchor = (
        '; see docs/troubleshooting.md#onednn'
        if any(word in what for word in ('onednn', 'oneDNN', 'mkldnn', 'Paddle Inference'))
        else ''
    )
    return Finding(
        'self-test', FAILURE, what or 'failed without a word', 'python demo.py shows all that it says' + anchor
    )
