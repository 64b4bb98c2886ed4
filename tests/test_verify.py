"""zodiac verify names whatever was changed in an export, its photos, labels or numbers."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import assert_message, picture
from small_export import logits_of, network_of, settings, write_sealed

import export
from zodiac.base import files
from zodiac.base.paddle_setup import paddle
from zodiac.inference import evidence, export_folder
from zodiac.inference.exported_model import softmax
from zodiac.models import weights
from zodiac.report import calibration, metrics, recorded

LABELS = ['a', 'b', 'c', 'd']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A folder with photos/, their index files, and the export infer/ of a small network with a report; and its fingerprint."""
    folder = tmp_path_factory.mktemp('verify')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pictures = {}
        for number in range(24):
            path = f'photos/{LABELS[number % 4]}/{number}.png'
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            pictures[path] = picture(number)
            pictures[path].save(path)
        paths = sorted(pictures, key=lambda path: int(path.rpartition('/')[2][:-4]))
        for split, part in (('train', paths[:12]), ('valid', paths[12:16]), ('test', paths[16:])):
            lines = [f'{path}\t{LABELS.index(path.split("/")[1])}\n' for path in part]
            (folder / f'photos/{split}.txt').write_text(''.join(lines))

        network, cfg = network_of('small'), settings('data.root=photos')
        test = list(paths[16:])
        labels = np.arange(8) % 4
        probabilities = softmax(logits_of(network, cfg, [pictures[path] for path in test]))
        found = {'split': 'test', **metrics.evaluate(labels, probabilities, LABELS)}
        found['calibration'] = calibration.evaluate(labels, probabilities)
        rows = [
            {
                'path': path,
                'label': LABELS[label],
                'prediction': LABELS[row.argmax()],
                'probability': f'{row.max():.6f}',
            }
            for path, label, row in zip(test, labels, probabilities)
        ]
        with files.atomic_write('small.pdparams', binary=True) as file:
            file.write(weights.dump(network.state_dict()))
        infer = folder / 'infer'
        manifest = write_sealed(infer, network, cfg, with_onnx=False)
        manifest['trained'] = {'arch': 'cifarnet', 'pretrained': False, 'epoch': 1}
        manifest['measured'] = {**recorded.quoted(found), 'folds': None, 'guess': 0.25}
        export.document(manifest, str(infer), cfg, 'small.pdparams', (found, rows))
        export_folder.write_manifest(infer, manifest)
    return folder, evidence.fingerprint(infer)


@pytest.fixture
def copied(made, tmp_path, call_script):
    """A copy of it, and a function that verifies it with more arguments and returns {state: [claims]} and the result."""
    folder = shutil.copytree(made[0], tmp_path / 'copy')

    def verify(*arguments):
        result = call_script('zodiac/commands/verify.py', './infer', *arguments, cwd=folder)
        claims = {'verified': [], 'differs': [], 'cannot be checked': []}
        for line in result.stdout.splitlines():
            for state in claims:
                if line.startswith(state):
                    claims[state].append(line[len(state) :].strip())
        assert 'Traceback' not in result.stderr
        assert result.returncode == (1 if claims['differs'] else 0), result.stderr
        return SimpleNamespace(**{state.split()[0]: found for state, found in claims.items()}, result=result)

    return SimpleNamespace(folder=folder, infer=folder / 'infer', verify=verify, fingerprint=made[1])


def flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def reseal(infer, change):
    """Change the content of inference.yaml, and write it with a new seal, as a forger would."""
    manifest = export_folder.read_manifest(infer)
    change(manifest)
    export_folder.write_manifest(infer, manifest)


def test_an_untouched_export_is_verified_with_all_its_photos_and_numbers(copied):
    found = copied.verify('--fingerprint', copied.fingerprint)
    assert not found.differs and [claim.split(':')[0] for claim in found.cannot] == ['training']
    text = '\n'.join(found.verified)
    assert 'fingerprint: the same' in text and 'all 24 found by content (train 12, valid 4, test 8)' in text
    assert 'accuracy by paddle: top-1' in text and 'of 8 test photos, the same prediction for each' in text
    assert f'fingerprint: {copied.fingerprint}' in found.result.stdout


def test_a_flipped_byte_in_any_file_is_named(copied):
    for path in sorted(copied.infer.iterdir()):
        before = path.read_bytes()
        flip(path)
        found = copied.verify()
        assert any(path.name in claim for claim in found.differs), path.name
        path.write_bytes(before)


def test_a_missing_file_is_named(copied):
    (copied.infer / 'README.md').unlink()
    assert copied.verify().differs == ['README.md: is missing']


def test_a_changed_label_in_the_index_is_named(copied):
    index = copied.folder / 'photos/test.txt'
    index.write_text(index.read_text().replace('photos/b/17.png\t1', 'photos/b/17.png\t2'))
    assert copied.verify().differs == ['test.txt: b/17.png: is c now, was b']


