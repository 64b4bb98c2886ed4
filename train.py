"""Train the network on data.root's index files; everything it writes lies in output/<name>/.

    python train.py                                                       # configs/zodiac.yaml
    python train.py -c configs/demo.yaml -o train.epochs=5 device=cpu
    visualdl --logdir output/zodiac/visualdl --host 127.0.0.1             # watch the curves

Several processes, one a GPU or some on the cores of a CPU, share each epoch:

    python -m paddle.distributed.launch --nproc_per_node 2 train.py -c configs/demo.yaml

Ctrl-C stops after the current step and leaves a checkpoint. Exit status 130 then.
"""

import contextlib
import os
import sys

import config
from zodiac import device, files
from zodiac.errors import UserError, run


def main():
    cfg = config.from_command_line(__doc__)
    paddle = device.import_paddle()
    from dataset import Loader, ZodiacDataset
    from zodiac import callbacks

    place = device.choose(cfg.device)
    if cfg.train.amp != 'O0' and place == 'cpu':
        raise UserError(f'train.amp = {cfg.train.amp}: mixed precision brings nothing on the CPU; set train.amp=O0')
    paddle.seed(cfg.seed)

    train_set = ZodiacDataset('train', cfg=cfg)
    valid_set = ZodiacDataset('valid', cfg=cfg)
    require_every_class(train_set, cfg.data.labels)
    train_loader = Loader(train_set, cfg.train.batch_size, cfg, shuffle=True)
    valid_loader = Loader(valid_set, cfg.train.batch_size, cfg)
    note(
        f'{len(train_set)} training and {len(valid_set)} validation images, {len(cfg.data.labels)} classes, '
        f'on {place}, {train_loader.num_workers} loader processes'
    )

    network = build_network(cfg)
    optimizer = build_optimizer(cfg, network, steps=len(train_loader))
    trainer = paddle.Model(network)
    trainer.prepare(
        optimizer,
        paddle.nn.CrossEntropyLoss(),
        paddle.metric.Accuracy(topk=(1, min(5, len(cfg.data.labels)))),
        amp_configs=None if cfg.train.amp == 'O0' else cfg.train.amp,
    )

    # The schedule steps first, so that a checkpoint taken after a step holds the rate of the next one.
    watchers = [paddle.callbacks.LRScheduler(), callbacks.Epochs(train_loader), callbacks.StopOnBadLoss()]
    if device.rank() == 0:
        with contextlib.redirect_stdout(sys.stderr):
            trainer.summary((1, *config.get('image_shape')))
        start_run(cfg)
        keeper = callbacks.Checkpoints(
            cfg.run_dir, cfg.train.keep_checkpoints, cfg.train.save_steps, facts(cfg, train_set)
        )
        log = callbacks.RunLog(cfg.run_dir, sample_images(train_set))
        watchers += [callbacks.Progress(), log, keeper, callbacks.Interrupts()]
    else:
        watchers.append(callbacks.RunLog(None))
    try:
        trainer.fit(train_loader, valid_loader, epochs=cfg.train.epochs, verbose=0, callbacks=watchers)
    except KeyboardInterrupt:
        if device.rank() == 0:
            folder = keeper.save_last(epoch=keeper.epoch)
            note(f'stopped in epoch {keeper.epoch + 1}; the weights of step {keeper.step} are in {folder}')
        raise
    if device.rank() == 0:
        finish(cfg, network, optimizer, keeper.best)


def note(text):
    """Say something about the progress; of several processes, the first one speaks."""
    if device.rank() == 0:
        print(text, file=sys.stderr)


def build_network(cfg):
    """The network with its initial weights, on Paddle's current device."""
    from zodiac import model

    network = model.build(cfg.model.arch, len(cfg.data.labels), cfg.model.zero_init_residual)
    if cfg.model.pretrained:
        note(model.load_pretrained(network, cfg.model.arch, cfg.model.pretrained))
    else:
        note(f'{cfg.model.arch} starts from scratch (model.pretrained=false)')
    if cfg.model.freeze == 'backbone':
        model.freeze_backbone(network)
    return network


def build_optimizer(cfg, network, steps):
    """The optimizer over the parameters that learn, with its schedule over `steps` an epoch."""
    from zodiac import optim

    settings = cfg.optim
    warmup_steps = round(steps * settings.warmup_epochs)
    rate = optim.schedule(settings.schedule, settings.lr, steps * cfg.train.epochs, warmup_steps)
    learning = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
    return optim.optimizer(settings.name, rate, learning, settings.weight_decay, settings.momentum, settings.nesterov)


def facts(cfg, train_set):
    """What each checkpoint says of its origin."""
    import paddle

    return {
        'name': cfg.name,
        'identity': cfg.identity,
        'pretrained': cfg.model.pretrained,
        'images': len(train_set),
        'paddle': paddle.__version__,
    }


def finish(cfg, network, optimizer, best):
    """Write the last weights where the notebook's `Model.load(get('model_save_dir'))` finds them, and tell the results."""
    from zodiac import weights

    for suffix, state in (('.pdparams', network.state_dict()), ('.pdopt', optimizer.state_dict())):
        with files.atomic_write(cfg.run_dir + suffix, binary=True) as file:
            file.write(weights.dump(state))
    print(f'best epoch {best["epoch"]}: validation top-1 {best["valid_top1"]:.4f} in {cfg.run_dir}/best')
    print(f'last weights: {cfg.run_dir}.pdparams')
    print(f'curves: {cfg.run_dir}/log.csv, or visualdl --logdir {cfg.run_dir}/visualdl --host 127.0.0.1')


def require_every_class(train_set, labels):
    """Raise UserError when a class has no training image: its score could never mean anything."""
    missing = [label for number, label in enumerate(labels) if number not in train_set.labels]
    if missing:
        raise UserError(
            f'class {", ".join(missing)} has no images in the training index; add some and run annotate.py, '
            'or leave the class out of data.labels'
        )


def sample_images(train_set, count=8):
    """uint8 [count, size, size, 3]: training images as the network sees them, spread over the classes."""
    import numpy as np

    normalize = train_set.transform[-1]
    train_set.epoch = 0
    chosen = np.linspace(0, len(train_set) - 1, count).astype(int)
    images = np.stack([train_set[int(index)][0] for index in chosen]).transpose(0, 2, 3, 1)
    return ((images * normalize['std'] + normalize['mean']) * 255).round().clip(0, 255).astype(np.uint8)


def start_run(cfg):
    """Make output/<name>/ with the resolved configuration; an earlier run of that name is kept as <name>.previous."""
    import shutil

    try:
        if os.path.isdir(cfg.run_dir):
            previous = f'{cfg.run_dir}.previous'
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(cfg.run_dir, previous)
            note(f'the run that was in {cfg.run_dir} is now {previous}')
        os.makedirs(cfg.run_dir)
    except OSError as error:
        raise files.cannot_write(cfg.run_dir, error) from None
    with files.atomic_write(f'{cfg.run_dir}/config.yaml') as file:
        file.write(cfg.to_yaml())


if __name__ == '__main__':
    run(main)
