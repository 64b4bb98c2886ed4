# make demo | test | lint | bench | bench-gpu | clean: each makes .venv first and installs what it needs.
# make bench IMAGES=FOLDER INFER=FOLDER: a folder with one folder per class, and an export; by default those of make demo.
PYTHON ?= python3
VENV ?= .venv
IMAGES ?= demo_images/train
INFER ?= output/demo/infer
REQUIREMENTS ?= $(shell nvidia-smi >/dev/null 2>&1 && echo requirements.txt || echo requirements-cpu.txt)
RUN = $(VENV)/bin/python

demo: $(VENV)/.installed
	$(RUN) demo.py

test: $(VENV)/.installed
	$(RUN) -m pytest -q -n 4 --dist loadfile

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(VENV)/.installed | $(IMAGES) $(INFER)
	$(RUN) benchmarks/annotate.py $(IMAGES)
	$(RUN) benchmarks/annotate.py --photos 300
	$(RUN) benchmarks/loader.py --pairs 2 --photos 128
	$(RUN) benchmarks/training.py --pairs 1
	$(RUN) benchmarks/processes.py --pairs 2
	$(RUN) benchmarks/serve.py $(INFER) --pairs 2 --clients 1 16 --seconds 3
	$(RUN) benchmarks/start.py $(INFER)
	$(RUN) benchmarks/uploads.py --infer $(INFER) --malformed 500 --good 500

demo_images/train output/demo/infer: | $(VENV)/.installed
	$(RUN) demo.py

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
