"""Train a network on the images listed in data.root; everything is written to output/<name>/.

    python train.py                                                       # configs/zodiac.yaml
    python train.py photos                                                # configs/photos.yaml with the photos in photos/
    python train.py -c configs/demo.yaml -o train.epochs=5 device=cpu
    visualdl --logdir output/zodiac/visualdl --host 127.0.0.1 --disable-telemetry     # watch the curves

Several processes can share each batch. On a CPU the default is one per core, as long as each gets 16 images of a batch; several GPUs
need --nproc, several machines Paddle's launcher:

    python train.py --nproc 4
    python -m paddle.distributed.launch --ips ADDRESS,ADDRESS train.py -c configs/demo.yaml

To choose a learning rate before a run:

    python train.py --find-lr             # learning-rate range test: plots the loss over the rate, and proposes a rate
    python train.py --plot-schedule       # plots the learning rate over the steps of the run

Ctrl-C or SIGTERM stops after the current step with a checkpoint and exit status 130 or 143; the same command with --resume resumes
the run.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'paddle numpy PIL yaml scipy sklearn threadpoolctl matplotlib tqdm visualdl')

import os
import shlex
import sys

import config
from zodiac.base import calls, class_names, device, files, locks, runs
from zodiac.base.errors import Stopped, UsageError, UserError, run
from zodiac.training import processes


def main():
    args, cfg = parse()
    number = processes_to_launch(args, cfg)
    if number > 1:
        return launch(cfg, number)
    if args.plot_schedule:
        return plot_schedule(cfg)
    if args.find_lr:
        return find_lr(cfg)
    shown_by_parent = processes.launched() and args.nproc
    shows = device.rank() == 0 and not shown_by_parent
    train(cfg, args.resume, args.accept_changes, show=shows)
    if shows:
        show_next(cfg)


def parse():
    """The parsed command line and the `Config`, which is now the active one."""
    parser = config.parser(__doc__, takes='photos')
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument('--find-lr', action='store_true', help='propose a learning rate instead of training')
    instead.add_argument('--plot-schedule', action='store_true', help='plot the learning rate instead of training')
    parser.add_argument('--resume', action='store_true', help='resume the stopped run of this name')
    parser.add_argument(
        '--accept-changes',
        action='store_true',
        help='resume although the classes, the network, the images or train.monitor have changed',
    )
    parser.add_argument(
        '--nproc', type=int, metavar='N', help='number of processes on this machine (default: chosen for the machine)'
    )
    args = parser.parse_args()
    cfg = class_names.resolve(config.from_arguments(args))
    if args.nproc is not None and args.nproc < 1:
        raise UsageError(f'--nproc {args.nproc}: must be 1 or more')
    if cfg.train.head == 'linear' and (args.find_lr or args.plot_schedule):
        raise UsageError('train.head = linear: solves the head without a learning rate; set train.head=sgd')
    if cfg.train.on_features and max(args.nproc or 1, int(os.environ.get('PADDLE_TRAINERS_NUM', 1))) > 1:
        raise UsageError(
            'train.views, train.head=linear: training on features needs a single process; leave --nproc out, or set train.views=0 and '
            'train.head=sgd'
        )
    return args, cfg


def processes_to_launch(args, cfg):
    """Number of processes to train with; 1 for this one."""
    if processes.launched() or args.find_lr or args.plot_schedule or cfg.train.on_features:
        return 1
    root = cfg.data.root
    return args.nproc or processes.suited(cfg.device, cfg.train.batch_size, f'{root}/train.txt', f'{root}/valid.txt')


def launch(cfg, number):
    """Train in `number` processes on this machine; returns the exit status."""
    logs = f'{cfg.run_dir}.processes'
    with locks.held(cfg.run_dir, 'trained'):
        pass  # a check before the logs are overwritten; the first process takes the lock again
    with locks.held(logs, 'written'):
        status = processes.launch([*sys.argv, '--nproc', str(number)], number, logs)
    if status == 0:
        show_results(cfg)
        show_next(cfg)
    return status


def show_results(cfg):
    """Print the best epoch, and the paths of weights and curves."""
    row = files.read_json(f'{cfg.run_dir}/best/state.json')
    if row is None:
        raise UserError(f'{cfg.run_dir}/best: no complete checkpoint; train again')
    chosen = '' if cfg.train.monitor == 'valid_top1' else f' (by {cfg.train.monitor} {row[cfg.train.monitor]:.4f})'
    print(f'best epoch {row["epoch"]}{chosen}: validation top-1 {row["valid_top1"]:.4f} in {cfg.run_dir}/best')
    print(f'last weights: {cfg.run_dir}.pdparams')
    print(
        f'curves: {cfg.run_dir}/log.csv, or visualdl --logdir {shlex.quote(cfg.run_dir)}/visualdl --host 127.0.0.1 '
        '--disable-telemetry'
    )


def show_next(cfg):
    """Print the command that evaluates the run."""
    print(f'next: {calls.command("evaluate", runs.shortest(cfg.run_dir))}')


def ends_without_paddle():
    """Whether this process only reports a wrong setting, or launches others; --help and wrong usage end it here."""
    try:
        return processes_to_launch(*parse()) > 1
    except UsageError:
        return True


if __name__ == '__main__' and ends_without_paddle():
    run(main)

import contextlib

from dataset import Loader, ZodiacDataset
from zodiac.base import preprocessing, provenance
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, freezing, pretrained
from zodiac.report import plots
from zodiac.training import (
    callbacks,
    checkpoint,
    checks,
    collectives,
    features,
    lr_finder,
    optim,
    resume,
    run_folder,
    run_log,
    sample_images,
    soft_labels,
    solved_run,
)
from zodiac.training.progress import note
from zodiac.training.trainer import Trainer


def train(cfg, must_resume=False, accept_changes=False, show=True):
    """Train in this process, with the settings of a `config.Config`.

    Args:
        must_resume: raise UserError where there is no checkpoint to resume from.
        accept_changes: resume although the classes, the network, the images or train.monitor have changed.
        show: print the results.
    Raises: UserError; Stopped on a signal, after saving a checkpoint.
    """
    cfg = class_names.resolve(cfg)
    with locks.held(cfg.run_dir, 'trained') if device.rank() == 0 else contextlib.nullcontext():
        parts = [cfg]
        if cfg.train.head == 'linear':
            parts = solved_run.parts(cfg, len(ZodiacDataset('train', cfg=cfg)), device.choose(cfg.device), note)
        for how in parts:
            train_part(cfg, how, must_resume or how is not parts[0], accept_changes, last=how is parts[-1])
    if show:
        show_results(cfg)


def train_part(cfg, how, must_resume, accept_changes, last):
    """Train up to epoch `how.train.epochs` with the settings `how`, those of the whole run being `cfg`; nothing is done where a run that is
    resumed has got there, unless it is the last part."""
    train_loader, valid_loader = build_loaders(how)
    origin = resume.facts(cfg, train_loader.images, valid_loader.images)
    found = None, {}
    if must_resume or cfg.train.resume == 'auto':
        found = resume.find(cfg.run_dir, origin, must_resume, accept_changes, note)
    if found[0] and found[1]['epoch'] >= how.train.epochs and not last:
        return
    network, frozen = build_network(how, train_loader.images, resumed=bool(found[0]))
    checks.check_batch_norm(how, network, train_loader)
    rate = optim.schedule(how.optim, len(train_loader), how.train.epochs)
    trainer = build_trainer(how, network, frozen, rate, train_loader.images.labels)
    fit(how, trainer, frozen, train_loader, valid_loader, origin, found, accept_changes, cfg.to_yaml())


def build_loaders(cfg, cached=True):
    """The loaders of training and validation images; chooses the device, seeds Paddle and checks the settings.

    Args:
        cached: read from the cache of decoded pictures, if data.cache is set.
    """
    place = device.choose(cfg.device)
    checks.check_device(cfg.train, place)
    paddle.seed(cfg.seed)
    solved, on_features = cfg.train.head == 'linear', cfg.train.on_features
    train_set = ZodiacDataset('train', augment=not solved, cfg=cfg)
    valid_set = ZodiacDataset('valid', cfg=cfg)
    checks.check_images(cfg, train_set, valid_set)
    train_loader = Loader(
        train_set,
        cfg.train.batch_size,
        cfg,
        shuffle=True,
        mixer=soft_labels.build_mixer(cfg.train, len(cfg.data.labels)),
        balanced=cfg.train.sampling == 'balanced',
        workers=0 if on_features else None,  # features need no decoding
        accumulate=cfg.train.accumulate,
    )
    valid_loader = Loader(valid_set, cfg.train.batch_size, cfg, workers=0 if on_features else None)
    note(
        f'training images: {len(train_set)}, validation images: {len(valid_set)}, classes: {len(cfg.data.labels)}, device: {place}, '
        f'loader processes: {train_loader.num_workers}'
    )
    for images in (train_set, valid_set) if cached and cfg.data.cache and not solved else ():
        images.keep_pictures(cfg, note)
    return train_loader, valid_loader


def build_network(cfg, train_set, resumed=False):
    """The network on Paddle's current device, and the names of its frozen parameters.

    Args:
        resumed: leave the initial weights random: those of a checkpoint will replace them.
    """
    network = builder.build(
        cfg.model.arch, len(cfg.data.labels), cfg.image.size, cfg.model.head, cfg.model.zero_init_residual
    )
    source, facts = cfg.model.pretrained, {}
    if source and not resumed:
        if isinstance(source, str):
            source, facts = checkpoint.locate(source)
        note(pretrained.load_pretrained(network, cfg.model.arch, source, provenance.labels(facts), cfg.data.labels))
        for text in preprocessing.differences(cfg.image, cfg.model.arch, (facts.get('identity') or {}).get('image')):
            note(f'warning: {text}: expect a lower accuracy')
    elif not resumed:
        note(f'{cfg.model.arch} is trained from scratch (model.pretrained=false)')
        if hasattr(network, 'learn_from'):
            network.learn_from(paddle.to_tensor(sample_images.inputs(train_set, 1000)))
    frozen = freezing.freeze(network, cfg.model.freeze, cfg.train.batch_norm == 'keep')
    if cfg.train.sync_batch_norm and collectives.count() > 1:
        freezing.sync_batch_norm(network)
    total, learning = freezing.count_parameters(network)
    note(f'{cfg.model.arch}: {total:,} parameters with the statistics of BatchNorm, {learning:,} of them trainable')
    return network, frozen


def build_trainer(cfg, network, frozen, rate, labels):
    """A prepared `Trainer`.

    Args:
        frozen: names of the frozen parameters.
        rate: learning rate, see `optim.schedule`.
        labels: int [n], of the training images, for class weights.
    """
    weights = None
    if cfg.train.class_weights == 'balanced':
        weights = soft_labels.balanced_weights(labels, len(cfg.data.labels))
    trainer = Trainer(network, cfg.train.amp, cfg.train.amp_dtype)
    trainer.prepare(optim.optimizer(cfg.optim, rate, network, frozen), soft_labels.Loss(weights))
    return trainer


def fit(cfg, trainer, frozen, train_loader, valid_loader, origin, found, accept_changes, settings):
    """Train, from the checkpoint `found` if there is one, and write the run's folder, with the text `settings` as config.yaml; see
    `resume.facts` and `resume.find`."""
    run_dir = cfg.run_dir if device.rank() == 0 else None  # only the first process writes
    resumed = bool(found[0])
    every = cfg.train.read_steps
    if every == 'auto':
        every = 1 if paddle.device.get_device() == 'cpu' else 10
    clock = callbacks.Clock(train_loader, cfg.train.epochs, every)
    samples = sample_images.pictures(train_loader.images, 8) if run_dir and not resumed else ()
    log = run_log.RunLog(run_dir, clock, samples)
    unfreezing = freezing.unfreezing(trainer.network, frozen, cfg.model.unfreeze_epoch, cfg.model.unfreeze_every)
    all_learn = max((epoch for epoch in unfreezing if epoch <= cfg.train.epochs), default=1)
    best = run_log.Best(log, cfg.train.monitor, cfg.train.patience, waits_for=all_learn)
    ema = callbacks.Ema(clock, cfg.train.ema) if cfg.train.ema else None
    if resumed:
        resume.restore(cfg, found, origin, trainer, clock, log, best, ema, accept_changes, note)
    for warning in checks.unreached(cfg, unfreezing):
        note(f'warning: {warning}')
    if cfg.train.on_features:
        use_features(cfg, trainer, train_loader.images, valid_loader.images, solve=not resumed)
    if run_dir and not resumed:
        run_folder.create(run_dir, settings, note)

    # Schedule and average come first: a checkpoint after a step then holds their values for the next one.
    watchers = [clock, callbacks.BatchNormAverage(), paddle.callbacks.LRScheduler(), *([ema] if ema else []), log, best]
    if unfreezing:
        watchers.append(callbacks.Unfreeze(clock, unfreezing, cfg.train.batch_norm == 'keep'))
    if run_dir:
        watchers.append(callbacks.ProgressBar(clock, log))
        watchers.append(callbacks.Forecast(clock, all_learn))
    checkpoints = callbacks.Checkpoints(run_dir, clock, cfg.train, origin, log, best, ema)
    interrupts = callbacks.Interrupts(clock)
    watchers += [checkpoints, interrupts]
    validation = callbacks.Validation(valid_loader, watchers)
    with interrupts:
        try:
            if best.exhausted:
                note(f'nothing to train: {best.exhausted}; to train more, raise train.patience or set it to 0')
            elif clock.epoch >= cfg.train.epochs and cfg.train.head == 'linear':
                note('nothing to do: the head is solved; leave --resume out to solve it again')
            elif clock.epoch >= cfg.train.epochs:
                note(
                    f'nothing to train: {clock.epoch} of train.epochs = {cfg.train.epochs} are done; raise it to train more'
                )
            else:
                epochs = cfg.train.epochs - clock.epoch
                trainer.fit(train_loader, epochs=epochs, verbose=0, callbacks=[*watchers, validation])
        except Stopped:
            folder = checkpoints.save_within_epoch()
            note(
                f'stopped in epoch {clock.epoch + 1}; the weights of step {clock.step} are in {folder}; '
                'the same command with --resume resumes the run'
            )
            raise
    if run_dir:
        weights = ema.average if ema and ema.average else trainer.network.state_dict()
        checkpoint.save_last(run_dir, weights, trainer.optimizer.state_dict(), {**origin, 'epoch': clock.epoch})


def use_features(cfg, trainer, train_set, valid_set=None, solve=True):
    """Compute the features of a frozen backbone, and train only the head, on them.

    Args:
        solve: with train.head=linear, set the weights of the head to the solution.
    """
    extractor = features.Extractor(cfg, trainer.network, Loader, note)
    rest, linear = extractor.backbone.rest, cfg.train.head == 'linear'
    layer = solved_run.layer_of(rest) if linear else rest  # the layer: without dropout
    for images in filter(None, (valid_set, train_set)):
        keys = extractor.keys(images.paths)
        views = min(cfg.train.views, cfg.train.epochs) if images.augment else 1
        images.use_features(extractor.features(images, keys, views))
    trainer.train_on_features(layer)
    if linear and solve:
        found = solved_run.views(cfg, extractor, train_set, ZodiacDataset('train', cfg=cfg), keys)
        solved_run.solve(cfg, layer, found, train_set, keys, note)
    extractor.say_total()


def plot_schedule(cfg):
    """Plot the learning rate of each step of the run to output/<name>.schedule.png."""
    steps = len(build_loaders(cfg, cached=False)[0])
    for warning in checks.unreached(cfg):
        note(f'warning: {warning}')
    path = f'{cfg.run_dir}.schedule.png'
    rates = optim.rates(cfg.optim, steps, cfg.train.epochs)
    title = f'{cfg.name}: optim.schedule = {cfg.optim.schedule}, {steps} steps per epoch'
    plots.plot_rates(path, rates, steps, title)
    print(f'learning rate: first step {rates[0]:.3g}, highest {max(rates):.3g}, last step {rates[-1]:.3g}')
    print(f'written: {path}')


def find_lr(cfg):
    """Run a learning-rate range test, plot it to output/<name>.lr_finder.png, and print the proposed rate."""
    train_loader, _ = build_loaders(cfg)
    network, frozen = build_network(cfg, train_loader.images)
    checks.check_batch_norm(cfg, network, train_loader)
    trainer = build_trainer(cfg, network, frozen, cfg.optim.lr, train_loader.images.labels)
    if cfg.train.on_features:
        use_features(cfg, trainer, train_loader.images)
    train_loader.set_epoch(0)
    rates, losses = lr_finder.sweep(trainer, train_loader)
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


if __name__ == '__main__':
    run(main)
