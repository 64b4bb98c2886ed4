"""zodiac sweep: what it tries, how it resumes, what it writes. A small script replaces train.py."""

import csv
import json
import os
import pkgutil
import sys

import pytest
from conftest import files_below

pytest.importorskip('optuna')

import config
from zodiac.base import calls as calling
from zodiac.base import locks
from zodiac.base.errors import UsageError, UserError
from zodiac.commands import sweep

TRAIN = """
import json, os, sys
sys.path.insert(0, {root!r})
import config
cfg = config.use(sys.argv[2], sys.argv[4:])
with open('calls.txt', 'a') as file:
    print(cfg.name, cfg.optim.lr, cfg.seed, os.environ.get('OMP_NUM_THREADS'), file=file)
if cfg.train.resume == 'auto':
    open(f'{{cfg.name}} resumed', 'w')
if os.path.exists('fail') and cfg.optim.lr == 0.1:
    sys.exit('error: the loss is nan')
if os.path.exists('usage'):
    print('error: model.head: wrong', file=sys.stderr)
    sys.exit(2)
if os.path.exists('stop') and cfg.optim.lr == 0.1:
    sys.exit(130)
os.makedirs(f'output/{{cfg.name}}/best', exist_ok=True)
best = {{'epoch': 2, 'valid_top1': min(1, cfg.optim.lr * 5 + cfg.seed / 100), 'valid_loss': 1 - cfg.optim.lr}}
json.dump(best, open(f'output/{{cfg.name}}/best/state.json', 'w'))
"""
GRID = ['-s', 'optim.lr=[0.1, 0.01]', 'seed=[0, 1]']


@pytest.fixture
def runs(workdir, monkeypatch):
    """Run sweep.main with arguments; calls() has the calls of train.py."""
    (workdir / 'fake').mkdir()
    (workdir / 'fake' / 'train.py').write_text(TRAIN.format(root=calling.FOLDER))
    (workdir / 'a.yaml').write_text('name: a\nmodel: {pretrained: false}\n')
    monkeypatch.setattr(sweep, 'TRAIN', str(workdir / 'fake' / 'train.py'))
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['sweep.py', '-c', 'a.yaml', *arguments])
        sweep.main()

    return run


