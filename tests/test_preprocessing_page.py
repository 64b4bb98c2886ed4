"""docs/preprocessing.md: its programs give the pixels of our transform, one level more or less."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from zodiac.images import decoding, transforms

PAGE = (ROOT / 'docs/preprocessing.md').read_text(encoding='utf-8')
MEAN, STD = [0.485, 0.456, 0.406], [0.2, 0.3, 0.4]
STEPS = [
    {'op': 'center_crop', 'size': 32, 'resize': 37, 'interpolation': 'bilinear'},
    {'op': 'center_crop', 'size': 61, 'resize': 70, 'interpolation': 'bicubic'},
    {'op': 'resize', 'size': 48, 'interpolation': 'bicubic'},
    {'op': 'resize', 'size': 224, 'interpolation': 'bilinear'},  # enlarges
]


def block(language, word):
    """The block of code of the page in a language that contains a word."""
    (found,) = (text for text in re.findall(f'```{language}\n(.*?)```', PAGE, re.S) if word in text)
    return found


def drawn(seed, size):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (size[1] // 3, size[0] // 3, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Photos with an EXIF orientation, with transparent parts, and grey; of odd sizes."""
    folder = tmp_path_factory.mktemp('photos')
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn(1, (203, 151)).save(folder / 'phone.jpg', quality=95, subsampling=0, exif=exif)
    clear = drawn(2, (117, 160)).convert('RGBA')
    clear.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 117).astype(np.uint8), (160, 1))))
    clear.save(folder / 'clear.png')
    drawn(3, (99, 83)).convert('L').save(folder / 'grey.png')
    return [str(folder / name) for name in ('phone.jpg', 'clear.png', 'grey.png')]


def ours(path, step):
    transform = [step, {'op': 'normalize', 'mean': MEAN, 'std': STD}]
    return transforms.read(transform, path)


def assert_same(found, path, step):
    """At most one level of 255 apart."""
    expected = ours(path, step)
    levels = np.abs(np.asarray(found).reshape(expected.shape) - expected) * np.array(STD).reshape(3, 1, 1) * 255
    assert levels.max() < 1.01, (path, step, levels.max())


@pytest.mark.parametrize('library', ['cv2', 'torchvision'])
def test_python(library, photos):
    pytest.importorskip(library)
    names = {}
    exec(
        compile(block('python', f'import {library}' if library == 'cv2' else f'from {library}'), library, 'exec'), names
    )
    for path in photos:
        for step in STEPS:
            assert_same(names['prepare'](path, step, MEAN, STD), path, step)


def test_the_scaling_in_numpy(photos):
    """The part of the OpenCV program that needs no OpenCV."""
    code = block('python', 'import cv2').replace('import cv2\n', '')
    names = {}
    exec(compile(code, 'opencv', 'exec'), names)
    for path in photos:
        image = decoding.decode(path)
        names['decode'] = lambda _, image=image: np.asarray(image)
        for step in STEPS:
            assert_same(names['prepare'](path, step, MEAN, STD), path, step)


HARNESS = """
import {prepare} from './preprocess.mjs';
import {readFileSync, writeFileSync} from 'node:fs';
for (const {rgba, width, height, step, mean, std, out} of JSON.parse(readFileSync('jobs.json', 'utf8'))) {
  const pixels = new Uint8ClampedArray(readFileSync(rgba));
  writeFileSync(out, new Uint8Array(prepare(pixels, width, height, step, mean, std).buffer));
}
"""


@pytest.mark.skipif(not shutil.which('node'), reason='Node.js is not installed')
def test_javascript(photos, tmp_path):
    (tmp_path / 'preprocess.mjs').write_text(block('js', 'export function part'))
    (tmp_path / 'run.mjs').write_text(HARNESS)
    jobs = []
    for path in photos:
        image = Image.open(path) if path.endswith('clear.png') else decoding.decode(path)
        with image:
            rgba = image.convert('RGBA')
        (tmp_path / f'{len(jobs)}.rgba').write_bytes(rgba.tobytes())
        size = {'rgba': f'{len(jobs)}.rgba', 'width': rgba.width, 'height': rgba.height, 'mean': MEAN, 'std': STD}
        jobs += [{**size, 'step': step, 'out': f'{len(jobs) + number}.out'} for number, step in enumerate(STEPS)]
    (tmp_path / 'jobs.json').write_text(json.dumps(jobs))
    subprocess.run(['node', 'run.mjs'], cwd=tmp_path, check=True, timeout=60)
    for job, (path, step) in zip(jobs, ((path, step) for path in photos for step in STEPS)):
        assert_same(np.fromfile(tmp_path / job['out'], '<f4'), path, step)


MAIN = """
import java.io.*;
import java.nio.*;
import java.nio.file.*;

public class Main {
    public static void main(String[] lines) throws IOException {
        for (String line : Files.readAllLines(Path.of("jobs.txt"))) {
            String[] job = line.split("\\t");
            double[][] pixels = Preprocess.decode(new File(job[0]), Integer.parseInt(job[1]));
            int width = pixels[0].length / 3, height = pixels.length, size = Integer.parseInt(job[3]);
            double[] part = {0, 0, width, height};
            if (job[2].equals("center_crop")) part = Preprocess.part(width, height, size, Integer.parseInt(job[4]));
            double[] mean = {%s}, std = {%s};
            float[] planes = Preprocess.prepare(pixels, part, size, job[5].equals("bicubic"), mean, std);
            ByteBuffer buffer = ByteBuffer.allocate(4 * planes.length).order(ByteOrder.LITTLE_ENDIAN);
            buffer.asFloatBuffer().put(planes);
            Files.write(Path.of(job[6]), buffer.array());
        }
    }
}
"""


@pytest.mark.skipif(not shutil.which('javac'), reason='no JDK is installed')
def test_java(photos, tmp_path):
    (tmp_path / 'Preprocess.java').write_text(block('java', 'class Preprocess'))
    (tmp_path / 'Main.java').write_text(MAIN % tuple(', '.join(map(str, numbers)) for numbers in (MEAN, STD)))
    cases = [(path, step) for path in photos for step in STEPS]
    lines = []
    for number, (path, step) in enumerate(cases):
        orientation = 6 if path.endswith('.jpg') else 1
        cells = (
            path,
            orientation,
            step['op'],
            step['size'],
            step.get('resize', 0),
            step['interpolation'],
            f'{number}.out',
        )
        lines.append('\t'.join(map(str, cells)))
    (tmp_path / 'jobs.txt').write_text('\n'.join(lines))
    for command in (['javac', '-encoding', 'UTF-8', 'Preprocess.java', 'Main.java'], ['java', '-Xshare:auto', 'Main']):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    for number, (path, step) in enumerate(cases):
        assert_same(np.fromfile(tmp_path / f'{number}.out', '<f4'), path, step)
