"""The files of onnxruntime-web that the page needs, from a folder or the archive of `npm pack`."""

import json
import os
import tarfile

from zodiac.base.errors import UserError

# Our names end in .js: some servers send .mjs in a type that browsers refuse for a script.
NEEDED = {
    'ort.wasm.min.mjs': 'ort.js',
    'ort-wasm-simd-threaded.mjs': 'ort-wasm.js',
    'ort-wasm-simd-threaded.wasm': 'ort-wasm.wasm',
}
FOR_GPU = {  # WebGPU, in browsers that can suspend WebAssembly (JSPI): the build for all others is 10 MB larger
    'ort.jspi.min.mjs': 'ort-gpu.js',
    'ort-wasm-simd-threaded.jspi.mjs': 'ort-wasm-gpu.js',
    'ort-wasm-simd-threaded.jspi.wasm': 'ort-wasm-gpu.wasm',
}
ABOUT = 'package.json'
FOLDERS = ('', 'dist', 'package/dist', 'node_modules/onnxruntime-web/dist')
HOW = 'npm pack onnxruntime-web@1.30.0 writes a file that will do; see docs/browser.md#the-runtime'


def read(source):
    """The files for the page.

    Args:
        source: the archive that `npm pack onnxruntime-web` writes, or a folder with the files or with the unpacked or installed package.
    Returns: ({name in the page's folder: bytes}, version or None); with the files for WebGPU if the source has them.
    Raises: UserError.
    """
    if not source:
        raise UserError(f'export.web=true needs export.web_runtime, the files of onnxruntime-web: {HOW}')
    try:
        found = _of_folder(source) if os.path.isdir(source) else _of_archive(source)
    except (OSError, EOFError, tarfile.TarError) as error:
        why = getattr(error, 'strerror', None) or 'not a folder, and not an archive that is whole'
        raise UserError(f'export.web_runtime: {source}: cannot be read ({why}): {HOW}') from None
    missing = sorted(set(NEEDED) - set(found))
    if missing:
        raise UserError(f'export.web_runtime: {source}: has no {", ".join(missing)}: {HOW}')
    names = {**NEEDED, **(FOR_GPU if set(FOR_GPU) <= set(found) else {})}
    return {ours: found[name] for name, ours in names.items()}, _version(found.get(ABOUT))


def _of_folder(source):
    """{name: bytes} of the files in the first of FOLDERS that has them, and of package.json above."""
    places = [os.path.join(source, *folder.split('/')) for folder in FOLDERS]
    place = next((place for place in places if os.path.isfile(os.path.join(place, next(iter(NEEDED))))), source)
    paths = {name: os.path.join(place, name) for name in (*NEEDED, *FOR_GPU)}
    paths[ABOUT] = os.path.join(place, '..', ABOUT)
    return {name: _content(path) for name, path in paths.items() if os.path.isfile(path)}


def _of_archive(source):
    """{name: bytes} of the same files in an archive of npm."""
    wanted = {f'package/dist/{name}': name for name in (*NEEDED, *FOR_GPU)}
    wanted[f'package/{ABOUT}'] = ABOUT
    with tarfile.open(source) as archive:
        chosen = (member for member in archive if member.name in wanted and member.isfile())
        return {wanted[member.name]: archive.extractfile(member).read() for member in chosen}


def _content(path):
    with open(path, 'rb') as file:
        return file.read()


def _version(content):
    try:
        about = json.loads(content or '')
        return str(about['version']) if about['name'] == 'onnxruntime-web' else None
    except (ValueError, TypeError, KeyError):
        return None
