"""Check every image and write train.txt, valid.txt, test.txt and annotation.json into data.root.

    python annotate.py                                                     # signs/{train,valid,test}/<class>/*
    python annotate.py -o annotate.archive=data/data68755/signs.zip        # unpack it into signs/ first
    python annotate.py photos                                              # the same as -c configs/photos.yaml -o data.root=photos
    python annotate.py -c configs/photos.yaml -o annotate.list=photos.csv  # a list of images and classes

Takes folders `<split>/<class>/` or just `<class>/`; `val/`, `validation/` and `dev/` also count as `valid/`. A split without a folder is
drawn from the training images, class by class, with `seed`; an image keeps its split (splits.tsv) when others are added or removed. What
`zodiac review` has decided (corrections.csv in data.root) is applied. No image is moved or changed. An index line is
`path<TAB>class number`, with the path relative to the working directory.
"""

if __name__ == '__main__':
    import gc

    from zodiac.base import start

    gc.disable()  # saves a tenth of the time: a short process, and hundreds of thousands of entries without cycles
    start.prepare('requirements-base.txt', 'numpy PIL yaml tqdm')

import contextlib
import hashlib
import itertools
import json
import os
import sys

import config
from zodiac.base import calls, files
from zodiac.base.device import cores
from zodiac.base.errors import UserError, run
from zodiac.data import corrections, exact_duplicates, groups, inspection_cache, splits, summary
from zodiac.data.entry import NEVER, UNREAD
from zodiac.data.folders import SPLIT_NAMES, SPLITS
from zodiac.data.scan import DRAWN, OUTPUTS, name_problem, scan


def main():
    annotate(config.from_command_line(__doc__, takes='photos'))
    print(f'next: {calls.command("train", *sys.argv[1:])}')


def annotate(cfg):
    """Run this script with a `config.Config`. Raises UserError."""
    root, settings = cfg.data.root, cfg.annotate
    if settings.archive:
        from zodiac.data import archive  # slow: its zipfile and tarfile are a tenth of a run without changes

        labels = cfg.data.labels if isinstance(cfg.data.labels, list) else ()
        archive.unpack_once(settings.archive, root, (*SPLIT_NAMES, *labels), settings.encoding)
    tree = scan_root(cfg)
    corrected = corrections.apply(tree)

    entries = [entry for entry in tree.entries if entry.verdict is UNREAD]
    cache_key = inspection_cache.key(settings.non_rgb)
    cached = inspection_cache.load(tree.root, cache_key)
    stamps = inspection_cache.stamps(entries) if cached else bytearray(len(entries) * len(NEVER))
    unchanged = cached and cached.stamps == stamps and cached.paths == inspection_cache.listing(tree.root, entries)
    if unchanged and cached.run == inputs_and_outputs(tree, corrected, cfg):
        print('no file has changed since the last run', file=sys.stderr)
        summary.show(files.read_json(f'{root}/annotation.json'))
        return

    from zodiac.data import inspection, near_duplicates  # a run without changes starts without NumPy and Pillow
    from zodiac.data.left_out import require_few  # which imports Pillow too

    unread = inspection_cache.restore(cached, tree.root, entries, stamps) if cached else range(len(entries))
    del cached  # large
    workers = cores() if settings.workers == 'auto' else settings.workers
    inspection.inspect_entries(entries, unread, stamps, settings.non_rgb == 'convert', workers)

    try:
        require_few(tree, settings.max_left_out)
    except UserError:
        with contextlib.suppress(UserError):  # then the next run reads all files again
            inspection_cache.save(tree.root, cache_key, {}, entries, stamps)
        raise
    accepted = [entry for entry in tree.entries if not entry.verdict.reason]
    duplicates = exact_duplicates.groups(accepted)
    valid_is_test = settings.valid_from == 'test' and 'valid' not in tree.given_splits
    fractions = {'valid': settings.valid_fraction, 'test': settings.test_fraction}
    given = {*tree.given_splits, *(['valid'] if valid_is_test else [])}
    fractions = {split: fraction for split, fraction in fractions.items() if split not in given}
    decided_by = {
        'non_rgb': settings.non_rgb,
        'seed': cfg.seed,
        'drawn_splits': list(fractions),
        'valid_is_test': valid_is_test,
        'split_folders': tree.given_splits,
        **{f'{split}_fraction': fraction for split, fraction in fractions.items()},
    }
    set_groups(accepted, cfg)
    kept = splits.earlier(root, decided_by, accepted)
    join = settings.group == groups.NEAR_DUPLICATES
    while True:
        gone = splits.draw(accepted, duplicates, fractions, cfg.seed, dict(kept) if join else kept)
        by_split = {split: [entry for entry in accepted if entry.split == split] for split in SPLITS}
        if valid_is_test:
            by_split['valid'] = by_split['test']
        splits.require_images(by_split, tree, list(fractions))
        near_copies = near_duplicates.of_training(by_split)
        if not join or not groups.join_near_copies(accepted, near_copies, fractions):
            break
    content = summary.build(root, tree.labels, decided_by, tree, by_split, duplicates, near_copies, corrected)
    write(content, by_split, gone, cfg)
    summary.show(content)
    try:
        inspection_cache.save(tree.root, cache_key, inputs_and_outputs(tree, corrected, cfg), entries, stamps)
    except UserError as error:  # the index files are complete
        print(f'{error}; the next run will read all files again', file=sys.stderr)


