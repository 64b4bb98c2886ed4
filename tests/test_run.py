"""run.py, runs that carry their settings, and guesses at the command line."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, assert_message, make_tree, picture, run_script

import config
import evaluate
import run
from zodiac.base import options, photos, runs
from zodiac.base.errors import UserError
from zodiac.data import entry, left_out, scan

LABELS = ['big cat', 'dog', '猫']
PHOTOS = "pets & [1]'s"  # a name to quote
RUN = 'pets_1_s'  # and the run's name from it
SMALL = [
    '-c',
    ROOT / 'configs/photos.yaml',
    '-o',
    'model.arch=resnet18',
    'model.pretrained=false',
    'image.size=32',
    'train.views=0',
]
SMALL += ['evaluate.folds=2', 'evaluate.flip_average=false', 'export.onnx=false']


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A folder in which run.py has made a run of PHOTOS, and its result."""
    cwd = tmp_path_factory.mktemp('run')
    make_tree(cwd / PHOTOS, LABELS, {'': 6})
    result = run_script('run.py', PHOTOS, *SMALL, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return cwd, result


def copy_of(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / 'copy'))


def metrics_of(cwd, report='report'):
    return json.loads((cwd / 'output' / RUN / report / 'metrics.json').read_text(encoding='utf-8'))


def stages(result):
    """{stage: whether it was done before}"""
    lines = [line for line in result.stderr.splitlines() if line[:2] in ('1/', '2/', '3/', '4/')]
    return {line.split()[1].strip(':'): 'done before' in line for line in lines}


def test_one_command_makes_a_report_and_an_export(finished):
    cwd, result = finished
    assert stages(result) == dict.fromkeys(['annotate', 'train', 'evaluate', 'export'], False)
    assert 'estimate' in result.stderr and 'Traceback' not in result.stderr
    folds = metrics_of(cwd)['folds']
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f'accuracy: {folds["top1"]:.1%}') and '18 photos over 2 folds' in lines[0]
    assert lines[1].startswith('guessing: 33.3%')
    assert 1 <= sum(line.startswith('confused: ') for line in lines) <= 3
    assert f'report:   output/{RUN}/report/report.html' in lines
    assert (cwd / 'output' / RUN / 'infer/inference.yaml').is_file()
    assert '== train' in (cwd / 'output' / f'{RUN}.log').read_text(encoding='utf-8')


