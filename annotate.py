"""Check every image and write train.txt, valid.txt, test.txt and annotation.json into data.root.

    python annotate.py                                                     # signs/{train,valid,test}/<class>/*
    python annotate.py -o annotate.archive=data/data68755/signs.zip        # unpack it into signs/ first
    python annotate.py -o data.root=photos data.labels=[cat,dog] annotate.non_rgb=convert

Takes folders `<split>/<class>/` or just `<class>/`; a split that has no folder is drawn from the training images,
class by class, with `seed`. No image is moved or changed. An index line is `path<TAB>class number`, the path relative
to the working directory.
"""

import collections
import contextlib
import gc
import itertools
import json
import operator
import os
import random
import re
import sys

import config
from zodiac import files, near_duplicates
from zodiac.device import cores
from zodiac.errors import UserError, run
from zodiac.scan import SPLITS, labels_setting, scan
from zodiac.validate import Inspection, inspect_all

BREAKS_A_LINE = re.compile(r'[\t\n\r]')


def main():
    cfg = config.from_command_line(__doc__)
    if cfg.annotate.archive:
        unpack(cfg)
    tree = scan(cfg.data.root, cfg.data.labels, cfg.annotate.unknown_class)
    validate(tree.entries, cfg.annotate.non_rgb == 'convert', cfg.annotate.workers)
    accepted = [entry for entry in tree.entries if not entry.found.reason]
    pictures = by_pixels(accepted)
    valid_is_test = cfg.annotate.valid_from == 'test' and 'valid' not in tree.given_splits
    drawn = draw_splits(pictures, [*tree.given_splits, *(['valid'] if valid_is_test else [])], cfg)
    splits = {split: [entry for entry in accepted if entry.split == split] for split in SPLITS}
    if valid_is_test:
        splits['valid'] = splits['test']
    require_images(splits, tree, cfg)
    summary = summarise(tree, splits, pictures, drawn, valid_is_test, cfg)
    write(summary, splits, cfg)
    report(summary, cfg)


def unpack(cfg):
    """Unpack annotate.archive into data.root, unless that was done before."""
    from zodiac import archive

    path, root = cfg.annotate.archive, cfg.data.root
    if not os.path.isfile(path):
        raise UserError(f'{path}: no such archive; check annotate.archive')
    stamp = {'archive': os.path.basename(path), 'sha256': files.sha256(path)}
    marker = f'{root}/unpacked.json'
    if os.path.isdir(root) and os.listdir(root):
        if _read_json(marker) == stamp:
            print(f'{path} is unpacked in {root} already')
            return
        raise UserError(
            f'{root}: the folder holds other files; set data.root to a new folder for {path}, or leave annotate.archive out'
        )
    if os.path.isdir(root):
        os.rmdir(root)
    limits = cfg.annotate
    keep = (*SPLITS, *cfg.data.labels)
    archive.unpack(path, root, limits.max_entries, limits.max_bytes, limits.max_ratio, keep)
    with files.atomic_write(marker) as file:
        json.dump(stamp, file)
    print(f'{path} unpacked into {root}')


