"""Try settings: one run of train.py for each choice, the results as a table, in VisualDL, and in a study that can go on.

    python sweep.py -c configs/natural_images.yaml -s optim.lr='[0.001, 0.0001]' seed='[0, 1, 2]' -o train.epochs=5
    python sweep.py -c configs/demo.yaml -s optim.lr='{low: 1.0e-4, high: 0.1, log: true}' --trials 20
    visualdl --logdir output/natural_images.sweep/visualdl --host 127.0.0.1 --disable-telemetry     # hparams

A list is tried value by value, every combination once; {low, high} is a range to search, with Optuna's TPE sampler. A run
is judged by the best value of train.monitor, on the validation split. Stop it at any time: the same command goes on, each
run where it was stopped. The table is output/<name>.sweep/trials.csv; the runs are output/<name>-000, output/<name>-001, ...
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'optuna paddle numpy PIL yaml scipy sklearn matplotlib tqdm visualdl')

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time

import config
from zodiac.base import device, files, home, locks, options, removed, schema, stops
from zodiac.base.errors import Stopped, UsageError, UserError, one_line, run
from zodiac.report import metrics
from zodiac.training import processes

GRID_ID = 'grid_id'  # of Optuna's GridSampler, in the study
HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    parser = config.parser(__doc__)
    space_help = 'what to try: a list of values, or {low, high, log: true}, as YAML'
    parser.add_argument('-s', '--space', metavar='key.sub=values', nargs='+', action='append', help=space_help)
    parser.add_argument('--trials', type=int, default=20, metavar='N', help='runs, for a search (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at a time (default: %(default)s)')
    args = parser.parse_args()
    overrides = config.overrides_of(args)
    cfg = config.use(args.config, overrides)
    space = read_space(args.space, args.config, overrides)
    if args.trials < 1 or args.jobs < 1:
        raise UsageError('--trials and --jobs: write a number of 1 or more')

    arguments = [os.path.join(HERE, 'train.py'), *(['-c', args.config] if args.config else []), '-o', *overrides]
    with locks.held(folder_of(cfg), 'worked on'):
        study = open_study(cfg, space)
        todo = [*stopped(study), *[None] * missing(study, space, args.trials)]
        print(f'{len(todo)} runs to do, {len(finished(study))} done before, in {folder_of(cfg)}', file=sys.stderr)
        try:
            failed = run_all(cfg, study, space, todo, arguments, args.jobs)
        finally:
            if finished(study):
                write_results(cfg, study, space)
    if finished(study):
        show(cfg, study, space)
    if failed:
        raise UserError(
            f'{len(failed)} of {len(todo)} runs failed, see {", ".join(failed)}; the same command tries them again'
        )


def read_space(groups, path, overrides):
    """{key: list of values, or {low, high, log}} of the command line, each end and each value checked as a setting."""
    space = {}
    for text in itertools.chain.from_iterable(groups or []):
        key, equals, value = text.partition('=')
        values = options.parse_yaml(value, f'-s {text}') if equals else None
        if key == 'name':
            raise UsageError('-s name: each run gets a name of its own; sweep over another setting')
        if isinstance(values, dict) and {'low', 'high'} <= values.keys() <= {'low', 'high', 'log'}:
            probes = [values['low'], values['high']]
        else:
            probes = values
        if not isinstance(probes, list) or not probes:
            raise UsageError(f'-s {text}: write it as key=[value, value] or key={{low: 1, high: 9}}')
        checked = [config.load(path, [*overrides, f'{key}={json.dumps(probe)}']) for probe in probes]
        if isinstance(values, dict):
            low, high = (schema.get(cfg, key) for cfg in checked)
            if isinstance(low, (bool, str, list)) or not low < high or (values.get('log') and low <= 0):
                raise UsageError(f'-s {text}: low and high are two numbers, low the smaller, and above 0 with log')
            values = {'low': low, 'high': high, 'log': bool(values.get('log'))}
        else:
            values = list({json.dumps(value): value for value in values}.values())  # each once
        space[key] = values
    if not space:
        raise UsageError("say what to try, for example -s optim.lr='[0.01, 0.001]'")
    return space


def folder_of(cfg):
    """Folder of the sweep: its study, its table and the logs of its runs."""
    return f'{cfg.run_dir}.sweep'


def run_of(cfg, trial):
    """Name of the run of a trial."""
    return f'{cfg.name}-{trial.number:03d}'


def open_study(cfg, space):
    """The Optuna study of this sweep: a new one, or the one that was stopped, if it was about the same settings."""
    import optuna  # half a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = folder_of(cfg)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(folder, error) from None
    try:
        study = optuna.create_study(
            study_name=cfg.name,
            storage=f'sqlite:///{folder}/study.db',
            load_if_exists=True,
            direction='minimize' if metrics.lower_is_better(cfg.train.monitor) else 'maximize',
            sampler=sampler(space, cfg.seed),
        )
    except Exception as error:  # whatever the database says
        raise UserError(
            f'{folder}/study.db: cannot be used ({one_line(error)}); remove it, or name another sweep'
        ) from None
    about = {'space': space, 'settings': cfg.to_yaml()}
    before = study.user_attrs.get('about', about)
    # what an older version wrote may lack settings, or have removed ones: they were at their defaults
    old = {**_flat(config.Config().to_yaml()), **_flat(before['settings'])}
    old = {key: value for key, value in old.items() if not removed.is_ignored(key, value)}
    if before != about and (before['space'] != space or old != _flat(about['settings'])):
        differs = 'tries other values' if before['space'] != space else 'has other settings'
        raise UsageError(
            f'{folder}: the sweep there {differs}; give this one another name (-o name=...), or remove the folder'
        )
    if is_grid(space) and any(GRID_ID not in trial.system_attrs for trial in finished(study)):
        raise UsageError(
            f'{folder}: the sweep there was begun by an older version, which does not tell what is left to do; give this one another '
            'name (-o name=...), or remove the folder'
        )
    study.set_user_attr('about', about)
    return study


def is_grid(space):
    """Whether all settings are lists: every combination is tried once. Else they are searched."""
    return all(isinstance(values, list) for values in space.values())


def sampler(space, seed):
    """What chooses the next settings. Optuna's grid keeps in the study which combination each trial has, from its first moment on."""
    from optuna.samplers import GridSampler, TPESampler

    if not is_grid(space):
        return TPESampler(seed=seed)
    grid = GridSampler({key: [json.dumps(value) for value in values] for key, values in space.items()}, seed=seed)
    grid.after_trial = lambda *_: None  # at the last one it would stop `study.optimize`, which does not run here
    return grid


