"""The report page."""

import numpy as np
import pytest
from conftest import AWKWARD, CHINESE, ENGLISH, read_page, without_pictures
from html_parts import figures, images_of, page_of, tables, text_of, text_of_page, tiles

from zodiac.report import calibration, metrics, pages

LABELS = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array([[6, 3, 1], [8, 1, 1], [7, 2, 1], [9, 0, 1], [3, 4, 3], [5, 1, 4]]) / 10


def card(path, prediction='ox', probability=0.75, label='ox', of_label=0.75):
    texts = {'picture': f'data:image/jpeg;base64,{path}', 'path': path, 'prediction': prediction, 'label': label}
    return {**texts, 'probability': probability, 'probability_of_label': of_label, 'right': prediction == label}


def content_of_a_page(names, **more):
    mistake = card('<a>&.jpg', names[0], 0.96, names[1], 0.02)
    result = {
        **metrics.evaluate(LABELS, PROBABILITIES, names),
        'calibration': calibration.evaluate(LABELS, PROBABILITIES),
        'near_duplicates': None,
        'sample': [{'id': 3, **mistake}],
        'sample_top1': 0.0,
        'sample_interval_95': [0.0, 0.9],
    }
    data = {'facts': [('files rejected', '3 of <mode> L')], 'sides': None, 'bars': {}, 'near_duplicates': None}
    content = {
        'title': 'a run',
        'subtitle': 'a network',
        'result': result,
        'wrong': 4,
        'pictures': {'reliability': 'data:image/png;base64,AAAA', 'curves': None, 'pr_curves': None},
        'counts': {'train': [5, 3, 1], 'test': [2, 2, 2]},
        'most': 7,
        'data': data,
        'made': [('Paddle', '3')],
    }
    return {
        **content,
        'mistakes': [mistake],
        'uncertain': [mistake],
        'right': [],
        'heat': [],
        'heat_size': None,
        **more,
    }


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_names_are_escaped_and_nothing_is_loaded(tmp_path, names):
    path = tmp_path / 'report.html'
    pages.write_page(str(path), 'report.html', **content_of_a_page(names))
    page = path.read_text(encoding='utf-8')
    texts, addresses = read_page(page)
    for name in [*names, '<a>&.jpg', '3 of <mode> L', '33.3\xa0%']:
        assert any(name in text for text in texts), name
    assert '<mode>' not in page
    assert addresses and all(address.startswith('data:image/') for address in addresses)
    assert 'http' not in without_pictures(page)


def test_a_selection_of_images_says_of_how_many(tmp_path):
    cards = [card(str(number)) for number in range(6)]
    text = text_of_page(tmp_path, **content_of_a_page(ENGLISH, mistakes=cards[:1], uncertain=cards[:2]))
    assert '1 of 4 are shown; predictions.csv lists all' in text
    assert '2 of 6 are shown;' in text and '0 of 1 classes are shown;' in text
    whole = content_of_a_page(ENGLISH, mistakes=cards[:4], uncertain=cards, right=cards[:1])
    assert 'are shown;' not in text_of_page(tmp_path, **whole)


