"""A ResNet50 at 224 pixels, made once in a work folder by the scripts of this project, for the other benchmarks.

    python benchmarks/exports.py WORK_FOLDER

Its backbone is random, with the BatchNorm statistics of drawn images; its head is solved on images in twelve colors, so that its answers
have margins, as those of a trained network do. WORK_FOLDER/infer is the export, with int8; resnet50.pdparams is what the notebook loads.
"""

import colorsys
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from photos import draw_photo
from PIL import Image
from ratios import ROOT, command_line, run

LABELS = [f'class{number}' for number in range(12)]
IMAGES = 12  # per class


def main():
    parser = command_line(__doc__)
    parser.add_argument('work', help='folder for the exports')
    make(parser.parse_args().work)


def make(work):
    """Make what is missing in the folder `work`.

    Returns: folder of the export; arguments of predict.py and serve.py for its int8 model: [folder, option...].
    """
    work = Path(work).resolve()
    loose = ['export.logit_tolerance=1', 'export.loss_tolerance=1', 'export.agreement=0.5']  # random weights lose more
    infer = work / 'infer'
    int8 = [infer, '--precision', 'int8']
    if (infer / 'inference.yaml').is_file():
        return infer, int8
    _draw_colors(work / 'colors')
    _save_backbone(work / 'backbone.pdparams', work / 'colors')
    settings = ['name=resnet50', 'data.root=colors', f'data.labels={LABELS}', 'device=cpu', 'model.arch=resnet50']
    settings += ['model.pretrained=backbone.pdparams', 'model.freeze=backbone', 'train.head=linear']
    for script in ('annotate.py', 'train.py'):
        _call(work, script, settings)
    shutil.copy(work / 'output/resnet50.pdparams', work)
    _call(work, 'export.py', [*settings, 'export.int8=true', *loose])
    shutil.rmtree(infer, ignore_errors=True)
    (work / 'output/resnet50/infer').rename(infer)
    return infer, int8


def _draw_colors(folder):
    """Photo-like images of 256 x 256 pixels, each class with a tint of its own."""
    rng = np.random.default_rng(0)
    for number, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True, exist_ok=True)
        tint = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(number / len(LABELS), 0.8, 0.9))
        for image in range(IMAGES):
            picture = Image.blend(draw_photo(rng, (256, 256)), Image.new('RGB', (256, 256), tint), 0.4)
            picture.save(folder / label / f'{image}.jpg', quality=90)


def _save_backbone(path, images):
    from zodiac.base.paddle_setup import paddle  # takes seconds, and later runs do not need it

    paddle.seed(0)
    network = paddle.vision.models.resnet50(num_classes=len(LABELS))
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.0  # the statistics are those of the last batch
        if isinstance(layer, paddle.vision.models.resnet.BottleneckBlock):
            layer.bn3.weight.set_value(0.25 * layer.bn3.weight)  # near the identity, as after training
    files = sorted(images.glob('*/*.jpg'))[::4]
    batch = np.stack([np.asarray(Image.open(file).resize((224, 224)), np.float32) / 128 - 1 for file in files])
    with paddle.no_grad():
        network(paddle.to_tensor(batch.transpose(0, 3, 1, 2).copy()))
    paddle.save(network.state_dict(), str(path))


def _call(work, script, settings):
    subprocess.run(
        [sys.executable, ROOT / script, '-o', *settings], cwd=work, check=True, capture_output=True, text=True
    )


if __name__ == '__main__':
    run(main)