def calls(workdir):
    path = workdir / 'calls.txt'
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def table(workdir, name='a'):
    with open(workdir / 'output' / f'{name}.sweep' / 'trials.csv', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_every_combination_of_a_grid_is_run_once(runs, workdir):
    runs(*GRID)
    assert sorted((lr, seed) for _, lr, seed, _ in calls(workdir)) == [
        ('0.01', '0'),
        ('0.01', '1'),
        ('0.1', '0'),
        ('0.1', '1'),
    ]
    assert len({name for name, *_ in calls(workdir)}) == 4


def test_the_table_is_sorted_and_has_the_mean_over_the_seeds(runs, workdir, capsys):
    runs(*GRID)
    rows = table(workdir)
    assert [(row['optim.lr'], row['seed']) for row in rows] == [
        ('0.1', '1'),
        ('0.1', '0'),
        ('0.01', '1'),
        ('0.01', '0'),
    ]
    assert [float(row['valid_top1']) for row in rows] == pytest.approx([0.51, 0.5, 0.06, 0.05])
    said = capsys.readouterr().out
    assert '| 0.1      | 2 | 0.505 | 0.5    | 0.51    |' in said
    assert f'the best run is output/{rows[0]["run"]}' in said


def test_seeds_alone_give_a_mean(runs, capsys):
    runs('-s', 'seed=[0, 1, 2]')
    assert '| 3 | 0.02875 | 0.01875 | 0.03875 |' in capsys.readouterr().out


def test_a_loss_is_better_when_lower(runs, workdir):
    runs('-s', 'optim.lr=[0.01, 0.1]', '-o', 'train.monitor=valid_loss')
    assert [row['optim.lr'] for row in table(workdir)] == ['0.1', '0.01']


def test_a_finished_sweep_is_not_run_again(runs, workdir):
    runs(*GRID)
    before = table(workdir)
    runs(*GRID)
    assert len(calls(workdir)) == 4
    assert table(workdir) == before


def test_a_stopped_sweep_resumes_the_run_that_was_stopped(runs, workdir):
    (workdir / 'stop').touch()
    with pytest.raises(KeyboardInterrupt):
        runs('-s', 'optim.lr=[0.01, 0.1, 0.2]')
    stopped, *_ = calls(workdir)[-1]
    (workdir / 'output' / stopped).mkdir()
    (workdir / 'output' / stopped / 'config.yaml').touch()  # like train.py at its start
    (workdir / 'stop').unlink()
    runs('-s', 'optim.lr=[0.01, 0.1, 0.2]')
    assert sorted(row['optim.lr'] for row in table(workdir)) == ['0.01', '0.1', '0.2']
    assert sorted(lr for _, lr, *_ in calls(workdir)) == ['0.01', '0.1', '0.1', '0.2']
    assert [name for name, *_ in calls(workdir)].count(stopped) == 2
    assert [path.name for path in workdir.glob('*resumed')] == [f'{stopped} resumed']


@pytest.mark.parametrize(
    ('place', 'after'),
    [
        ('optuna.samplers.GridSampler.before_trial', False),  # the trial exists, without a combination
        ('zodiac.training.study.suggest', False),  # with its combination, without settings
        ('subprocess.Popen', False),
        ('subprocess.Popen', True),  # after its run
    ],
)
def test_a_killed_sweep_runs_each_combination_once(runs, workdir, monkeypatch, place, after):
    work, reached = pkgutil.resolve_name(place), []

    def die(*arguments, **named):
        reached.append(place)
        if len(reached) == 2:
            if after:
                work(*arguments, **named).wait()
            raise SystemError('killed')
        return work(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, die)
        with pytest.raises(SystemError):
            runs('-s', 'optim.lr=[0.1, 0.01, 0.2]')
    runs('-s', 'optim.lr=[0.1, 0.01, 0.2]')
    assert sorted(row['optim.lr'] for row in table(workdir)) == ['0.01', '0.1', '0.2']
    assert len({name for name, *_ in calls(workdir)}) == 3
    assert len(calls(workdir)) == 3 + after


def test_the_run_of_a_removed_sweep_is_not_resumed(runs, workdir, monkeypatch):
    old = workdir / 'output/a-000/config.yaml'
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (1, 1))

    def die(*arguments):
        raise SystemError('killed')

    with monkeypatch.context() as patch:
        patch.setattr(sweep.study, 'suggest', die)
        with pytest.raises(SystemError):
            runs('-s', 'optim.lr=[0.1]')
    runs('-s', 'optim.lr=[0.1]')
    assert len(calls(workdir)) == 1 and not list(workdir.glob('*resumed'))


def test_a_duplicate_value_is_tried_once(runs, workdir):
    runs('-s', 'optim.lr=[0.1, 0.10]')
    assert len(calls(workdir)) == 1


def test_a_sweep_that_is_already_running_is_refused(runs, workdir, monkeypatch):
    monkeypatch.setattr(locks, '_take', lambda path: (None, 'process 7 on here'))
    with pytest.raises(UserError, match=r'output/a.sweep: is being worked on by another process \(process 7 on here\)'):
        runs(*GRID)


def test_a_failed_run_is_reported_with_its_log_and_tried_again(runs, workdir, capsys):
    (workdir / 'fail').touch()
    with pytest.raises(UserError) as caught:
        runs(*GRID)
    assert '2 of 4 runs failed' in str(caught.value)
    failed = [name for name, lr, *_ in calls(workdir) if lr == '0.1']
    assert f'output/a.sweep/{failed[0]}.log' in str(caught.value)
    assert f'{failed[0]}: failed: error: the loss is nan' in capsys.readouterr().err
    assert len(table(workdir)) == 2
    (workdir / 'fail').unlink()
    runs(*GRID)
    assert len(table(workdir)) == 4
    assert len(calls(workdir)) == 6


def test_a_usage_error_of_train_stops_the_sweep(runs, workdir):
    (workdir / 'usage').touch()
    with pytest.raises(UsageError, match='model.head: wrong'):
        runs(*GRID)
    assert len(calls(workdir)) == 1


def test_a_search_stays_within_its_range(runs, workdir):
    runs('-s', 'optim.lr={low: 0.001, high: 0.1, log: true}', '--trials', '6')
    rates = [float(lr) for _, lr, *_ in calls(workdir)]
    assert len(set(rates)) == 6
    assert all(0.001 <= rate <= 0.1 for rate in rates)
    runs('-s', 'optim.lr={low: 0.001, high: 0.1, log: true}', '--trials', '8')
    assert len(calls(workdir)) == 8