def distinct_numbers(names):
    """The content of a page whose numbers are all different."""
    content = content_of_a_page(names)
    classes = [
        {
            'precision': a,
            'recall': a + 0.01,
            'recall_interval_95': [a - 0.1, a + 0.1],
            'f1': a + 0.02,
            'roc_auc': a + 0.03,
        }
        for a in (0.2, 0.3, 0.4)
    ]
    content['result'].update(
        **{'n': 6, 'top1': 0.511, 'top1_interval_95': [0.21, 0.82], 'top_k': [0.511, 0.93, 1.0], 'loss': 1.25},
        **{'macro_precision': 0.11, 'macro_recall': 0.12, 'macro_f1': 0.13, 'macro_roc_auc': 0.14},
        **{'weighted_precision': 0.15, 'weighted_recall': 0.16, 'weighted_f1': 0.17},
        per_class={name: {**row, 'support': 7 + number} for number, (name, row) in enumerate(zip(names, classes))},
        calibration={
            **{'ece': 0.051, 'brier': 0.052, 'temperature': 1.5, 'bins': []},
            **{'ece_with_temperature': 0.053, 'brier_with_temperature': 0.054, 'loss_with_temperature': 1.05},
        },
        sample=[
            {'id': 3, 'path': 'a.jpg', 'label': names[1], 'prediction': names[0], 'probability': 0.961},
            {'id': 5, 'path': 'b.jpg', 'label': names[2], 'prediction': names[2], 'probability': 0.762},
        ],
        sample_top1=0.5,
        sample_interval_95=[0.013, 0.987],
    )
    return content


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_each_number_is_in_its_place(tmp_path, names):
    parts = page_of(tmp_path, **distinct_numbers(names))
    assert tiles(parts['']) == {
        'top-1 accuracy on 6 images 95 % interval 21.0 % to 82.0 % (Wilson)': '51.1 %',
        'top-2': '93.0 %',
        'macro F1': '0.1300',
        'macro ROC-AUC': '0.1400',
        'loss, nats': '1.2500',
        'calibration error': '0.0510',
    }
    assert tables(parts['Class by class']) == [
        [
            ['class', 'precision', 'recall', '95 % interval', 'F1', 'ROC-AUC', 'images'],
            [names[0], '0.2000', '0.2100', '10.0 % to 30.0 %', '0.2200', '0.2300', '7'],
            [names[1], '0.3000', '0.3100', '20.0 % to 40.0 %', '0.3200', '0.3300', '8'],
            [names[2], '0.4000', '0.4100', '30.0 % to 50.0 %', '0.4200', '0.4300', '9'],
            ['mean of the classes', '0.1100', '0.1200', '', '0.1300', '0.1400', ''],
            ['weighted by images', '0.1500', '0.1600', '', '0.1700', '', '6'],
        ]
    ]
    believed = text_of(*parts['Can the probabilities be believed?'])
    assert (
        'Expected calibration error 0.0510 (15 bins), Brier score 0.0520, loss 1.2500. With the logits divided by a temperature of 1.5000'
        in believed
    )
    assert 'they are 0.0530, 0.0540 and 1.0500. The predictions do not change.' in believed
    sample = parts['A random sample']
    assert 'A simple random sample of 2 of the 6 images: 50.0 % are right.' in text_of(*sample)
    assert 'is between 1.3 % and 98.7 % (exact 95 % interval); it is 51.1 %.' in text_of(*sample)
    assert tables(sample) == [
        [
            ['ID', 'label', 'prediction', 'probability', 'image'],
            ['3', names[1], names[0], '96.1 %', 'a.jpg'],
            ['5', names[2], names[2], '76.2 %', 'b.jpg'],
        ]
    ]
    assert tables(parts['The images']) == [
        [['class', 'train', 'test', ''], [names[0], '5', '2', ''], [names[1], '3', '2', ''], [names[2], '1', '2', '']]
    ]


def test_bars_are_proportional_to_the_numbers_of_images(tmp_path):
    below = page_of(tmp_path, **content_of_a_page(ENGLISH))['The images']
    bars = [[bar.get('style') for bar in row[-1]] for row in below[0].iter('tr')]
    assert bars == [
        [],
        ['width: 64.29%', 'width: 25.71%'],
        ['width: 38.57%', 'width: 25.71%'],
        ['width: 12.86%', 'width: 25.71%'],
    ]


def test_each_section_shows_its_own_images(tmp_path):
    walls = {
        'mistakes': [card('m1', 'ox', 0.96, 'tiger', 0.02), card('m2', 'tiger', 0.5, 'ox', 0.4)],
        'uncertain': [card('u1', probability=0.34)],
        'right': [card('r1', probability=0.99), card('r2')],
        'heat': [card('h1', 'ox', 0.9, 'rabbit', 0.05)],
    }
    parts = page_of(tmp_path, **content_of_a_page(ENGLISH, **walls, heat_size=(4, 6)))
    mistakes = parts['What it gets wrong, and how sure it was']
    assert text_of(mistakes[0]).startswith('4 of 6 predictions are wrong.')
    assert figures(mistakes) == [
        ('data:image/jpeg;base64,m1', 'ox 96.0 %, is tiger 2.0 % m1', 'bad'),
        ('data:image/jpeg;base64,m2', 'tiger 50.0 %, is ox 40.0 % m2', 'bad'),
    ]
    assert figures(parts['Where it hesitates']) == [('data:image/jpeg;base64,u1', 'ox 34.0 % u1', 'good')]
    right = [
        ('data:image/jpeg;base64,r1', 'ox 99.0 % r1', 'good'),
        ('data:image/jpeg;base64,r2', 'ox 75.0 % r2', 'good'),
    ]
    assert figures(parts['Where it is right']) == right
    looks = parts['What it looks at']
    assert figures(looks) == [('data:image/jpeg;base64,h1', 'ox 90.0 %, is rabbit 5.0 % h1', 'bad')]
    assert 'resolution is 4 × 6,' in text_of(*looks)