def scan_root(cfg):
    """The `scan.Tree` of data.root. If its file names may have been decoded wrongly, the UserError says so."""
    root = cfg.data.root
    try:
        if cfg.annotate.list:
            from zodiac.data import listed  # most runs have no list and start faster without its parsers

            return listed.scan_list(cfg.annotate.list, root, cfg.data.labels, cfg.annotate.unknown_class, _say)
        return scan(root, cfg.data.labels, cfg.annotate.unknown_class)
    except UserError as error:
        from zodiac.data import archive  # slow, as above

        encoding = archive.guessed_encoding(root)
        if not encoding:
            raise
        raise UserError(
            f'the file names in the archive were decoded as {encoding}; if they look wrong, remove {root} and unpack it again with the '
            f'right data.labels, or with annotate.encoding=shift_jis, big5, euc_kr or another. {error}'
        ) from None


def set_groups(entries, cfg):
    """Set the groups of entries that a list has not set. Raises UserError for a group in two splits that are given."""
    root, pattern = cfg.data.root, cfg.annotate.group
    if pattern == groups.NEAR_DUPLICATES:
        known = groups.read(root)
        for entry in entries:
            entry.group = entry.group or known.get(entry.path, '')
    elif pattern:
        without = groups.by_names(entries, root, pattern)
        if without:
            _say(f'annotate.group = {pattern}: not found in the names of {without} images; each is a group of its own')
    groups.require_one_split(entries, root)


def _say(line):
    print(line, file=sys.stderr)


def inputs_and_outputs(tree, corrected, cfg):
    """A hash of everything except file contents that a run depends on, and the hashes of the files it writes."""
    settings = {**vars(cfg.annotate), 'workers': None}
    bad_names = [entry.path for entry in tree.entries if name_problem(entry.path)]
    inputs = [
        cfg.data.root,
        tree.labels,
        cfg.seed,
        settings,
        tree.given_splits,
        tree.stray,
        tree.junk,
        bad_names,
        tree.rows,
        corrected,
    ]
    outputs = {}
    for name in OUTPUTS:
        path = f'{cfg.data.root}/{name}'
        outputs[name] = files.sha256(path) if os.path.isfile(path) else ''
    return {'inputs': hashlib.sha256(json.dumps(inputs).encode()).hexdigest(), 'outputs': outputs}


def write(content, by_split, gone, cfg):
    """Write annotation.json, the index files, splits.tsv where splits were drawn, groups.csv where there are groups: all of them or, on a
    full disk, none."""
    number = {label: index for index, label in enumerate(content['labels'])}
    texts = {'annotation.json': [json.dumps(content, ensure_ascii=False, indent=1)]}
    for split in SPLITS:
        texts[f'{split}.txt'] = (f'{entry.path}\t{number[entry.label]}\n' for entry in by_split[split])
    drawn = content['settings']['drawn_splits']
    if drawn:
        texts[DRAWN] = splits.record(by_split, drawn, gone)
    if content['groups'] or os.path.exists(f'{cfg.data.root}/{groups.NAME}'):
        texts[groups.NAME] = groups.record(itertools.chain.from_iterable(by_split.values()))
    with contextlib.ExitStack() as renames:  # a file gets its name only when the content of each is on disk
        for name, text in texts.items():
            file = renames.enter_context(files.atomic_write(f'{cfg.data.root}/{name}', sync=False))
            file.writelines(text)
            file.flush()
            os.fsync(file.fileno())
    files.sync_folder(cfg.data.root)


if __name__ == '__main__':
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # starts NumPy 20 ms faster; its threads are not used here
    run(main)
