"""What is written to infer/web/: all files sealed, nothing loaded from outside, and messages that say what is missing."""

import io
import json
import re
import shutil
import tarfile

import numpy as np
import pytest
from conftest import ROOT, read_page
from small_export import ONNX, network_of, settings, write, write_sealed

import export
from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.inference import export_folder, exported_model
from zodiac.web import runtime

FAKE = {name: name.encode() for name in (*runtime.NEEDED.values(), *runtime.FOR_GPU.values())}
pytestmark = ONNX


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """An export with a page whose runtime is not real."""
    folder = tmp_path_factory.mktemp('page') / 'infer'
    network = network_of('small')
    network.eval()
    manifest = write_sealed(
        folder, network, settings('name=狗', "data.labels=['<b>',b,c,d]"), ['paddle', 'onnxruntime']
    )
    export.add_page(manifest, str(folder), FAKE, '1.2.3')
    export_folder.write_manifest(folder, manifest)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / 'infer')


def test_every_file_is_sealed_and_a_changed_one_is_refused_by_name(folder):
    manifest = export_folder.read_manifest(folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}
    assert set(manifest['sha256']) == there - {'inference.yaml'}
    assert manifest['versions']['onnxruntime-web'] == '1.2.3'
    exported_model.load(str(folder), 'cpu', 'onnxruntime', 'fp32', checked=False)

    with open(folder / 'web/runtime/ort.js', 'a') as file:
        file.write(' ')
    with pytest.raises(UserError, match=r'web/runtime/ort\.js: was changed after the export'):
        exported_model.load(str(folder), 'cpu', 'onnxruntime', 'fp32', checked=False)


@pytest.mark.parametrize('name', ['web/', 'web/../x', '../x', 'web//x', '/x', 'other/x', 'web/./x', ''])
def test_a_manifest_that_names_files_elsewhere_is_refused(folder, name):
    manifest = export_folder.read_manifest(folder)
    manifest['sha256'][name] = 'x'
    export_folder.write_manifest(folder, manifest)
    with pytest.raises(UserError, match='was changed after'):
        export_folder.read_manifest(folder)


def test_the_page_loads_nothing_from_outside_and_its_policy_allows_its_own_scripts_alone(exported):
    page = (exported / 'web/index.html').read_text(encoding='utf-8')
    _, addresses = read_page(page)
    assert addresses == ['data:,']
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy.replace('&#39;', "'")
    assert 'unsafe-inline' not in policy and "'unsafe-eval'" not in policy and policy.count('sha256-') == 3
    assert '<li>&lt;b&gt;</li>' in page and '<b>' not in page
    for path in (exported / 'web').glob('*.js'):
        assert 'http' not in path.read_text(encoding='utf-8'), path


def test_the_files_that_work_offline_are_all_that_a_browser_loads(exported):
    script = (exported / 'web/offline.js').read_text(encoding='utf-8')
    assert '%' not in script
    always, when_used = (json.loads(found) for found in re.findall(r' = (\[.*?\])', script)[:2])
    there = {path.relative_to(exported / 'web').as_posix() for path in (exported / 'web').rglob('*') if path.is_file()}
    assert {*always, *when_used} == there - {'offline.js'}
    assert {'index.html', 'model.onnx', 'runtime/ort-wasm.wasm'} <= set(always)
    assert 'runtime/ort-wasm-gpu.wasm' in when_used