def test_the_confusion_matrix_is_labelled_and_shows_mistakes_in_red(tmp_path):
    content = content_of_a_page(ENGLISH)
    content['result']['confusion_matrix'] = [[39, 1, 0], [0, 0, 0], [3, 0, 1]]
    (matrix,) = page_of(tmp_path, **content)['Confusion matrix'][-1:]
    assert tables([matrix]) == [
        [
            ['predicted → true ↓', *ENGLISH],
            ['ox', '39 97.5 %', '1 2.5 %', ''],
            ['tiger', '', '', ''],
            ['rabbit', '3 75.0 %', '', '1 25.0 %'],
        ]
    ]
    colours = [[cell.get('style') for cell in row[1:]] for row in list(matrix.iter('tr'))[1:]]
    assert colours == [
        ['background: rgba(9, 105, 218, 0.975); color: #fff', 'background: rgba(207, 34, 46, 0.158)', None],
        [None, None, None],
        ['background: rgba(207, 34, 46, 0.866); color: #fff', None, 'background: rgba(9, 105, 218, 0.250)'],
    ]


def many_classes(matrix):
    content = content_of_a_page(ENGLISH)
    names = [f'class {number}' for number in range(len(matrix))]
    content['result'].update(labels=names, confusion_matrix=matrix.tolist(), top_k=[0.5, 0.6, 0.7, 0.8, 0.9])
    content['counts'] = {'train': [1] * len(names)}
    return content


def test_many_classes_get_a_list_of_the_most_frequent_confusions(tmp_path):
    matrix = 10 * np.eye(41, dtype=int)
    matrix[4, 7], matrix[9, 8] = 30, 10
    matrix[5, :39] += 1
    below = page_of(tmp_path, **many_classes(matrix))['Confusion matrix']
    ((titles, *rows),) = tables(below)
    assert titles == ['true', 'predicted', 'images', 'share of the true class']
    assert rows[:3] == [
        ['class 4', 'class 7', '30', '75.0 %'],
        ['class 9', 'class 8', '10', '50.0 %'],
        ['class 5', 'class 0', '1', '2.0 %'],
    ]
    assert len(rows) == 40 and text_of(*below).startswith('All 40 confusions')
    matrix[6, 0] = 1
    below = page_of(tmp_path, **many_classes(matrix))['Confusion matrix']
    assert len(tables(below)[0]) == 41 and text_of(*below).startswith('The 40 most frequent of 41 confusions')


def test_many_classes_without_confusions_get_no_list(tmp_path):
    below = page_of(tmp_path, **many_classes(np.eye(41, dtype=int)))['Confusion matrix']
    assert text_of(*below) == 'No class is confused with another; confusion_matrix.csv holds the whole matrix.'


def test_unknown_parts_are_left_out(tmp_path):
    made = [('weights', 'w.pdparams'), ('epoch', None), ('Paddle', '3')]
    parts = page_of(tmp_path, **content_of_a_page(ENGLISH, made=made, mistakes=[]))
    assert text_of(*parts['What made this']) == 'weights w.pdparams Paddle 3'
    assert text_of(*parts['What it gets wrong, and how sure it was']) == 'No mistakes on 6 images.'
    calibrated = text_of(*parts['Can the probabilities be believed?'])
    assert 'No temperature was fitted' in calibrated and 'divided by' not in calibrated
    assert parts.keys().isdisjoint({'What it looks at', 'Training', 'Precision over recall'})


def test_plots_are_in_their_sections(tmp_path):
    content = content_of_a_page(ENGLISH)
    parts = page_of(tmp_path, **content)
    assert images_of(parts['Can the probabilities be believed?']) == ['data:image/png;base64,AAAA']
    for heading, name in (('Training', 'curves'), ('Precision over recall', 'pr_curves')):
        pictures = {**content['pictures'], name: f'data:image/png;base64,{name}'}
        more = page_of(tmp_path, **{**content, 'pictures': pictures})
        assert more.keys() - parts.keys() == {heading}
        assert images_of(more[heading]) == [f'data:image/png;base64,{name}']
    headings = list(more)
    assert (
        headings.index('Class by class') < headings.index('Precision over recall') < headings.index('Confusion matrix')
    )
