"""Train the network on data.root's index files; everything it writes lies in output/<name>/.

    python train.py                                                       # configs/zodiac.yaml
    python train.py -c configs/demo.yaml -o train.epochs=5 device=cpu
    visualdl --logdir output/zodiac/visualdl --host 127.0.0.1 --disable-telemetry     # watch the curves

Several processes share each batch: on a CPU one a core, unless told otherwise; on several GPUs, and on several machines through
Paddle's launcher:

    python train.py --nproc 4
    python -m paddle.distributed.launch --ips ADDRESS,ADDRESS train.py -c configs/demo.yaml

    python train.py --plot-schedule       # draws the learning rate over the steps of a run, and stops
    python train.py --find-lr             # tries learning rates on some steps, draws the loss over them, and proposes one

Ctrl-C or SIGTERM stops after the current step and leaves a checkpoint; exit status 130 or 143. The same command with --resume
goes on.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'paddle numpy PIL yaml scipy sklearn matplotlib tqdm visualdl')

import contextlib
import glob
import os
import re
import shlex
import sys

import config
from zodiac.base import device, files, locks, schema
from zodiac.base.errors import Stopped, UsageError, UserError, run
from zodiac.training import processes


def main():
    parser = config.parser(__doc__)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        '--find-lr', action='store_true', help='try learning rates on some steps, draw and propose one'
    )
    instead.add_argument('--plot-schedule', action='store_true', help='draw the learning rate over the steps')
    parser.add_argument('--resume', action='store_true', help='go on where the run of this name was stopped')
    parser.add_argument(
        '--accept-changes',
        action='store_true',
        help='go on although the classes, the network, the images or train.monitor have changed',
    )
    parser.add_argument(
        '--nproc', type=int, metavar='N', help='processes that share the work on this machine (default: what suits it)'
    )
    args = parser.parse_args()
    cfg = config.use(args.config, config.overrides_of(args))
    if args.nproc is not None and args.nproc < 1:
        raise UsageError(f'--nproc {args.nproc}: write a number of 1 or more')
    if cfg.train.views and max(args.nproc or 1, int(os.environ.get('PADDLE_TRAINERS_NUM', 1))) > 1:
        raise UsageError(
            'train.views: training on features is work for one process; leave --nproc out, or set train.views=0'
        )
    alone = processes.launched() or args.find_lr or args.plot_schedule or cfg.train.views
    number = 1 if alone else args.nproc or suited_processes(cfg)
    if number > 1:
        return launch(cfg, number)
    if args.plot_schedule or args.find_lr:
        train_loader, valid_loader = loaders(cfg)
        if args.plot_schedule:
            return plot_schedule(cfg, len(train_loader))
        keep_pictures(cfg, train_loader, valid_loader)
        return find_lr(cfg, train_loader)
    told_by_parent = processes.launched() and args.nproc
    train(cfg, args.resume, args.accept_changes, tell=device.rank() == 0 and not told_by_parent)


def launch(cfg, number):
    """Train in `number` processes on this machine; returns the exit status."""
    logs = f'{cfg.run_dir}.processes'
    with locks.held(
        cfg.run_dir, 'trained'
    ):  # before the logs of a run are overwritten; its first process takes it anew
        pass
    with locks.held(logs, 'written'):
        status = processes.launch([*sys.argv, '--nproc', str(number)], number, logs)
    if status == 0:
        tell_results(cfg)
    return status


def suited_processes(cfg):
    """Number of processes to train with where the user names none: each gets two training images at least, which BatchNorm needs,
    and one validation image."""
    from zodiac.data import index  # which loads NumPy: --help starts without it

    number = processes.suited(cfg.device, cfg.train.batch_size)
    if number > 1:
        paths = (index.read(f'{cfg.data.root}/{split}.txt', len(cfg.data.labels))[0] for split in ('train', 'valid'))
        training, validation = map(len, paths)
        number = max(1, min(number, training // 2, validation))
    return number


def train(cfg, must_resume=False, accept_changes=False, tell=True):
    """Do what this script does, in this one process, with the settings of a `config.Config`. Raises UserError."""
    with locks.held(cfg.run_dir, 'trained') if device.rank() == 0 else contextlib.nullcontext():
        train_loader, valid_loader = loaders(cfg)
        keep_pictures(cfg, train_loader, valid_loader)
        fit(cfg, train_loader, valid_loader, must_resume, accept_changes)
    if tell:
        tell_results(cfg)


def loaders(cfg):
    """The loaders of training and validation images, when the device and the settings have been found to go together."""
    from dataset import Loader, ZodiacDataset
    from zodiac.base.paddle_setup import paddle  # which takes seconds to import

    place = device.choose(cfg.device)
    if cfg.train.amp != 'O0' and place == 'cpu':
        raise UserError(f'train.amp = {cfg.train.amp}: mixed precision brings nothing on the CPU; set train.amp=O0')
    if cfg.train.sync_batch_norm and place == 'cpu':
        raise UserError('train.sync_batch_norm = true: Paddle has it for GPUs only; set train.sync_batch_norm=false')
    paddle.seed(cfg.seed)

    train_set = ZodiacDataset('train', cfg=cfg)
    valid_set = ZodiacDataset('valid', cfg=cfg)
    require_every_class(train_set, cfg.data.labels)
    if processes.count() > min(cfg.train.batch_size, len(train_set), len(valid_set)):
        raise UsageError(
            f'--nproc {processes.count()}: {cfg.train.batch_size} images a batch (train.batch_size), {len(train_set)} training and '
            f'{len(valid_set)} validation images do not give each process one; start fewer'
        )
    balanced = cfg.train.sampling == 'balanced'
    workers = 0 if cfg.train.views else None  # features are there, there is nothing to decode
    mixer = build_mixer(cfg)
    train_loader = Loader(train_set, cfg.train.batch_size, cfg, True, mixer, balanced, workers, cfg.train.accumulate)
    note(
        f'{len(train_set)} training and {len(valid_set)} validation images, {len(cfg.data.labels)} classes, '
        f'on {place}, {train_loader.num_workers} loader processes'
    )
    return train_loader, Loader(valid_set, cfg.train.batch_size, cfg, workers=workers)


def keep_pictures(cfg, *loaders):
    """Let the loaders read from the cache of decoded pictures, where data.cache asks for it."""
    if cfg.data.cache:
        for loader in loaders:
            loader.images.keep_pictures(cfg, note)


def note(text):
    """Say something about the progress; of several processes, the first one speaks."""
    if device.rank() == 0:
        print(text, file=sys.stderr)


def build_network(cfg, train_set):
    """The network with its initial weights, on Paddle's current device, and the names of its frozen parameters."""
    import paddle

    from zodiac.base import preprocessing, provenance
    from zodiac.models import builder, freezing, pretrained
    from zodiac.training import checkpoint

    network = builder.build(
        cfg.model.arch, len(cfg.data.labels), cfg.image.size, cfg.model.head, cfg.model.zero_init_residual
    )
    source, facts = cfg.model.pretrained, {}
    if isinstance(source, str):
        source, facts = checkpoint.locate(source)
    if source:
        note(pretrained.load_pretrained(network, cfg.model.arch, source, provenance.labels(facts), cfg.data.labels))
        for text in preprocessing.differences(cfg.image, cfg.model.arch, (facts.get('identity') or {}).get('image')):
            note(f'warning: {text}: expect a lower accuracy')
    else:
        note(f'{cfg.model.arch} starts from scratch (model.pretrained=false)')
        if hasattr(network, 'learn_from'):
            network.learn_from(paddle.to_tensor(some_images(train_set, 1000)))
    frozen = freezing.freeze(network, cfg.model.freeze)
    if cfg.train.sync_batch_norm and processes.count() > 1:
        freezing.sync_batch_norm(network)
    return network, frozen


