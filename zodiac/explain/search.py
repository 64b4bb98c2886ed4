"""Find the fewest mistakes that turn the numbers of an export into those of another program."""

import itertools
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from zodiac.explain import mistakes, orders, programs

MOST = 2  # mistakes at a time
ALIKE = 3.0  # explanations whose distance is within this factor of the best one fit equally


@dataclass(frozen=True)
class Fit:
    """Mistakes, and how far they leave the numbers of an export from those of the other program."""

    mistakes: Tuple
    program: programs.Program
    distance: float  # by how much a logit would have to move, at most; see `distances`
    largest: float  # the largest difference of a number

    @property
    def text(self):
        return ' + '.join(mistake.text for mistake in self.mistakes)


@dataclass(frozen=True)
class Result:
    """What was found. `fits`: the best explanations, which fit equally, each with the same number of mistakes; empty if none fits."""

    fits: List
    closest: List  # the best that were tried, where none fits
    level: int  # index in Noise.limits within which they fit; -1 if none fits
    unseen: List  # mistakes that change nothing on these photos
    tried: int
    passes: int


def explain(runner, own, manifest, theirs, noise):
    """The Result for a Runner, the Program of the export, its manifest, Theirs and Noise."""
    search = _Search(runner, own, manifest, theirs, noise)
    levels = range(1) if theirs.only_labels else range(len(noise.limits))
    for level in levels:
        for count in range(MOST + 1):
            fits = [fit for fit in search.fits(count) if fit.distance <= noise.limits[level]]
            if fits:
                return search.result(_best(fits, noise.limits[0]), level)
    return search.result([], -1)


def _best(fits, floor):
    fits = sorted(fits, key=lambda fit: (fit.distance, fit.largest))
    return [fit for fit in fits if fit.distance <= max(ALIKE * fits[0].distance, floor)]


def distances(program, logits, theirs):
    """(distance, largest difference), float64 [photos] each, of what a program reports for logits [photos, classes].

    The distance is the least movement of the logits that, to first order, makes up for the difference beyond the rounding of the
    numbers: it compares 0.5 and 0.6 as well as 0.9998 and 0.9999. For labels alone it is 0 or infinite.
    """
    values, sensitivity = programs.reported(program, logits)
    if theirs.only_labels:
        return np.where(values.argmax(1) == theirs.best, 0.0, np.inf), np.zeros(len(values))
    difference = np.abs(theirs.values - values)
    moved = np.maximum(0, difference - theirs.rounding) / (sensitivity + 1e-12)
    return np.nanmax(moved, 1), np.nanmax(difference, 1)


class _Search:
    def __init__(self, runner, own, manifest, theirs, noise):
        self.runner, self.own, self.theirs, self.noise = runner, own, theirs, noise
        self.labels = manifest['labels']
        self.inputs = mistakes.of_inputs(own, manifest)
        self.after = [] if theirs.only_labels else mistakes.of_outputs(manifest)
        named = mistakes.of_labels(manifest['labels'])
        self.after += named
        self.orders = {mistake.applied(own).labels for mistake in named}
        self.numbers = range(len(runner.photos))
        self.found, self.tried, self.closest, self.with_precisions = {}, 0, [], False
        base = self.logits(own)
        self.first = int(np.argmax(distances(own, base, theirs)[1])) if not theirs.only_labels else 0
        self.unseen = [mistake for mistake in self.inputs if self.unchanged(mistake)]

    def unchanged(self, mistake):
        program = mistake.applied(self.own)
        return all(self.runner.same_inputs(number, program, self.own) for number in self.numbers)

    def logits(self, program):
        return np.concatenate([self.runner.logits(number, [program]) for number in self.numbers])

    def fits(self, count):
        """The Fits with `count` mistakes that are within the largest limit."""
        if count not in self.found:
            self.found[count] = list(self._fits(count))
        return self.found[count]

    def _fits(self, count):
        if count == 1 and not self.theirs.only_labels:
            self.inputs += mistakes.of_precision(self.runner.precisions())
        for before in range(count, -1, -1):
            groups = combinations(self.inputs, before)
            if before == MOST:
                groups = [some for some in groups if not any('precision' in one.fields() for one in some)]
            yield from self._tried(groups, count - before)

    def _tried(self, groups, after):
        """Fits of groups of mistakes in the inputs, each with `after` more in the outputs. The photo that differs most is looked at
        first, and the others only where it fits."""
        endings = combinations(self.after, after)
        some = [applied(self.own, group) for group in groups]
        logits = self.runner.logits(self.first, some) if some else []
        only = self.theirs_of([self.first])
        for group, program, first in zip(groups, some, logits):
            fitting = [ending for ending in endings if self._near(program, ending, first[None], only)]
            general = after > 0 and self._may_be_ordered(group)
            if not fitting and not general:
                continue
            known = self.logits(program) if len(self.numbers) > 1 else first[None]
            for ending in fitting:
                yield from self._fit(group + ending, applied(program, ending), known)
            if general:
                yield from self._ordered(group, program, known, after - 1)

    def _near(self, program, ending, logits, theirs):
        self.tried += 1
        whole = applied(program, ending)
        distance, largest = (values[0] for values in distances(whole, logits, theirs))
        return distance <= self.noise.limits[-1]

    def _fit(self, some, program, logits):
        distance, largest = (float(values.max()) for values in distances(program, logits, self.theirs))
        if distance <= self.noise.limits[-1]:
            yield Fit(some, program, distance, largest)

    def theirs_of(self, numbers):
        theirs = self.theirs
        return type(theirs)(theirs.values[numbers], theirs.rounding[numbers], theirs.best[numbers])

    def _may_be_ordered(self, group):
        return not np.isnan(self.theirs.values).any() and len(self.labels) > 2

    def _ordered(self, group, program, logits, after):
        """Fits with the class names in any order, and `after` other mistakes in the outputs."""
        for ending in combinations([one for one in self.after if 'labels' not in one.fields()], after):
            whole = applied(program, ending)
            values, sensitivity = programs.reported(whole, logits)
            for limit in self.noise.limits[:2]:
                order = orders.match(self.theirs.values, self.theirs.rounding, values, limit * sensitivity)
                if order is not None and order[0] not in self.orders:
                    mistake = mistakes.labels_in(orders.in_words(*order, self.labels), order[0])
                    yield from self._fit((*group, *ending, mistake), mistake.applied(whole), logits)
                    break

    def result(self, fits, level):
        return Result(fits, self._closest() if not fits else [], level, self.unseen, self.tried, self.runner.passes)

    def _closest(self):
        """The five single mistakes that leave the least difference, and none at all."""
        found = []
        for some in combinations(self.inputs, 0) + combinations([*self.inputs, *self.after], 1):
            program = applied(self.own, some)
            distance, largest = (float(values.max()) for values in distances(program, self.logits(program), self.theirs))
            found.append(Fit(some, program, distance, largest))
        return sorted(found, key=lambda fit: (fit.distance, fit.largest))[:5]


def combinations(some, count):
    """Tuples of `count` mistakes that concern different fields."""
    return [
        group
        for group in itertools.combinations(some, count)
        if sum(len(one.fields()) for one in group) == len(set().union(*(one.fields() for one in group)))
    ]


def applied(program, some):
    for mistake in some:
        program = mistake.applied(program)
    return program
