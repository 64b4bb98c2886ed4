"""zodiac review on small runs: the list, the page, new photos, decisions that annotate.py applies."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, assert_message, files_below, run_script
from PIL import Image

pytest.importorskip('cleanlab', reason='requirements-review.txt is not installed')

from zodiac.data import corrections

SMALL = ['image.size=32', 'model.arch=resnet18', 'model.pretrained=false', 'train.epochs=1', 'train.batch_size=8']
SOLVED = [*SMALL, 'model.freeze=backbone', 'train.head=linear', 'data.labels=auto', 'annotate.non_rgb=convert']
COLOURS = {'blue': (30, 30, 230), 'green': (30, 200, 30), 'red': (230, 30, 30)}


def draw(path, colour, shade):
    image = Image.new('RGB', (40, 36), tuple(max(0, part - 3 * shade) for part in COLOURS[colour]))
    image.paste((255 - shade, 255, 255), (shade % 20, shade % 13, shade % 20 + 12, shade % 13 + 9))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with photos/ of three colours, of which photos/red/blue.png has a wrong label, new photos and the solved run `photos`."""
    folder = tmp_path_factory.mktemp('review')
    for colour in COLOURS:
        for number in range(12):
            draw(folder / f'photos/{colour}/{number}.png', colour, 2 * number)
        for number in range(4):
            draw(folder / f'new/{colour}{number}.png', colour, 2 * number + 25)
    draw(folder / 'photos/red/blue.png', 'blue', 7)
    (folder / 'new/note.txt').write_text('no photo')
    for script in ('annotate.py', 'train.py'):
        done = run_script(script, '-o', 'name=photos', 'data.root=photos', *SOLVED, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / 'copy')
    monkeypatch.chdir(tmp_path / 'copy')
    return tmp_path / 'copy'


def rows(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def review(call_script, place, *arguments):
    return call_script('zodiac/commands/review.py', *arguments, cwd=place)


def test_a_wrong_label_is_found_decided_on_and_gone_after_annotate(call_script, place):
    before = files_below('photos/red')
    done = review(call_script, place, 'photos')
    assert done.returncode == 0, done.stderr
    found = rows('output/photos/report/review.csv')
    assert len(found) == 37 and [row['rank'] for row in found] == [str(number) for number in range(1, 38)]
    first = found[0]
    assert (first['path'], first['label'], first['suggested']) == ('photos/red/blue.png', 'red', 'blue')
    assert first['kind'] in ('label', 'doubt') and float(first['quality']) < 0.5
    assert 'photos/red/blue.png: red looks like blue' in done.stdout
    assert 'review photos --serve' in done.stdout
    page = Path('output/photos/report/review.html').read_text(encoding='utf-8')
    assert page.index('red/<wbr>blue.png') and 'data:image' in page

    corrections.append('photos', first['path'], 'relabel', 'blue', 'red')
    assert call_script('annotate.py', '-o', 'data.root=photos', *SOLVED, cwd=place).returncode == 0
    assert review(call_script, place, 'photos').returncode == 0
    again = next(row for row in rows('output/photos/report/review.csv') if row['path'] == first['path'])
    assert (again['label'], again['kind'], again['decision']) == ('blue', '', 'relabel blue')
    assert files_below('photos/red') == before


def test_a_photo_that_was_kept_comes_last_and_is_no_finding_any_more(call_script, place):
    corrections.append('photos', 'photos/red/blue.png', 'keep', '', 'red', 'it is a red one')
    done = review(call_script, place, 'photos')
    assert rows('output/photos/report/review.csv')[-1]['path'] == 'photos/red/blue.png'
    assert 'red/blue.png: red' not in done.stdout


def test_new_photos_are_ranked_and_join_once_they_have_a_label(call_script, place):
    done = review(call_script, place, 'photos', '--new', 'new', '--count', '5')
    assert done.returncode == 0, done.stderr
    found = rows('output/photos/report/review_new.csv')
    assert len(found) == 5 and all(row['path'].startswith('new/') and row['suggested'] in COLOURS for row in found)
    assert 'new: 1 file cannot be used as photos' in done.stderr
    for number in range(4):
        corrections.append('photos', f'new/blue{number}.png', 'label', 'blue')
    corrections.append('photos', 'new/red0.png', 'drop')
    assert call_script('annotate.py', '-o', 'data.root=photos', *SOLVED, cwd=place).returncode == 0
    review(call_script, place, 'photos', '--new', 'new', '--count', '100')
    again = rows('output/photos/report/review_new.csv')
    assert sorted(row['path'] for row in again if not row['decision']) == sorted(
        f'new/{name}.png' for name in ('green0', 'green1', 'green2', 'green3', 'red1', 'red2', 'red3')
    )


def test_the_server_prints_its_address_and_stops_on_ctrl_c(place):
    command = [sys.executable, str(ROOT / 'zodiac'), 'review', 'photos', '--serve', '--port', '0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout.readline, '')
        address = next(line for line in lines if line.startswith('open: http://127.0.0.1:'))
        assert len(address.split('/')[3]) > 20
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        assert 'Traceback' not in process.stderr.read()


def test_wrong_usage_is_said_in_one_line(call_script, place):
    for arguments, status, words in (
        (['nothing'], 1, 'no such run'),
        (['photos', '--new', 'nowhere'], 2, '--new nowhere: no such folder'),
        (['photos', '--port', '99999'], 2, 'must be a whole number from 0 to 65535'),
        (['photos', '--count', '0'], 2, 'must be a whole number from 1'),
    ):
        assert_message(review(call_script, place, *arguments), status, words)
    os.makedirs('empty')
    assert_message(review(call_script, place, 'photos', '--new', 'empty'), 1, 'empty: no photos there')
    Path('photos/corrections.csv').write_text('time,path\n')
    assert_message(review(call_script, place, 'photos'), 1, 'photos/corrections.csv, line 1')


def test_a_run_that_was_trained_from_scratch_is_refused_with_the_next_step(call_script, place):
    done = call_script('train.py', '-o', 'name=scratch', 'data.root=photos', 'data.labels=auto', *SMALL, cwd=place)
    assert done.returncode == 0, done.stderr
    assert_message(
        review(call_script, place, 'scratch'), 1, 'output/scratch: was trained from random weights', 'photos.yaml'
    )


def test_a_fine_tuned_run_is_judged_by_the_network_that_it_started_from(call_script, place):
    settings = ['name=tuned', 'data.root=photos', 'data.labels=auto', *SMALL, 'model.pretrained=output/photos']
    done = call_script('train.py', '-o', *settings, cwd=place)
    assert done.returncode == 0, done.stderr
    done = review(call_script, place, 'tuned')
    assert done.returncode == 0, done.stderr
    assert 'they are judged by its initial weights' in done.stderr
    assert rows('output/tuned/report/review.csv')[0]['path'] == 'photos/red/blue.png'
