"""make bench: one table of what the benchmarks print, with what is missed, and the page that is made from it."""

import json
import re
import sys

import pytest
from conftest import ROOT

from zodiac.base.errors import UsageError, UserError

sys.path.append(str(ROOT / 'benchmarks'))
import all as bench
import ratios

RECORD = ROOT / 'docs/results/speed.json'
MACHINE = {'processor': 'P', 'features': ['avx2', 'avx512_vnni'], 'cores': 2, 'python': '3.11.1', 'openvino': '2026.4'}


def line(capsys, function, *arguments, **more):
    """The JSON line that `ratios.report` or `ratios.limit` prints."""
    function(*arguments, **more)
    return json.loads(capsys.readouterr().out)


def recorded(lines, **more):
    return {
        'command': 'python benchmarks/x.py',
        'machine': MACHINE,
        'seconds': 1,
        'lines': lines,
        'failed': False,
        **more,
    }


@pytest.mark.parametrize(
    ('above', 'target', 'needs', 'expected'),
    [
        ([8, 9, 10], 8.0, None, ['9 (8 to 10)', '3', '≥ 8', '']),
        ([8, 9, 10], 9.5, None, ['9 (8 to 10)', '3', '≥ 9.5', 'missed']),
        ([9], 9.5, 'vnni', ['9', '1', '≥ 9.5', 'missed']),
        ([9], 9.5, 'bf16', ['9', '1', '≥ 9.5', 'not applicable: no bf16']),
        ([9], None, None, ['9', '1', '', '']),
    ],
)
def test_a_ratio_is_met_missed_or_not_applicable_to_the_processor(capsys, above, target, needs, expected):
    found = line(capsys, ratios.report, 'x', above, [1] * len(above), target, needs=needs)
    assert bench.row_of(found, MACHINE['features']) == ('x', '', *expected)


@pytest.mark.parametrize(('values', 'verdict'), [([1.5, 2, 2.5], ''), ([2.5], 'missed')])
def test_a_limit_is_met_up_to_the_most_that_is_allowed(capsys, values, verdict):
    found = line(capsys, ratios.limit, 'x', values, 's', 2.0)
    assert bench.row_of(found, [])[-2:] == ('≤ 2 s', verdict)


@pytest.mark.parametrize(('lost', 'verdict'), [(0, ''), (1, 'missed')])
def test_nothing_may_be_lost(lost, verdict):
    row = bench.row_of({'benchmark': 'uploads', 'malformed': 500, 'lost': lost}, [])
    assert '500' in row[0] and row[-2:] == ('≤ 0', verdict)


def test_what_follows_a_colon_in_the_name_is_in_the_text():
    assert 'batch 32' in bench.row_of({'benchmark': 'engines: batch 32', 'ratio': 1.0, 'target': 1.0}, [])[0]


def test_lines_without_a_figure_have_no_row():
    assert bench.rows_of(recorded([{'benchmark': 'x', 'rows': []}])) == []


def test_each_comparison_has_a_text_for_the_table():
    sources = [path.read_text(encoding='utf-8') for path in (ROOT / 'benchmarks').glob('*.py')]
    names = {name for text in sources for name in re.findall(r"(?:report|limit)\('(\w+)'", text)}
    assert names - {*bench.TEXTS} == set() and 'predict' in names


def test_the_commands_name_benchmarks_that_exist():
    for script, *_ in bench.COMMANDS.values():
        assert (ROOT / 'benchmarks' / script).is_file()


def test_what_needs_photos_says_so_and_does_without_pytorch():
    args = bench.command_line('').parse_args([])
    args.work, args.photos, args.torch = 'work', None, None
    with pytest.raises(UsageError, match='photos: needs --photos'):
        bench.complete('photos', args)
    args.photos = 'animals8'
    assert bench.complete('photos', args) == ['photos_to_classifier.py', 'animals8']


@pytest.mark.parametrize(('failed', 'status'), [(False, 0), (True, 1)])
def test_a_missed_target_is_reported_and_only_a_failure_fails(monkeypatch, capsys, tmp_path, failed, status):
    missed = {'benchmark': 'predict', 'ratio': 2.0, 'target': 8.0, 'pairs': 3}
    monkeypatch.setattr(bench, 'measure', lambda command: recorded([missed], failed=failed))
    record = tmp_path / 'speed.json'
    monkeypatch.setattr(sys, 'argv', ['all.py', '--only', 'loader', 'training', '--record', str(record)])
    assert bench.main() == status
    printed = capsys.readouterr()
    assert 'targets missed: 2, not applicable: 0' in printed.out and ('failed' in printed.err) == failed
    assert record.exists() != failed
    if not failed:
        assert json.loads(record.read_text()) == [recorded([missed])]  # the second replaces the first: the same command


def test_a_page_gets_the_tables_between_its_marks(monkeypatch, tmp_path):
    record, page = tmp_path / 'speed.json', tmp_path / 'page.md'
    record.write_text(json.dumps([recorded([{'benchmark': 'predict', 'ratio': 2.0, 'target': 8.0, 'ours': 'int8'}])]))
    monkeypatch.setattr(sys, 'argv', ['all.py', '--record', str(record), '--page', str(page)])
    page.write_text('before\n')
    with pytest.raises(UserError, match=r'page\.md: has no lines'):
        bench.main()
    with monkeypatch.context() as without_results:
        without_results.setattr(sys, 'argv', ['all.py', '--page', str(page)])
        with pytest.raises(UsageError, match='--page .*: needs --record'):
            bench.main()
    page.write_text(f'before\n{bench.BEGIN}old\n{bench.END}after\n')
    bench.main()
    text = page.read_text(encoding='utf-8')
    assert text.startswith(f'before\n{bench.BEGIN}\n2 cores of P (avx2 avx512_vnni); python 3.11.1, openvino 2026.4.\n')
    assert text.endswith(f'| ≥ 8 | missed | `x.py` |\n\n{bench.END}after\n') and 'old' not in text


@pytest.mark.skipif(not RECORD.is_file(), reason='no results are recorded')
def test_the_page_has_the_recorded_figures():
    page = (ROOT / 'docs/performance.md').read_text(encoding='utf-8')
    assert bench.markdown(json.loads(RECORD.read_text(encoding='utf-8'))) in page
