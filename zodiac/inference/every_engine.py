"""Run photos through each engine that an export was compared in."""

import numpy as np
from tqdm import tqdm

from zodiac.base import packages
from zodiac.base.errors import UserError
from zodiac.inference import engines, exported_model, image_batches

BATCH = 32


def outputs(folder, manifest, paths):
    """What each engine gives in fp32, on the CPU; each photo is read once.

    Returns: (models, found, problems): {engine: ExportedModel}; {engine: {name of an output: float32 [n, ...]}}; {engine: why there is
        nothing of it}.
    Raises: UserError for a photo that cannot be read.
    """
    models, problems = {}, {}
    for name in [name for name in engines.ENGINES if name in manifest.get('parity', {})]:
        if not packages.is_there(name):
            problems[name] = f'{name} is not installed'
            continue
        try:
            models[name] = exported_model.load(folder, 'cpu', name, 'fp32', checked=False)
        except UserError as error:
            problems[name] = str(error)
    parts = {name: [] for name in models}
    batches = image_batches.read_indexed(paths, manifest['transform'], BATCH) if models else ()
    with tqdm(total=len(paths), desc='verifying', unit='image', leave=False, disable=None) as bar:
        for batch in batches:
            for name in [*parts]:
                try:
                    parts[name].append(models[name].outputs(batch))
                except UserError as error:
                    problems[name] = str(error)
                    del parts[name]
            bar.update(len(batch))
    found = {name: {key: np.concatenate([one[key] for one in each]) for key in each[0]} for name, each in parts.items()}
    return models, found, problems
