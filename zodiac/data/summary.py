"""The content of annotation.json, and the same as a table with warnings for the terminal."""

import bisect
import collections
import hashlib
import itertools
import os
import sys

from zodiac.base import calls, files, schema
from zodiac.data.entry import content, setting_for
from zodiac.data.scan import CORRECTIONS, SPLITS

SHOWN = 3  # ignored files and folders named on the terminal; annotation.json has all


def build(root, labels, settings, tree, splits, duplicates, near_copies, corrected):
    """The content of annotation.json.

    Args:
        root: data.root; settings: dict of those that decided.
        tree: the `scan.Tree`, with a verdict on each entry; splits: {split: accepted entries}.
        duplicates: see `exact_duplicates.groups`; near_copies: see `near_duplicates.of_training`; corrected: see
            `corrections.apply`.
    """
    accepted = [entry for entry in tree.entries if not entry.verdict.reason]
    rejected = [entry for entry in tree.entries if entry.verdict.reason]
    counts = collections.Counter((split, entry.label) for split in SPLITS for entry in splits[split])
    lost = collections.Counter((entry.split, entry.label) for entry in rejected)
    modes = collections.Counter(entry.verdict.mode for entry in accepted)
    return {
        'root': root,
        'labels': labels,
        'settings': settings,
        'accepted': len(accepted),
        'content': {split: _content(splits[split]) for split in SPLITS},
        'splits': {
            split: {label: {'accepted': counts[split, label], 'rejected': lost[split, label]} for label in labels}
            for split in SPLITS
        },
        'converted_by_mode': {mode: count for mode, count in modes.most_common() if mode != 'RGB'},
        'first_frame_of_animation': [entry.path for entry in accepted if entry.verdict.animated],
        'rejected_by_reason': dict(collections.Counter(entry.verdict.reason for entry in rejected).most_common()),
        'rejected': [
            {
                'path': _encodable(entry.path),
                'split': entry.split,
                'class': entry.label,
                'reason': entry.verdict.reason,
                'detail': entry.verdict.detail,
            }
            for entry in rejected
        ],
        'same_picture_in_two_splits': [_paths(same) for same in duplicates if len({entry.split for entry in same}) > 1],
        'same_picture_in_two_classes': [
            _paths(same) for same in duplicates if len({entry.label for entry in same}) > 1
        ],
        'sizes': _sizes(accepted),
        'modes': dict(modes.most_common()),
        'near_duplicates': near_copies,
        'corrections': corrected,
        'groups': len({entry.group for entry in accepted if entry.group}),
        'outside_class_folders': [_encodable(path) for path in tree.stray],
        'junk': [_encodable(path) for path in tree.junk],
    }


