"""The cells of the original notebook, as they stand there but for `pretrained=True`, beside our config.py and dataset.py."""

import subprocess
import sys

from conftest import ROOT, make_tree

SETTINGS = """
import sys
sys.path.insert(0, {root!r})
import config
config.use(overrides=['image.size=32', 'train.epochs=1', 'train.batch_size=12'])
"""

CELLS = r"""
import io
import os
from PIL import Image
from config import get


# Dataset root directory
DATA_ROOT = 'signs'

# Tag List
LABEL_MAP = get('LABEL_MAP')

# callout generation function
def generate_annotation(mode):
    # Create annotation file
    with open('{}/{}.txt'.format(DATA_ROOT, mode), 'w') as f:
        # Data folders for each purpose: train/valid/test
        train_dir = '{}/{}'.format(DATA_ROOT, mode)

        # Traversing folders to get the classified folders inside
        for path in os.listdir(train_dir):
            # The numerical index corresponding to the label, directly use the numerical index when actually labeling
            label_index = LABEL_MAP.index(path)

            # The path where the image samples are located
            image_path = '{}/{}'.format(train_dir, path)

            # iterate over all images
            for image in os.listdir(image_path):
                # Image full path and name
                image_file = '{}/{}'.format(image_path, image)

                try:
                    # Verify image format
                    with open(image_file, 'rb') as f_img:
                        image = Image.open(io.BytesIO(f_img.read()))
                        image.load()

                        if image.mode == 'RGB':
                            f.write('{}\t{}\n'.format(image_file, label_index))
                except:
                    continue


generate_annotation('train')  # Generate training set annotation files
generate_annotation('valid')  # Generate validation set annotation file
generate_annotation('test')   # Generate test set annotation files

import paddle
import numpy as np
from config import get

paddle.__version__

from dataset import ZodiacDataset

train_dataset = ZodiacDataset(mode='train')
valid_dataset = ZodiacDataset(mode='valid')

print('train sample：{}images；valid sample：{}images'.format(len(train_dataset), len(valid_dataset)))

network = paddle.vision.models.resnet50(num_classes=get('num_classes'), pretrained=False)

model = paddle.Model(network)
model.summary((-1, ) + tuple(get('image_shape')))

EPOCHS = get('epochs')
BATCH_SIZE = get('batch_size')

def create_optim(parameters):
    step_each_epoch = get('total_images') // get('batch_size')
    lr = paddle.optimizer.lr.CosineAnnealingDecay(learning_rate=get('LEARNING_RATE.params.lr'),
                                                  T_max=step_each_epoch * EPOCHS)

    return paddle.optimizer.Momentum(learning_rate=lr,
                                     parameters=parameters,
                                     weight_decay=paddle.regularizer.L2Decay(get('OPTIMIZER.regularizer.factor')))


# Model training configuration
model.prepare(create_optim(network.parameters()),  # optimizer
              paddle.nn.CrossEntropyLoss(),        # loss function
              paddle.metric.Accuracy(topk=(1, 5))) # evaluation Index

# The callback function of the training visualization VisualDL tool
visualdl = paddle.callbacks.VisualDL(log_dir='visualdl_log')

# Start the full process training of the model
model.fit(train_dataset,            # training dataset
          valid_dataset,            # evaluation dataset
          epochs=EPOCHS,            # total training rounds
          batch_size=BATCH_SIZE,    # Sample Size Size for Batch Calculation
          shuffle=True,             # Whether to shuffle the sample set
          verbose=1,                # Log display format
          save_dir='./chk_points/', # Staged training model storage path
          callbacks=[visualdl])     # The callback function

model.save(get('model_save_dir'))

predict_dataset = ZodiacDataset(mode='test')
print('Test dataset sample size：{}'.format(len(predict_dataset)))

from paddle.static import InputSpec

# Network structure instantiation
network = paddle.vision.models.resnet50(num_classes=get('num_classes'))

# Model encapsulation
model_2 = paddle.Model(network, inputs=[InputSpec(shape=[-1] + get('image_shape'), dtype='float32', name='image')])

# Load the trained model
model_2.load(get('model_save_dir'))

# Model configuration
model_2.prepare()

# Execution forecast
result = model_2.predict(predict_dataset)

# Sample mapping
LABEL_MAP = get('LABEL_MAP')

# Random sample display
indexs = [2, 38, 56, 92, 100, 303]

for idx in indexs:
    predict_label = np.argmax(result[0][idx])
    real_label = predict_dataset[idx][1]

    print('SampleID：{}, RealLabel：{}, Predict：{}'.format(idx, LABEL_MAP[real_label], LABEL_MAP[predict_label]))

model_2.save('infer/zodiac', training=False)
"""


def test_the_notebook_cells_run_unchanged(workdir):
    import config

    make_tree(workdir / 'signs', config.ZODIAC, {'train': 2, 'valid': 1, 'test': 26})
    script = workdir / 'cells.py'
    script.write_text(SETTINGS.format(root=str(ROOT)) + CELLS, encoding='utf-8')

    result = subprocess.run([sys.executable, str(script)], cwd=workdir, capture_output=True, text=True, timeout=240)

    assert result.returncode == 0, result.stderr[-3000:]
    assert 'train sample：24images；valid sample：12images' in result.stdout
    assert 'Test dataset sample size：312' in result.stdout
    assert result.stdout.count('SampleID：') == 6
    assert (workdir / 'output' / 'zodiac.pdparams').is_file()
    assert (workdir / 'infer' / 'zodiac.pdiparams').is_file()
    assert any((workdir / 'visualdl_log').iterdir())