def validate(entries, convert, workers):
    """Fill in what each entry is, with a progress bar; an entry whose name cannot stand in an index is refused unread."""
    readable = []
    for entry in entries:
        problem = _name_problem(entry.path)
        if problem:
            entry.found = Inspection(problem)
        else:
            readable.append(entry)
    workers = min(cores() if workers == 'auto' else workers, max(1, len(readable) // 32))
    found = inspect_all([entry.path for entry in readable], convert, workers)
    if sys.stderr.isatty():
        from tqdm import tqdm

        found = tqdm(found, 'checking images', total=len(readable), unit='')
    for entry, inspection in zip(readable, found):
        entry.found = inspection


def _name_problem(path):
    if BREAKS_A_LINE.search(path):
        return 'tab or newline in the name'
    try:
        path.encode('utf-8')
    except UnicodeEncodeError:
        return 'name is not UTF-8'
    return ''


def draw_splits(pictures, given_splits, cfg):
    """Move a seeded, stratified share of the training entries to each split that has no folder; returns those splits.

    Entries with the same pixels go to one split. A class keeps at least one picture to train on.
    """
    fractions = {'valid': cfg.annotate.valid_fraction, 'test': cfg.annotate.test_fraction}
    fractions = {split: fraction for split, fraction in fractions.items() if split not in given_splits}
    if not fractions:
        return []
    by_label = collections.defaultdict(list)
    for same in pictures:
        in_train = [entry for entry in same if entry.split == 'train']
        if in_train:
            by_label[in_train[0].label].append(in_train)
    for label, groups in by_label.items():
        total = len(groups)
        random.Random(f'{cfg.seed}/{label}').shuffle(groups)  # a text seeds the same on every machine
        for later, (split, fraction) in zip(range(len(fractions) - 1, -1, -1), fractions.items()):
            count = min(max(1, round(total * fraction)), len(groups) - 1 - later) if total > len(fractions) else 0
            for entry in itertools.chain.from_iterable(groups[:count]):
                entry.split = split
            groups = groups[count:]
    return list(fractions)


def by_pixels(entries):
    """Lists of entries that share their pixels, in the order of the first of each."""
    groups = collections.defaultdict(list)
    for entry in entries:
        groups[entry.found.pixels].append(entry)
    return list(groups.values())


def require_images(splits, tree, cfg):
    """Raise UserError when a split has no image at all."""
    for split in SPLITS:
        if splits[split] or (split == 'valid' and splits['valid'] is splits['test']):
            continue
        reasons = _reasons(tree.entries)
        why = f' (left out: {reasons})' if reasons else ''
        fix = 'add some'
        if 'mode ' in reasons:
            fix += ', or set annotate.non_rgb=convert'
        elif split != 'train' and split in tree.given_splits:
            fix += f', or remove the empty folder {split}/ to draw the split from train'
        raise UserError(f'{cfg.data.root}: no usable images for {split}{why}; {fix}')


def _reasons(entries):
    counts = collections.Counter(entry.found.reason for entry in entries if entry.found.reason)
    return ', '.join(f'{count} {reason}' for reason, count in counts.most_common())


def summarise(tree, splits, pictures, drawn, valid_is_test, cfg):
    """The content of annotation.json."""
    accepted = [entry for entry in tree.entries if not entry.found.reason]
    rejected = [entry for entry in tree.entries if entry.found.reason]
    repeated = [same for same in pictures if len(same) > 1]
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
            collections.Counter(entry.found.mode for entry in accepted if entry.found.mode != 'RGB').most_common()
        ),
        'first_frame_of_animation': [entry.path for entry in accepted if entry.found.animated],
        'rejected_by_reason': dict(collections.Counter(entry.found.reason for entry in rejected).most_common()),
        'rejected': [
            {
                'path': _printable(entry.path),
                'split': entry.split,
                'class': entry.label,
                'reason': entry.found.reason,
                'detail': entry.found.detail,
            }
            for entry in rejected
        ],
        'same_picture_in_two_splits': [_paths(same) for same in repeated if len({entry.split for entry in same}) > 1],
        'same_picture_in_two_classes': [_paths(same) for same in repeated if len({entry.label for entry in same}) > 1],
        'sizes': sizes(accepted),
        'modes': dict(collections.Counter(entry.found.mode for entry in accepted).most_common()),
        'near_duplicates': looks_like_training(accepted),
        'outside_class_folders': [_printable(path) for path in tree.stray],
        'junk': [_printable(path) for path in tree.junk],
    }


