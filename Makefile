# A menu over `python -m pipeline VERB`. Anything that thinks is Python.
PYTHON ?= python3
RECIPE ?= recipes/demo.toml
STORE ?= store
DRY = $(if $(filter-out 0,$(DRY_RUN)),--dry-run)
PIPELINE = $(PYTHON) -m pipeline $(DRY)
RUN = @$(if $(DRY),echo "would run:") $(PYTHON) -m
JOBS ?= 1
ENGINE ?=
WITH_ENGINE = $(if $(ENGINE),--engine $(ENGINE))
BUILD = $(PIPELINE) build --recipe "$(RECIPE)" --store "$(STORE)" --jobs $(JOBS) $(WITH_ENGINE)

.PHONY: help
help: ## This menu
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  (RECIPE=$(RECIPE) STORE=$(STORE) JOBS=$(JOBS) ENGINE=docker|venv|here; DRY_RUN=1 only says what would be done)"

.PHONY: demo
demo: ## The whole build on this CPU: make, distil, quantise, serve and grade a small model
	@$(PIPELINE) build --recipe recipes/demo.toml --store "$(STORE)" --engine $(or $(ENGINE),venv)

.PHONY: test lint
test: ## All tests
	$(RUN) tests

lint: ## ruff, mypy --strict and hadolint
	$(RUN) tests.lint

.PHONY: doctor gpu-check
doctor: ## Is this host ready to build RECIPE? What is not, with its fix
	@$(PIPELINE) doctor --recipe "$(RECIPE)" --store "$(STORE)"

gpu-check: ## The GPU: NF4, an optimizer step, a completion, each in its image; PASS or FAIL
	@$(PIPELINE) gpu-check --store "$(STORE)" $(WITH_ENGINE)

.PHONY: plan all
plan: ## What a build would do and need: cached or to build, bytes, memory, time (GRAPH=FILE.svg PRICE=)
	@$(PIPELINE) plan --recipe "$(RECIPE)" --store "$(STORE)" $(if $(GRAPH),--graph "$(GRAPH)") $(if $(PRICE),--price $(PRICE))

all: ## Everything that RECIPE asks for
	@$(BUILD)

.PHONY: base text rows dataset adapter merged adapter-gguf gguf answers divergence train
base text rows dataset adapter merged adapter-gguf gguf answers divergence: ## That artifact of RECIPE, and what it comes from
	@$(BUILD) $@ $(BESIDE)

dataset: BESIDE = dataset-report

gguf-%:
	@$(BUILD) $@

train: ## What RECIPE trains: the LoRA adapter, or with method "full" the whole checkpoint
	@$(BUILD) trained

.PHONY: join watch
join: ## This host's share (HOST=1) of the training that another host builds on the same store
	@$(PIPELINE) join --recipe "$(RECIPE)" --store "$(STORE)" $(WITH_ENGINE) "$(HOST)"

watch: ## The training in a browser, live: loss, speed, memory, warnings (PORT=8090)
	@$(PIPELINE) watch --recipe "$(RECIPE)" --store "$(STORE)" --port $(or $(PORT),8090)

.PHONY: serve traffic
serve: ## An OpenAI-compatible endpoint and a chat page (SERVE="--host 0.0.0.0 --api-key-file F")
	@$(PIPELINE) serve --recipe "$(RECIPE)" --store "$(STORE)" $(WITH_ENGINE) $(SERVE)

traffic: ## What two versions get of it; CANARY=10 sends 10 % to the new one, 0 rolls back
	@$(PIPELINE) traffic $(CANARY)

.PHONY: report export publish
report export publish: ## A page on RECIPE's results; its files for others; on the hub (PUBLISH=--upload)
	@$(PIPELINE) $@ --recipe "$(RECIPE)" --store "$(STORE)" $(PUBLISH)

.PHONY: masks show verify
masks: ## One row with its supervised tokens marked (ROW=0, or an id)
	@$(PIPELINE) masks --recipe "$(RECIPE)" --store "$(STORE)" $(WITH_ENGINE) $(or $(ROW),0)

show: ## What the store holds
	@$(PIPELINE) show --store "$(STORE)"

verify: ## Hash every file of the store against its manifest
	@$(PIPELINE) verify --store "$(STORE)"

.PHONY: rebuild gc
rebuild: ## Make the recipe's artifacts again, elsewhere, and compare every byte
	@$(PIPELINE) rebuild --recipe "$(RECIPE)" --store "$(STORE)" $(WITH_ENGINE)

gc: ## List what no recipe reaches (GC=--delete removes it)
	@$(PIPELINE) gc --recipe "$(RECIPE)" --store "$(STORE)" $(GC)

.PHONY: images pull push image-check
images: ## RECIPE's container images, built where neither this host nor REGISTRY has them (BASE=)
	@$(PIPELINE) images build --recipe "$(RECIPE)" --registry "$(REGISTRY)" --base "$(BASE)"

pull push: ## The container images from or to REGISTRY, checked by their labels
	@$(PIPELINE) images $@ --recipe "$(RECIPE)" --registry "$(REGISTRY)"

image-check: ## Build IMAGE twice from scratch and compare every file of the two
	@$(PIPELINE) images check $(or $(IMAGE),train) --base "$(BASE)"

.PHONY: compose locks reference
compose: ## Write .env for docker compose: the tags of the images, and you
	$(RUN) pipeline.engine.compose

locks: ## Resolve docker/*.in into hash-locked docker/*.lock
	$(RUN) pipeline.engine.locks

reference: ## Write recipes/reference.toml and docs/recipe.md from the recipe's fields
	$(RUN) pipeline.recipe.reference recipes/reference.toml docs/recipe.md