def test_the_printed_commands_work_when_pasted(finished, tmp_path):
    cwd, result = finished
    commands = dict(
        line.split(':', 1) for line in result.stdout.splitlines() if line.startswith(('predict:', 'serve:'))
    )
    told = subprocess.run(commands['predict'], shell=True, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert_message(told, 0)
    assert told.stdout.startswith(PHOTOS) and told.stdout.split('\t')[1] in LABELS
    served = subprocess.run(
        f'{commands["serve"]} --help', shell=True, cwd=cwd, capture_output=True, text=True, timeout=240
    )
    assert_message(served, 0)
    assert shlex.split(commands['serve'])[-1] == RUN


def test_the_export_is_verified_and_a_new_training_gives_the_same(finished, tmp_path, call_script):
    result = call_script('zodiac/commands/verify.py', RUN, '--retrain', cwd=copy_of(finished, tmp_path))
    assert_message(result, 0)
    assert 'weights, trained again: identical' in result.stdout and ', over 2 folds ' in result.stdout
    assert 'nothing differs' in result.stdout and 'cannot be checked: 0' in result.stdout


def test_a_second_run_does_only_what_is_missing(finished, tmp_path, call_script):
    cwd = copy_of(finished, tmp_path)
    again = call_script('run.py', PHOTOS, *SMALL, cwd=cwd)
    assert stages(again) == {'annotate': False, 'train': True, 'evaluate': True, 'export': True}
    assert again.stdout == finished[1].stdout

    shutil.rmtree(cwd / 'output' / RUN / 'infer')
    again = call_script('run.py', PHOTOS, *SMALL, 'evaluate.sample=2', 'reject.keep=0.9', cwd=cwd)
    assert stages(again) == {'annotate': False, 'train': True, 'evaluate': False, 'export': False}

    photo = (cwd / PHOTOS / 'train.txt').read_text(encoding='utf-8').partition('\t')[0]
    picture(999).save(cwd / photo)  # other pixels under the same name
    again = call_script('run.py', PHOTOS, *SMALL, cwd=cwd)
    assert stages(again) == dict.fromkeys(['annotate', 'train', 'evaluate', 'export'], False)
    assert (cwd / 'output' / f'{RUN}.previous').is_dir()


def test_the_scripts_take_a_run_with_its_settings(finished, tmp_path, call_script):
    cwd = copy_of(finished, tmp_path)
    valid = call_script('evaluate.py', RUN, '-o', 'evaluate.split=valid', 'evaluate.folds=0', cwd=cwd)
    assert_message(valid, 0, f'run: output/{RUN}', 'evaluate.split = valid (the run: test)')
    assert metrics_of(cwd, 'report-valid')['split'] == 'valid' and metrics_of(cwd)['split'] == 'test'
    assert shlex.split(valid.stdout.splitlines()[-1])[-2:] == [str(ROOT / 'export.py'), RUN]

    make_tree(cwd / 'new', LABELS[:2], {'': 2})
    other = call_script('evaluate.py', '-o', f'name={RUN}', '--data', 'new', cwd=cwd)
    assert_message(other, 0)
    assert (metrics_of(cwd, 'report-new')['n'], metrics_of(cwd, 'report-new')['split']) == (4, 'new')
    assert sorted(os.listdir(cwd / 'new')) == LABELS[:2]

    make_tree(cwd / PHOTOS, ['zebra'], {'': 3})
    assert call_script('annotate.py', PHOTOS, cwd=cwd).returncode == 0
    changed = call_script('evaluate.py', f'output/{RUN}', cwd=cwd)
    assert_message(changed, 1, 'new: zebra', PHOTOS)
    assert_message(call_script('evaluate.py', RUN, '--data', 'new', cwd=cwd), 0)  # needs no photos of the run
    shutil.rmtree(cwd / PHOTOS / LABELS[0])
    os.makedirs(cwd / 'moved')
    os.rename(cwd / 'new', cwd / 'moved/test')
    assert_message(call_script('evaluate.py', RUN, '--data', 'moved', cwd=cwd), 0)  # a folder of test/ alone
    os.rename(cwd / f'moved/test/{LABELS[0]}', cwd / 'moved/test/cow')
    unknown = call_script('evaluate.py', RUN, '--data', 'moved', cwd=cwd)
    assert_message(unknown, 1, 'moved/test/cow', 'annotate.unknown_class=skip')
    assert '-o' not in unknown.stderr  # the classes of a trained network cannot be set
    skipped = call_script('evaluate.py', RUN, '--data', 'moved', '-o', 'annotate.unknown_class=skip', cwd=cwd)
    assert_message(skipped, 0, "left out: 1 path outside the class folders (such as 'moved/test/cow/')")
    Path(cwd, 'list.csv').touch()
    assert_message(
        call_script('evaluate.py', RUN, '--data', 'list.csv', cwd=cwd), 2, '--data list.csv', 'folder of photos'
    )


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('pets', 'output/pets'),
        ('output/pets', 'output/pets'),
        ('./pets', './pets'),
        ('pets/', 'output/pets'),
        ('old', 'old'),
    ],
)
def test_a_run_is_found_by_name_then_by_path(workdir, capsys, name, expected):
    for folder in ('output/pets', 'pets', 'old'):
        os.makedirs(folder)
        Path(folder, 'config.yaml').touch()
    assert runs.find(name) == expected
    runs.say(name, expected)
    assert ('run: ' in capsys.readouterr().err) == (name.rstrip('/') != expected)


def test_a_missing_run_is_named_with_those_that_there_are(workdir):
    with pytest.raises(UserError, match='pets: no such run.*run.py PHOTOS'):
        runs.find('pets')
    os.makedirs('output/dogs')
    Path('output/dogs/config.yaml').touch()
    with pytest.raises(UserError, match='pets: no such run.*dogs'):
        runs.find('pets')
    with pytest.raises(UserError, match='the run is output/dogs'):
        runs.find('output/dogs/best')