def sizes(entries):
    """The range of each side, and the sizes that most images have."""
    counts = collections.Counter(entry.found.size for entry in entries)
    width, height = (sorted(side) for side in zip(*counts.elements()))
    middle = (len(width) - 1) // 2
    return {
        'width': {'min': width[0], 'median': width[middle], 'max': width[-1]},
        'height': {'min': height[0], 'median': height[middle], 'max': height[-1]},
        'different': len(counts),
        'most_common': [{'width': w, 'height': h, 'images': count} for (w, h), count in counts.most_common(5)],
    }


def looks_like_training(entries):
    """The images of valid and test that look like a training image, each with the nearest such image; the surest pairs first."""
    training = [entry for entry in entries if entry.split == 'train']
    others = [entry for entry in entries if entry.split != 'train']
    nearest, distance = near_duplicates.find(*([entry.found.sketch for entry in part] for part in (training, others)))
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
    contents = {'annotation.json': json.dumps(summary, ensure_ascii=False, indent=1)}
    for split in SPLITS:
        lines = (f'{entry.path}\t{number[entry.label]}\n' for entry in splits[split])
        contents[f'{split}.txt'] = ''.join(lines)
    with contextlib.ExitStack() as renames:  # the files get their names only when the content of each is on disk
        for name, content in contents.items():
            file = renames.enter_context(files.atomic_write(f'{cfg.data.root}/{name}'))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def report(summary, cfg):
    """Print what was accepted and everything that was not."""
    root = cfg.data.root
    print(f'{"class":<16}' + ''.join(f'{split:>8}' for split in SPLITS))
    for label in cfg.data.labels:
        print(f'{label:<16}' + ''.join(f'{summary["splits"][split][label]["accepted"]:>8}' for split in SPLITS))
    totals = {split: sum(counts['accepted'] for counts in summary['splits'][split].values()) for split in SPLITS}
    print(f'{"all":<16}' + ''.join(f'{totals[split]:>8}' for split in SPLITS))
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
            print(f'{what}: {len(summary[key])}')
    for key, places in (('same_picture_in_two_splits', 'splits'), ('same_picture_in_two_classes', 'classes')):
        if summary[key]:
            print(
                f'WARNING: {len(summary[key])} pictures stand in two {places}, for example {" = ".join(summary[key][0][:2])}; '
                f'all are in {root}/annotation.json: remove one of each, then annotate again'
            )
    alike = summary['near_duplicates']
    if alike:
        of_another_class = sum(pair['class'] != pair['train_class'] for pair in alike)
        print(
            f'WARNING: {len(alike)} images of valid and test look like a training image, {of_another_class} of them like one of another '
            f'class, for example {alike[0]["path"]} ~ {alike[0]["train_path"]}: a network seems better on them than it is; all are in '
            f'{root}/annotation.json: remove one of each pair, then annotate again, or read the accuracy without them in the report'
        )
    absent = {
        split: [label for label in cfg.data.labels if not summary['splits'][split][label]['accepted']]
        for split in SPLITS
    }
    if absent['train']:
        kept = [label for label in cfg.data.labels if label not in absent['train']]
        print(
            f'WARNING: no images to train on in class {", ".join(absent["train"])}: train.py will refuse. Add some, or leave it out: '
            f'{labels_setting(kept)}'
        )
    for split in ('valid', 'test'):
        if absent[split]:
            print(f'WARNING: no {split} images in class {", ".join(absent[split])}: nothing is measured there')
    _warn_of_loss(summary, cfg)
    print(f'written: {root}/train.txt, {root}/valid.txt, {root}/test.txt, {root}/annotation.json')


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
    print('!' * 78)
    print(f'WARNING: {rejected} of {total} files ({rejected / total:.0%}) are left out.{keep}')
    print(f'Each is listed with its reason in {cfg.data.root}/annotation.json.')
    print('!' * 78)


def _printable(path):
    return path.encode('utf-8', 'backslashreplace').decode('utf-8')


def _read_json(path):
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


if __name__ == '__main__':
    gc.disable()  # entries by the hundred thousand, none of them in a cycle: collecting takes a tenth of the time
    run(main)
