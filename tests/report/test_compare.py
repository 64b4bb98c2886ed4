"""Two runs compared: the numbers, the page, the files they are read from."""

import json
import re

import pytest
from html_parts import main, of_class, table, text_of, tiles

from zodiac.base.errors import UserError
from zodiac.report import compare, metrics


def write_comparison(folder, ours, theirs, **scores):
    """Write the comparison of two runs with these predictions of photos of an ox; returns the path of the page."""
    runs = [run_of(name, guesses, ('ox',) * len(guesses)) for name, guesses in (('<a>', ours), ('b', theirs))]
    for run in runs:
        run['metrics'] = scores
        for row in run['rows']:
            row['probability'] = 0.91
    compare.write(str(folder / 'compared'), *runs)
    return folder / 'compared/compare.html'


def test_the_page_gives_the_difference_then_its_meaning_then_the_p_value(tmp_path):
    written = write_comparison(tmp_path, ['ox'] * 40, ['dog'] * 20 + ['ox'] * 20, top1=0.5)
    found = main(written)
    (first, number), *_ = tiles(found).items()
    assert number == '−50.0' and first.startswith('points: accuracy of b minus that of <a> 95% interval −')
    text = text_of(found)
    assert text.index('<a> is better. So large a difference would rarely be chance.') < text.index(
        "McNemar's test: p < 0.001"
    )
    assert '-2' not in text, 'minus signs are no hyphens'
    assert table(found)[1] == ['accuracy (top-1)', '50.0%', '50.0%'] and table(found)[3] == ['loss, nats', '–', '–']


def test_the_page_shows_the_images_that_only_one_gets_right(tmp_path):
    found = main(write_comparison(tmp_path, ['ox', 'dog', 'ox'], ['ox', 'ox', 'dog']))
    first, second = of_class(found, 'wall')
    assert [text_of(one) for one in first.iter('p')] == ['labelled ox✓ ox 91.0% <a> ✗ dog 91.0% b', '2 牛.jpg']
    assert [text_of(one) for one in second.iter('p')] == ['labelled ox✗ dog 91.0% <a> ✓ ox 91.0% b', '1 牛.jpg']


def test_without_such_images_the_page_says_none(tmp_path):
    text = text_of(main(write_comparison(tmp_path, ['ox', 'dog'], ['ox', 'dog'])))
    assert 'Only <a> is right: 0 none Only b is right: 0 none' in text
    assert 'These photos do not show which one is better. The difference may be chance.' in text


def test_a_selection_of_images_says_of_how_many(tmp_path, monkeypatch):
    assert 'are shown' not in text_of(main(write_comparison(tmp_path, ['ox'] * 3, ['dog'] * 3)))
    monkeypatch.setattr(compare, 'SHOWN', 2)
    assert '2 of 3 are shown,' in text_of(main(write_comparison(tmp_path, ['ox'] * 3, ['dog'] * 3)))


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
    said = capsys.readouterr().out
    assert said.splitlines()[:3] == ['   accuracy  images', 'a     25.0%       4', 'b     50.0%       4']
    assert 'difference +25.0 points (95% interval −' in said


def test_two_folders_of_the_same_name_are_named_by_their_paths(workdir):
    write_pair(workdir, 'output/k', 'other/k')
    assert [run['name'] for run in compare.read_two('output/k', 'other/k')] == ['output_k', 'other_k']


@pytest.mark.parametrize(
    ('p', 'words'),
    [
        (0.21, 'do not show which one is better: the difference may be chance. .*, p = 0.21[)]'),
        (0.0321, '^b is better: so large .*, p = 0.032[)]'),
    ],
)
def test_the_verdict_gives_the_meaning_before_the_p_value(p, words):
    result = {
        'first': {'name': 'a'},
        'second': {'name': 'b'},
        'difference': 0.1,
        'p': p,
        'only_first': 1,
        'only_second': 1234,
    }
    text = compare.verdict(result)
    assert re.search(words, text) and 'Only a is right on 1 image, only b on 1,234 (' in text