def build_trainer(cfg, train_set, steps):
    """A prepared `Trainer` (network, loss, optimizer with its schedule over `steps` an epoch), and the names of its frozen
    parameters."""
    from zodiac.training import optim, soft_labels
    from zodiac.training.trainer import Trainer

    network, frozen = build_network(cfg, train_set)
    rate = optim.schedule(cfg.optim, steps, cfg.train.epochs)
    trainer = Trainer(network, cfg.train.amp, cfg.train.amp_dtype)
    trainer.prepare(
        optim.optimizer(cfg.optim, rate, network, frozen),
        soft_labels.Loss(class_weights(cfg, train_set.labels)),
    )
    return trainer, frozen


def require_images_for_batch_norm(cfg, network, loader):
    """Raise UsageError where BatchNorm would learn from one image at a time."""
    from paddle import nn

    from zodiac.models import freezing

    norms = freezing.batch_norms(network, frozen=bool(cfg.model.unfreeze_epoch))
    number = 1 if all(isinstance(layer, nn.SyncBatchNorm) for layer in norms) else processes.count()
    if norms and loader.batch_sampler.smallest() < 2 * number:
        images = len(loader.images)
        remedies = ['add images' if images < 2 * number else f'set train.batch_size to {2 * number} or more']
        remedies += ['start fewer processes (--nproc 1)'] * (number > 1)
        remedies += ['set model.freeze=backbone, which leaves its statistics as they are'] * (
            cfg.model.freeze == 'none'
        )
        raise UsageError(
            f'train.batch_size = {cfg.train.batch_size}: BatchNorm would see a single image at a time, and cannot learn its mean and '
            f'variance from one ({images} training images, processes: {processes.count()}); {", or ".join(remedies)}'
        )