def test_a_run_elsewhere_keeps_its_folder(workdir):
    os.makedirs('old/pets')
    Path('old/pets/config.yaml').write_text('name: cats\ntrain: {epochs: 3}\n')
    cfg = config.from_command_line('x', ['old/pets', '-o', 'seed=5'], takes='run')
    assert (cfg.run_dir, cfg.train.epochs, cfg.seed) == ('old/pets', 3, 5)


@pytest.mark.parametrize(
    ('name', 'section', 'expected'),
    [
        ('--epochs', 'train', 'train.epochs'),
        ('--batch-size', 'train', 'train.batch_size'),
        ('--batch-size', 'evaluate', 'evaluate.batch_size'),
        ('optim.learning_rate', '', 'optim.lr'),
        ('--lr', 'train', 'optim.lr'),
        ('--imgsz', 'train', 'image.size'),
        ('--weights', 'evaluate', 'evaluate.weights'),
        ('--weights', 'train', 'model.pretrained'),
        ('train.epochs', '', 'train.epochs'),
        ('--epcohs', 'train', 'train.epochs'),
        ('--wobble', 'train', None),
        ('--model-ema-decay', 'train', 'train.ema'),
        ('--lrf', 'train', 'optim.min_lr'),
        ('--drop', 'train', None),
        ('--reprob', 'train', None),
    ],
)
def test_guessed_names_mean_settings(name, section, expected):
    assert options.meaning(config.Config(), name, section) == expected


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        ('pets/train_list.txt', 'pets'),
        ('pets/labels.csv', 'pets'),
        ('pets/Annotations.json', 'pets'),
        ('pets/birds.csv', 'birds'),
        ('pets/train_list.zip', 'train_list'),
    ],
)
def test_a_list_with_a_usual_name_gives_the_run_the_name_of_its_folder(workdir, path, name):
    Path('pets').mkdir()
    Path(path).write_text('')
    assert photos.name_of(path) == name


def test_too_few_photos_for_the_folds_are_found_before_training(workdir, call_script):
    make_tree('pets', LABELS, {'': 6})
    result = call_script('run.py', 'pets', *SMALL, 'evaluate.folds=7', cwd=workdir)
    assert_message(result, 1, 'evaluate.folds = 7', 'set evaluate.folds to 6')
    assert '2/4 train' not in result.stderr and not Path('output/pets').exists()


