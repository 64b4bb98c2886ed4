"""The tables and the page of a report."""

import base64
import csv
import io
import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import AWKWARD, CHINESE, ENGLISH, picture, read_page, without_pictures
from PIL import Image

from zodiac.base.errors import UserError
from zodiac.report import calibration, compare, metrics, pages


def read_table(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_predictions_have_a_row_an_image(tmp_path, names):
    paths = ['signs/test/a.jpg', 'signs/test/猫 1.jpg', 'signs/test/a,"b".jpg', 'd\r 1.jpg']
    labels = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]], np.float32)
    pages.write_predictions(str(tmp_path / 'predictions.csv'), paths, labels, probabilities, names)
    rows = read_table(tmp_path / 'predictions.csv')
    assert list(rows[0]) == ['id', 'path', 'label', 'prediction', 'probability', 'correct']
    assert [row['id'] for row in rows] == ['0', '1', '2', '3']
    assert [row['path'] for row in rows] == paths
    assert [row['label'] for row in rows] == [names[0], names[1], names[2], names[2]]
    assert [row['prediction'] for row in rows] == [names[0], names[0], names[2], names[1]]
    assert [float(row['probability']) for row in rows] == pytest.approx([0.7, 0.5, 0.7, 0.8], abs=1e-6)
    assert [row['correct'] for row in rows] == ['1', '0', '1', '0']


def test_predictions_are_utf8_with_plain_newlines(tmp_path):
    pages.write_predictions(str(tmp_path / 'p.csv'), ['猫 1.jpg'], [1], np.array([[0.25, 0.75]]), ['狗', '猫'])
    content = (tmp_path / 'p.csv').read_bytes()
    assert content.decode('utf-8').splitlines()[1] == '0,猫 1.jpg,猫,猫,0.750000,1'
    assert b'\r' not in content
    assert content.endswith(b'\n')


@pytest.mark.parametrize('names', [CHINESE, AWKWARD], ids=['chinese', 'awkward'])
def test_scores_are_tables_too(tmp_path, names):
    labels = np.array([0, 0, 1, 1])  # none of the third class
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]])
    result = metrics.evaluate(labels, probabilities, names)
    others = {
        'calibration': calibration.evaluate(labels, probabilities),
        'near_duplicates': None,
        'sample': [],
    }
    pages.write_scores(str(tmp_path), {**result, **others})
    table = {row['name']: row['value'] for row in read_table(tmp_path / 'metrics.csv')}
    assert float(table['top1']) == 0.75 and float(table['top1_interval_95_low']) == result['top1_interval_95'][0]
    assert {'sample', 'labels', 'per_class', 'calibration_bins'}.isdisjoint(table)
    classes = read_table(tmp_path / 'per_class.csv')
    assert [row['class'] for row in classes] == names
    assert [row['recall'] for row in classes] == ['1.0', '0.5', '0.0']
    assert classes[2]['recall_interval_95_high'] == '' and classes[2]['support'] == '0'
    counts = read_table(tmp_path / 'confusion_matrix.csv')
    assert [[row[name] for name in names] for row in counts] == [['2', '0', '0'], ['0', '1', '1'], ['0', '0', '0']]


def test_a_missing_folder_is_made(tmp_path):
    path = tmp_path / 'report' / 'predictions.csv'
    pages.write_predictions(str(path), ['a.jpg'], [0], np.array([[1.0, 0.0]]), ['cat', 'dog'])
    assert len(read_table(path)) == 1


LABELS = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [
        [0.6, 0.3, 0.1],  # right
        [0.9, 0.05, 0.05],  # right, surer
        [0.7, 0.2, 0.1],  # wrong
        [0.96, 0.02, 0.02],  # wrong, surer
        [0.34, 0.36, 0.3],  # wrong, and nearly undecided
        [0.45, 0.1, 0.45],  # a tie: the first class is taken
    ]
)