def build_mixer(cfg):
    """What is done to training batches, or None where labels stay class numbers."""
    from zodiac.training import soft_labels

    settings = cfg.train
    for name in ('mixup', 'cutmix'):
        if getattr(settings, name) and settings.batch_size < 2:
            raise UsageError(f'train.{name}: mixes pairs of images; set train.batch_size to 2 or more')
    soft = settings.label_smoothing or settings.mixup or settings.cutmix
    if not soft:
        return None
    return soft_labels.Mixer(len(cfg.data.labels), settings.label_smoothing, settings.mixup, settings.cutmix)


def class_weights(cfg, labels):
    """float [classes], n / (classes * images of the class), or None where the loss counts all images alike."""
    import numpy as np

    if cfg.train.class_weights == 'none':
        return None
    return len(labels) / (len(cfg.data.labels) * np.bincount(labels, minlength=len(cfg.data.labels)))


def fit(cfg, train_loader, valid_loader, must_resume=False, accept_changes=False):
    """Train, and keep everything that is worth keeping in output/<name>/."""
    import paddle

    from zodiac.models import freezing, weights
    from zodiac.training import callbacks, checkpoint, resume, run_log

    trainer, frozen = build_trainer(cfg, train_loader.images, len(train_loader))
    require_images_for_batch_norm(cfg, trainer.network, train_loader)
    writes = device.rank() == 0
    total, learning = freezing.count_parameters(trainer.network)
    note(f"{cfg.model.arch}: {total:,} parameters, BatchNorm's statistics among them; {learning:,} learn")
    run_dir = cfg.run_dir if writes else None
    every = cfg.train.read_steps
    if every == 'auto':
        every = 1 if paddle.device.get_device() == 'cpu' else 10
    clock = callbacks.Clock(train_loader, cfg.train.epochs, every)
    log = run_log.RunLog(run_dir, clock, sample_images(train_loader.images))
    best = run_log.Best(log, cfg.train.monitor, cfg.train.patience)
    ema = callbacks.Ema(clock, cfg.train.ema) if cfg.train.ema else None
    origin = resume.facts(cfg, train_loader.images, valid_loader.images)

    folder = None
    if must_resume or cfg.train.resume == 'auto':
        folder, state = checkpoint.latest(cfg.run_dir, note)
        if must_resume and not folder:
            raise UserError(
                f'{cfg.run_dir}: has no checkpoint to go on from; leave --resume out to start a run; see '
                'docs/troubleshooting.md#resume'
            )
    if folder:
        for place in (cfg.run_dir, f'{cfg.run_dir}/checkpoints') if writes else ():
            files.clear_leftovers(place)
        resume.refuse_changes(folder, state, origin, cfg.run_dir, accept_changes)
        resume.restore_best(cfg.run_dir, state, origin, best, note, accept_changes)
        resume.go_on(cfg, folder, state, origin, trainer, clock, log, ema)
        for change in resume.changed_settings(state, origin):
            note(f'changed since: {change}')
        note(f'going on from {folder}: epoch {clock.epoch + 1}, step {clock.step}')
    for warning in comes_too_late(cfg):
        note(f'warning: {warning}')
    if cfg.train.views:
        use_features(cfg, trainer.network, train_loader.images, valid_loader.images)
    if writes and not folder:
        start_run(cfg)

    # The schedule and the average move first, so that a checkpoint taken after a step holds what belongs to the next one.
    watchers = [clock, callbacks.Processes(), paddle.callbacks.LRScheduler()]
    watchers += [*([ema] if ema else []), log, best]
    if cfg.model.unfreeze_epoch:
        watchers.append(callbacks.Unfreeze(clock, cfg.model.unfreeze_epoch, frozen))
    keeper = callbacks.Checkpoints(run_dir, clock, cfg.train, origin, log, best, ema)
    interrupts = callbacks.Interrupts(clock)
    watchers += [*([callbacks.Progress(clock, log)] if writes else []), keeper, interrupts]
    validation = callbacks.Validation(valid_loader, watchers)
    with interrupts:
        try:
            if best.exhausted:
                note(f'nothing to train: {best.exhausted}; raise train.patience, or set it to 0, to go on')
            elif clock.epoch >= cfg.train.epochs:
                note(
                    f'nothing to train: train.epochs = {cfg.train.epochs}, and {clock.epoch} are done; raise it to go on'
                )
            else:
                trainer.fit(
                    train_loader,
                    epochs=cfg.train.epochs - clock.epoch,
                    verbose=0,
                    callbacks=[*watchers, validation],
                )
        except Stopped:
            folder = keeper.save_within_epoch()
            note(
                f'stopped in epoch {clock.epoch + 1}; the weights of step {clock.step} are in {folder}; '
                'the same command with --resume goes on'
            )
            raise
    if writes:
        weights_to_use = ema.average if ema and ema.average else trainer.network.state_dict()
        told = checkpoint.told({**origin, 'epoch': clock.epoch})
        parts = ('.pdparams', weights_to_use, told), ('.pdopt', trainer._optimizer.state_dict(), None)
        for suffix, values, facts in parts:
            with files.atomic_write(cfg.run_dir + suffix, binary=True) as file:
                file.write(weights.dump(values, facts))


