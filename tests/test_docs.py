"""The pages: commands run or are marked with the reason; options, settings, fields and links exist."""

import dataclasses
import json
import re
import shlex
import shutil

import pytest
import yaml
from conftest import ROOT, make_tree
from structure import COMMANDS, DOORS

import config
from zodiac.base import schema

FIRST = ['docs/training.md', 'docs/report.md']  # they make what the others use
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding='utf-8')
    for page in [*(ROOT / name for name in FIRST), *sorted(ROOT.glob('*.md')), *sorted(ROOT.glob('docs/*.md'))]
    if page.name != 'CHANGELOG.md'
}
NOT_RUN = {
    'docs/ai_studio.md': 'paths of AI Studio; tests/test_ai_studio_page.py',
    'docs/ai_studio_zh.md': 'the same',
    'docs/deployment.md': 'servers and proxies; tests/test_deployment_page.py',
    'docs/house.md': 'it runs the tests',
    'docs/troubleshooting.md': 'fixes for broken installations',
    'docs/deployment_zh.md': 'the same',
    'docs/troubleshooting_zh.md': 'the same',
}
BLOCK = re.compile(r'(<!-- not run: \S[^\n]* -->\n)?^```(\w+)\n(.*?)^```', re.DOTALL | re.MULTILINE)
SMALL = ['image.size=32', 'model.arch=cifarnet', 'model.pretrained=false', 'train.epochs=1', 'train.batch_size=8']
SCRIPTS = [f'{name}.py' for name in DOORS if name != 'dataset'] + [f'{name.replace(".", "/")}.py' for name in COMMANDS]
REFERENCE = PAGES['docs/reference.md']


def commands(block):
    """The commands of a shell block as lists of words, without comments."""
    lines = block.replace('\\\n', ' ').splitlines()
    return [call(words) for line in lines if (words := shlex.split(line, comments=True))]


def call(words):
    """Words with the path of the module instead of `-m zodiac NAME`."""
    if words[1:3] != ['-m', 'zodiac']:
        return words
    return [words[0], next((path for path in SCRIPTS if path.endswith(f'{words[3]}.py')), words[3]), *words[4:]]


def script_calls():
    """(page, script, arguments) of each `python SCRIPT.py ...`, in blocks and in running text."""
    for name, text in PAGES.items():
        found = [words for _, language, block in BLOCK.findall(text) if language == 'bash' for words in commands(block)]
        found += [
            call(shlex.split(code)) for code in re.findall(r'`([^`\n]*python (?:-m zodiac|[^`\n]+\.py)[^`\n]*)`', text)
        ]
        for words in found:
            script = next((word for word in words if word in SCRIPTS), None)
            if script:
                yield name, script, words[words.index(script) + 1 :]


def make_data_of_other_programs(folder):
    """Draw what docs/coming_from.md takes: folders of splits; the lists of PaddleClas and PaddleX 3; an export of Label Studio."""
    make_tree(folder / 'pictures', ['cat', 'dog'], {'train': 8, 'val': 4})
    make_tree(folder / 'dataset', ['cat', 'dog'], {'images': 12})
    files = sorted((folder / 'dataset').glob('images/*/*.jpg'))
    for split, part in (('train', files[::2]), ('val', files[1::2])):
        lines = [f'{path.relative_to(folder / "dataset")} {int(path.parent.name == "dog")}\n' for path in part]
        for name in (f'{split}_list.txt', f'{split}.txt'):
            (folder / 'dataset' / name).write_text(''.join(lines))
    (folder / 'dataset/label.txt').write_text('0 cat\n1 dog\n')
    tasks = [
        {'image': f'/data/local-files/?d={path.relative_to(folder)}', 'choice': path.parent.name} for path in files
    ]
    (folder / 'project.json').write_text(json.dumps(tasks))


