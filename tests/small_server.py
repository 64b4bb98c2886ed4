"""A model that needs no engine, and limits for a server of it."""

from zodiac.images import transforms
from zodiac.inference import exported_model
from zodiac.serving import uploads

LABELS = ['红', 'green', 'blue']
TRANSFORM = transforms.eval_transform(8, [0, 0, 0], [1, 1, 1], 'squash')


def shares(batch):
    """[N, 3, H, W] -> [N, 3]: how much of each colour there is."""
    means = batch.mean((2, 3)) + 0.01
    return means / means.sum(1, keepdims=True)


def model_of(predict=shares):
    return exported_model.ExportedModel('colours', LABELS, TRANSFORM, {}, predict)


def limits(**others):
    return uploads.Limits(
        **{'requests': 50, 'images': 16, 'body': 1 << 20, 'total': 50 << 20, 'pixels': 10**6, 'seconds': 20, **others}
    )