def test_a_swapped_test_photo_is_named_and_the_others_are_measured(copied):
    picture(99).save(copied.folder / 'photos/b/17.png')
    found = copied.verify()
    assert 'photos in photos: b/17.png has other content now' in found.differs
    assert any('for the 7 of 8 test photos that were found' in claim for claim in found.verified)


def test_a_removed_and_an_added_test_photo_are_named(copied):
    index = copied.folder / 'photos/test.txt'
    picture(99).save(copied.folder / 'photos/b/new.png')
    index.write_text(index.read_text().replace('photos/b/17.png', 'photos/b/new.png'))
    assert copied.verify().differs == ['test.txt: b/new.png: was not in test; b/17.png: is not in test any more']
    (copied.folder / 'photos/b/17.png').unlink()
    assert 'photos in photos: b/17.png is missing' in copied.verify().differs


def test_a_training_photo_in_the_test_set_is_named(made, copied):
    about, splits, predictions = evidence.read(copied.infer, export_folder.read_manifest(copied.infer))
    splits['train'].append(splits['test'][0])
    content = evidence.pack(about, splits, predictions)
    (copied.infer / 'small.evidence.json').write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    reseal(copied.infer, lambda manifest: manifest['documents'].update({'small.evidence.json': digest}))
    assert 'test photos are not training photos: a/16.png is a/16.png' in copied.verify().differs


@pytest.mark.parametrize('name', ['inference.yaml', 'README.md', 'small.evidence.json'])
def test_an_edited_number_is_found_and_the_file_named(copied, name):
    path = copied.infer / name
    text = path.read_text(encoding='utf-8')
    top1 = next(word for word in ('0.25', '25.0%', '0.375', '37.5%', '0.125', '12.5%', '0.5', '50.0%') if word in text)
    path.write_text(text.replace(top1, '0.99', 1), encoding='utf-8')
    assert any(claim.startswith(name) for claim in copied.verify().differs)


def test_a_forged_accuracy_with_new_hashes_is_measured_again_and_has_another_fingerprint(copied):
    path = copied.infer / 'small.evidence.json'
    forged = json.loads(path.read_text(encoding='utf-8'))
    forged['metrics']['top1'] = 1.0
    path.write_text(json.dumps(forged), encoding='utf-8')

    def change(manifest):
        manifest['measured']['top1'] = 1.0
        manifest['documents'][path.name] = files.sha256(path)

    reseal(copied.infer, change)
    found = copied.verify('--fingerprint', copied.fingerprint[:12])
    assert any(claim.startswith('fingerprint: is') for claim in found.differs)
    assert any(claim.startswith('accuracy by paddle: top1: 1, now') for claim in found.differs)


def test_a_forged_card_with_a_new_hash_is_named_with_the_line(copied):
    path = copied.infer / 'README.md'
    top1 = next(word for word in path.read_text(encoding='utf-8').split() if word.startswith('**'))
    path.write_text(path.read_text(encoding='utf-8').replace(top1, '**99.9%**', 1), encoding='utf-8')
    reseal(copied.infer, lambda manifest: manifest['documents'].update({path.name: files.sha256(path)}))
    (claim,) = copied.verify().differs
    assert claim.startswith('what README.md says: line ') and '99.9%' in claim


def test_numbers_that_were_taken_out_of_the_manifest_are_missed(copied):
    reseal(copied.infer, lambda manifest: manifest.update(measured=None))
    assert any('accuracy in inference.yaml: ' in claim and 'now missing' in claim for claim in copied.verify().differs)


def test_other_weights_with_new_hashes_give_other_predictions_which_are_named(made, copied, monkeypatch):
    monkeypatch.chdir(copied.folder)
    network, cfg = network_of('small'), settings('data.root=photos')
    network.mix.weight.set_value(paddle.flip(network.mix.weight, [1]))
    other = copied.folder / 'other'
    write_sealed(other, network, cfg, with_onnx=False)
    shutil.copy(other / 'small.pdiparams', copied.infer)
    digest = files.sha256(copied.infer / 'small.pdiparams')
    reseal(copied.infer, lambda manifest: manifest['sha256'].update({'small.pdiparams': digest}))
    claim = copied.verify().differs[-1]
    assert claim.startswith('accuracy by paddle: ') and '.png: ' in claim and ' now, was ' in claim


def test_moved_photos_are_found_by_their_content(copied):
    (copied.folder / 'photos').rename(copied.folder / 'elsewhere')
    found = copied.verify()
    assert not found.differs and any('--data FOLDER' in claim for claim in found.cannot)
    for number, path in enumerate(sorted((copied.folder / 'elsewhere').glob('*/*.png'))):
        path.rename(copied.folder / f'elsewhere/{number}')
    for split in ('train', 'valid', 'test'):
        (copied.folder / f'elsewhere/{split}.txt').unlink()
    found = copied.verify('--data', 'elsewhere')
    assert not found.differs and any('24 under another path' in claim for claim in found.verified)
    assert any(claim.startswith('accuracy by paddle: top-1') for claim in found.verified)


