# Everything here needs Go, make and git. Binaries go to bin/.

BIN     := $(CURDIR)/bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# All packages but integration/, which runs the built binaries.
UNIT     = $(shell go list ./... | grep -v /integration)
FUZZTIME ?= 60s

# Without cgo a C compiler is not needed, and the builds of binaries and tests share one cache.
export CGO_ENABLED := 0
# The version comes from LDFLAGS; stamping fails in checkouts that belong to another user.
export GOFLAGS := $(GOFLAGS) -buildvcs=false
export AVIARY_BIN := $(BIN)

.DEFAULT_GOAL := help
.NOTPARALLEL:

##@ Try it

.PHONY: demo
demo: build ## show it: a good canary is promoted, a bad one is taken back (about a minute once built)
	@$(BIN)/demo run

.PHONY: dev
dev: build ## Temporal with its UI, gateway, worker and a demo agent, until Ctrl-C
	@$(BIN)/demo dev

##@ Build

.PHONY: build
build: $(BIN)/devstack ## every binary into bin/
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./gateway ./worker ./starter ./examples/demo

# A module of its own: the Temporal server must not enter the module graph of the product.
.PHONY: $(BIN)/devstack
$(BIN)/devstack:
	cd devstack && go build -ldflags '$(LDFLAGS)' -o $@ .

.PHONY: prometheus
prometheus: ## bin/prometheus: the one in PATH, else built from tools/
	@tools/prometheus.sh $(BIN)

# A receiver of routes, and flagd's evaluator, which has a module of its own.
.PHONY: planes
planes:
	go build -o $(BIN)/ ./examples/webhook-receiver
	cd testkit/flagd && go build -o $(BIN)/flagd-evaluate ./evaluate

.PHONY: postgres
postgres: ## bin/postgres and bin/initdb: those of this machine, else Debian's, which root installs
	@tools/postgres.sh $(BIN) >/dev/null

##@ Check

.PHONY: test
test: check-graph unit test-flagd test-devstack test-bench integration ## every test, the end-to-end ones against real servers included

.PHONY: unit
unit: postgres ## the tests that need nothing but the code, and a PostgreSQL
	go test $(UNIT)

# A module of its own, too: nobody who imports the router wants flagd.
.PHONY: test-flagd
test-flagd: ## the flagd-compatible choice against flagd's own evaluator
	cd testkit/flagd && go test ./...

.PHONY: test-devstack
test-devstack: ## the tests of the embedded Temporal server
	cd devstack && go test ./...

.PHONY: test-bench
test-bench: ## the tests of the comparison with other proxies, which need none of them
	cd bench && go test ./...

.PHONY: integration
integration: build prometheus postgres planes ## the end-to-end tests on the built binaries
	go test -count=1 -timeout 25m ./integration/...

.PHONY: integration-k8s
integration-k8s: build prometheus ## the drivers for Kubernetes on a real API server and istiod, built on first use (about 20 CPU-minutes)
	testkit/kube/build.sh $(BIN)/kube
	$(BIN)/kube/cluster --bin $(BIN)/kube --istio -- go test -tags k8s -count=1 -timeout 25m ./activities/traffic/... && \
	  $(BIN)/kube/cluster --bin $(BIN)/kube --istio -- go test -tags k8s -count=1 -timeout 25m -run Kubernetes ./integration

RACE ?= $(UNIT)
.PHONY: race
race: postgres ## the unit tests, or RACE=packages, under the race detector, which needs a C compiler
	@command -v cc >/dev/null || { apt-get update && apt-get install -y gcc libc6-dev; }
	CGO_ENABLED=1 go test -race -timeout 25m $(RACE)

.PHONY: replay
replay: ## today's workflow code against the histories of earlier versions
	go test -count=1 -run Replay ./workflows/...

.PHONY: fuzz
fuzz: ## every fuzzer for FUZZTIME (60s)
	@.ci/fuzz $(FUZZTIME)

.PHONY: check-graph
check-graph: ## the product depends on neither the Temporal server nor Prometheus
	@.ci/check-graph

.PHONY: lint
lint: $(BIN)/golangci-lint $(BIN)/workflowcheck ## formatting, vet, golangci-lint with the import rules, workflow determinism
	@files="$$(gofmt -l .)"; \
	  if [ -n "$$files" ]; then echo "run gofmt -w on:"; echo "$$files"; exit 1; fi
	go vet ./...
	cd devstack && go vet ./...
	cd testkit/flagd && go vet ./...
	cd testkit/kube/cluster && go vet ./...
	cd testkit/kube/xds && go vet ./...
	go vet -tags k8s ./activities/traffic/... ./integration
	cd bench && go vet ./...
	$(BIN)/golangci-lint run --allow-parallel-runners ./...
	cd devstack && $(BIN)/golangci-lint run --allow-parallel-runners -c ../.golangci.yml ./...
	cd testkit/flagd && $(BIN)/golangci-lint run --allow-parallel-runners -c ../../.golangci.yml ./...
	cd bench && $(BIN)/golangci-lint run --allow-parallel-runners -c ../.golangci.yml ./...
	$(BIN)/workflowcheck -test=false ./workflows/...

$(BIN)/golangci-lint: tools/lint/go.mod tools/lint/go.sum
	cd tools/lint && go build -ldflags '-s -w' -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BIN)/workflowcheck: tools/lint/go.mod tools/lint/go.sum
	cd tools/lint && go build -ldflags '-s -w' -o $@ go.temporal.io/sdk/contrib/tools/workflowcheck

##@ Measure

.PHONY: bench
bench: ## the Go benchmarks
	go test -run '^$$' -bench . -benchmem $(UNIT)

.PHONY: bench-reaction
bench-reaction: build ## from a violation to weight 0, and to the canary's last request, 50 times: p50 and p99
	go test -count=1 -timeout 25m -run '^$$' -bench 'Reaction|Withdrawal' -benchtime 50x ./integration

.PHONY: bench-k8s
bench-k8s: build prometheus ## from a restore to weight 0 in a route, and to the canary's last call on a mesh, 50 times: p50 and p99
	testkit/kube/build.sh $(BIN)/kube
	$(BIN)/kube/cluster --bin $(BIN)/kube --istio -- go test -tags k8s -count=1 -timeout 25m -run '^$$' -bench Kubernetes -benchtime 50x ./integration

.PHONY: bench-analysis
bench-analysis: ## verdicts on made-up canaries, ours and other tools', into docs/statistics.md (about half an hour)
	go run ./internal/trials/tables -o docs/statistics.md

.PHONY: bench-router
bench-router: build ## the gateway against nginx, haproxy, Caddy and Traefik (about 10 minutes once built); ARGS='-h' lists flags
	@bench/router.sh $(ARGS)

##@ Keep house

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