def _content(entries):
    """A hash of the pixels of images, in order: it changes with an image whose file name stays."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(content(entry.fingerprint))
    return digest.hexdigest()


def _sizes(entries):
    """The range of each side, and the most common sizes."""
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


def _paths(entries):
    return [entry.path for entry in entries]


def _encodable(path):
    """A path with the bytes escaped that are not UTF-8."""
    return path.encode('utf-8', 'backslashreplace').decode('utf-8')


def show(summary):
    """Print what was accepted and what was not to stdout, and warnings to stderr."""
    root, labels, settings = summary['root'], summary['labels'], summary['settings']
    accepted = {split: [summary['splits'][split][label]['accepted'] for label in labels] for split in SPLITS}
    print(_row('class', SPLITS))
    for label, *counts in zip(labels, *accepted.values()):
        print(_row(label, counts))
    print(_row('all', map(sum, accepted.values())))
    for split, folder in settings['split_folders'].items():
        if os.path.basename(folder) != split:
            print(f'{folder}{"/" if os.path.isdir(folder) else ""} holds the {split} images')
    if settings['drawn_splits']:
        drawn = ' and '.join(settings['drawn_splits'])
        print(f'{drawn} drawn from the training images with seed {settings["seed"]}')
    if summary.get('groups'):
        print(f'groups, each in one split: {summary["groups"]}')
    if settings['valid_is_test']:
        print('valid.txt lists the test images (annotate.valid_from=test): watch them, but choose nothing by them')
    for mode, count in summary['converted_by_mode'].items():
        print(f'converted to RGB: {count} of mode {mode}')
    if summary['first_frame_of_animation']:
        print(f'animations, of which the first frame is used: {len(summary["first_frame_of_animation"])}')
    for reason, count in summary['rejected_by_reason'].items():
        setting = setting_for(reason)
        print(f'left out: {count} {reason}' + (f' ({setting} includes them)' if setting else ''))
    _show_corrections(summary)
    _print_ignored('junk files or folders', summary['junk'])
    _print_ignored('files or folders outside the class folders', summary['outside_class_folders'])
    _warn_of_duplicates(summary)
    _warn_of_empty_classes(summary, {split: dict(zip(labels, counts)) for split, counts in accepted.items()})
    _warn_of_many_rejected(summary)
    print(f'written: {root}/train.txt, {root}/valid.txt, {root}/test.txt, {root}/annotation.json')


def _row(name, cells):
    return f'{name:<16}' + ''.join(f'{cell:>8}' for cell in cells)


def _print_ignored(what, paths):
    if paths:
        shown = ', '.join([*map(files.printable, paths[:SHOWN]), *(['...'] if len(paths) > SHOWN else [])])
        print(f'{what} ignored: {len(paths)} ({shown})')


def _show_corrections(summary):
    """Print what corrections.csv has changed, and warn of photos that are gone."""
    counts, path = corrections_in_words(summary), f'{summary["root"]}/{CORRECTIONS}'
    if counts:
        print(f'corrections of {path}: {counts}')
    gone = (summary.get('corrections') or {}).get('gone')
    if gone:
        photos = '1 photo is not there any more' if len(gone) == 1 else f'{len(gone)} photos are not there any more'
        _warn(
            f'{path}: {photos} ({files.printable(gone[0])}{", ..." if len(gone) > 1 else ""}); their lines have no effect'
        )


def corrections_in_words(summary):
    """How many photos corrections.csv has changed, such as '1 relabelled, 2 dropped'; '' if none."""
    done = summary.get('corrections') or {}
    names = {'relabelled': 'relabelled', 'dropped': 'dropped', 'labelled': 'new photos'}
    return ', '.join(f'{len(done[key])} {name}' for key, name in names.items() if done.get(key))


def _warn_of_duplicates(summary):
    listed = f'are in {summary["root"]}/annotation.json: remove one image of each and annotate again'
    for place in ('splits', 'classes'):
        same = summary[f'same_picture_in_two_{place}']
        if same:
            images = '1 image is' if len(same) == 1 else f'{len(same)} images are'
            _warn(f'{images} in two {place}, for example {" = ".join(same[0][:2])}. All {listed}')
    near = summary['near_duplicates']
    if near:
        split = ' and '.join(split for split in SPLITS if any(pair['split'] == split for pair in near))
        several = f'{len(near)} {split} images are near-copies of training images'
        images = f'1 {split} image is a near-copy of a training image' if len(near) == 1 else several
        mislabelled = sum(pair['class'] != pair['train_class'] for pair in near)
        of_another = f', {mislabelled} of another class' if mislabelled else ''
        can_join = any(pair['split'] in summary['settings']['drawn_splits'] for pair in near)
        join = ', keep near-copies in one split with -o annotate.group=near_duplicates' if can_join else ''
        _warn(
            f'{images}{of_another} ({near[0]["path"]} resembles {near[0]["train_path"]}); the accuracy is inflated. All pairs {listed}'
            f'{join}, or use the accuracy without them, which is in the report'
        )


def _warn_of_empty_classes(summary, accepted):
    """accepted: {split: {label: number of images}}"""
    empty = {split: [label for label, count in accepted[split].items() if not count] for split in SPLITS}
    if empty['train']:
        others = [label for label in summary['labels'] if label not in empty['train']]
        without = f'-o {schema.override("data.labels", others)} annotate.unknown_class=skip'
        _warn(
            f'no images to train on in class {", ".join(empty["train"])}: train.py will refuse. Add some'
            + (f', or leave it out: {without}' if len(others) > 1 else '')
        )
    drawn = summary['settings']['drawn_splits']
    for split in ('valid', 'test'):
        if empty[split]:
            needed = (
                f' (it is drawn from classes of {len(drawn) + 1} images or more, new images first)'
                if split in drawn
                else ''
            )
            _warn(f'no {split} images in class {", ".join(empty[split])}: nothing is measured there{needed}')


def _warn_of_many_rejected(summary):
    """Warn where more than a tenth of the files is left out."""
    rejected = sum(summary['rejected_by_reason'].values())
    total = rejected + summary['accepted']
    if rejected * 10 <= total:
        return
    by_mode = sum(count for reason, count in summary['rejected_by_reason'].items() if reason.startswith('mode '))
    keep = f' Set annotate.non_rgb=convert to keep up to {by_mode} of them.' if by_mode else ''
    print('!' * 78, file=sys.stderr)
    _warn(f'{rejected} of {total} files ({rejected / total:.1%}) {"is" if rejected == 1 else "are"} left out.{keep}')
    print(f'Each is listed with its reason in {summary["root"]}/annotation.json.', file=sys.stderr)
    print('!' * 78, file=sys.stderr)


def _warn(text):
    print(f'WARNING: {calls.as_called(text)}', file=sys.stderr)
