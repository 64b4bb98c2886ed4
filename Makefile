# make demo | test | lint | bench | clean. Each makes .venv first and installs what it needs.
PYTHON ?= python3
VENV ?= .venv
REQUIREMENTS ?= $(shell nvidia-smi >/dev/null 2>&1 && echo requirements.txt || echo requirements-cpu.txt)
RUN = $(VENV)/bin/python

demo: $(VENV)/.installed
	$(RUN) demo.py

test: $(VENV)/.installed
	$(RUN) -m pytest -q

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(VENV)/.installed
	$(RUN) benchmarks/annotate.py demo_images/train

$(VENV)/.installed: requirements-base.txt requirements-dev.txt $(REQUIREMENTS)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade pip
	$(RUN) -m pip install -q -r $(REQUIREMENTS) -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) output demo_images

.PHONY: demo test lint bench clean
