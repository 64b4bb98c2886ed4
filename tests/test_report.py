"""The tables and the page of a report."""

import base64
import csv
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import AWKWARD, CHINESE, ENGLISH, picture
from PIL import Image

from zodiac import calibration, compare, metrics, report
from zodiac.errors import UserError


def read_table(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_predictions_have_a_row_an_image(tmp_path, names):
    paths = ['signs/test/a.jpg', 'signs/test/猫 1.jpg', 'signs/test/a,"b".jpg', 'd.jpg']
    labels = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]], np.float32)
    report.write_predictions(str(tmp_path / 'predictions.csv'), paths, labels, probabilities, names)
    rows = read_table(tmp_path / 'predictions.csv')
    assert list(rows[0]) == ['id', 'path', 'label', 'prediction', 'probability', 'correct']
    assert [row['id'] for row in rows] == ['0', '1', '2', '3']
    assert [row['path'] for row in rows] == paths
    assert [row['label'] for row in rows] == [names[0], names[1], names[2], names[2]]
    assert [row['prediction'] for row in rows] == [names[0], names[0], names[2], names[1]]
    assert [float(row['probability']) for row in rows] == pytest.approx([0.7, 0.5, 0.7, 0.8], abs=1e-6)
    assert [row['correct'] for row in rows] == ['1', '0', '1', '0']


def test_predictions_are_utf8_with_plain_newlines(tmp_path):
    report.write_predictions(str(tmp_path / 'p.csv'), ['猫 1.jpg'], [1], np.array([[0.25, 0.75]]), ['狗', '猫'])
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
        'near_duplicates': {'images': 0},
        'sample': [],
    }
    report.write_scores(str(tmp_path), {**result, **others})
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
    report.write_predictions(str(path), ['a.jpg'], [0], np.array([[1.0, 0.0]]), ['cat', 'dog'])
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
    chosen = report.choose(LABELS, PROBABILITIES, count=3)
    assert chosen == {'mistakes': [3, 2, 5], 'uncertain': [5, 4, 0], 'right': [1]}


def test_where_nothing_is_wrong_there_is_no_mistake_to_show():
    chosen = report.choose(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert chosen == {'mistakes': [], 'uncertain': [1, 0], 'right': [0, 1]}


def test_a_thumbnail_keeps_the_whole_image_and_its_aspect():
    image = decoded(report.thumbnail(picture(0, (300, 150))))
    assert (image.format, image.size) == ('JPEG', (144, 72))
    assert decoded(report.thumbnail(picture(0, (30, 30)))).size == (144, 144)


def test_heat_is_laid_over_where_it_is():
    heat = np.zeros((2, 2))
    heat[0, 1] = 1
    grey = Image.new('RGB', (64, 64), (128, 128, 128))
    pixels = np.asarray(decoded(report.thumbnail(grey, heat)).convert('L'), int)
    assert pixels[10, -10] > pixels[10, 10] + 60 and abs(pixels[-10, 10] - pixels[-10, -10]) < 20


def decoded(address):
    kind, _, content = address.partition(';base64,')
    assert kind.startswith('data:image/')
    return Image.open(io.BytesIO(base64.b64decode(content)))


def content_of_a_page(names, **more):
    scores = metrics.evaluate(LABELS, PROBABILITIES, names)
    sample = [{'id': 3, 'path': '<a>&.jpg', 'label': names[1], 'prediction': names[0], 'probability': 0.96}]
    card = {
        'picture': report.thumbnail(picture(0)),
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
    report.write_page(str(path), **content_of_a_page(names))
    page = path.read_text(encoding='utf-8')
    texts, addresses = read_page(page)
    for name in [*names, '<a>&.jpg', '3 of <mode> L', '33.3%']:
        assert any(name in text for text in texts), name
    assert '<mode>' not in page
    assert addresses and all(address.startswith('data:image/') for address in addresses)
    assert 'http' not in page


def test_the_page_says_so_when_nothing_is_wrong(tmp_path):
    path = tmp_path / 'report.html'
    report.write_page(str(path), **content_of_a_page(ENGLISH, mistakes=[]))
    assert 'Nothing, on these 6 images.' in path.read_text(encoding='utf-8')


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


def read_page(page):
    """The texts of an HTML page, and the addresses of what it loads."""
    texts, addresses = [], []

    class Reader(HTMLParser):
        def handle_data(self, data):
            texts.append(data)

        def handle_starttag(self, tag, attributes):
            addresses.extend(value for name, value in attributes if name in ('src', 'href') and value)

    Reader().feed(page)
    return texts, addresses


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
    assert 'k: top-1 0.2500 of 4 images\nother_k: top-1 0.5000' in capsys.readouterr().out
    assert (workdir / 'output/k_vs_other_k/compare.html').is_file()