def test_a_weight_file_that_was_evaluated_without_its_run_can_be_exported(finished, tmp_path, call_script):
    cwd = copy_of(finished, tmp_path)
    shutil.move(cwd / 'output' / RUN / 'best', cwd / 'kept')
    shutil.rmtree(cwd / 'output')
    weights = ['data.root=' + PHOTOS, 'data.labels=auto', 'name=other', 'evaluate.weights=kept', 'evaluate.folds=0']
    evaluated = call_script('evaluate.py', *SMALL, *weights, cwd=cwd)
    assert_message(evaluated, 0)
    following = evaluated.stdout.splitlines()[-1].partition('next: ')[2]
    exported = subprocess.run(following, shell=True, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert_message(exported, 0)
    assert (cwd / 'output/other/infer/inference.yaml').is_file()


def test_every_other_name_means_a_setting_and_is_none_itself():
    keys = options.schema.keys_of(config.Config())
    assert set(options.OTHER_NAMES.values()) <= set(keys)


def test_a_changed_group_changes_training_and_evaluation(workdir):
    make_tree('photos', ['cat', 'dog'], {'train': 1, 'valid': 1, 'test': 1})
    paths = sorted(map(str, Path('photos').glob('*/*/*')))
    cfg = config.load(overrides=['data.root=data/list', 'data.labels=auto', 'annotate.list=list.csv'])
    keys = []
    for group in ('one', 'two'):
        lines = [
            'path,label,split,group',
            *(','.join([path, *path.split('/')[2:0:-1], path + group]) for path in paths),
        ]
        Path('list.csv').write_text('\n'.join(lines))
        run.annotate.annotate(cfg)
        keys.append([run.key_of(stage, cfg) for stage in ('train', 'evaluate', 'export')])
    before, after = keys
    assert before[0] != after[0] and before[1] != after[1] and before[2] == after[2]


@pytest.mark.parametrize(
    ('words', 'status', 'said'),
    [
        (['train.py', '--epochs', '3'], 2, '-o train.epochs=3'),
        (['train.py', 'epochs=3'], 2, '-o train.epochs=3'),
        (['train.py', '--batch-size=8'], 2, '-o train.batch_size=8'),
        (['train.py', '-o', 'optim.learning_rate=0.1'], 2, 'did you mean optim.lr?'),
        (['train.py', 'https://example.org/a.zip'], 1, 'curl -LO https://example.org/a.zip'),
        (['annotate.py', 'nowhere'], 1, 'nowhere: no such file or folder'),
        (['evaluate.py', 'pets'], 1, 'pets: no such run'),
        (['run.py'], 2, 'python run.py photos'),
        (['predict.py', 'pets', 'https://example.org/a.jpg'], 1, 'curl -LO https://example.org/a.jpg'),
        (['serve.py', 'pets'], 1, 'pets: not an exported model'),
    ],
)
def test_guesses_get_the_right_line(workdir, words, status, said):
    assert_message(run_script(*words, cwd=workdir), status, said)


def test_a_run_that_is_not_exported_gets_the_command(workdir):
    os.makedirs('output/pets')
    Path('output/pets/config.yaml').touch()
    picture(1).save('a.jpg')
    assert_message(run_script('predict.py', 'pets', 'a.jpg', cwd=workdir), 1, 'python export.py output/pets')


def test_the_name_of_a_run_in_place_of_photos_gets_its_settings(workdir):
    os.makedirs('output/my pets')
    Path('output/my pets/config.yaml').touch()
    assert_message(
        run_script('train.py', 'my pets', cwd=workdir), 1, 'no such file or folder', "-c 'output/my pets/config.yaml'"
    )


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        ('photos', 'photos'),
        ('a/b c/', 'b c'),
        ("it's [1]", 'it_s_1'),
        ('..x', 'x'),
        ('猫', '猫'),
        ('???', 'photos'),
        ('-o', 'o'),
    ],
)
def test_the_name_of_a_run_is_that_of_the_folder(workdir, path, name):
    os.makedirs(path)
    found = {key: value for key, value, _ in photos.settings(path)}
    root = path.rstrip('/')
    assert found == {'name': name, 'data.root': f'./{root}' if root.startswith('-') else root}
    assert config.load(overrides=photos.settings(path)).name == name


def test_an_archive_is_unpacked_below_data(workdir):
    Path('my pets.tar.gz').touch()
    found = {key: value for key, value, _ in photos.settings('my pets.tar.gz')}
    assert found == {'name': 'my pets', 'data.root': 'data/my pets', 'annotate.archive': 'my pets.tar.gz'}


def test_the_index_files_of_a_list_are_below_data(workdir):
    Path('pets.csv').touch()
    found = {key: value for key, value, _ in photos.settings('pets.csv')}
    assert found == {'name': 'pets', 'data.root': 'data/pets', 'annotate.list': 'pets.csv'}


def test_photos_that_cannot_be_written_to_are_linked(workdir, monkeypatch, capsys):
    make_tree('pets', ['cat', 'dog'], {'': 3})
    monkeypatch.setattr(os, 'access', lambda path, how: path != 'pets')
    assert {key: value for key, value, _ in photos.settings('pets')}['data.root'] == 'data/pets'
    assert 'data/pets' in capsys.readouterr().err
    shutil.rmtree('pets/dog')
    make_tree('pets', ['fox'], {'': 3})
    photos.settings('pets')
    assert sorted(os.listdir('data/pets')) == ['cat', 'fox'] and os.path.isfile('data/pets/fox/fox_0.jpg')

    make_tree('other/pets', ['cat', 'emu'], {'': 1})
    monkeypatch.setattr(os, 'access', lambda path, how: not path.endswith('pets'))
    photos.settings('other/pets')  # another folder of the same name
    assert sorted(os.listdir('data/pets')) == ['cat', 'emu'] and os.listdir('data/pets/cat') == ['cat_0.jpg']
    os.unlink('data/pets/cat')
    os.makedirs('data/pets/cat')
    with pytest.raises(UserError, match='data/pets/cat: .*other/pets.*move it away'):
        photos.settings('other/pets')


