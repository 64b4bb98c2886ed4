"""Find the fewest mistakes that turn the numbers of an export into those of another program."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from zodiac.explain import mistakes, orders, programs

MOST = 2  # mistakes at a time; a third is only added to the pairs that come closest
EXTENDED = 8  # pairs
ALONE = {'precision', 'chroma'}  # fields of mistakes that are not tried with others: they change little
LEFT = 0.2  # share of the distance without mistakes that an explanation may leave
NEARER = 0.3  # a mistake within the rounding of pixels is believed if it leaves at most this share of the distance
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
    for level, count in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 0), (2, 1), (2, 2)]:
        fits = [fit for fit in search.fits(count) if fit.distance <= search.limit(level, count)]
        if fits and count == 0 and level:  # a mistake of little effect, if it explains nearly all of the difference
            nearer = [fit for fit in search.fits(1) if fit.distance <= NEARER * fits[0].distance]
            fits = nearer or fits
        if fits:
            return search.result(_best(fits, noise.limits[0]), level)
    return search.result([], -1)


def _best(fits, floor):
    fits = sorted(fits, key=lambda fit: (fit.distance, fit.largest))
    # the better one of two bases, or of two orders in which the same mistakes were added
    fits = list({frozenset(mistake.text for mistake in fit.mistakes): fit for fit in reversed(fits)}.values())[::-1]
    return [fit for fit in fits if fit.distance <= max(ALIKE * fits[0].distance, floor)]


def distances(program, logits, theirs):
    """(distance, largest difference), float64 [photos] each, of what a program reports for logits [photos, classes].

    The distance is the least movement of the logits that, to first order, makes up for the difference beyond the rounding of the
    numbers: it compares 0.5 and 0.6 as well as 0.9998 and 0.9999. For labels alone it is 0 or infinite.
    """
    with np.errstate(all='ignore'):  # a mistake can make numbers infinite
        values, sensitivity = programs.reported(program, logits)
    if theirs.only_labels:
        return np.where(values.argmax(1) == theirs.best, 0.0, np.inf), np.zeros(len(values))
    difference = np.abs(theirs.values - np.where(np.isfinite(values), values, np.inf))
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
        self.found, self.tried, self.nearest = {}, 0, []
        base, full = self.logits(own), dataclasses.replace(own, reduced=False)
        same = np.array([runner.same_inputs(number, own, full) for number in self.numbers])
        self.bases = [own] if same.all() else [own, full]
        distance, _ = distances(own, base, theirs)
        self.worst = float(distance.max())
        fewer = np.where(same, 1, 0.3)  # inputs to run, where both bases are the same
        self.first = int(np.argmax(np.where(np.isfinite(distance), distance, 1) * fewer))
        self.unseen = [mistake for mistake in self.inputs if self.unchanged(mistake)]
        self.inputs = [mistake for mistake in self.inputs if mistake not in self.unseen]

    def limit(self, level, count):
        """The largest distance of a Fit with `count` mistakes. Beyond the difference of engines it must also leave little of the
        distance that it explains."""
        limit = self.noise.limits[level]
        return min(limit, max(self.noise.limits[0], LEFT * self.worst)) if level and count else limit

    def unchanged(self, mistake):
        pairs = [(mistake.applied(base), base) for base in self.bases]
        return all(self.runner.same_inputs(number, *pair) for pair in pairs for number in self.numbers)

    def logits(self, program):
        return np.concatenate([self.runner.logits(number, [program]) for number in self.numbers])

    def fits(self, count):
        """The Fits with `count` mistakes that are within the largest limit."""
        if count not in self.found:
            self.found[count] = list(self._fits(count))
        return self.found[count]

    def _fits(self, count):
        if count > MOST:
            for _, group, ending in sorted(self.nearest, key=lambda pair: pair[0])[:EXTENDED]:
                more = [
                    (*group, one) for one in self.inputs if _fit_together((*group, *ending, one)) and not _alone((one,))
                ]
                yield from self._tried(more, [ending])
                longer = [(*ending, one) for one in self.after if _fit_together((*group, *ending, one))]
                yield from self._tried([group], longer)
            return
        if count == 1 and not self.theirs.only_labels:
            self.inputs += mistakes.of_precision(self.runner.precisions())
        for before in range(count, -1, -1):
            groups = combinations(self.inputs, before)
            if before == MOST:
                groups = [group for group in groups if not _alone(group)]
            yield from self._tried(groups, combinations(self.after, count - before), count - before - 1)

    def _tried(self, groups, endings, ordered=-1):
        """Fits of groups of mistakes in the inputs, each with each ending, mistakes in the outputs, and if `ordered` is 0 or more, with
        the class names in any order and so many mistakes in the outputs. The photo that differs most is looked at first, and the others
        only where it fits. Decoding a JPEG in full, where the export allows a part of its size, is no mistake; programs with several
        mistakes are taken to do so."""
        *others, last = self.bases
        groups = [
            (base, group)
            for group in groups
            for base in ([last] if len(group) >= MOST or _reduces(group) else [*others, last])
        ]
        some = [applied(base, group) for base, group in groups]
        logits = self.runner.logits(self.first, some) if some else []
        only = self.theirs_of([self.first])
        for (_, group), program, first in zip(groups, some, logits):
            fitting = [ending for ending in endings if self._near(program, group, ending, first[None], only)]
            general = ordered >= 0 and self._may_be_ordered()
            if not fitting and not general:
                continue
            known = self.logits(program) if len(self.numbers) > 1 else first[None]
            for ending in fitting:
                yield from self._fit(group + ending, applied(program, ending), known)
            if general:
                yield from self._ordered(group, program, known, ordered)

    def _near(self, program, group, ending, logits, theirs):
        self.tried += 1
        distance = distances(applied(program, ending), logits, theirs)[0][0]
        if len(group) + len(ending) == MOST:
            self.nearest.append((distance, group, ending))
        return distance <= self.noise.limits[-1]

    def _fit(self, some, program, logits):
        distance, largest = (float(values.max()) for values in distances(program, logits, self.theirs))
        if distance <= self.noise.limits[-1]:
            yield Fit(some, program, distance, largest)

    def theirs_of(self, numbers):
        theirs = self.theirs
        return type(theirs)(theirs.values[numbers], theirs.rounding[numbers], theirs.best[numbers])

    def _may_be_ordered(self):
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
            distance, largest = (
                float(values.max()) for values in distances(program, self.logits(program), self.theirs)
            )
            found.append(Fit(some, program, distance, largest))
        return sorted(found, key=lambda fit: (fit.distance, fit.largest))[:5]


def _reduces(group):
    return any('reduced' in mistake.fields() for mistake in group)


def _alone(group):
    return any(mistake.fields() & ALONE for mistake in group)


def _fit_together(group):
    """Whether mistakes concern different fields."""
    return sum(len(mistake.fields()) for mistake in group) == len(set().union(*(mistake.fields() for mistake in group)))


def combinations(some, count):
    """Tuples of `count` mistakes that concern different fields."""
    return [group for group in itertools.combinations(some, count) if _fit_together(group)]


def applied(program, some):
    for mistake in some:
        program = mistake.applied(program)
    return program
