"""The pages: every command runs here or is marked with the reason; options, settings, fields and links exist."""

import dataclasses
import json
import re
import shlex

import pytest
import yaml
from conftest import ROOT, make_tree

import config
from zodiac.base import schema

PAGES = [ROOT / 'README.md', ROOT / 'README_zh.md', *sorted((ROOT / 'docs').glob('*.md'))]
TEXTS = {page.name: page.read_text(encoding='utf-8') for page in PAGES}
NOT_RUN = {
    'deployment.md': 'needs servers; tests/test_deployment_page.py runs a part',
    'house.md': 'runs the tests',
    'troubleshooting.md': 'remedies for broken installations',
    'troubleshooting_zh.md': 'the same',
}
FIRST = ['training.md', 'report.md']  # they make what the others use
BLOCK = re.compile(r'(<!-- not run: \S.* -->\n)?^```(\w+)\n(.*?)^```', re.DOTALL | re.MULTILINE)
SMALL = ['image.size=32', 'model.arch=cifarnet', 'model.pretrained=false', 'train.epochs=1', 'train.batch_size=8']
TRAINED = ('train.py', 'evaluate.py', 'export.py')
SCRIPTS = ['annotate', 'train', 'sweep', 'evaluate', 'export', 'predict', 'serve', 'doctor', 'demo', 'config']
SECTIONS = [
    field.name for field in dataclasses.fields(config.Config) if dataclasses.is_dataclass(field.default_factory)
]
SETTINGS = {key for key, _ in schema.flatten(dataclasses.asdict(config.Config()))}


def commands(block):
    """The lines of a shell block as lists of words, without comments."""
    lines = block.replace('\\\n', ' ').splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def printed_commands(text):
    """All `python SCRIPT.py ...` of a page, in blocks and in running text."""
    for _, language, block in BLOCK.findall(text):
        if language == 'bash':
            yield from (words for words in commands(block) if any(word.endswith('.py') for word in words))
    for code in re.findall(r'`((?:\.venv/bin/)?python [^`]+\.py[^`]*)`', text):
        yield shlex.split(code)


@pytest.fixture
def project(tmp_path):
    """A project folder with the photos that the pages speak of, and configs/pets.yaml as printed."""
    make_tree(tmp_path / 'photos', ['cat', 'dog'], {'': 12})
    make_tree(tmp_path / 'new_photos', ['cat', 'dog'], {'': 2})
    (tmp_path / 'configs').mkdir()
    for path in (ROOT / 'configs').glob('*.yaml'):
        (tmp_path / 'configs' / path.name).write_bytes(path.read_bytes())
    printed = next(block for _, language, block in BLOCK.findall(TEXTS['training.md']) if language == 'yaml')
    (tmp_path / 'configs/pets.yaml').write_text(printed, encoding='utf-8')
    return tmp_path


def test_every_command_that_is_not_marked_runs(project, call_script):
    for name in [*FIRST, *(name for name in TEXTS if name not in (*FIRST, *NOT_RUN))]:
        for mark, language, block in BLOCK.findall(TEXTS[name]):
            if not mark and language == 'python':
                exec(compile(block, name, 'exec'), {})
            elif not mark and language == 'bash':
                for python, script, *arguments in commands(block):
                    assert python == 'python', f'{name}: mark the block of {script}'
                    small = ['-o', *SMALL] if script in TRAINED else []
                    result = call_script(script, *arguments, *small, cwd=project)
                    assert result.returncode == 0, f'{name}: {script} {arguments}: {result.stderr}'
    assert_fields_are_documented(project)


def assert_fields_are_documented(project):
    documented = set(re.findall(r'`([^`\n]+)`', BLOCK.sub('', TEXTS['reference.md'])))
    run = project / 'output/pets'
    found = [
        *json.loads((run / 'report/metrics.json').read_text()),
        *json.loads((project / 'photos/annotation.json').read_text()),
    ]
    for table in ('log.csv', 'report/predictions.csv'):
        found += (run / table).read_text().splitlines()[0].split(',')
    assert set(found) <= documented
    files = [path.name for path in [*run.iterdir(), *(run / 'report').iterdir()]]
    assert [name for name in files if name not in TEXTS['reference.md']] == []


def options_of(script, call_script, cwd):
    """{option: its part of --help}, without those that every script has."""
    text = call_script(f'{script}.py', '--help', cwd=cwd).stdout
    parts = re.split(r'^  (?:-\w.*?, )?(--[a-z-]+)', text, flags=re.MULTILINE)
    found = {option: ' '.join(part.split()) for option, part in zip(parts[1::2], parts[2::2])}
    return {option: part for option, part in found.items() if option not in ('--help', '--config', '--override')}


def test_options_are_documented_with_their_defaults_and_no_page_names_another(call_script, tmp_path):
    known = {script: options_of(script, call_script, tmp_path) for script in SCRIPTS}
    for script, options in known.items():
        section = re.search(rf'^## {script}\.py\n(.*?)(?=^## |\Z)', TEXTS['reference.md'], re.DOTALL | re.MULTILINE)[1]
        rows = dict(re.findall(r'^\| `(?:-\w`, `)?(--[a-z-]+)[^`|]*` \|([^|]*)\|', section, re.MULTILINE))
        assert set(rows) == set(options), script
        for option, part in options.items():
            default = re.search(r'default: ([\w.]+)\)', part)
            assert not default or default[1] == rows[option].strip(), f'{script}.py {option}'
    for name, text in TEXTS.items():
        for command in printed_commands(text):
            script = next((word[:-3] for word in command if word[:-3] in known and word.endswith('.py')), None)
            used = {word.split('=')[0] for word in command if re.match('--[a-z]', word)} if script else set()
            assert used <= {'--help', '--ips', *known[script]} if script else True, f'{name}: {command}'


def test_settings_that_commands_and_prose_name_exist():
    for name, text in TEXTS.items():
        for command in printed_commands(text):
            tried = False
            for word in command:
                tried = {'-s': True, '-o': False}.get(word, tried)
                key, equals, value = word.partition('=')
                if equals and re.fullmatch(r'[a-z_]+(\.[a-z_]+)*', key) and key != 'key.sub':
                    values = yaml.safe_load(value)
                    values = (
                        (values if isinstance(values, list) else [values['low'], values['high']]) if tried else [values]
                    )
                    for each in values:
                        schema.put(config.Config(), key, each, f'{name}: {word}')
        prose = re.sub(r'```python\n.*?```', '', text, flags=re.DOTALL)
        used = re.findall(rf'(?<![\w./])((?:{"|".join(SECTIONS)})\.[a-z_0-9]+)(?![\w(/])', prose)
        files = ('.py', '.txt', '.yaml', '.md', '.json', '.csv', '.pdparams', '.pdopt', '.png', '.jpg', '.zip')
        if name != 'house.md':  # it names functions
            assert {key for key in used if not key.endswith(files)} <= SETTINGS, name


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', TEXTS[page.name]):
        file, _, anchor = link.partition('#')
        if '://' in link:
            continue
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor and target.suffix == '.md':
            text = target.read_text(encoding='utf-8')
            titles = re.findall('^#+ (.*)', text, re.MULTILINE)
            anchors = [re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles]
            assert anchor in [*anchors, *re.findall('<a id="([^"]+)">', text)], link


def test_visualdl_is_never_shown_with_telemetry_on():
    for name, text in {**TEXTS, 'zodiac.ipynb': (ROOT / 'zodiac.ipynb').read_text(encoding='utf-8')}.items():
        for line in re.findall('visualdl --logdir.*', text):
            assert '--disable-telemetry' in line, name