def test_an_export_without_evidence_loads_and_is_only_checked_by_its_hashes(copied):
    def change(manifest):
        for name in manifest.pop('documents'):
            (copied.infer / name).unlink()

    reseal(copied.infer, change)
    found = copied.verify()
    assert not found.differs and found.cannot == [
        'photos and accuracy: the export has no evidence: it is of an earlier version; export the model again'
    ]


def test_the_model_runs_without_its_documents(copied, call_script):
    for name in ('README.md', 'small.evidence.json'):
        (copied.infer / name).unlink()
    assert_message(call_script('predict.py', './infer', 'photos/a/0.png', cwd=copied.folder), 0)


@pytest.mark.parametrize(
    ('arguments', 'status', 'words'),
    [
        (['--fingerprint', 'xyz'], 2, ['--fingerprint xyz', '8 to 64 digits']),
        (['--fingerprint', 'abc'], 2, ['--fingerprint abc']),
        (['--data', 'nowhere'], 2, ['--data nowhere: no such folder']),
    ],
)
def test_wrong_arguments_are_named(copied, call_script, arguments, status, words):
    result = call_script('zodiac/commands/verify.py', './infer', *arguments, cwd=copied.folder)
    assert_message(result, status, *words)


def test_a_folder_that_is_no_export_is_named(copied, call_script):
    result = call_script('zodiac/commands/verify.py', './photos', cwd=copied.folder)
    assert_message(result, 1, 'photos: not an exported model')


@pytest.mark.parametrize('content', ['', '{', '[]', '{"format": 9}', '{"format": 1, "photos": {"test": ["x"]}}'])
def test_damaged_evidence_with_a_matching_hash_is_named(copied, call_script, content):
    path = copied.infer / 'small.evidence.json'
    path.write_text(content)
    reseal(copied.infer, lambda manifest: manifest['documents'].update({path.name: files.sha256(path)}))
    result = call_script('zodiac/commands/verify.py', './infer', cwd=copied.folder)
    assert_message(result, 1, 'small.evidence.json')


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content.pop('config'),
        lambda content: content.pop('metrics'),
        lambda content: content['metrics'].pop('top1'),
        lambda content: content['metrics'].update(n=3),
        lambda content: content['predictions'].pop(),
        lambda content: content['predictions'].insert(0, '9 0.5'),
        lambda content: content['photos']['test'].append('- -1'),
        lambda content: content['photos'].pop('test'),
        lambda content: content.update(predictions=None),
    ],
)
def test_evidence_that_lacks_a_part_is_refused(copied, call_script, change):
    path = copied.infer / 'small.evidence.json'
    content = json.loads(path.read_text(encoding='utf-8'))
    change(content)
    path.write_text(json.dumps(content), encoding='utf-8')
    reseal(copied.infer, lambda manifest: manifest['documents'].update({path.name: files.sha256(path)}))
    result = call_script('zodiac/commands/verify.py', './infer', cwd=copied.folder)
    assert_message(result, 1, 'small.evidence.json: is damaged')


def test_copies_of_one_photo_are_told_apart_by_their_labels(made, copied):
    found = copied.verify('--data', str(copied.folder / 'photos'))  # other paths than those in the index
    assert not found.differs
    shutil.copy(copied.folder / 'photos/a/16.png', copied.folder / 'photos/a/copy.png')
    index = copied.folder / 'photos/test.txt'
    index.write_text(index.read_text() + 'photos/a/copy.png\t0\n')
    assert copied.verify().differs == ['test.txt: a/copy.png: was not in test']


def test_a_report_of_other_photos_or_weights_is_not_sealed(made, monkeypatch):
    monkeypatch.chdir(made[0])
    about, splits, predictions = evidence.read(made[0] / 'infer', export_folder.read_manifest(made[0] / 'infer'))
    rows = [
        {'path': f'photos/{photo.path}', 'label': LABELS[photo.label], 'prediction': 'a', 'probability': '0.5'}
        for photo in splits['test']
    ]
    report = about['metrics'], rows

    def seal(found):
        return recorded.to_seal(found, splits['test'], lambda path: evidence.below(path, 'photos'), LABELS)

    assert seal(report)[1] == [(0, 0.5)] * 8
    rows[0]['label'] = 'b'
    assert seal(report)[:2] == (None, None) and 'other test photos or labels' in seal(report)[2]
    assert seal(None)[:2] == (None, None) and 'no report' in seal(None)[2]


def test_the_card_says_what_was_measured_and_no_more(made):
    text = (made[0] / 'infer/README.md').read_text(encoding='utf-8')
    about, _, _ = evidence.read(made[0] / 'infer', export_folder.read_manifest(made[0] / 'infer'))
    assert f'**{about["metrics"]["top1"]:.1%}** of 8 photos' in text and '| all | 12 | 4 | 8 |' in text
    assert 'It always names one of its classes' in text and 'licence they may be used, is not recorded' in text