def test_unmarked_commands_run_and_write_what_the_reference_lists(tmp_path, monkeypatch, call_script):
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path / 'photos', ['cat', 'dog'], {'': 12})
    make_tree(tmp_path / 'new_photos', ['cat', 'dog'], {'': 2})
    make_data_of_other_programs(tmp_path)
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    printed = next(block for _, language, block in BLOCK.findall(PAGES['docs/training.md']) if language == 'yaml')
    (tmp_path / 'configs/pets.yaml').write_text(printed, encoding='utf-8')

    blocks = [(name, *block) for name, text in PAGES.items() if name not in NOT_RUN for block in BLOCK.findall(text)]
    for name, mark, language, block in blocks:
        if not mark and language == 'python':
            exec(compile(block, name, 'exec'), {})
        elif not mark and language == 'bash':
            for python, script, *arguments in commands(block):
                assert python == 'python' and script in SCRIPTS, f'{name}: mark the block of {python} {script}'
                small = ['-o', *SMALL] if script in ('train.py', 'evaluate.py', 'export.py') else []
                result = call_script(script, *arguments, *small, cwd=tmp_path)
                assert result.returncode == 0, f'{name}: {script} {arguments}: {result.stderr}'

    run = tmp_path / 'output/pets'
    fields = [*json.loads((run / 'report/metrics.json').read_text())]
    fields += json.loads((tmp_path / 'photos/annotation.json').read_text())
    for table in ('log.csv', 'report/predictions.csv'):
        fields += (run / table).read_text().splitlines()[0].split(',')
    assert set(fields) <= set(re.findall(r'`([^`\n]+)`', BLOCK.sub('', REFERENCE)))
    assert [path.name for path in [*run.iterdir(), *run.glob('report/*')] if path.name not in REFERENCE] == []


def test_options_exist_and_the_reference_has_all_with_their_defaults(call_script, tmp_path):
    known = {}
    for script in SCRIPTS:
        text = call_script(script, '--help', cwd=tmp_path).stdout
        parts = re.split(r'^  (?:-\w.*?, )?(--[a-z-]+)', text, flags=re.MULTILINE)
        known[script] = {option: ' '.join(part.split()) for option, part in zip(parts[1::2], parts[2::2])}
        title = script if '/' not in script else f'zodiac {script.rpartition("/")[2][:-3]}'
        section = re.search(rf'^## {title}\n(.*?)^## ', REFERENCE, re.DOTALL | re.MULTILINE)
        row = r'^\| `(?:-\w`, `)?(--[a-z-]+)[^`|]*` \|([^|]*)\|'
        rows = dict(re.findall(row, section[1], re.MULTILINE)) if section else {}
        if script not in ('predict.py', 'serve.py'):  # docs/deployment.md has theirs, with a test
            assert {*rows, '--help', '--config', '--override'} >= set(known[script]) >= set(rows), script
        for option, default in rows.items():
            stated = re.search(r'default: ([\w.]+)\)', known[script][option])
            assert not stated or stated[1] == default.strip(), f'{script} {option}'
    for name, script, arguments in script_calls():
        used = {word.split('=')[0] for word in arguments if re.match('--[a-z]', word)}
        assert used <= set(known[script]), f'{name}: {script} {arguments}'


def test_settings_exist_and_take_the_values_shown():
    for name, _, arguments in script_calls():
        option = ''
        for word in arguments:
            option = word if word.startswith('-') else option
            key, equals, value = word.partition('=')
            if option in ('-o', '-s') and equals and key not in ('key.sub', 'KEY'):
                value = yaml.safe_load(value)
                tried = [value] if option == '-o' else [*value.values()][:2] if isinstance(value, dict) else value
                for one in tried:
                    schema.put(config.Config(), key, one, f'{name}: {word}')
    settings = dataclasses.asdict(config.Config())
    sections = '|'.join(key for key, value in settings.items() if isinstance(value, dict))
    for name, text in PAGES.items():
        text = re.sub(r'```python\n.*?```', '', text, flags=re.DOTALL)
        found = re.findall(rf'(?<![\w./])((?:{sections})\.[a-z_0-9]+)(?![\w(/])', text)
        files = ('.py', '.txt', '.yaml', '.json', '.onnx', '.csv', '.pdparams', '.png', '.jpg')
        used = {key for key in found if not key.endswith(files)}
        if name != 'docs/house.md':  # it names functions
            assert used <= {key for key, _ in schema.flatten(settings)}, name


