"""The hash of a module's source code covers everything the module imports."""

import pytest

from zodiac.base import sources


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in which `script` imports two modules, directly and indirectly; a third is not imported."""
    (tmp_path / 'package' / 'inner').mkdir(parents=True)
    for path, text in {
        'script.py': 'import os\nfrom package import one\n',
        'package/one.py': 'def late():\n    from package.inner import two\n',
        'package/inner/two.py': 'VALUE = 1\n',
        'package/other.py': '',
    }.items():
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(sources, 'ROOT', str(tmp_path))
    yield tmp_path
    sources.code_hash.cache_clear()


def code_hash(*modules):
    sources.code_hash.cache_clear()
    return sources.code_hash(*modules)


@pytest.mark.parametrize('path', ['script.py', 'package/one.py', 'package/inner/two.py'])
def test_changed_code_that_is_imported_changes_the_hash(project, path):
    before = code_hash('script')
    with open(project / path, 'a') as file:
        file.write('MORE = 2\n')
    assert code_hash('script') != before


def test_changed_code_that_is_not_imported_keeps_the_hash(project):
    before = code_hash('script')
    (project / 'package' / 'other.py').write_text('MORE = 2\n')
    assert code_hash('script') == before
    assert code_hash('script', 'package.other') != before


def test_an_unknown_module_raises(project):
    with pytest.raises(ModuleNotFoundError, match='gone'):
        code_hash('gone')


def test_packages_beside_an_installed_zodiac_do_not_count(project, monkeypatch):
    monkeypatch.setattr(sources, 'INSTALLED', True)
    (project / 'zodiac').mkdir()
    (project / 'zodiac/one.py').write_text('import script\nfrom zodiac import two\n')
    (project / 'zodiac/two.py').touch()
    assert {path.rpartition('/')[2] for path in sources.source_files('zodiac.one')} == {'one.py', 'two.py'}
