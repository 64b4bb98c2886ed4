"""README.md of an export, the model card, from its evidence: nothing is said that was not measured.

The sections are those of Mitchell et al. 2019, "Model cards for model reporting" (arXiv:1810.03993); the first lines are the metadata that
Hugging Face reads.
"""

import collections
import hashlib
import math
import os
import re

import jinja2

from zodiac.base import formatting, networks

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = {  # kinds of slices.measure
    'short_side': 'with a short side of {} pixels',
    'brightness': 'with a mean grey value of {} (from 0 to 1)',
    'sharpness': 'with a sharpness of {} (variance of the Laplacian)',
    'folder': 'of the folder {}',
    'column': 'whose {name} is {}',
}
FEW = 30  # test photos of a class, below which its recall says little


def version():
    """Hash of what a card is made with, in hexadecimal: this code and its template."""
    digest = hashlib.sha256()
    for path in (os.path.abspath(__file__), os.path.join(HERE, 'card.md')):
        with open(path, 'rb') as file:
            digest.update(hashlib.sha256(file.read().replace(b'\r\n', b'\n')).digest())
    return digest.hexdigest()


def write(manifest, about, splits):
    """str: the card, Markdown.

    Args:
        manifest: content of inference.yaml; about, splits: as for `evidence.pack`; about has the `annotation` of `of_annotation`.
    """
    annotation = about['annotation']
    labels, settings, metrics = [str(label) for label in manifest['labels']], about['config'], about['metrics']
    counts = {split: collections.Counter(photo.label for photo in photos) for split, photos in splits.items()}
    rows = [[label, *(count[number] for count in counts.values())] for number, label in enumerate(labels)]
    rows.append(['all', *(sum(count.values()) for count in counts.values())])
    accuracy = _accuracy(manifest, metrics, counts.get('test')) if metrics else []
    sizes = annotation.get('sizes') or {}
    trained, steps = manifest['trained'], manifest['transform']
    paths = {photo.path: photo.digest for photos in splits.values() for photo in photos}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(percent=formatting.percent, decimals=formatting.decimals, plain=plain)
    text = environment.get_template('card.md').render(
        name=manifest['name'],
        labels=labels,
        metrics=metrics,
        not_measured=about['not_measured'],
        onnx=any(name.endswith('.onnx') for name in manifest['sha256']),
        accuracy=accuracy,
        answer=_answer(accuracy),
        chinese=_chinese(len(labels), accuracy),
        folds=metrics and metrics.get('folds'),
        near=metrics and metrics.get('near_duplicates'),
        guess_loss=math.log(len(labels)),
        temperature=manifest['temperature'],
        total=len(paths),
        copies=len(paths) - len(set(paths.values())),
        folder=os.path.basename(os.path.abspath(settings['data']['root'])),
        left_out=_left_out(annotation),
        splits=[*counts],
        counts=rows,
        sizes=sizes,
        arch=trained['arch'],
        size=manifest['input']['shape'][2],
        initial=networks.initial_weights(trained['arch'], trained.get('pretrained')),
        training=_training(settings, trained),
        preprocessing=_preprocessing(steps),
        flip=trained.get('flip_average'),
        seed=settings['seed'],
        versions=manifest['versions'],
        evidence=f'{manifest["name"]}.evidence.json',
        limits=_limits(manifest, metrics, accuracy, sizes),
    )
    return re.sub(r'\n{3,}', '\n\n', text)


def of_annotation(annotation):
    """What the card says of annotation.json: a part of its content; {} for {}."""
    return {key: annotation[key] for key in ('sizes', 'rejected_by_reason') if annotation.get(key) is not None}


def plain(text):
    """A text with the characters escaped that mean something in Markdown."""
    return re.sub(r'([\\`*_<>|\[\]#~$])', r'\\\1', str(text))


def _accuracy(manifest, metrics, test):
    """Rows of the table: what, n, top1, interval, guess; the one that says most first."""
    rows = []
    folds, measured = metrics.get('folds'), manifest.get('measured') or {}
    if folds:
        guess = measured.get('guess')
        what = f'all photos, over {folds["k"]} folds'
        rows.append(
            {'what': what, 'n': folds['n'], 'top1': folds['top1'], 'interval': folds['interval_95'], 'guess': guess}
        )
    guess = max(test.values()) / sum(test.values())
    rows.append(
        {
            'what': 'test photos',
            'n': metrics['n'],
            'top1': metrics['top1'],
            'interval': metrics['top1_interval_95'],
            'guess': guess,
        }
    )
    return rows


def _answer(accuracy):
    """The first sentence."""
    if not accuracy:
        return ''
    best = accuracy[0]
    low, high = map(formatting.percent, best['interval'])
    return (
        f'It is right for **{formatting.percent(best["top1"])}** of {best["n"]:,} photos ({best["what"]}; 95% interval {low} to {high}; '
        f'always guessing the largest class: {formatting.percent(best["guess"])}).'
    )