def packed(folder, names):
    """An archive as npm packs it, of files with these names."""
    path = folder / 'onnxruntime-web-1.2.3.tgz'
    about = json.dumps({'name': 'onnxruntime-web', 'version': '1.2.3'}).encode()
    with tarfile.open(path, 'w:gz') as archive:
        for name, content in {'package.json': about, **{f'dist/{name}': name.encode() for name in names}}.items():
            member = tarfile.TarInfo(f'package/{name}')
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize('names', [runtime.NEEDED, {**runtime.NEEDED, **runtime.FOR_GPU}], ids=['wasm', 'webgpu too'])
def test_the_runtime_is_read_from_an_archive_and_from_folders(tmp_path, names):
    expected = {ours: name.encode() for name, ours in names.items()}
    archive = packed(tmp_path, [*names, 'ort.all.js'])
    assert runtime.read(str(archive)) == (expected, '1.2.3')
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / 'unpacked')
    for folder in ('', 'package', 'package/dist'):
        assert runtime.read(str(tmp_path / 'unpacked' / folder)) == (expected, '1.2.3')
    alone = shutil.copytree(tmp_path / 'unpacked/package/dist', tmp_path / 'alone/files')
    assert runtime.read(str(alone)) == (expected, None)


def test_a_runtime_that_cannot_be_read_is_named_with_the_next_step(tmp_path):
    text = tmp_path / 'a.tgz'
    text.write_text('hello')
    cut = packed(tmp_path, runtime.NEEDED)
    cut.write_bytes(cut.read_bytes()[:200])
    cases = {
        None: 'needs export.web_runtime',
        str(tmp_path / 'missing'): r'missing: cannot be read \(No such file',
        str(text): r'a\.tgz: cannot be read',
        str(cut): r'1\.2\.3\.tgz: cannot be read',
        str(tmp_path): r'has no ort-wasm-simd-threaded\.mjs, ',
    }
    for source, words in cases.items():
        with pytest.raises(UserError, match=words) as caught:
            runtime.read(source)
        assert 'npm pack onnxruntime-web' in str(caught.value)


def test_the_version_in_messages_is_that_of_the_page(exported):
    version = re.search(r'onnxruntime-web@([\d.]+)', runtime.HOW)[0]
    for name in ('docs/browser.md', 'docs/browser_zh.md', '.ci/run'):
        assert version in (ROOT / name).read_text(encoding='utf-8'), name


def test_without_onnx_there_is_no_page(monkeypatch):
    with pytest.raises(UserError, match=r'export\.onnx=false: export\.web=true needs the ONNX file'):
        export.why_no_onnx(settings('export.web=true', 'export.onnx=false').export)
    monkeypatch.setattr(export.packages, 'why_no_onnx', lambda: ('no onnx', 'pip install'))
    with pytest.raises(UserError, match=r'export\.web=true needs the packages of requirements-deploy\.txt'):
        export.why_no_onnx(settings('export.web=true').export)


def test_the_version_of_the_kept_files_changes_with_their_content(exported, tmp_path):
    from zodiac.web import folder as web

    manifest = export_folder.read_manifest(exported)
    infer = shutil.copytree(exported, tmp_path / 'infer')
    shutil.rmtree(infer / 'web')
    again = web.write(str(infer / 'web'), manifest, FAKE)
    assert again['offline.js'] == files.sha256(exported / 'web/offline.js')
    shutil.rmtree(infer / 'web')
    changed = web.write(str(infer / 'web'), manifest, {**FAKE, 'ort.js': b'newer'})
    assert changed['offline.js'] != again['offline.js']


def test_the_mirror_image_is_one_operator_that_webgpu_has(tmp_path):
    """paddle2onnx splits a flip into single columns; WebGPU takes ten arrays."""
    import onnx

    write(tmp_path / 'infer', network_of('flip average'), settings())
    nodes = onnx.load(str(tmp_path / 'infer/small.onnx')).graph.node
    assert max(len(node.input) + len(node.output) for node in nodes) <= 10
    assert not {'Split', 'Range'} & {node.op_type for node in nodes}


def test_the_int8_model_has_each_weight_once(tmp_path):
    """Both passes of an averaged model use the same ones."""
    cfg = settings('export.int8=true')
    batch = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    write(tmp_path / 'infer', network_of('flip average'), cfg, examples=[batch])
    sizes = [(tmp_path / f'infer/small{kind}.onnx').stat().st_size for kind in ('', '.int8')]
    assert sizes[1] < 0.5 * sizes[0]