def test_integers_stay_integers_in_a_search(runs, workdir):
    runs('-s', 'seed={low: 3, high: 5}', '--trials', '3')
    assert {seed for *_, seed, _ in calls(workdir)} <= {'3', '4', '5'}


def test_parallel_runs_share_the_cores(runs, workdir, monkeypatch):
    monkeypatch.setattr(sweep.device, 'cores', lambda: 6)
    runs(*GRID, '--jobs', '3')
    assert len(calls(workdir)) == 4
    assert {threads for *_, threads in calls(workdir)} == {'2'}


def test_a_list_can_be_a_value(runs, workdir):
    runs('-s', 'augment=[[resize], [resize, {affine: {rotation: 9}}]]')
    assert sorted(row['augment'] for row in table(workdir)) == ['["resize", {"affine": {"rotation": 9}}]', '["resize"]']


def test_a_sweep_resumes_after_an_update_with_new_settings(runs, workdir):
    runs('-s', 'optim.lr=[0.1, 0.01]')
    study = sweep.open_study(config.load('a.yaml'), {'optim.lr': [0.1, 0.01]})
    about = study.user_attrs['about']
    older = about['settings'].replace('  agreement: 0.98\n', '')
    assert older != about['settings']
    study.set_user_attr('about', {**about, 'settings': older})

    runs('-s', 'optim.lr=[0.1, 0.01]')
    with pytest.raises(UsageError, match='has other settings'):
        runs('-s', 'optim.lr=[0.1, 0.01]', '-o', 'export.agreement=0.5')
    assert len(calls(workdir)) == 2


def test_visualdl_has_the_settings_and_scores_of_each_run(runs, workdir):
    runs(*GRID)
    logs = files_below(workdir / 'output' / 'a.sweep' / 'visualdl')
    assert len(logs) == 4


def test_another_sweep_of_the_same_name_is_refused(runs, workdir):
    runs(*GRID)
    with pytest.raises(UsageError, match='tries other values'):
        runs('-s', 'optim.lr=[0.5]')
    with pytest.raises(UsageError, match='has other settings'):
        runs(*GRID, '-o', 'train.epochs=3')
    assert len(calls(workdir)) == 4


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['-s', 'optim.lx=[1, 2]'], 'did you mean optim.lr'),
        (['-s', 'optim.lr=[a]'], 'optim.lr'),
        (['-s', 'optim.lr=0.1'], 'write it as key='),
        (['-s', 'optim.lr'], 'write it as key='),
        (['-s', 'optim.lr=[]'], 'write it as key='),
        (['-s', 'optim.lr={low: 1}'], 'write it as key='),
        (['-s', 'optim.lr={low: 2, high: 1}'], 'low < high'),
        (['-s', 'optim.momentum={low: 0, high: 1, log: true}'], 'low > 0 with log'),
        (['-s', 'model.pretrained={low: false, high: true}'], 'must be numbers'),
        (['-s', 'name=[a, b]'], 'its own name'),
        (['-s', 'optim.lr=[0.1'], 'not valid YAML'),
        (['-s', 'optim.lr=[0.1]', '--trials', '0'], '--trials'),
        (['-s', 'optim.lr=[0.1]', '--jobs', '-1'], '--jobs'),
        ([], 'name the values to try'),
    ],
)
def test_an_invalid_sweep_is_refused_before_anything_runs(runs, workdir, arguments, said):
    with pytest.raises(UsageError) as caught:
        runs(*arguments)
    assert said in str(caught.value)
    assert not (workdir / 'output').exists()


def test_a_damaged_study_is_named(runs, workdir):
    (workdir / 'output' / 'a.sweep').mkdir(parents=True)
    (workdir / 'output' / 'a.sweep' / 'study.db').write_bytes(b'no database' * 100)
    with pytest.raises(UserError, match=r'output/a.sweep/study.db: cannot be used'):
        runs(*GRID)


def test_a_sweep_folder_that_cannot_be_created_is_named(runs, workdir):
    (workdir / 'output').write_text('a file')
    with pytest.raises(UserError, match='output'):
        runs(*GRID)


def test_values_reach_train_as_they_were_written():
    cfg = config.load(overrides=[f'augment={json.dumps(["resize", {"affine": {"zoom": 0.5}}])}'])
    assert cfg.augment == ['resize', {'affine': {'zoom': 0.5}}]