def _chinese(classes, accuracy):
    """The summary in Chinese."""
    if not accuracy:
        return f'{classes} 类图像分类模型。导出时没有测量准确率。'
    best = accuracy[0]
    low, high = map(formatting.percent, best['interval'])
    where = '交叉验证' if 'folds' in best['what'] else '测试照片'
    return (
        f'{classes} 类图像分类模型。准确率 {formatting.percent(best["top1"])}（{where}，{best["n"]:,} 张；95% 置信区间 {low} 至 {high}；'
        f'总猜最多的一类：{formatting.percent(best["guess"])}）。用 `zodiac verify` 可以核实。'
    )


def _left_out(annotation):
    if not annotation:
        return ''
    reasons = annotation.get('rejected_by_reason') or {}
    named = ', '.join(f'{count:,} {reason}' for reason, count in reasons.items())
    return f'; left out: {named}' if named else '; no file was left out'


def _training(settings, trained):
    if settings['train']['head'] == 'linear' and (trained.get('epoch') or 1) <= 1:
        return 'the network was kept as it is; a linear head was solved on its features by logistic regression'
    epoch = f'; these weights are of epoch {trained["epoch"]}' if trained.get('epoch') else ''
    return f'{settings["optim"]["name"]}, up to {settings["train"]["epochs"]} epochs{epoch}'


def _preprocessing(steps):
    """The transform in words."""
    words = []
    for step in steps:
        if step['op'] == 'center_crop':
            words.append(f'the short side to {step["resize"]} pixels, then the centre {step["size"]} × {step["size"]}')
        elif step['op'] == 'resize':
            words.append(f'both sides to {step["size"]} pixels')
        elif step['op'] == 'pad':
            words.append(f'the long side to {step["size"]} pixels, with borders of the mean colour')
        elif step['op'] == 'normalize':
            mean, std = (', '.join(f'{value:.3f}' for value in step[key]) for key in ('mean', 'std'))
            words.append(f'RGB from 0 to 1, minus ({mean}), divided by ({std})')
    return '; '.join(words)


def _limits(manifest, metrics, accuracy, sizes):
    """What the numbers say about where the model is weak, and what they do not say."""
    lines = []
    if metrics:
        low, high = accuracy[0]['interval']
        lines.append(
            f'The accuracy is known to within {100 * (high - low):.1f} points, the width of its interval; more test photos narrow it.'
        )
        measured = {name: row['support'] for name, row in metrics['per_class'].items() if row['support']}
        few = [plain(name) for name, number in measured.items() if number < FEW]
        if few:
            which = 'Each class has' if len(few) == len(measured) else f'Each of {", ".join(few)} has'
            lines.append(f'{which} fewer than {FEW} test photos, so the figures of a class are rough.')
        found = {
            name: (round(row['recall'] * row['support']), row['support']) for name, row in metrics['per_class'].items()
        }
        found = (metrics.get('folds') or {}).get('per_class', found)
        shares = {name: hits / number for name, (hits, number) in found.items() if number}
        worst = min(shares, key=shares.get)
        if shares[worst] < 1:
            hits, number = found[worst]
            lines.append(
                f'The class found least often is {plain(worst)}: {hits:,} of {formatting.count(number, "photo")}.'
            )
        lines += [
            f'It is weaker on photos {WORDS[row["kind"]].format(plain(row["value"]), name=plain(row["property"]))}: right for '
            f'{formatting.percent(row["top1"])} of {row["n"]:,} ({formatting.p_value(row["p"])}, corrected for the number of comparisons).'
            for row in metrics.get('worse') or ()
        ]
    lines.append(
        'Photos that are taken in another way than these, by other cameras or of other places, were not measured.'
    )
    if sizes:
        lines.append(
            f'No photo was less than {sizes["width"]["min"]} pixels wide or {sizes["height"]["min"]} pixels high: smaller ones were not '
            'measured.'
        )
    unknown, facts = (metrics or {}).get('unknown'), manifest.get('unknown')
    if not facts:
        lines.append('It always names one of its classes, also for a photo of something else.')
    elif unknown:
        lines.append(
            f'Photos of something else: it is set to know {formatting.percent(facts["keep"])} of photos of its classes, and knew '
            f'{formatting.percent(unknown["known"])} of {formatting.count(unknown["n"], "test photo")}; its sets of labels held the right '
            f'one for {formatting.percent(unknown["coverage"])} (asked for: {formatting.percent(facts["level"])}). How many photos of '
            'something else it takes for one of its classes was not measured.'
        )
    else:
        lines.append('How well it tells photos of something else was not measured.')
    return lines