def use_features(cfg, network, train_set, valid_set=None):
    """From now on the items of the datasets are features of the backbone, and the network takes these: its forward is the head."""
    from dataset import Loader
    from zodiac.training import features

    backbone = features.Backbone(network)
    for images, views in ((valid_set, 1), (train_set, min(cfg.train.views, cfg.train.epochs))):
        if images:
            images.order = None  # until the next epoch begins: features are by the number of the image
            reader, limit = Loader(images, features.BATCH, cfg), int(cfg.data.cache_gb * 10**9)
            images.features = features.keep(backbone, images, views, reader, cfg.cache_dir, limit, note)
    network.forward = backbone.rest.forward


def plot_schedule(cfg, steps):
    """Draw the learning rate of every step of the run beside its folder."""
    from zodiac.report import plots
    from zodiac.training import optim

    for warning in comes_too_late(cfg):
        note(f'warning: {warning}')
    path = f'{cfg.run_dir}.schedule.png'
    rates = optim.rates(cfg.optim, steps, cfg.train.epochs)
    title = f'{cfg.name}: optim.schedule = {cfg.optim.schedule}, {steps} steps an epoch'
    plots.plot_rates(path, rates, steps, title)
    print(
        f'learning rate {rates[0]:.3g} at the first step, {max(rates):.3g} at its highest, {rates[-1]:.3g} at the last'
    )
    print(f'written: {path}')


def comes_too_late(cfg):
    """List of texts for the user: settings whose time comes after the end of the run."""
    rate, epochs, late = cfg.optim, cfg.train.epochs, {}
    if rate.warmup_epochs >= epochs:
        late['optim.warmup_epochs'] = f'the rate never reaches optim.lr = {rate.lr:g}'
    elif rate.schedule == 'step' and rate.warmup_epochs + rate.step_epochs >= epochs:
        late['optim.step_epochs'] = 'the rate never falls'
    if cfg.model.unfreeze_epoch > epochs:
        late['model.unfreeze_epoch'] = 'what is frozen never learns'
    return [
        f'{key} = {schema.get(cfg, key):g} with train.epochs = {epochs}: {effect}; lower the one or raise the other'
        for key, effect in late.items()
    ]


