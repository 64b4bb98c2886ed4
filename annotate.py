"""Check every image and write train.txt, valid.txt, test.txt and annotation.json into data.root.

    python annotate.py                                                     # signs/{train,valid,test}/<class>/*
    python annotate.py -o annotate.archive=data/data68755/signs.zip        # unpack it into signs/ first
    python annotate.py -o data.root=photos data.labels=[cat,dog] annotate.non_rgb=convert

Takes folders `<split>/<class>/` or just `<class>/`; `val/`, `validation/` and `dev/` serve as `valid/`. A split that has
no folder is drawn from the training images, class by class, with `seed`. No image is moved or changed. An index line is
`path<TAB>class number`, the path relative to the working directory.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'numpy PIL yaml tqdm')

import bisect
import collections
import contextlib
import gc
import hashlib
import itertools
import json
import operator
import os
import random
import re
import sys

import config
from zodiac.base import files, schema
from zodiac.base.device import cores
from zodiac.base.errors import UserError, run
from zodiac.data import file_facts, inspected, same_picture
from zodiac.data.file_facts import Verdict
from zodiac.data.scan import SPLIT_NAMES, SPLITS, scan

BREAKS_A_LINE = re.compile(r'[\t\n\r]')
NAMED = 3  # of the files and folders that are left out, on the screen; all are in annotation.json
UNPACKED = 'unpacked.json'
OUTPUTS = (*(f'{split}.txt' for split in SPLITS), 'annotation.json')


def main():
    annotate(config.from_command_line(__doc__))


def annotate(cfg):
    """Do what this script does, with the settings of a `config.Config`. Raises UserError."""
    if cfg.annotate.archive:
        unpack(cfg)
    tree = _scan(cfg)
    readable = [entry for entry in tree.entries if not refuse_name(entry)]
    maker = inspected.made_by(cfg.annotate.non_rgb)
    before = inspected.load(tree.root, maker)
    stamps = inspected.stamps(readable) if before else bytearray(len(readable) * len(file_facts.NEVER))
    same_files = before and before.stamps == stamps and before.paths == inspected.listing(tree.root, readable)
    if same_files and before.outcome == outcome(tree, cfg):
        print('no file has changed since the last run', file=sys.stderr)
        report(files.read_json(f'{cfg.data.root}/annotation.json'), cfg)
        return
    unread = inspected.recall(before, tree.root, readable, stamps) if before else range(len(readable))
    del before  # a list of all files
    validate(readable, unread, stamps, cfg)
    accepted = [entry for entry in tree.entries if not entry.verdict.reason]
    repeated = same_picture.repeated(accepted)
    valid_is_test = cfg.annotate.valid_from == 'test' and 'valid' not in tree.given_splits
    drawn = draw_splits(accepted, repeated, [*tree.given_splits, *(['valid'] if valid_is_test else [])], cfg)
    splits = {split: [entry for entry in accepted if entry.split == split] for split in SPLITS}
    if valid_is_test:
        splits['valid'] = splits['test']
    require_images(splits, tree, drawn, cfg)
    summary = summarise(tree, splits, repeated, drawn, valid_is_test, cfg)
    write(summary, splits, cfg)
    report(summary, cfg)
    try:
        inspected.save(tree.root, maker, outcome(tree, cfg), readable, stamps)
    except UserError as error:  # the work is done all the same
        print(f'{error}; the next run will read all files again', file=sys.stderr)


def unpack(cfg):
    """Unpack annotate.archive into data.root, unless that was done before."""
    from zodiac.data import archive

    path, root = cfg.annotate.archive, cfg.data.root
    if not os.path.isfile(path):
        raise UserError(f'{path}: no such archive; check annotate.archive')
    stamp = {'archive': os.path.basename(path), 'sha256': files.sha256(path)}
    wanted = cfg.annotate.encoding
    if os.path.isdir(root) and os.listdir(root):
        before = _unpacked(root)
        read_as = before.pop('encoding', '')
        if before == stamp and (wanted in ('auto', read_as) or not read_as):
            print(f'{path} is unpacked in {root} already', file=sys.stderr)
            return
        if before == stamp:
            raise UserError(
                f'{root}: was unpacked from {path} with its names read as {read_as}; remove the folder to unpack it as {wanted}'
            )
        raise UserError(
            f'{root}: the folder holds other files; set data.root to a new folder for {path}, or leave annotate.archive out'
        )
    if os.path.isdir(root):
        os.rmdir(root)
    known = (*SPLIT_NAMES, *cfg.data.labels)
    read_as = archive.unpack(path, root, 2_000_000, 200 * 2**30, 100.0, known, wanted)
    with files.atomic_write(f'{root}/{UNPACKED}') as file:
        json.dump({**stamp, 'encoding': read_as}, file)
    said = f', its names read as {read_as} (annotate.encoding sets another)' if read_as not in ('', 'utf-8') else ''
    print(f'{path} unpacked into {root}{said}', file=sys.stderr)


def _unpacked(root):
    """What `unpack` has noted in a folder, {} where it has not."""
    noted = files.read_json(f'{root}/{UNPACKED}')
    return noted if isinstance(noted, dict) else {}


def _scan(cfg):
    """The `Tree` of data.root. Raises UserError, which says so where the names may have been unpacked in a wrong encoding."""
    try:
        return scan(cfg.data.root, cfg.data.labels, cfg.annotate.unknown_class)
    except UserError as error:
        read_as = _unpacked(cfg.data.root).get('encoding') or 'utf-8'
        if read_as == 'utf-8':
            raise
        raise UserError(
            f'the names in the archive were read as {read_as}; where they look wrong, remove {cfg.data.root} and unpack it again with '
            f'the labels that it holds in data.labels, or with annotate.encoding=shift_jis, big5, euc_kr or another. {error}'
        ) from None


def refuse_name(entry):
    """Give an entry whose name cannot stand in an index its verdict, unread; returns whether it was one."""
    problem = _name_problem(entry.path)
    if problem:
        entry.verdict = Verdict(problem)
    return bool(problem)


def validate(entries, unread, stamps, cfg):
    """Fill in what each entry is: those of the numbers `unread` are read, and the stamps of these set; then those again, in full,
    that were read at reduced size and may hold the picture of another."""
    verdicts = {}
    for number, found in zip(unread, inspect([entries[number] for number in unread], cfg)):
        entry = entries[number]
        entry.verdict, entry.picture = verdicts.setdefault(found.verdict, found.verdict), found.picture
        stamps[number * len(found.stamp) : (number + 1) * len(found.stamp)] = found.stamp
    undecided = same_picture.undecided([entry for entry in entries if entry.picture])
    undecided = [entry for entry in undecided if file_facts.exact(entry.picture) == file_facts.UNKNOWN]
    for entry, found in zip(undecided, inspect(undecided, cfg, reduce=False)):
        if found.picture:  # else it has changed meanwhile
            entry.picture = file_facts.with_exact(entry.picture, file_facts.pixels(found.picture))


def inspect(entries, cfg, reduce=True):
    """Yield the `Inspection` of each entry, with a progress bar."""
    if not entries:
        return
    from zodiac.data import inspection  # which loads NumPy and Pillow

    workers = cores() if cfg.annotate.workers == 'auto' else cfg.annotate.workers
    workers = min(workers, max(1, len(entries) // 32))
    found = inspection.inspect_all(
        [entry.path for entry in entries], cfg.annotate.non_rgb == 'convert', workers, reduce
    )
    if sys.stderr.isatty():
        from tqdm import tqdm

        found = tqdm(found, 'checking images' if reduce else 'comparing images', total=len(entries), unit='')
    yield from found


def outcome(tree, cfg):
    """What a run depends on beside the files it reads, as a hash, and the hashes of the files it has written."""
    settings = {**vars(cfg.annotate), 'workers': None}
    unread = [entry.path for entry in tree.entries if _name_problem(entry.path)]
    given = [cfg.data.root, cfg.data.labels, cfg.seed, settings, tree.given_splits, tree.stray, tree.junk, unread]
    written = {}
    for name in OUTPUTS:
        path = f'{cfg.data.root}/{name}'
        written[name] = files.sha256(path) if os.path.isfile(path) else ''
    return {'given': hashlib.sha256(json.dumps(given).encode()).hexdigest(), 'written': written}


def _name_problem(path):
    if BREAKS_A_LINE.search(path):
        return 'tab or newline in the name'
    try:
        path.encode('utf-8')
    except UnicodeEncodeError:
        return 'name is not UTF-8'
    return ''


def draw_splits(entries, repeated, given_splits, cfg):
    """Move a seeded, stratified share of the training entries to each split that has no folder; returns those splits.

    Entries with the same pixels go to one split. A class keeps at least one picture to train on.
    """
    fractions = {'valid': cfg.annotate.valid_fraction, 'test': cfg.annotate.test_fraction}
    fractions = {split: fraction for split, fraction in fractions.items() if split not in given_splits}
    if not fractions:
        return []
    copies = {}  # the path of the first training entry of a picture: the others
    for same in repeated:
        in_train = [entry for entry in same if entry.split == 'train']
        copies.update({entry.path: in_train[1:] for entry in in_train[:1]})
    others = {entry.path for same in copies.values() for entry in same}
    by_label = collections.defaultdict(list)
    for entry in entries:
        if entry.split == 'train' and entry.path not in others:
            by_label[entry.label].append(entry)
    for label, firsts in by_label.items():
        total = len(firsts)
        random.Random(f'{cfg.seed}/{label}').shuffle(firsts)  # a text seeds the same on every machine
        for later, (split, fraction) in zip(range(len(fractions) - 1, -1, -1), fractions.items()):
            count = min(max(1, round(total * fraction)), len(firsts) - 1 - later) if total > len(fractions) else 0
            for entry in firsts[:count]:
                for one in (entry, *copies.get(entry.path, ())):
                    one.split = split
            firsts = firsts[count:]
    return list(fractions)


def require_images(splits, tree, drawn, cfg):
    """Raise UserError when a split has no image at all; drawn: the splits that are drawn from train."""
    for split in SPLITS:
        if splits[split] or (split == 'valid' and splits['valid'] is splits['test']):
            continue
        reasons = _reasons(tree.entries)
        why = f' (left out: {reasons})' if reasons else ''
        fix = 'add some'
        if split in drawn and splits['train']:
            fix = f'to draw {" and ".join(drawn)}, a class needs {len(drawn) + 1} different images at least: add some'
        if 'mode ' in reasons:
            fix += ', or set annotate.non_rgb=convert'
        elif split != 'train' and split in tree.given_splits:
            fix += f', or remove the empty folder {os.path.basename(tree.given_splits[split])}/ to draw the split from train'
        raise UserError(f'{cfg.data.root}: no usable images for {split}{why}; {fix}')


def _reasons(entries):
    counts = collections.Counter(entry.verdict.reason for entry in entries if entry.verdict.reason)
    return ', '.join(f'{count} {reason}' for reason, count in counts.most_common())


def summarise(tree, splits, repeated, drawn, valid_is_test, cfg):
    """The content of annotation.json."""
    accepted = [entry for entry in tree.entries if not entry.verdict.reason]
    rejected = [entry for entry in tree.entries if entry.verdict.reason]
    counts = collections.Counter((split, entry.label) for split in SPLITS for entry in splits[split])
    lost = collections.Counter((entry.split, entry.label) for entry in rejected)
    return {
        'root': cfg.data.root,
        'labels': cfg.data.labels,
        'settings': {
            'non_rgb': cfg.annotate.non_rgb,
            'seed': cfg.seed,
            'drawn_splits': drawn,
            'valid_is_test': valid_is_test,
            'split_folders': tree.given_splits,
            **{f'{split}_fraction': getattr(cfg.annotate, f'{split}_fraction') for split in drawn},
        },
        'accepted': len(accepted),
        'splits': {
            split: {
                label: {'accepted': counts[split, label], 'rejected': lost[split, label]} for label in cfg.data.labels
            }
            for split in SPLITS
        },
        'converted_by_mode': dict(
            collections.Counter(entry.verdict.mode for entry in accepted if entry.verdict.mode != 'RGB').most_common()
        ),
        'first_frame_of_animation': [entry.path for entry in accepted if entry.verdict.animated],
        'rejected_by_reason': dict(collections.Counter(entry.verdict.reason for entry in rejected).most_common()),
        'rejected': [
            {
                'path': _printable(entry.path),
                'split': entry.split,
                'class': entry.label,
                'reason': entry.verdict.reason,
                'detail': entry.verdict.detail,
            }
            for entry in rejected
        ],
        'same_picture_in_two_splits': [_paths(same) for same in repeated if len({entry.split for entry in same}) > 1],
        'same_picture_in_two_classes': [_paths(same) for same in repeated if len({entry.label for entry in same}) > 1],
        'sizes': sizes(accepted),
        'modes': dict(collections.Counter(entry.verdict.mode for entry in accepted).most_common()),
        'near_duplicates': looks_like_training(splits),
        'outside_class_folders': [_printable(path) for path in tree.stray],
        'junk': [_printable(path) for path in tree.junk],
    }


def sizes(entries):
    """The range of each side, and the sizes that most images have."""
    counts = collections.Counter(entry.size for entry in entries)
    return {
        'width': _range_of_side(counts, 0),
        'height': _range_of_side(counts, 1),
        'different': len(counts),
        'most_common': [{'width': w, 'height': h, 'images': count} for (w, h), count in counts.most_common(5)],
    }


def _range_of_side(counts, side):
    of_length = collections.Counter()
    for size, count in counts.items():
        of_length[size[side]] += count
    lengths = sorted(of_length)
    up_to = list(itertools.accumulate(of_length[length] for length in lengths))
    return {'min': lengths[0], 'median': lengths[bisect.bisect(up_to, (up_to[-1] - 1) // 2)], 'max': lengths[-1]}


def looks_like_training(splits):
    """The images of valid and test that look like a training image, each with the nearest such image; the surest pairs first."""
    from zodiac.data import near_duplicates  # which loads NumPy

    training = splits['train']
    others = splits['test'] if splits['valid'] is splits['test'] else splits['valid'] + splits['test']
    nearest, distance = near_duplicates.find(*([entry.picture for entry in part] for part in (training, others)))
    pairs = [
        {
            'distance': int(bits),
            'path': entry.path,
            'split': entry.split,
            'class': entry.label,
            'train_path': training[number].path,
            'train_class': training[number].label,
        }
        for entry, number, bits in zip(others, nearest, distance)
        if number >= 0
    ]
    return sorted(pairs, key=operator.itemgetter('distance'))


def _paths(entries):
    return [entry.path for entry in entries]


def write(summary, splits, cfg):
    """Write the three index files and annotation.json; all of them, or on a full disk none."""
    number = {label: index for index, label in enumerate(cfg.data.labels)}
    contents = {'annotation.json': [json.dumps(summary, ensure_ascii=False, indent=1)]}
    for split in SPLITS:
        contents[f'{split}.txt'] = (f'{entry.path}\t{number[entry.label]}\n' for entry in splits[split])
    with contextlib.ExitStack() as renames:  # the files get their names only when the content of each is on disk
        for name, content in contents.items():
            file = renames.enter_context(files.atomic_write(f'{cfg.data.root}/{name}', sync=False))
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
    files.sync_folder(cfg.data.root)


def report(summary, cfg):
    """Print what was accepted and everything that was not."""
    root = cfg.data.root
    print(f'{"class":<16}' + ''.join(f'{split:>8}' for split in SPLITS))
    for label in cfg.data.labels:
        print(f'{label:<16}' + ''.join(f'{summary["splits"][split][label]["accepted"]:>8}' for split in SPLITS))
    totals = {split: sum(counts['accepted'] for counts in summary['splits'][split].values()) for split in SPLITS}
    print(f'{"all":<16}' + ''.join(f'{totals[split]:>8}' for split in SPLITS))
    for split, folder in summary['settings']['split_folders'].items():
        if os.path.basename(folder) != split:
            print(f'{folder}/ holds the {split} images')
    if summary['settings']['drawn_splits']:
        print(
            f'{" and ".join(summary["settings"]["drawn_splits"])} drawn from the training images with seed {cfg.seed}'
        )
    if summary['settings']['valid_is_test']:
        print('valid.txt lists the test images (annotate.valid_from=test): watch them, but choose nothing by them')
    for mode, count in summary['converted_by_mode'].items():
        print(f'converted to RGB: {count} of mode {mode}')
    if summary['first_frame_of_animation']:
        print(f'animations, of which the first frame is used: {len(summary["first_frame_of_animation"])}')
    for reason, count in summary['rejected_by_reason'].items():
        print(f'left out: {count} {reason}')
    for key, what in (
        ('junk', 'junk files or folders ignored'),
        ('outside_class_folders', 'files or folders outside the class folders ignored'),
    ):
        if summary[key]:
            some = ', '.join(map(files.printable, summary[key][:NAMED])) + (
                ', ...' if len(summary[key]) > NAMED else ''
            )
            print(f'{what}: {len(summary[key])} ({some})')
    for key, places in (('same_picture_in_two_splits', 'splits'), ('same_picture_in_two_classes', 'classes')):
        if summary[key]:
            stand = _count(summary[key], 'picture stands', 'pictures stand')
            warn(
                f'{stand} in two {places}, for example {" = ".join(summary[key][0][:2])}; '
                f'all are in {root}/annotation.json: remove one of each, then annotate again'
            )
    alike = summary['near_duplicates']
    if alike:
        of_another_class = sum(pair['class'] != pair['train_class'] for pair in alike)
        look = _count(alike, 'image of valid and test looks', 'images of valid and test look')
        warn(
            f'{look} like a training image, {of_another_class} like one of another class, for example {alike[0]["path"]} ~ '
            f'{alike[0]["train_path"]}: a network seems better on them than it is; all are in '
            f'{root}/annotation.json: remove one of each pair, then annotate again, or read the accuracy without them in the report'
        )
    absent = {
        split: [label for label in cfg.data.labels if not summary['splits'][split][label]['accepted']]
        for split in SPLITS
    }
    if absent['train']:
        kept = [label for label in cfg.data.labels if label not in absent['train']]
        without = f'-o {schema.override("data.labels", kept)} annotate.unknown_class=skip'
        warn(
            f'no images to train on in class {", ".join(absent["train"])}: train.py will refuse. Add some'
            + (f', or leave it out: {without}' if len(kept) > 1 else '')
        )
    drawn = summary['settings']['drawn_splits']
    for split in ('valid', 'test'):
        if absent[split]:
            needed = f' (it is drawn from classes of {len(drawn) + 1} images or more)' if split in drawn else ''
            warn(f'no {split} images in class {", ".join(absent[split])}: nothing is measured there{needed}')
    _warn_of_loss(summary, cfg)
    print(f'written: {root}/train.txt, {root}/valid.txt, {root}/test.txt, {root}/annotation.json')


def warn(text):
    """Say what the user should look into."""
    print(f'WARNING: {text}', file=sys.stderr)


def _count(items, one, several):
    return f'{len(items)} {one if len(items) == 1 else several}'


def _warn_of_loss(summary, cfg):
    rejected = sum(summary['rejected_by_reason'].values())
    total = rejected + summary['accepted']
    if rejected * 10 <= total:
        return
    by_mode = sum(count for reason, count in summary['rejected_by_reason'].items() if reason.startswith('mode '))
    keep = (
        f' Set annotate.non_rgb=convert to keep up to {by_mode} of them.'
        if by_mode and cfg.annotate.non_rgb == 'reject'
        else ''
    )
    print('!' * 78, file=sys.stderr)
    warn(f'{rejected} of {total} files ({rejected / total:.0%}) {"is" if rejected == 1 else "are"} left out.{keep}')
    print(f'Each is listed with its reason in {cfg.data.root}/annotation.json.', file=sys.stderr)
    print('!' * 78, file=sys.stderr)


def _printable(path):
    return path.encode('utf-8', 'backslashreplace').decode('utf-8')


if __name__ == '__main__':
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # NumPy has no use for threads here, and starts in 20 ms less
    gc.disable()  # entries by the hundred thousand, none of them in a cycle: collecting takes a tenth of the time
    run(main)