def test_what_to_look_at_is_chosen_by_how_sure_the_network_was():
    chosen = pages.choose(LABELS, PROBABILITIES, count=3)
    assert chosen == {'mistakes': [3, 2, 5], 'uncertain': [5, 4, 0], 'right': [1]}


def test_where_nothing_is_wrong_there_is_no_mistake_to_show():
    chosen = pages.choose(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert chosen == {'mistakes': [], 'uncertain': [1, 0], 'right': [0, 1]}


def test_a_thumbnail_keeps_the_whole_image_and_its_aspect():
    image = decoded(pages.thumbnail(picture(0, (300, 150))))
    assert (image.format, image.size) == ('JPEG', (144, 72))
    assert decoded(pages.thumbnail(picture(0, (30, 30)))).size == (144, 144)


def test_heat_is_laid_over_where_it_is():
    heat = np.zeros((2, 2))
    heat[0, 1] = 1
    grey = Image.new('RGB', (64, 64), (128, 128, 128))
    pixels = np.asarray(decoded(pages.thumbnail(grey, heat)).convert('L'), int)
    assert pixels[10, -10] > pixels[10, 10] + 60 and abs(pixels[-10, 10] - pixels[-10, -10]) < 20


def decoded(address):
    kind, _, content = address.partition(';base64,')
    assert kind.startswith('data:image/')
    return Image.open(io.BytesIO(base64.b64decode(content)))


def content_of_a_page(names, **more):
    scores = metrics.evaluate(LABELS, PROBABILITIES, names)
    sample = [{'id': 3, 'path': '<a>&.jpg', 'label': names[1], 'prediction': names[0], 'probability': 0.96}]
    card = {
        'picture': pages.thumbnail(picture(0)),
        'path': '<a>&.jpg',
        'prediction': names[0],
        'probability': 0.96,
        'label': names[1],
        'probability_of_label': 0.02,
        'right': False,
    }
    result = {
        **scores,
        'calibration': {**calibration.evaluate(LABELS, PROBABILITIES), 'temperature': None},
        'near_duplicates': None,
        'sample': sample,
        'sample_top1': 0.0,
        'sample_interval_95': [0.0, 0.9],
    }
    pictures = {'reliability': 'data:image/png;base64,AAAA', 'curves': None, 'pr_curves': None}
    data = {'facts': [('left out', '3 of <mode> L')], 'sides': None, 'bars': {}, 'alike': None}
    walls = {'mistakes': [card], 'uncertain': [card], 'right': [], 'heat': [], 'heat_size': None}
    return {
        **{'title': 'a run', 'subtitle': 'a network', 'result': result, 'wrong': 4, 'pictures': pictures},
        **{'counts': {'train': [5, 3, 1], 'test': [2, 2, 2]}, 'most': 7},
        **{'data': data, 'made': [('Paddle', '3')], **walls, **more},
    }


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_the_page_shows_names_as_they_are_and_loads_nothing_from_elsewhere(tmp_path, names):
    path = tmp_path / 'report.html'
    pages.write_page(str(path), **content_of_a_page(names))
    page = path.read_text(encoding='utf-8')
    texts, addresses = read_page(page)
    for name in [*names, '<a>&.jpg', '3 of <mode> L', '33.3%']:
        assert any(name in text for text in texts), name
    assert '<mode>' not in page
    assert addresses and all(address.startswith('data:image/') for address in addresses)
    assert 'http' not in without_pictures(page)


def text_of_page(tmp_path, template='report.html', **content):
    path = tmp_path / template
    pages.write_page(str(path), template, **content)
    return ' '.join(' '.join(read_page(path.read_text(encoding='utf-8'))[0]).split())


def test_a_wall_that_is_cut_off_says_so(tmp_path):
    content = content_of_a_page(ENGLISH)
    cards = content['mistakes'] * 4
    right = [{**card, 'right': True} for card in cards]
    walls = {'mistakes': cards[:1], 'uncertain': cards[:2], 'heat': [cards[0], *right[:3]], 'heat_size': (4, 4)}
    text = text_of_page(tmp_path, **{**content, **walls})
    assert '1 of 4 are shown here; predictions.csv lists all' in text
    assert '2 of 6 are shown here;' in text and '0 of 1 classes are shown here' in text
    assert 'The first 1 of the mistakes above and the first 3 of what is right' in text
    whole = {'mistakes': cards, 'uncertain': cards[:1] * 6, 'right': right[:1]}
    assert 'are shown here' not in text_of_page(tmp_path, **{**content, **whole})


def test_a_comparison_that_is_cut_off_says_so(tmp_path):
    content = content_of_a_comparison()
    assert 'are shown here' not in text_of_page(tmp_path, 'compare.html', **content)
    content['result'] = {**content['result'], 'only_first': len(content['only_first']) + 30}
    shown, all_of_them = len(content['only_first']), content['result']['only_first']
    assert f'{shown} of {all_of_them} are shown here' in text_of_page(tmp_path, 'compare.html', **content)


def test_the_page_says_so_when_nothing_is_wrong(tmp_path):
    path = tmp_path / 'report.html'
    pages.write_page(str(path), **content_of_a_page(ENGLISH, mistakes=[]))
    assert 'Nothing, on these 6 images.' in path.read_text(encoding='utf-8')


def card(path, prediction='ox', probability=0.75, label='ox', of_label=0.75):
    return {
        **{
            'picture': f'data:image/jpeg;base64,{path}',
            'path': path,
            'prediction': prediction,
            'probability': probability,
        },
        **{'label': label, 'probability_of_label': of_label, 'right': prediction == label},
    }


def page_of(tmp_path, template='report.html', **content):
    """{heading: the elements below it, up to the next heading}; what comes before the first is under ''."""
    path = tmp_path / 'page.html'
    pages.write_page(str(path), template, **content)
    parts = {'': []}
    for element in parse(path.read_text(encoding='utf-8')).find('body'):
        if element.tag in ('h2', 'h3'):
            parts[text_of(element)] = below = []
        else:
            (below if len(parts) > 1 else parts['']).append(element)
    return parts


def parse(page):
    builder = ElementTree.TreeBuilder()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            builder.start(tag, {name: value or '' for name, value in attributes})
            if tag in ('meta', 'img', 'br'):
                builder.end(tag)

        def handle_endtag(self, tag):
            assert builder.end(tag).tag == tag

        def handle_data(self, data):
            builder.data(data)

    Reader().feed(page)
    return builder.close()


def text_of(*elements):
    return ' '.join(' '.join(' '.join(element.itertext()) for element in elements).split())


def tables(elements):
    """The tables among the elements, each a list of rows of texts."""
    found = [table for element in elements for table in element.iter('table')]
    return [[[text_of(cell) for cell in row] for row in table.iter('tr')] for table in found]


def figures(elements):
    """(address of the picture, caption, class of the caption's first bold text) of each figure."""
    found = [figure for element in elements for figure in element.iter('figure')]
    return [(one.find('.//img').get('src'), text_of(one), one.find('.//b').get('class')) for one in found]


def tiles(elements):
    """{text of a tile: its number}"""
    found = [tile for element in elements if element.get('class') == 'numbers' for tile in element]
    return {text_of(tile).partition(text_of(tile.find('b')))[2].strip(): text_of(tile.find('b')) for tile in found}


def distinct_numbers(names):
    """The content of a page on which no two numbers are the same."""
    content = content_of_a_page(names)
    macro = {'macro_precision': 0.11, 'macro_recall': 0.12, 'macro_f1': 0.13, 'macro_roc_auc': 0.14}
    weighted = {'weighted_precision': 0.15, 'weighted_recall': 0.16, 'weighted_f1': 0.17}
    rows = [
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
        {
            'n': 6,
            'top1': 0.511,
            'top1_interval_95': [0.21, 0.82],
            'top_k': [0.511, 0.93, 1.0],
            'loss': 1.25,
            **macro,
            **weighted,
        },
        per_class={name: {**row, 'support': 7 + number} for number, (name, row) in enumerate(zip(names, rows))},
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
def test_each_number_stands_in_its_place_on_the_page(tmp_path, names):
    parts = page_of(tmp_path, **distinct_numbers(names))
    assert tiles(parts['']) == {
        'top-1 accuracy on 6 images 95 % interval 21.0% to 82.0% (Wilson)': '51.1%',
        'top-2': '93.0%',
        'macro F1': '0.1300',
        'macro ROC-AUC': '0.1400',
        'loss, nats': '1.2500',
        'calibration error': '0.0510',
    }
    assert tables(parts['Class by class']) == [
        [
            ['class', 'precision', 'recall', '95 % interval', 'F1', 'ROC-AUC', 'images'],
            [names[0], '0.2000', '0.2100', '10.0% to 30.0%', '0.2200', '0.2300', '7'],
            [names[1], '0.3000', '0.3100', '20.0% to 40.0%', '0.3200', '0.3300', '8'],
            [names[2], '0.4000', '0.4100', '30.0% to 50.0%', '0.4200', '0.4300', '9'],
            ['mean of the classes', '0.1100', '0.1200', '', '0.1300', '0.1400', ''],
            ['weighted by images', '0.1500', '0.1600', '', '0.1700', '', '6'],
        ]
    ]
    believed = text_of(*parts['Can the probabilities be believed?'])
    assert (
        'Expected calibration error 0.0510 (15 bins), Brier score 0.0520, loss 1.2500. With the logits divided by a temperature of 1.5000'
        in believed
    )
    assert 'they are 0.0530, 0.0540 and 1.0500; the predictions stay the same' in believed
    sample = parts['A random sample']
    assert '2 of the 6 images, drawn without replacement, each equally likely: 50.0% right.' in text_of(*sample)
    assert 'lies between 1.3% and 98.7% (exact interval, 95 % or more); it is 51.1%.' in text_of(*sample)
    assert tables(sample) == [
        [
            ['ID', 'label', 'prediction', 'probability', 'image'],
            ['3', names[1], names[0], '96.1%', 'a.jpg'],
            ['5', names[2], names[2], '76.2%', 'b.jpg'],
        ]
    ]
    assert tables(parts['The images']) == [
        [['class', 'train', 'test', ''], [names[0], '5', '2', ''], [names[1], '3', '2', ''], [names[2], '1', '2', '']]
    ]


def test_the_bars_of_the_images_are_as_long_as_their_numbers(tmp_path):
    below = page_of(tmp_path, **content_of_a_page(ENGLISH))['The images']
    bars = [[bar.get('style') for bar in row[-1]] for row in below[0].iter('tr')]
    assert bars == [
        [],
        ['width: 64.29%', 'width: 25.71%'],
        ['width: 38.57%', 'width: 25.71%'],
        ['width: 12.86%', 'width: 25.71%'],
    ]


def test_without_a_temperature_the_page_says_so(tmp_path):
    text = text_of(*page_of(tmp_path, **content_of_a_page(ENGLISH))['Can the probabilities be believed?'])
    assert 'No temperature was fitted' in text and 'divided by' not in text


def test_each_wall_shows_its_own_images(tmp_path):
    walls = {
        'mistakes': [card('m1', 'ox', 0.96, 'tiger', 0.02), card('m2', 'tiger', 0.5, 'ox', 0.4)],
        'uncertain': [card('u1', probability=0.34)],
        'right': [card('r1', probability=0.99), card('r2')],
        'heat': [card('h1', 'ox', 0.9, 'rabbit', 0.05)],
    }
    parts = page_of(tmp_path, **content_of_a_page(ENGLISH, **walls, heat_size=(4, 6)))
    mistakes = parts['What it gets wrong, and how sure it was']
    assert text_of(mistakes[0]).startswith('4 of 6 are wrong.')
    assert figures(mistakes) == [
        ('data:image/jpeg;base64,m1', 'ox 96.0%, is tiger 2.0% m1', 'bad'),
        ('data:image/jpeg;base64,m2', 'tiger 50.0%, is ox 40.0% m2', 'bad'),
    ]
    assert figures(parts['Where it hesitates']) == [('data:image/jpeg;base64,u1', 'ox 34.0% u1', 'good')]
    right = [('data:image/jpeg;base64,r1', 'ox 99.0% r1', 'good'), ('data:image/jpeg;base64,r2', 'ox 75.0% r2', 'good')]
    assert figures(parts['Where it is right']) == right
    looks = parts['What it looks at']
    assert figures(looks) == [('data:image/jpeg;base64,h1', 'ox 90.0%, is rabbit 5.0% h1', 'bad')]
    assert 'a feature map of 4 × 6 places' in text_of(*looks)
    assert 'What it looks at' not in page_of(tmp_path, **content_of_a_page(ENGLISH))


def test_the_matrix_names_both_sides_and_shows_mistakes_in_red(tmp_path):
    content = content_of_a_page(ENGLISH)
    content['result']['confusion_matrix'] = [[39, 1, 0], [0, 0, 0], [3, 0, 1]]
    (matrix,) = page_of(tmp_path, **content)['Confusion matrix'][-1:]
    assert tables([matrix]) == [
        [
            ['predicted → true ↓', *ENGLISH],
            ['ox', '39 97.5%', '1 2.5%', ''],
            ['tiger', '', '', ''],
            ['rabbit', '3 75.0%', '', '1 25.0%'],
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


def test_of_many_classes_the_most_frequent_confusions_are_listed(tmp_path):
    matrix = 10 * np.eye(41, dtype=int)
    matrix[4, 7], matrix[9, 8] = 30, 10
    matrix[5, :39] += 1
    below = page_of(tmp_path, **many_classes(matrix))['Confusion matrix']
    ((titles, *rows),) = tables(below)
    assert titles == ['true', 'predicted', 'images', 'of the true class']
    assert rows[:3] == [
        ['class 4', 'class 7', '30', '75.0%'],
        ['class 9', 'class 8', '10', '50.0%'],
        ['class 5', 'class 0', '1', '2.0%'],
    ]
    assert len(rows) == 40 and text_of(*below).startswith('All of 40 pairs')
    matrix[6, 0] = 1
    below = page_of(tmp_path, **many_classes(matrix))['Confusion matrix']
    assert len(tables(below)[0]) == 41 and text_of(*below).startswith('The 40 most frequent of 41 pairs')


def test_of_many_classes_that_are_all_right_there_is_no_list(tmp_path):
    below = page_of(tmp_path, **many_classes(np.eye(41, dtype=int)))['Confusion matrix']
    assert text_of(*below) == 'No class is taken for another; confusion_matrix.csv has all.'


def test_what_is_not_known_is_left_out_of_the_page(tmp_path):
    made = [('weights', 'w.pdparams'), ('epoch', None), ('Paddle', '3')]
    parts = page_of(tmp_path, **content_of_a_page(ENGLISH, made=made))
    assert text_of(*parts['What made this']) == 'weights w.pdparams Paddle 3'


def test_pictures_stand_where_they_belong_or_not_at_all(tmp_path):
    content = content_of_a_page(ENGLISH)
    parts = page_of(tmp_path, **content)
    assert 'Training' not in parts and 'Precision over recall' not in parts
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


def images_of(elements):
    return [image.get('src') for element in elements for image in element.iter('img')]


def content_of_a_comparison(**more):
    def row(path, right, first, second):
        return {
            **{'path': path, 'picture': f'data:image/jpeg;base64,{path}', 'label': 'ox', 'right': right},
            **{'first': first, 'first_probability': 0.91, 'second': second, 'second_probability': 0.82},
        }

    result = {
        **{'n': 40, 'first': {'top1': 0.61}, 'second': {'top1': 0.72}, 'difference': 0.11, 'p': 0.0321},
        **{'difference_interval_95': [-0.02, 0.24], 'only_first': 1, 'only_second': 2},
    }
    return {
        **{
            'title': '<a> and b',
            'first': '<a>',
            'second': 'b',
            'split': 'test',
            'result': result,
            'verdict': 'b is better',
        },
        **{'only_first': [row('1.jpg', 'first', 'ox', 'dog')]},
        **{'only_second': [row('2.jpg', 'second', 'cat', 'ox'), row('3.jpg', 'second', 'dog', 'ox')]},
        **{'scores': [('top1', 0.61, 0.72), ('macro_roc_auc', 0.83, None)], **more},
    }


def test_a_comparison_shows_the_images_that_only_one_gets_right(tmp_path):
    parts = page_of(tmp_path, 'compare.html', **content_of_a_comparison())
    assert tiles(parts['']) == {
        'top-1 of b over <a> 95 % interval -2.0 to +24.0': '+11.0 points',
        '<a>': '61.0%',
        'b': '72.0%',
        'p, McNemar': '0.0321',
    }
    assert 'the same 40 images of the split test' in text_of(*parts['']) and 'b is better' in text_of(*parts[''])
    caption = 'is ox {} 91.0% by <a> {} 82.0% by b {}'.format
    (one,) = figures(parts['Only <a> is right: 1'])
    assert one[:2] == ('data:image/jpeg;base64,1.jpg', caption('ox', 'dog', '1.jpg'))
    others = figures(parts['Only b is right: 2'])
    assert [other[1] for other in others] == [caption('cat', 'ox', '2.jpg'), caption('dog', 'ox', '3.jpg')]
    for heading, classes in (('Only <a> is right: 1', ['good', 'bad']), ('Only b is right: 2', ['bad', 'good'])):
        figure = next(element for part in parts[heading] for element in part.iter('figure'))
        assert [bold.get('class') for bold in figure.iter('b')] == [None, *classes]
    assert tables(parts['Score by score']) == [
        [['', '<a>', 'b'], ['top-1 accuracy', '0.6100', '0.7200'], ['macro ROC-AUC', '0.8300', '–']]
    ]


def test_a_comparison_without_a_difference_says_none(tmp_path):
    content = content_of_a_comparison(only_first=[], only_second=[])
    content['result'].update(only_first=0, only_second=0)
    parts = page_of(tmp_path, 'compare.html', **content)
    assert text_of(*parts['Only <a> is right: 0']) == text_of(*parts['Only b is right: 0']) == 'none'


def test_every_score_of_a_comparison_has_a_name_for_people(tmp_path):
    scores = [(name, 0.5, 0.5) for name in compare.SCORES]
    ((_, *rows),) = tables(
        page_of(tmp_path, 'compare.html', **content_of_a_comparison(scores=scores))['Score by score']
    )
    assert len(rows) == len(scores) and {name for name, _, _ in rows}.isdisjoint(compare.SCORES)


def run_of(name, predictions, labels=('ox', 'ox', 'tiger', 'tiger')):
    paths = [f'{number} 牛.jpg' for number in range(len(labels))]
    rows = [
        {'path': path, 'label': label, 'prediction': guess, 'probability': '0.9', 'correct': str(int(label == guess))}
        for path, label, guess in zip(paths, labels, predictions)
    ]
    return {'name': name, 'metrics': {}, 'rows': rows}


def test_two_runs_differ_by_the_images_that_only_one_gets_right():
    first = run_of('a', ['ox', 'tiger', 'ox', 'ox'])
    second = run_of('b', ['tiger', 'ox', 'tiger', 'ox'])
    second['rows'].reverse()  # the order of the images does not matter
    result = compare.compare(first, second)
    assert (result['first'], result['second']) == ({'name': 'a', 'top1': 0.25}, {'name': 'b', 'top1': 0.5})
    assert (result['difference'], result['only_first'], result['only_second'], result['p']) == (0.25, 1, 2, 1.0)
    assert [(row['path'], row['right']) for row in result['differing']] == [
        ('0 牛.jpg', 'first'),
        ('1 牛.jpg', 'second'),
        ('2 牛.jpg', 'second'),
    ]
    assert result['difference_interval_95'] == metrics.paired_interval(1, 2, 4)


@pytest.mark.parametrize('labels', [('ox',) * 4, ('ox', 'ox', 'tiger')])
def test_runs_on_other_images_or_labels_are_not_compared(labels):
    with pytest.raises(UserError, match='a and b were measured on different images'):
        compare.compare(run_of('a', ['ox'] * 4), run_of('b', ['ox'] * 4, labels))


def write_run(folder, n, rows):
    (folder / 'report').mkdir(parents=True)
    (folder / 'report' / 'metrics.json').write_text(json.dumps({'n': n, 'top1': 0.0}))
    lines = ['id,path,label,prediction,probability,correct', *rows]
    (folder / 'report' / 'predictions.csv').write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')


def test_a_run_is_read_by_its_name_or_its_folder(workdir):
    write_run(workdir / 'output' / 'pets', 1, ['0,猫 1.jpg,cat,dog,0.75,0'])
    for run in ('pets', 'output/pets', 'output/pets/'):
        found = compare.read(run)
        assert found['name'] == 'pets' and found['metrics'] == {'n': 1, 'top1': 0.0}
        assert found['rows'][0]['path'] == '猫 1.jpg'


@pytest.mark.parametrize(
    ('n', 'rows'),
    [
        (2, ['0,a.jpg,cat,dog,0.75,0']),
        (0, []),
        (None, []),
        (1, ['0,a.jpg,cat,dog,much,0']),
        (1, ['0,a.jpg,cat,dog,0.75,']),
        (1, ['0,a.jpg,cat']),
        (1, ['0,a.jpg,cat,cat,0.75,1']),  # metrics.json has none that is right
    ],
)
def test_a_run_that_was_not_evaluated_whole_is_named_with_the_next_step(workdir, n, rows):
    if n is not None:
        write_run(workdir / 'output' / 'pets', n, rows)
    with pytest.raises(UserError, match='output/pets/report: .*evaluate.py -c output/pets/config.yaml'):
        compare.read('pets')


def write_pair(workdir, first='a', second='b'):
    """Two runs of four images, of which the second gets one more right; the first image is damaged, the others are not there."""
    (workdir / '0.png').write_bytes(b'no image')
    for folder, guesses in ((first, ['dog', 'cat', 'dog', 'dog']), (second, ['cat', 'dog', 'cat', 'dog'])):
        rows = [f'{i},{i}.png,cat,{guess},0.{i + 5},{int(guess == "cat")}' for i, guess in enumerate(guesses)]
        write_run(workdir / folder, 4, rows)
        scores = {'n': 4, 'top1': guesses.count('cat') / 4, 'split': 'test'}  # of a version that gave fewer
        (workdir / folder / 'report' / 'metrics.json').write_text(json.dumps(scores))


def test_a_comparison_holds_every_image_that_only_one_gets_right(workdir, capsys):
    write_pair(workdir, 'output/a', 'output/b')
    compare.show('a', 'b')
    result = json.loads((workdir / 'output/a_vs_b/compare.json').read_text(encoding='utf-8'))
    assert [(row['path'], row['right']) for row in result['differing']] == [
        ('0.png', 'second'),
        ('1.png', 'first'),
        ('2.png', 'second'),
    ]
    assert all('picture' not in row for row in result['differing'])
    assert 'a: top-1 0.2500 of 4 images\nb: top-1 0.5000 of 4 images\ndifference +0.2500' in capsys.readouterr().out


def test_two_folders_of_one_name_are_told_apart(workdir, capsys):
    write_pair(workdir, 'output/k', 'other/k')
    compare.show('k', 'other/k')
    assert 'output_k: top-1 0.2500 of 4 images\nother_k: top-1 0.5000' in capsys.readouterr().out
    assert (workdir / 'output/output_k_vs_other_k/compare.html').is_file()
