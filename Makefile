# make demo | test | lint | bench | bench-gpu | clean: each makes .venv first and installs what it needs.
# make bench RECORD=FILE: also keep the results as JSON, from which docs/performance.md is made.
PYTHON ?= python3
VENV ?= .venv
REQUIREMENTS ?= $(shell nvidia-smi >/dev/null 2>&1 && echo requirements.txt || echo requirements-cpu.txt)
RUN = $(VENV)/bin/python

demo: $(VENV)/.installed
	$(RUN) demo.py

test: $(VENV)/.installed
	$(RUN) -m pytest -q -n 4 --dist loadfile

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(VENV)/.installed
	$(RUN) benchmarks/all.py $(if $(RECORD),--record $(RECORD))

bench-gpu: $(VENV)/.installed
	$(RUN) benchmarks/training.py --device gpu --amp O1 --size 224 --batch 128 --steps 30

$(VENV)/.installed: constraints.txt $(wildcard requirements*.txt)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade pip
	$(RUN) -m pip install -q -c constraints.txt -r $(REQUIREMENTS) -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) output demo_images notebook_images

.PHONY: demo test lint bench bench-gpu clean
