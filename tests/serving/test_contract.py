"""Answers conform to /openapi.json, for requests generated from it."""

import pytest
from small_server import limits, served

schemathesis = pytest.importorskip('schemathesis', reason='requirements-dev.txt is not installed')
pytest.importorskip('fastapi', reason='requirements-serve.txt is not installed')
import hypothesis  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    negative_data_rejection,
    positive_data_acceptance,
)

from zodiac.serving import application  # noqa: E402

APPS = [application.create(served(), limits(), token=token) for token in (None, 'secret')]
OPEN, CLOSED = (schemathesis.openapi.from_asgi('/openapi.json', app) for app in APPS)
NO_SCHEMA_SAYS_WHICH_BYTES_ARE_AN_IMAGE = [positive_data_acceptance]


@OPEN.parametrize()
@hypothesis.settings(max_examples=60, derandomize=True)
def test_answers_are_as_described(case):
    case.call_and_validate(excluded_checks=NO_SCHEMA_SAYS_WHICH_BYTES_ARE_AN_IMAGE)


@CLOSED.parametrize()
@hypothesis.settings(max_examples=30, derandomize=True)
def test_answers_with_a_token_are_as_described(case):
    excluded = [*NO_SCHEMA_SAYS_WHICH_BYTES_ARE_AN_IMAGE, negative_data_rejection]  # which omits the header given here
    case.call_and_validate(headers={'Authorization': 'Bearer secret'}, excluded_checks=excluded)


@CLOSED.parametrize()
@hypothesis.settings(max_examples=30, derandomize=True)
def test_refusals_without_a_token_are_as_described(case):
    case.call_and_validate(excluded_checks=NO_SCHEMA_SAYS_WHICH_BYTES_ARE_AN_IMAGE)
