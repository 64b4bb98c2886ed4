"""Two runs compared: the numbers, the page, the files they are read from."""

import json
import re

import pytest
from html_parts import figures, page_of, tables, text_of, text_of_page, tiles

from zodiac.base.errors import UserError
from zodiac.report import compare, metrics


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
        **{'scores': [('top-1 accuracy', 0.61, 0.72), ('macro ROC-AUC', 0.83, None)], **more},
    }


def test_the_page_shows_the_images_that_only_one_gets_right(tmp_path):
    parts = page_of(tmp_path, 'compare.html', **content_of_a_comparison())
    assert tiles(parts['']) == {
        'top-1 accuracy, b minus <a> 95 % interval −2.0 to +24.0': '+11.0 points',
        '<a>': '61.0 %',
        'b': '72.0 %',
    }
    assert 'the same 40 images of the test split' in text_of(*parts['']) and 'b is better' in text_of(*parts[''])
    caption = 'is ox {} 91.0 % by <a> {} 82.0 % by b {}'.format
    (one,) = figures(parts['Only <a> is right: 1'])
    assert one[:2] == ('data:image/jpeg;base64,1.jpg', caption('ox', 'dog', '1.jpg'))
    others = figures(parts['Only b is right: 2'])
    assert [other[1] for other in others] == [caption('cat', 'ox', '2.jpg'), caption('dog', 'ox', '3.jpg')]
    for heading, classes in (('Only <a> is right: 1', ['good', 'bad']), ('Only b is right: 2', ['bad', 'good'])):
        figure = next(element for part in parts[heading] for element in part.iter('figure'))
        assert [bold.get('class') for bold in figure.iter('b')] == [None, *classes]
    assert tables(parts['Metrics']) == [
        [['', '<a>', 'b'], ['top-1 accuracy', '0.6100', '0.7200'], ['macro ROC-AUC', '0.8300', '–']]
    ]


def test_without_such_images_the_page_says_none(tmp_path):
    content = content_of_a_comparison(only_first=[], only_second=[])
    content['result'].update(only_first=0, only_second=0)
    parts = page_of(tmp_path, 'compare.html', **content)
    assert text_of(*parts['Only <a> is right: 0']) == text_of(*parts['Only b is right: 0']) == 'none'


def test_a_selection_of_images_says_of_how_many(tmp_path):
    content = content_of_a_comparison()
    assert 'are shown,' not in text_of_page(tmp_path, 'compare.html', **content)
    content['result'] = {**content['result'], 'only_first': len(content['only_first']) + 30}
    shown, all_of_them = len(content['only_first']), content['result']['only_first']
    assert f'{shown} of {all_of_them} are shown,' in text_of_page(tmp_path, 'compare.html', **content)


def run_of(name, predictions, labels=('ox', 'ox', 'tiger', 'tiger')):
    paths = [f'{number} 牛.jpg' for number in range(len(labels))]
    rows = [
        {'path': path, 'label': label, 'prediction': guess, 'probability': '0.9', 'correct': str(int(label == guess))}
        for path, label, guess in zip(paths, labels, predictions)
    ]
    return {'name': name, 'metrics': {}, 'rows': rows}


def test_a_comparison_counts_the_images_that_only_one_gets_right():
    first = run_of('a', ['ox', 'tiger', 'ox', 'ox'])
    second = run_of('b', ['tiger', 'ox', 'tiger', 'ox'])
    second['rows'].reverse()  # their order does not matter
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
def test_runs_on_different_images_or_labels_are_refused(labels):
    with pytest.raises(UserError, match='a and b were measured on different images'):
        compare.compare(run_of('a', ['ox'] * 4), run_of('b', ['ox'] * 4, labels))


def write_run(folder, n, rows):
    (folder / 'report').mkdir(parents=True)
    (folder / 'report' / 'metrics.json').write_text(json.dumps({'n': n, 'top1': 0.0}))
    lines = ['id,path,label,prediction,probability,correct', *rows]
    (folder / 'report' / 'predictions.csv').write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')


def test_a_run_is_read_from_its_folder(workdir):
    write_run(workdir / 'output' / 'pets', 1, ['0,猫 1.jpg,cat,dog,0.75,0'])
    found = compare.read('output/pets/')
    assert (found['name'], found['metrics']) == ('pets', {'n': 1, 'top1': 0.0})
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
        (1, ['0,a.jpg,cat,cat,0.75,1']),  # none right in metrics.json
    ],
)
def test_an_incomplete_evaluation_is_refused_with_the_next_step(workdir, n, rows):
    if n is not None:
        write_run(workdir / 'output' / 'pets', n, rows)
    with pytest.raises(UserError, match='output/pets/report: .*evaluate.py -c output/pets/config.yaml'):
        compare.read('output/pets')


def write_pair(workdir, first='a', second='b'):
    """Two runs on four images, of which the second gets one more right; the first image is damaged, the others are missing."""
    (workdir / '0.png').write_bytes(b'no image')
    for folder, guesses in ((first, ['dog', 'cat', 'dog', 'dog']), (second, ['cat', 'dog', 'cat', 'dog'])):
        rows = [f'{i},{i}.png,cat,{guess},0.{i + 5},{int(guess == "cat")}' for i, guess in enumerate(guesses)]
        write_run(workdir / folder, 4, rows)
        scores = {'n': 4, 'top1': guesses.count('cat') / 4, 'split': 'test'}  # of an older version
        (workdir / folder / 'report' / 'metrics.json').write_text(json.dumps(scores))


def test_compare_json_lists_every_image_that_only_one_gets_right(workdir, capsys):
    write_pair(workdir, 'output/a', 'output/b')
    compare.write('a_vs_b', *compare.read_two('output/a', 'output/b'))
    result = json.loads((workdir / 'a_vs_b/compare.json').read_text(encoding='utf-8'))
    assert [(row['path'], row['right']) for row in result['differing']] == [
        ('0.png', 'second'),
        ('1.png', 'first'),
        ('2.png', 'second'),
    ]
    assert all('picture' not in row for row in result['differing'])
    assert 'a: top-1 0.2500 of 4 images\nb: top-1 0.5000 of 4 images\ndifference +0.2500' in capsys.readouterr().out


def test_two_folders_of_the_same_name_are_named_by_their_paths(workdir):
    write_pair(workdir, 'output/k', 'other/k')
    assert [run['name'] for run in compare.read_two('output/k', 'other/k')] == ['output_k', 'other_k']


@pytest.mark.parametrize(
    ('p', 'words'),
    [
        (0.21, 'do not show which one is better: .* p = 0.21: the difference may be chance'),
        (0.0321, '^b is better: .* p = 0.032: so'),
    ],
)
def test_the_verdict_gives_the_p_value_with_its_meaning(p, words):
    result = {
        'first': {'name': 'a'},
        'second': {'name': 'b'},
        'difference': 0.1,
        'p': p,
        'only_first': 1,
        'only_second': 1234,
    }
    text = compare.verdict(result)
    assert re.search(words, text) and 'only a is right on 1 image, only b on 1,234.' in text
