"""Try settings: one run of train.py per choice, with the results as a table and in VisualDL.

    python -m zodiac sweep -c configs/natural_images.yaml -s optim.lr='[0.001, 0.0001]' seed='[0, 1, 2]' -o train.epochs=5
    python -m zodiac sweep -c configs/demo.yaml -s optim.lr='{low: 1.0e-4, high: 0.1, log: true}' --trials 20
    visualdl --logdir output/natural_images.sweep/visualdl --host 127.0.0.1 --disable-telemetry     # hparams

Lists form a grid, of which every combination is run once; with a range, {low, high}, Optuna's TPE sampler searches. A run is judged
by its best value of train.monitor on the validation split. A sweep can be stopped at any time; the same command resumes it, each run
where it was stopped. Table: output/<name>.sweep/trials.csv; runs: output/<name>-000, output/<name>-001, ...
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-sweep.txt', 'optuna paddle numpy PIL yaml scipy sklearn matplotlib tqdm visualdl')

import csv
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import config
from zodiac.base import calls, columns, device, files, home, locks, options, schema, stops
from zodiac.base.errors import Stopped, UsageError, UserError, run
from zodiac.training import processes

TRAIN = os.path.join(calls.FOLDER, 'train.py')
KEPT = ('epoch', 'valid_top1', 'valid_loss')  # results of a run, from best/state.json


def parse():
    """The parsed command line."""
    parser = config.parser(__doc__)
    space_help = 'values to try: a list, or a range {low, high, log: true}, as YAML'
    parser.add_argument('-s', '--space', metavar='key.sub=values', nargs='+', action='append', help=space_help)
    parser.add_argument('--trials', type=int, default=20, metavar='N', help='runs of a search (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='parallel runs (default: %(default)s)')
    return parser.parse_args()


if __name__ == '__main__':
    parse()  # ends here for --help and wrong usage, before Optuna is imported

from zodiac.training import study


def main():
    args = parse()
    overrides = config.overrides_of(args)
    cfg = config.use(args.config, overrides)
    space = read_space(args.space, args.config, overrides)
    if args.trials < 1 or args.jobs < 1:
        raise UsageError('--trials and --jobs: must be 1 or more')

    arguments = [TRAIN, *(['-c', args.config] if args.config else []), '-o', *overrides]
    with locks.held(folder_of(cfg), 'worked on'):
        trials = open_study(cfg, space)
        todo = [*study.stopped(trials), *[None] * study.missing(trials, space, args.trials)]
        done = len(study.finished(trials))
        print(f'runs to do: {len(todo)}, done before: {done}, in {folder_of(cfg)}', file=sys.stderr)
        try:
            failed = run_all(cfg, trials, space, todo, arguments, args.jobs)
        finally:
            rows = rows_of(cfg, trials, space)
            if rows:
                write_results(cfg, rows, space)
    if rows:
        show(cfg, rows, space)
    if failed:
        raise UserError(
            f'{len(failed)} of {len(todo)} runs failed, see {", ".join(failed)}; the same command tries them again'
        )


def read_space(groups, path, overrides):
    """{key: list of values, or {low, high, log}} of the command line; each value and each end is checked as a setting."""
    space = {}
    for text in itertools.chain.from_iterable(groups or []):
        key, equals, value = text.partition('=')
        values = options.parse_yaml(value, f'-s {text}') if equals else None
        if key == 'name':
            raise UsageError('-s name: each run gets its own name; choose another setting')
        is_range = isinstance(values, dict) and {'low', 'high'} <= values.keys() <= {'low', 'high', 'log'}
        probes = [values['low'], values['high']] if is_range else values
        if not isinstance(probes, list) or not probes:
            raise UsageError(f'-s {text}: write it as key=[value, value] or key={{low: 1, high: 9}}')
        checked = [config.load(path, [*overrides, f'{key}={json.dumps(probe)}']) for probe in probes]
        if is_range:
            low, high = (schema.get(cfg, key) for cfg in checked)
            if isinstance(low, (bool, str, list)) or not low < high or (values.get('log') and low <= 0):
                raise UsageError(f'-s {text}: low and high must be numbers, low < high, and low > 0 with log')
            values = {'low': low, 'high': high, 'log': bool(values.get('log'))}
        else:
            values = list({json.dumps(value): value for value in values}.values())  # without duplicates
        space[key] = values
    if not space:
        raise UsageError("name the values to try, for example -s optim.lr='[0.01, 0.001]'")
    return space


def folder_of(cfg):
    """Folder of the sweep: study, table, and logs of the runs."""
    return f'{cfg.run_dir}.sweep'


def config_of(cfg, trial):
    """The configuration of the run of a trial, as far as its name and folder go."""
    return dataclasses.replace(cfg, name=f'{cfg.name}-{trial.number:03d}')


def open_study(cfg, space):
    """The study of this sweep, new or resumed. Raises UsageError where the existing one is about something else."""
    folder = folder_of(cfg)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(folder, error) from None
    opened = study.open_study(folder, cfg.name, space, cfg.seed, columns.LOWER_IS_BETTER[cfg.train.monitor])
    about = {'space': space, 'settings': cfg.to_yaml()}
    before = opened.user_attrs.get('about', about)
    # a study of an older version may lack settings: they were at their defaults
    old = {**_flat(config.Config().to_yaml()), **_flat(before['settings'])}
    differs = 'tries other values' if before['space'] != space else ''
    if not differs and any(old[key] != value for key, value in _flat(about['settings']).items()):
        differs = 'has other settings'
    if study.lacks_record(opened, space):
        differs = 'is of an older version, which did not record what is left to do'
    if differs:
        raise UsageError(
            f'{folder}: the sweep there {differs}; name this one otherwise (-o name=...), or remove the folder'
        )
    opened.set_user_attr('about', about)
    return opened


def _flat(text):
    return dict(schema.flatten(options.parse_yaml(text, 'study.db')))


def run_all(cfg, trials, space, todo, arguments, jobs):
    """Run train.py for each of `todo`, `jobs` in parallel; returns the logs of the runs that failed.

    Raises UsageError when a run finds an error in the settings: the others would, too.
    """
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault('OMP_NUM_THREADS', str(max(1, device.cores() // jobs)))
    running, failed, todo = [], [], list(todo)
    with stops.noted() as asked:
        try:
            while (todo or running) and not asked:
                while todo and len(running) < jobs:
                    running.append(start(cfg, trials, space, todo.pop(0), arguments, environment))
                ended = [item for item in running if item[1].poll() is not None]
                for trial, process, log in ended:
                    running.remove((trial, process, log))
                    if not finish(cfg, trials, trial, process.returncode, log):
                        failed.append(log)
                if not ended:
                    time.sleep(0.2)
        finally:
            why = asked or [signal.SIGTERM]  # another run has failed
            for _ in processes.while_running([process for _, process, _ in running], why):
                pass  # until each has saved a checkpoint
    if asked:
        raise Stopped(asked[0])
    return failed


def start(cfg, trials, space, trial, arguments, environment):
    """Start train.py for a trial that was stopped, or for a new one (None); returns (trial, process, log file)."""
    resumed = trial is not None and has_begun(cfg, trial)
    trial = trial or trials.ask()
    chosen = [f'{key}={json.dumps(study.suggest(trial, key, values))}' for key, values in space.items()]
    name = config_of(cfg, trial).name
    log = f'{folder_of(cfg)}/{name}.log'
    print(f'{name}: {" ".join(chosen)}', file=sys.stderr)
    with open(log, 'w', encoding='utf-8') as file:
        process = processes.start(
            [sys.executable, *arguments, *chosen, f'name={name}', *(['train.resume=auto'] if resumed else [])],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return trial, process, log


def has_begun(cfg, trial):
    """Whether a stopped trial has a run: a folder of its name may also be of a sweep that was removed."""
    written = f'{config_of(cfg, trial).run_dir}/config.yaml'
    return os.path.isfile(written) and os.path.getmtime(written) >= trial.datetime_start.timestamp()


def finish(cfg, trials, trial, status, log):
    """Record the end of a run in the study; returns whether it has a result."""
    own = config_of(cfg, trial)
    if status in (130, 143):
        raise Stopped(status - 128)
    if status:
        study.fail(trials, trial)
        with open(log, encoding='utf-8', errors='replace') as file:
            last = (file.read().strip().splitlines() or ['no output'])[-1]
        if status == 2:
            raise UsageError(last[len('error: ') :] if last.startswith('error: ') else last)
        print(f'{own.name}: failed: {last}', file=sys.stderr)
        return False
    with open(f'{own.run_dir}/best/state.json', encoding='utf-8') as file:
        best = json.load(file)
    for key in KEPT:
        trial.set_user_attr(key, best[key])
    trials.tell(trial, best[cfg.train.monitor])
    print(f'{own.name}: {cfg.train.monitor} {best[cfg.train.monitor]:.4f} in epoch {best["epoch"]}', file=sys.stderr)
    return True


def rows_of(cfg, trials, space):
    """One dict per finished trial, the best first."""
    lower = columns.LOWER_IS_BETTER[cfg.train.monitor]
    return [
        {
            'run': config_of(cfg, trial).name,
            **{key: trial.params[key] for key in space},
            **{key: trial.user_attrs[key] for key in KEPT},
            'seconds': trial.duration.total_seconds(),
        }
        for trial in sorted(study.finished(trials), key=lambda trial: trial.value, reverse=not lower)
    ]


def write_results(cfg, rows, space):
    """Write trials.csv, and the runs for VisualDL's hparams page."""
    home.ensure()
    from visualdl import LogWriter  # needs a home folder

    folder = folder_of(cfg)
    with files.atomic_write(f'{folder}/trials.csv') as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        table.writeheader()
        table.writerows(rows)
    shutil.rmtree(f'{folder}/visualdl', ignore_errors=True)
    scores = ['valid_top1', 'valid_loss']
    for row in rows:
        with LogWriter(logdir=f'{folder}/visualdl/{row["run"]}') as writer:
            writer.add_hparams({key: row[key] for key in space}, scores)
            for score in scores:
                writer.add_scalar(score, row[score], step=0)


