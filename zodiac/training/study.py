"""The Optuna study of a sweep: which settings were tried, which come next. `space` is {key: list of values, or {low, high, log}}."""

import json
import math

import optuna

from zodiac.base.errors import UserError, one_line

GRID_ID = 'grid_id'  # attribute of a trial that Optuna's GridSampler sets


def open_study(folder, name, space, seed, minimize):
    """The study in folder/study.db, created if there is none. Raises UserError when it cannot be read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            study_name=name,
            storage=f'sqlite:///{folder}/study.db',
            load_if_exists=True,
            direction='minimize' if minimize else 'maximize',
            sampler=_sampler(space, seed),
        )
    except Exception as error:  # of the database
        raise UserError(
            f'{folder}/study.db: cannot be used ({one_line(error)}); remove it, or name the sweep otherwise (-o name=...)'
        ) from None


def _is_grid(space):
    return all(isinstance(values, list) for values in space.values())


def _sampler(space, seed):
    """GridSampler for lists, which records the combination of a trial as soon as the trial exists; else TPESampler."""
    if not _is_grid(space):
        return optuna.samplers.TPESampler(seed=seed)
    choices = {key: [json.dumps(value) for value in values] for key, values in space.items()}
    grid = optuna.samplers.GridSampler(choices, seed=seed)
    grid.after_trial = lambda *_: None  # after the last trial it would stop `study.optimize`, which does not run here
    return grid


def lacks_record(study, space):
    """Whether the study is of an older version, which did not record the combinations of a grid."""
    return _is_grid(space) and any(GRID_ID not in trial.system_attrs for trial in finished(study))


def stopped(study):
    """The trials that were running when the sweep was stopped."""
    return [optuna.trial.Trial(study, trial._trial_id) for trial in study.trials if trial.state.name == 'RUNNING']


def finished(study):
    """The trials with a result."""
    return [trial for trial in study.trials if trial.state.name == 'COMPLETE']


def missing(study, space, count):
    """Number of trials to come: of a grid, the combinations that have no trial, or a failed one; of a search, up to `count`."""
    if not _is_grid(space):
        return max(0, count - len(finished(study)) - len(stopped(study)))
    trials = study.trials
    begun = {trial.system_attrs[GRID_ID] for trial in trials if trial.state.name != 'FAIL'}
    failed = {trial.system_attrs[GRID_ID]: trial.system_attrs for trial in trials if trial.state.name == 'FAIL'}
    for number in sorted(failed.keys() - begun):
        again = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, system_attrs=failed[number])
        study.add_trial(again)  # `study.ask` returns these first
    waiting = sum(trial.state.name == 'WAITING' for trial in study.trials)
    return waiting + math.prod(map(len, space.values())) - len(begun | failed.keys())


def suggest(trial, key, values):
    """The value of a setting in a trial."""
    if isinstance(values, list):  # Optuna takes only texts and numbers
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in values]))
    kind = trial.suggest_int if isinstance(values['low'], int) else trial.suggest_float
    return kind(key, values['low'], values['high'], log=values['log'])


def fail(study, trial):
    """Record that a trial has no result."""
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