def _flat(text):
    return dict(schema.flatten(options.parse_yaml(text, 'study.db')))


def stopped(study):
    """The trials that were running when the sweep was stopped; each has its settings, or gets them now."""
    import optuna

    return [optuna.trial.Trial(study, trial._trial_id) for trial in study.trials if trial.state.name == 'RUNNING']


def finished(study):
    """The trials that have a value."""
    return [trial for trial in study.trials if trial.state.name == 'COMPLETE']


def missing(study, space, count):
    """How many trials are to come: a combination that has none, or that has failed, is due one; or, for a search, up to `count`."""
    import optuna

    if not is_grid(space):
        return max(0, count - len(finished(study)) - len(stopped(study)))
    trials = study.trials
    begun = {trial.system_attrs[GRID_ID] for trial in trials if trial.state.name != 'FAIL'}
    failed = {trial.system_attrs[GRID_ID]: trial.system_attrs for trial in trials if trial.state.name == 'FAIL'}
    for number in sorted(failed.keys() - begun):
        again = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, system_attrs=failed[number])
        study.add_trial(again)  # `study.ask` gives these first
    waiting = sum(trial.state.name == 'WAITING' for trial in study.trials)
    return waiting + math.prod(map(len, space.values())) - len(begun | failed.keys())


def run_all(cfg, study, space, todo, arguments, jobs):
    """Run train.py for each of `todo`, `jobs` at a time; returns the logs of those that failed.

    Raises UsageError when a run finds fault with the settings: the others would too.
    """
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault('OMP_NUM_THREADS', str(max(1, device.cores() // jobs)))
    running, failed, todo = [], [], list(todo)
    with stops.noted() as asked:
        try:
            while (todo or running) and not asked:
                while todo and len(running) < jobs:
                    running.append(start(cfg, study, space, todo.pop(0), arguments, environment))
                ended = [item for item in running if item[1].poll() is not None]
                for trial, process, log in ended:
                    running.remove((trial, process, log))
                    if not finish(cfg, study, trial, process.returncode, log):
                        failed.append(log)
                if not ended:
                    time.sleep(0.2)
        finally:
            why = asked or [signal.SIGTERM]  # or another run has failed
            for _ in processes.while_running([process for _, process, _ in running], why):
                pass  # until each has left a checkpoint
    if asked:
        raise Stopped(asked[0])
    return failed


def start(cfg, study, space, trial, arguments, environment):
    """Start train.py for a trial that was stopped, or for the next one; returns (trial, process, log file)."""
    going_on = trial is not None and has_begun(cfg, trial)
    trial = trial or study.ask()
    chosen = [f'{key}={json.dumps(suggest(trial, key, values))}' for key, values in space.items()]
    name = run_of(cfg, trial)
    log = f'{folder_of(cfg)}/{name}.log'
    print(f'{name}: {" ".join(chosen)}', file=sys.stderr)
    with open(log, 'w', encoding='utf-8') as file:
        process = processes.start(
            [sys.executable, *arguments, *chosen, f'name={name}', *(['train.resume=auto'] if going_on else [])],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return trial, process, log


def has_begun(cfg, trial):
    """Whether the run of a stopped trial is there: the folder of its name may also be of a sweep that was removed."""
    written = f'output/{run_of(cfg, trial)}/config.yaml'
    return os.path.isfile(written) and os.path.getmtime(written) >= trial.datetime_start.timestamp()


def suggest(trial, key, values):
    """The value of a setting in this trial."""
    if isinstance(values, list):  # Optuna takes texts and numbers only
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in values]))
    kind = trial.suggest_int if isinstance(values['low'], int) else trial.suggest_float
    return kind(key, values['low'], values['high'], log=values['log'])


def finish(cfg, study, trial, status, log):
    """Tell the study how a run ended; returns whether it has a result."""
    import optuna

    name = run_of(cfg, trial)
    if status in (130, 143):
        raise Stopped(status - 128)
    if status:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        with open(log, encoding='utf-8', errors='replace') as file:
            last = (file.read().strip().splitlines() or ['no output'])[-1]
        if status == 2:
            raise UsageError(last[len('error: ') :] if last.startswith('error: ') else last)
        print(f'{name}: failed: {last}', file=sys.stderr)
        return False
    with open(f'output/{name}/best/state.json', encoding='utf-8') as file:
        best = json.load(file)
    for key in ('epoch', 'valid_top1', 'valid_loss'):
        trial.set_user_attr(key, best[key])
    study.tell(trial, best[cfg.train.monitor])
    print(f'{name}: {cfg.train.monitor} {best[cfg.train.monitor]:.4f} in epoch {best["epoch"]}', file=sys.stderr)
    return True


def rows_of(cfg, study, space):
    """A dict a finished trial, the best first."""
    lower = metrics.lower_is_better(cfg.train.monitor)
    return [
        {
            'run': run_of(cfg, trial),
            **{key: trial.params[key] for key in space},
            'epoch': trial.user_attrs['epoch'],
            'valid_top1': trial.user_attrs['valid_top1'],
            'valid_loss': trial.user_attrs['valid_loss'],
            'seconds': trial.duration.total_seconds(),
        }
        for trial in sorted(finished(study), key=lambda trial: trial.value, reverse=not lower)
    ]


def write_results(cfg, study, space):
    """trials.csv, and the runs in VisualDL's hparams."""
    import shutil

    home.ensure()
    from visualdl import LogWriter

    folder = folder_of(cfg)
    rows = rows_of(cfg, study, space)
    with files.atomic_write(f'{folder}/trials.csv') as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        table.writeheader()
        table.writerows(rows)
    shutil.rmtree(f'{folder}/visualdl', ignore_errors=True)
    metrics = ['valid_top1', 'valid_loss']
    for row in rows:
        with LogWriter(logdir=f'{folder}/visualdl/{row["run"]}') as writer:
            writer.add_hparams({key: row[key] for key in space}, metrics)
            for metric in metrics:
                writer.add_scalar(metric, row[metric], step=0)


def show(cfg, study, space):
    """Print the table; where seeds were among the settings, also mean and spread over them."""
    rows = rows_of(cfg, study, space)
    table([*space, 'epoch', 'valid_top1', 'valid_loss', 'run'], rows)
    others = [key for key in space if key != 'seed']
    if 'seed' in space:
        groups = {}
        for row in rows:
            groups.setdefault(tuple(row[key] for key in others), []).append(row['valid_top1'])
        means = [
            {**dict(zip(others, key)), 'n': len(v), 'mean': sum(v) / len(v), 'lowest': min(v), 'highest': max(v)}
            for key, v in groups.items()
        ]
        print('\nvalid_top1 over the seeds:')
        table([*others, 'n', 'mean', 'lowest', 'highest'], sorted(means, key=lambda row: -row['mean']))
    print(f'written: {folder_of(cfg)}/ (trials.csv, study.db, visualdl/); the best run is output/{rows[0]["run"]}')


def table(columns, rows):
    """Print rows of dicts as a Markdown table."""
    texts = [[f'{row[key]:.4g}' if isinstance(row[key], float) else str(row[key]) for key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts)]
    for cells in (columns, ['-' * width for width in widths], *texts):
        print(f'| {" | ".join(cell.ljust(width) for cell, width in zip(cells, widths))} |')


if __name__ == '__main__':
    run(main)
