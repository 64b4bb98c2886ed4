"""The numbers of a report on the terminal."""

from zodiac.base import formatting

WORSE = 3  # parts of the photos that are named


def show(result):
    """Print the metrics."""
    scores, folds, curve = result['calibration'], result.get('folds'), result.get('learning_curve')
    rows = [['accuracy', 'top-1', '95% interval', 'images']]
    if folds:
        rows.append([f'over {folds["k"]} folds', *accuracy(folds['top1'], folds['interval_95'], folds['n'])])
    rows.append([result['split'], *accuracy(result['top1'], result['top1_interval_95'], result['n'])])
    print(f'weights: {result["weights"]}')
    show_table(rows)
    if curve:
        print(curve['summary'])
    rows = [['class', 'precision', 'recall', 'F1', 'images']]
    for name, row in result['per_class'].items():
        rows.append(
            [name, *(formatting.percent(row[key]) for key in ('precision', 'recall', 'f1')), f'{row["support"]:,}']
        )
    mean = [formatting.percent(result[f'macro_{key}']) for key in ('precision', 'recall', 'f1')]
    show_table([*rows, ['mean', *mean, f'{result["n"]:,}']])
    after = (
        f'; {formatting.percent(scores["ece_with_temperature"])} with temperature {scores["temperature"]:.3f}'
        if scores['temperature']
        else ''
    )
    print(
        f'top-5 {formatting.percent(result["top5"])}, loss {formatting.decimals(result["loss"])}, '
        f'calibration error {formatting.percent(scores["ece"])}{after}'
    )
    if result.get('unknown'):
        found = result['unknown']
        print(
            f'with reject.keep: {formatting.percent(found["known"])} of these images are known; sets of {found["mean_size"]:.2f} labels on '
            f'average hold that of {formatting.percent(found["coverage"])}'
        )
    for row in [row for row in result['slices']['rows'] if row['worse']][:WORSE]:
        print(
            f'weaker than other photos: {row["property"]} {row["value"]}: {formatting.percent(row["top1"])} of {row["n"]:,} '
            f'({formatting.p_value(row["p"])} after correction for {result["slices"]["tests"]} comparisons)'
        )
    print(f'simple random sample of {len(result["sample"])}:')
    for row in result['sample']:
        print(f'SampleID: {row["id"]}, RealLabel: {row["label"]}, Predict: {row["prediction"]}')


def accuracy(top1, interval, number):
    """The cells of a row that gives an accuracy."""
    low, high = map(formatting.percent, interval)
    return formatting.percent(top1), f'{low} to {high}', f'{number:,}'


def show_table(rows):
    for line in formatting.table(rows, formatting.columns()):
        print(line)