@pytest.mark.parametrize('name', PAGES)
def test_links_lead_somewhere(name):
    for link in re.findall(r'\]\(([^)\s]+)\)', PAGES[name]):
        file, _, anchor = link.partition('#')
        target = (ROOT / name).parent / file if file else ROOT / name
        assert '://' in link or target.exists(), link
        if anchor and target.suffix == '.md':
            text = target.read_text(encoding='utf-8')
            titles = re.findall('^#+ (.*)', text, re.MULTILINE)
            anchors = [re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles]
            assert anchor in [*anchors, *re.findall('<a id="([^"]+)">', text)], link


IN_BOTH = [name for name in PAGES if name.replace('.md', '_zh.md') in PAGES]
LANGUAGES = re.compile('[\u4e00-\u9fff]')


def code_in(text):
    """The code in a text, sorted: the order of words differs between the languages."""
    return sorted(code for code in re.findall(r'`([^`\n]+)`', text) if not LANGUAGES.search(code))


def test_eight_pages_and_the_readme_are_in_both_languages():
    pages = ['ai_studio', 'browser', 'coming_from', 'deployment', 'report', 'training', 'troubleshooting', 'trust']
    assert sorted(IN_BOTH) == ['README.md', *(f'docs/{name}.md' for name in pages)]


@pytest.mark.parametrize('name', IN_BOTH)
def test_both_languages_have_the_same_commands_options_settings_numbers_and_sections(name):
    pages = [PAGES[name], PAGES[name.replace('.md', '_zh.md')]]
    plain = [re.sub(r'[ \t]*#(?: .*)?$', '', text, flags=re.MULTILINE) for text in pages]
    blocks = [[(language, block) for _, language, block in BLOCK.findall(text)] for text in plain]
    assert blocks[0] == blocks[1]
    prose = [re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE) for text in pages]
    assert len({len(re.findall('^#+ ', text, re.MULTILINE)) for text in prose}) == 1
    rows = [[code_in(line) for line in text.splitlines() if line.startswith('|')] for text in prose]
    assert rows[0] == rows[1]
    assert {*code_in(prose[0])} == {*code_in(prose[1])}
    numbers = [{*re.findall(r'\d+(?:[.,]\d+)*', text)} for text in prose]
    assert numbers[0] == numbers[1]


RESULT = re.compile(r'\[(0\.\d{4})\]\((\S+?\.json)\)\W*?[^|()]*?[(（](0\.\d{4}) (?:to|至) (0\.\d{4})')


@pytest.mark.parametrize(('name', 'least'), [('README.md', 5), ('README_zh.md', 5), ('docs/recipes.md', 7)])
def test_figures_are_those_of_the_recorded_results(name, least):
    found = RESULT.findall(PAGES[name])
    assert len(found) >= least
    for figure, file, low, high in found:
        recorded = json.loads(((ROOT / name).parent / file).read_text(encoding='utf-8'))
        folds = recorded.get('folds') or {}
        top1 = folds.get('mean', folds.get('top1', recorded.get('top1')))
        interval = folds.get('interval_95', recorded.get('top1_interval_95'))
        assert [figure, low, high] == [f'{value:.4f}' for value in (top1, *interval)], file


def test_visualdl_is_shown_without_telemetry():
    for text in [*PAGES.values(), (ROOT / 'zodiac.ipynb').read_text(encoding='utf-8')]:
        assert all('--disable-telemetry' in line for line in re.findall('visualdl --logdir.*', text))
