# make demo   the main job, end to end, on the embedded sample (about 10 minutes on two cores)
# make demo DATA=FOLDER   the same on real EM: trains on FOLDER/fib25-train.zarr, scores on FOLDER/fib25-val.zarr;
#                         MINUTES=60 says how long to train, whatever the machine
# make test   all tests
# make soak   the chain under 200 faults, on a SLURM of its own (an hour on two cores; as root)
# make env    only the set-up, in .venv
PYTHON ?= python3
# one more than there are cores, since many tests wait for SLURM, databases and timeouts; each takes up to 3 GB
PROCESSES ?= $(shell n=$$(($$(getconf _NPROCESSORS_ONLN) + 1)); echo $$((n < 4 ? n : 4)))
DEMO ?= $(if $(DATA),demo-real,demo)

.PHONY: env dev demo test soak lint docs clean

env:
	@$(PYTHON) tools/env.py

dev:
	@$(PYTHON) tools/env.py dev

demo: env
	@.venv/bin/neuroloom demo $(DEMO) $(if $(DATA),--data $(DATA)) $(if $(MINUTES),--minutes $(MINUTES))

test: dev lint
	@.venv/bin/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

soak: dev
	@PYTHONPATH=.:src:tests .venv/bin/python -m tests.system.soak $(if $(FIRST),--first $(FIRST))

lint: dev
	@.venv/bin/ruff check src tests benchmarks tools
	@.venv/bin/ruff format --check src tests benchmarks tools
	@.venv/bin/mypy

docs:
	@$(PYTHON) tools/env.py docs
	@.venv/bin/mkdocs build --strict

clean:
	rm -rf .venv demo demo-real site
