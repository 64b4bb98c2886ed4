"""How far probabilities can be believed: calibration error, Brier score, and the temperature that mends the probabilities."""

import numpy as np

BINS = 15  # as in Guo et al. 2017
LOWEST, HIGHEST = 0.05, 20  # temperature


def evaluate(labels, probabilities):
    """Calibration of a classifier on a split.

    Args:
        labels: int [n], true class numbers.
        probabilities: float [n, classes], rows sum to 1.
    Returns: JSON-ready dict: ece, the expected calibration error of the most probable class (Guo et al. 2017, equation 3; 0 to
        1); brier, the mean over the images of the squared differences summed over the classes (Brier 1950; 0 to 2); bins, of
        equal width, as `reliability` gives them.
    """
    bins = reliability(labels, probabilities)
    n = len(labels)
    truth = np.eye(np.shape(probabilities)[1])[labels]
    return {
        'ece': float(sum(row['n'] / n * abs(row['accuracy'] - row['confidence']) for row in bins)),
        'brier': float(((probabilities - truth) ** 2).sum(1).mean()),
        'bins': bins,
    }


def reliability(labels, probabilities, count=BINS):
    """Accuracy and mean confidence (probability of the prediction) of the images whose confidence lies in each of `count` bins.

    Returns: list of {'low', 'high', 'n', 'confidence', 'accuracy'} of the bins that have images; bins are (low, high], as in
        Guo et al. 2017.
    """
    probabilities = np.asarray(probabilities, np.float64)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    numbers = np.clip(np.ceil(confidence * count).astype(int) - 1, 0, count - 1)
    return [
        {
            'low': number / count,
            'high': (number + 1) / count,
            'n': int(inside.sum()),
            'confidence': float(confidence[inside].mean()),
            'accuracy': float(right[inside].mean()),
        }
        for number in range(count)
        for inside in [numbers == number]
        if inside.any()
    ]


def with_temperature(probabilities, temperature):
    """float64 [n, classes]: softmax(logits / temperature), from the probabilities that softmax(logits) has given.

    Above 1 the probabilities become more even, below 1 more extreme; the order of the classes stays.
    """
    from scipy.special import softmax

    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), np.exp(-64.0)))
    return softmax(logits / temperature, axis=1)


def fit_temperature(labels, probabilities):
    """The temperature, from 0.05 to 20, with the lowest cross-entropy on a split that training has not seen (Guo et al. 2017, section
    4.2). None where these images do not tell one: all of them are right, or none is, or the best one lies at an end."""
    from scipy.optimize import minimize_scalar

    from zodiac.report import metrics

    right = np.argmax(probabilities, axis=1) == labels
    if right.all() or not right.any():  # the more extreme, or the more even, the better
        return None

    def loss(log_temperature):
        return metrics.cross_entropy(labels, with_temperature(probabilities, np.exp(log_temperature)))

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method='bounded')
    temperature = float(np.exp(found.x))
    return temperature if 1.01 * LOWEST < temperature < HIGHEST / 1.01 else None