def find_lr(cfg, loader):
    """Try learning rates on some steps, draw the loss over them beside the run's folder, and propose one."""
    from zodiac.report import plots
    from zodiac.training import lr_finder

    cfg.optim.schedule, cfg.optim.warmup_epochs = 'constant', 0.0
    trainer, _ = build_trainer(cfg, loader.images, len(loader))
    require_images_for_batch_norm(cfg, trainer.network, loader)
    if cfg.train.views:
        use_features(cfg, trainer.network, loader.images)
    loader.set_epoch(0)
    rates, losses = lr_finder.sweep(trainer, loader)
    if device.rank() > 0:
        return
    proposal = lr_finder.propose(rates, losses)
    path = f'{cfg.run_dir}.lr_finder.png'
    plots.plot_lr_finder(path, rates, losses, proposal)
    print(f'written: {path}')
    if proposal is None:
        raise UserError(
            f'{path}: no learning rate made the loss fall; check the images and labels, or the other settings of optim'
        )
    print(f'proposed: -o optim.lr={proposal:.2g}, where the loss falls fastest (now {cfg.optim.lr:g})')


def tell_results(cfg):
    """Print the best epoch, and where everything is."""
    from zodiac.training import checkpoint

    row = checkpoint.verify(f'{cfg.run_dir}/best')
    chosen = '' if cfg.train.monitor == 'valid_top1' else f' (by {cfg.train.monitor} {row[cfg.train.monitor]:.4f})'
    print(f'best epoch {row["epoch"]}{chosen}: validation top-1 {row["valid_top1"]:.4f} in {cfg.run_dir}/best')
    print(f'last weights: {cfg.run_dir}.pdparams')
    print(
        f'curves: {cfg.run_dir}/log.csv, or visualdl --logdir {shlex.quote(cfg.run_dir)}/visualdl --host 127.0.0.1 '
        '--disable-telemetry'
    )


def require_every_class(train_set, labels):
    """Raise UserError when a class has no training image: its score could never mean anything."""
    missing = [label for number, label in enumerate(labels) if number not in train_set.labels]
    if missing:
        raise UserError(
            f'class {", ".join(missing)} has no images in the training index; add some and run annotate.py, '
            'or leave the class out of data.labels; see docs/troubleshooting.md#class-order'
        )


def some_images(train_set, count):
    """float32 [count, 3, size, size]: training images as the network sees them, spread over the index."""
    import numpy as np

    train_set.epoch = 0
    return np.stack([train_set[index][0] for index in train_set.spread(count)])


def sample_images(train_set):
    """uint8 [8, size, size, 3]: some training images to look at."""
    import numpy as np

    from zodiac.images import transforms

    last = train_set.transform[-1]
    return np.stack([transforms.denormalize(image, last['mean'], last['std']) for image in some_images(train_set, 8)])


def start_run(cfg):
    """Make output/<name>/ with the resolved configuration. Earlier runs of that name are kept: <name>.previous, <name>.previous-2, ..."""
    try:
        if os.path.isdir(cfg.run_dir):
            keep_previous(cfg.run_dir)
        os.makedirs(cfg.run_dir)
    except OSError as error:
        raise files.cannot_write(cfg.run_dir, error) from None
    with files.atomic_write(f'{cfg.run_dir}/config.yaml') as file:
        file.write(cfg.to_yaml())


def keep_previous(run_dir):
    """Rename the folder of a run, and tell how to remove the ones that have gathered."""
    kept = {}  # number: folder
    for folder in glob.glob(f'{glob.escape(run_dir)}.previous*'):
        named = re.fullmatch(r'\.previous(?:-(\d+))?', folder[len(run_dir) :])
        if named and os.path.isdir(folder):
            kept[int(named[1] or 1)] = folder
    number = max(kept, default=0) + 1
    previous = f'{run_dir}.previous' + (f'-{number}' if number > 1 else '')
    os.replace(run_dir, previous)
    note(f'the run that was in {run_dir} is now {previous}')
    if kept:
        older = ' '.join(shlex.quote(kept[number]) for number in sorted(kept))
        note(f'{len(kept)} older run(s) of this name take space too; to remove them: rm -r {older}')


if __name__ == '__main__':
    run(main)