@pytest.mark.parametrize(
    ('folder', 'split', 'expected'),
    [
        (None, 'test', 'report'),
        (None, 'valid', 'report-valid'),
        ('a/new', 'test', 'report-new'),
        ('a/valid/', 'test', 'report-a-valid'),
    ],
)
def test_each_split_and_folder_has_its_report(workdir, folder, split, expected):
    cfg = config.load(overrides=[f'evaluate.split={split}'])
    os.makedirs(folder or 'x')
    assert evaluate.report_of(cfg, folder) == expected


def test_too_many_unusable_images_and_empty_classes_are_refused(workdir):
    make_tree('photos', ['cat', 'dog'], {'': 20})
    Path('photos/cat/notes.txt').write_text('not counted')
    picture(1, mode='L').save('photos/cat/grey.png')
    settings = ['-c', ROOT / 'configs/photos.yaml', '-o', 'data.root=photos', 'annotate.non_rgb=reject']
    assert_message(run_script('annotate.py', *settings, cwd=workdir), 0)  # 1 of 41
    for number in range(3):
        picture(number, mode='L').save(f'photos/dog/grey {number}.png')
    before = Path('photos/train.txt').read_bytes()
    for _ in range(2):  # the second time from the cache
        result = run_script('annotate.py', *settings, cwd=workdir)
        assert_message(
            result, 1, '4 of 44 image files', '4 mode L', 'annotate.non_rgb=convert', 'annotate.max_left_out=1'
        )
    assert Path('photos/train.txt').read_bytes() == before
    result = run_script('annotate.py', *settings, 'annotate.max_left_out=0.1', cwd=workdir)
    assert_message(result, 0)
    assert 'left out: 4 mode L (annotate.non_rgb=convert includes them)' in result.stdout
    make_tree('photos', ['fox'], {'': 0})
    Path('photos/fox/a.jpg').write_text('no image')
    assert_message(
        run_script('annotate.py', *settings, 'annotate.max_left_out=0.2', cwd=workdir), 1, 'class fox', '1 not an image'
    )
    assert_message(run_script('annotate.py', *settings, 'annotate.max_left_out=1', cwd=workdir), 0, 'WARNING')


def test_missing_files_of_a_list_are_corrected_there():
    lost = entry.Entry('gone.jpg', 'train', 'cat', entry.Verdict('no such file'))
    with pytest.raises(UserError) as caught:
        left_out.require_few(scan.Tree([lost], root='data/list', labels=['cat']), 0.05, whole=False)
    assert 'correct the list, or set annotate.max_left_out=1' in str(caught.value)
    assert 'no index' not in str(caught.value)  # evaluate.py --data writes none


def test_without_the_weights_of_the_recipe_those_that_are_installed_are_used(workdir, monkeypatch, capsys):
    make_tree('pets', ['cat', 'dog'], {'': 1})
    found = []
    monkeypatch.setattr(run.imagenet, 'is_here', lambda arch: arch == 'efficientnet_lite1')
    monkeypatch.setattr(run.imagenet, 'find', found.append)
    args = SimpleNamespace(photos='pets', config=None, override=[])
    cfg = run.with_weights(args)
    assert (cfg.model.arch, cfg.image.size, found) == ('efficientnet_lite1', 240, ['efficientnet_lite1'])
    assert 'model.arch = efficientnet_lite1' in capsys.readouterr().err
    assert (
        run.with_weights(SimpleNamespace(photos='pets', config=None, override=[['model.arch=resnet18']])).model.arch
        == 'resnet18'
    )
