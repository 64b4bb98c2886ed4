"""What export.py writes to infer/web/: a page that classifies photos in the browser, for any static server.

index.html                  the page, with its look, texts and script
worker.js                   the model: loads it, prepares a photo, answers
preprocess.js, judge.js     zodiac/images/transforms.py, and zodiac/inference/{unknown,label_sets}.py in JavaScript
offline.js                  keeps all files in the browser
model.json, model.onnx      labels, transform, shapes; the network, in int8 if the export has it
unknown.bin                 with reject.keep: the arrays of <name>.unknown.npz, float32, one after another
check.bin                   a picture on which a graphics card is checked, uint8
runtime/                    onnxruntime-web
"""

import hashlib
import json
import os
import shutil

import numpy as np

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.images import transforms
from zodiac.inference import engines, reference, unknown
from zodiac.pages import render

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE, OFFLINE = 'index.html', 'offline.js'
SCRIPTS = ('worker.js', 'preprocess.js', 'judge.js')
ARRAYS = ('mean', 'basis', 'photos', 'directions', 'gains', 'centers')  # of unknown.Reference
STEPS = ('center_crop', 'resize', 'pad')  # that preprocess.js has
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' {script}; style-src {style}; img-src blob: data:; connect-src 'self'; \
worker-src 'self'; base-uri 'none'; form-action 'none'"
)


def write(folder, manifest, runtime):
    """Write the page of an export.

    Args:
        folder: to write to, infer/web of an export whose other files are complete.
        manifest: of that export.
        runtime: {name: bytes}, from `runtime.read`.
    Returns: {path in `folder`, with slashes: SHA-256}.
    Raises: UserError if the transform of the export has a step that the page does not know.
    """
    transform = [step for step in manifest['transform'] if step != transforms.REDUCED]
    if transform[0]['op'] not in STEPS:
        raise UserError(
            f'export.web=true: the page cannot run the step {transform[0]["op"]} of the transform; set export.web=false'
        )
    os.makedirs(os.path.join(folder, 'runtime'))
    infer, integers = os.path.dirname(folder), engines.onnx_name(manifest, 'int8')
    quantized = integers in manifest['sha256']
    model = integers if quantized else engines.onnx_name(manifest)
    shutil.copyfile(os.path.join(infer, model), os.path.join(folder, 'model.onnx'))
    about = {
        'name': manifest['name'],
        'labels': [str(label) for label in manifest['labels']],
        'transform': transform,
        'input': manifest['input'],
        'bytes': os.path.getsize(os.path.join(folder, 'model.onnx')),
        'precision': 'int8' if quantized else 'fp32',
    }
    with_gpu = 'ort-gpu.js' in runtime and not quantized
    if with_gpu:
        about['gpu'] = _check(folder, infer, manifest)
    rejects = unknown.file_name(manifest) in manifest['sha256']
    if rejects:
        about['unknown'] = _unknown(folder, infer, manifest)
    for name, content in runtime.items():
        if with_gpu or 'gpu' not in name:
            _write(os.path.join(folder, 'runtime', name), content)
    _write(os.path.join(folder, 'model.json'), json.dumps(about, ensure_ascii=False).encode())
    for name in SCRIPTS:
        shutil.copyfile(os.path.join(HERE, name), os.path.join(folder, name))
    _write(os.path.join(folder, PAGE), _page(manifest, rejects).encode())
    digests = _digests(folder)
    _write(os.path.join(folder, OFFLINE), _offline(digests).encode())
    return {**digests, **{OFFLINE: files.sha256(os.path.join(folder, OFFLINE))}}


def _check(folder, infer, manifest):
    """Write check.bin; returns the logits of the network for it, and the spread of logits that differences are measured by."""
    size = manifest['input']['shape'][2]
    with open(os.path.join(infer, reference.file_name(manifest)), 'rb') as file:
        pixels, logits, _ = reference.unpack(file.read(), size)
    _write(os.path.join(folder, 'check.bin'), pixels[0].tobytes())
    return {'logits': logits[0].tolist(), 'spread': manifest['parity']['network']['logit_spread']}


def _unknown(folder, infer, manifest):
    """Write unknown.bin; returns the shapes of its arrays, in order, and the numbers of the unknown.Rejection."""
    with open(os.path.join(infer, unknown.file_name(manifest)), 'rb') as file:
        found = unknown.unpack(file.read())
    arrays = {name: np.ascontiguousarray(getattr(found.reference, name), '<f4') for name in ARRAYS}
    _write(os.path.join(folder, 'unknown.bin'), b''.join(array.tobytes() for array in arrays.values()))
    return {
        'shapes': {name: list(array.shape) for name, array in arrays.items()},
        'counts': found.reference.counts.tolist(),
        'center': found.center.tolist(),
        'spread': found.spread.tolist(),
        'threshold': found.threshold,
        'method': found.method,
        'at_most': found.at_most,
    }


def _page(manifest, rejects):
    """The page with the policy that lets it run its own scripts and load nothing from outside."""

    def page(policy):
        return render.render(
            os.path.join(HERE, 'page.html'),
            name=manifest['name'],
            labels=[str(label) for label in manifest['labels']],
            measured=manifest.get('measured'),
            rejects=rejects,
            examples=(),
            policy=policy,
        )

    allowed = {tag: ' '.join(render.digests(page(''), tag)) for tag in ('script', 'style')}
    return page(POLICY.format(**allowed))


def _digests(folder):
    """{path in `folder`, with slashes: SHA-256} of all files."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder).replace(os.sep, '/')] = files.sha256(path)
    return dict(sorted(found.items()))


def _offline(digests):
    """offline.js with the names of the files, and a version that changes with their content; files for WebGPU are kept once used."""
    with open(os.path.join(HERE, OFFLINE), encoding='utf-8') as file:
        script = file.read()
    for_gpu = [name for name in digests if 'gpu' in name or name == 'check.bin']
    always = [name for name in digests if name not in for_gpu]
    version = hashlib.sha256(json.dumps([script, digests]).encode()).hexdigest()[:16]
    for name, value in {'FILES': json.dumps(always), 'WHEN_USED': json.dumps(for_gpu), 'VERSION': version}.items():
        script = script.replace(f'%{name}%', value)
    return script


def _write(path, content):
    with open(path, 'wb') as file:
        file.write(content)
