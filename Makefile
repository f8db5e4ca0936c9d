# make demo: the whole experiment on the embedded task, three seeds; make test: the tests.
# The first time, both set up .venv. PYTHON=python3.12 make demo picks another interpreter (3.11 or newer).
PYTHON ?= python3

demo: .venv/installed
	.venv/bin/python sweep.py

test: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch .venv/installed

.PHONY: demo test
