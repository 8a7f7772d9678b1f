# Everything runs in an environment of its own, made on first use: make VENV=/elsewhere test
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: install demo test lowest lint docs bench fuzz kill clean

install: $(READY)

$(READY): setup.py pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps biotorch==0.0.16  # its own networks are recorded in the tests
	touch $@

demo: $(READY)  ## four rules on real data, recorded, analysed, with a report to read
	$(BIN)/wtdiag train --rule bp --rule fa --rule sa --rule ia --data digits --model mlp --depth 4 \
		--epochs 10 --out runs/demo --force
	$(BIN)/wtdiag analyze runs/demo/bp runs/demo/fa runs/demo/sa runs/demo/ia --out runs/demo
	@echo "Open it with: $(BIN)/wtdiag open runs/demo"

test: $(READY)
	$(BIN)/python -m pytest -q --numprocesses auto

lowest:  ## the tests again with the lowest versions that pyproject.toml declares; TESTS="tests/probes" for some of them
	python3 -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct --editable ".[dev]"
	$(VENV)-lowest/bin/python -m pip install --quiet --no-deps biotorch==0.0.16
	$(VENV)-lowest/bin/python -m pytest -q --numprocesses auto -W default::DeprecationWarning $(TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## the documentation, with its tutorials executed, in docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d docs/_build/doctrees docs docs/_build/html

bench: $(READY)  ## ratios against native PyTorch, measured side by side; see bench/
	$(BIN)/python -m pip install --quiet weightwatcher==0.7.7
	$(BIN)/python -m bench

fuzz: $(READY)  ## 10,000 damaged run directories, studies, checkpoints and configurations; 35 minutes on two busy cores, 39 minutes of CPU time
	$(BIN)/python -m tests.fuzz.campaign

kill: $(READY)  ## 200 kills of commands that write, and full disks at each of their writes; about an hour on two cores
	$(BIN)/python -m bench kills
	$(BIN)/python -m bench full_disk

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