def show(cfg, rows, space):
    """Print the table; where seeds were tried, also mean and range over them."""
    table([*space, *KEPT, 'run'], rows)
    if 'seed' in space:
        others = [key for key in space if key != 'seed']
        groups = {}
        for row in rows:
            groups.setdefault(tuple(row[key] for key in others), []).append(row['valid_top1'])
        means = [
            {**dict(zip(others, key)), 'n': len(v), 'mean': sum(v) / len(v), 'lowest': min(v), 'highest': max(v)}
            for key, v in groups.items()
        ]
        print('\nvalid_top1 over the seeds:')
        table([*others, 'n', 'mean', 'lowest', 'highest'], sorted(means, key=lambda row: -row['mean']))
    best = dataclasses.replace(cfg, name=rows[0]['run'])
    print(f'written: {folder_of(cfg)}/ (trials.csv, study.db, visualdl/); the best run is {best.run_dir}')


def table(names, rows):
    """Print rows of dicts as a Markdown table."""
    texts = [[f'{row[key]:.4g}' if isinstance(row[key], float) else str(row[key]) for key in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *texts)]
    for cells in (names, ['-' * width for width in widths], *texts):
        print(f'| {" | ".join(cell.ljust(width) for cell, width in zip(cells, widths))} |')


if __name__ == '__main__':
    run(main)
