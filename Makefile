# Everyday tasks, for people, hooks and CI; `on-time --help` lists all others. `make` without a target prints this list.
.DEFAULT_GOAL := help
RUN := @ops/ci/run
ON_TIME := @./on-time
SOURCES := app stages ops tests

# Settings for make's command line. Texts are passed by the environment, never as shell code.
VERSION := # version of the model: promote, rollback, image
REASON := # why Production is rolled back
export BASE := origin/main
HOST := # address that the service listens on
PORT := # port that the service listens on

##@ Set up
setup: ## create or repair .venv with the locked packages
	@ops/ci/setup

ray: ## add Ray to .venv, for the engine `ray`
	$(RUN) ops/ci/uv pip install --compile-bytecode --require-hashes --python .venv/bin/python -r requirements-ray.txt

data: ## fetch the raw tables and compare them with their pinned digests
	$(ON_TIME) data fetch

##@ Develop
test: data ## run the short tests, on all cores
	$(RUN) python -m pytest -n logical --dist loadfile

test-all: data ## run every test that this machine can run, one after another
	$(RUN) python -m pytest --all

lint: ## check formatting, style, types, imports, the Dockerfile and the workflows
	$(RUN) ops/ci/lint.sh

docs: ## build the documentation as a site, to build/site
	$(RUN) env NO_MKDOCS_2_WARNING=1 python -m mkdocs build --config-file ops/docs/mkdocs.yml
	@echo "Open build/site/index.html in a browser."

format: ## sort imports and format
	$(RUN) isort $(SOURCES)
	$(RUN) black --quiet $(SOURCES)

##@ Train and promote
repro: ## train, evaluate and register the model
	$(ON_TIME) model repro

compare: ## show the last pipeline runs side by side
	$(ON_TIME) model compare

gate: ## compare the metrics with those of the merge base with BASE=origin/main
	$(ON_TIME) model gate --base "$$BASE"

promote: ## make Staging (or VERSION=n) the Production version, if the gate accepts it
	$(ON_TIME) model promote $(if $(VERSION),--version "$$VERSION")

rollback: ## make the previous version (or VERSION=n) Production again; REASON="..." is recorded
	$(ON_TIME) model rollback $(if $(VERSION),--version "$$VERSION") $(if $(REASON),--reason "$$REASON")

history: ## show which versions were Production, from when to when, and why
	$(ON_TIME) model history

##@ Run
serve: ## start the API on the Production version (HOST=127.0.0.1 PORT=8000)
	$(ON_TIME) model serve $(if $(HOST),--host "$$HOST") $(if $(PORT),--port "$$PORT")

ui: ## open MLflow's UI on the runs and the registry
	$(ON_TIME) model ui

image: ## build the image of the Production version (or VERSION=n)
	$(ON_TIME) release image $(if $(VERSION),--version "$$VERSION")

demo: ## train, promote when nothing is in Production, start the service, send one request (PORT=8000)
	$(ON_TIME) stack demo $(if $(PORT),--port "$$PORT")

stack: ## start the monitoring by Docker Compose
	$(ON_TIME) stack up

bench: ## measure the service beside an empty endpoint, MLflow's server and Booster.predict (10 minutes)
	$(ON_TIME) bench serving
	$(ON_TIME) bench request

##@ Other
help: ## print this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\nAll other commands: ./on-time --help\n'

clean: ## remove generated files, but not data, cache or MLflow
	rm -rf build .pytest_cache .mypy_cache .hypothesis

.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' $(firstword $(MAKEFILE_LIST)))
