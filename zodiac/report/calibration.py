"""Calibration of probabilities: expected calibration error, Brier score, temperature scaling."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from zodiac.report import metrics

BINS = 15  # as in Guo et al. 2017
LOWEST, HIGHEST = 0.05, 20  # temperature


def evaluate(labels, probabilities, temperature=None):
    """Calibration of a classifier on a split, and again after temperature scaling if a temperature is given.

    Args:
        labels: int [n].
        probabilities: float [n, classes], rows sum to 1.
    Returns: JSON-ready dict: ece, the expected calibration error (Guo et al. 2017, equation 3; 0 to 1); brier, the Brier score
        summed over the classes (Brier 1950; 0 to 2); bins, see `reliability`; temperature. With a temperature also
        ece_with_temperature, brier_with_temperature, bins_with_temperature and loss_with_temperature (nats).
    """
    result = {**_scores(labels, probabilities), 'temperature': temperature}
    if temperature is not None:
        scaled = with_temperature(probabilities, temperature)
        after = {**_scores(labels, scaled), 'loss': metrics.cross_entropy(labels, scaled)}
        result.update({f'{key}_with_temperature': value for key, value in after.items()})
    return result


def _scores(labels, probabilities):
    bins = reliability(labels, probabilities)
    truth = np.eye(np.shape(probabilities)[1])[labels]
    return {
        'ece': float(sum(row['n'] / len(labels) * abs(row['accuracy'] - row['confidence']) for row in bins)),
        'brier': float(((probabilities - truth) ** 2).sum(1).mean()),
        'bins': bins,
    }


def reliability(labels, probabilities, count=BINS):
    """Accuracy and mean confidence (probability of the prediction) per confidence bin.

    Returns: list of {'low', 'high', 'n', 'confidence', 'accuracy'} for the bins that contain images. There are `count` bins of equal
        width, (low, high] as in Guo et al. 2017.
    """
    probabilities = np.asarray(probabilities, np.float64)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    numbers = np.clip(np.ceil(confidence * count).astype(int) - 1, 0, count - 1)
    return [
        {
            'low': number / count,
            'high': (number + 1) / count,
            'n': int((numbers == number).sum()),
            'confidence': float(confidence[numbers == number].mean()),
            'accuracy': float(right[numbers == number].mean()),
        }
        for number in np.unique(numbers).tolist()
    ]


def with_temperature(probabilities, temperature):
    """float64 [n, classes]: softmax(logits / temperature), from the probabilities softmax(logits).

    A temperature above 1 makes the probabilities more even, below 1 more extreme; the order of the classes stays.
    """
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), np.exp(-64.0)))
    return softmax(logits / temperature, axis=1)


def fit_temperature(labels, probabilities):
    """The temperature with the lowest cross-entropy on a split that training has not seen (Guo et al. 2017, section 4.2).

    Returns: float between 0.05 and 20; None if there is no optimum in this range: all predictions are right, all are wrong, or the
        best value is at an end.
    """
    right = np.argmax(probabilities, axis=1) == labels
    if right.all() or not right.any():
        return None

    def loss(log_temperature):
        return metrics.cross_entropy(labels, with_temperature(probabilities, np.exp(log_temperature)))

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method='bounded')
    temperature = float(np.exp(found.x))
    return temperature if 1.01 * LOWEST < temperature < HIGHEST / 1.01 else None
