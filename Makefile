# drover. `make` lists the targets.

.DEFAULT_GOAL := help
SHELL := /bin/bash
# gocv builds only the OpenCV modules that these tags name.
export GOFLAGS := -tags=gocv_specific_modules,gocv_videoio,gocv_imgcodecs $(GOFLAGS)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMITTED := $(shell git log -1 --format=%ct 2>/dev/null)
STAMP := github.com/droverhq/drover/cmd/internal/version
LDFLAGS := -s -w -X $(STAMP).Version=$(VERSION) -X $(STAMP).Committed=$(COMMITTED)
# gocv would link every OpenCV module, and with them 220 libraries that
# drover-infer never calls: it names the two it needs and drops the rest.
INFER_CGO = CGO_CFLAGS='-O2 -ffunction-sections' \
  CGO_CXXFLAGS="-O2 --std=c++11 -DNDEBUG -ffunction-sections $$(pkg-config --cflags opencv4)" \
  CGO_LDFLAGS="$$(pkg-config --libs-only-L opencv4) -lopencv_imgproc -lopencv_core -Wl,--gc-sections"
# Packages that need cgo (OpenCV, TFLite); all others are pure Go and tested
# under the race detector.
CGO_PACKAGES := ./camera/opencv/... ./infer/prep/... ./infer/tflite/... ./cmd/drover-camera/... ./cmd/drover-infer/...
# Arithmetic on megabytes in one goroutine: the race detector has nothing to find
# there, and makes it ten times slower.
RACELESS := ./ota/delta
PURE_PACKAGES = $(shell go list ./... | grep -vxF -f <(go list $(CGO_PACKAGES) $(RACELESS)) | grep -Ev '/test/(story|kill|soak)')

# Parsers of bytes that come from outside the process: a second of fuzzing each
# is part of the tests, under a minute and a half in all.
FUZZ_PACKAGES := ./agent/enroll ./agent/link ./agent/wire ./camera ./camera/ipc ./cloud/broker ./cloud/identity \
  ./cloud/monitor ./cloud/multicast ./infer/host/... ./infer/modelfile ./ota ./ota/bundle ./ota/store ./ota/trust

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what building needs (root, once)
	@.ci/setup build

build: setup programs ## build the four programs into build/

programs:
	@mkdir -p build
	@echo building droverd, drover, drover-camera and drover-infer >&2
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o build/ ./cmd/droverd ./cmd/drover
	@go build -trimpath -ldflags '$(LDFLAGS)' -o build/ ./cmd/drover-camera
	@$(INFER_CGO) go build -trimpath -ldflags '$(LDFLAGS)' -tags customenv,gocv_specific_modules -o build/ ./cmd/drover-infer

demo: ## train, sign, roll out and replace a model on a real device daemon; ONCE=1 runs the story without asking
	@.ci/setup demo
	@$(MAKE) --no-print-directory programs
	@build/drover up --demo --dir $(or $(DIR),demo) $(if $(ONCE),--once) $(UP)

test: ## everything: unit, race, cgo packages, the story on built programs
	@.ci/setup test
	@$(MAKE) --no-print-directory programs
	DROVER_PROGRAMS=$(CURDIR)/build go test -race -timeout 15m $(PURE_PACKAGES)
	DROVER_PROGRAMS=$(CURDIR)/build go test -timeout 15m $(CGO_PACKAGES) $(RACELESS)
	go test -timeout 5m -count=1 -run '^TestCrashMatrix$$' ./ota
	DROVER_PROGRAMS=$(CURDIR)/build go test -timeout 20m -count=1 ./test/story/...
	DROVER_PROGRAMS=$(CURDIR)/build go test -timeout 10m -count=1 ./test/kill -rounds 5
	DROVER_PROGRAMS=$(CURDIR)/build go test -timeout 10m -count=1 ./test/soak -for 12s
	@.ci/fuzz 1s $(FUZZ_PACKAGES)

short: ## quick tests while working: pure Go, no race detector
	go test -short $(PURE_PACKAGES)

lint: ## gofmt, go vet, staticcheck; govulncheck where its database can be reached
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'lint: run gofmt -w on the files above' >&2; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	@if [ -n "$$GOVULNDB" ]; then go run $(GOVULNCHECK) ./...; else echo 'lint: govulncheck skipped: set GOVULNDB to a reachable vulnerability database'; fi

bench-fanout: ## what one model costs the hub, 200 devices over mosquitto; FANOUT='-clients 50 -rounds 1' changes it
	@go run ./test/fanout $(FANOUT)

fuzz: ## every fuzz target for FUZZTIME (default 10s)
	@.ci/fuzz $(or $(FUZZTIME),10s)

bench-delta: ## ota/delta beside zstd, bsdiff and xdelta3 on real models; MODELS names their folder
	@.ci/setup bench
	@mkdir -p build
	@go build -o build/bench-delta ./test/bench/delta
	@build/bench-delta $(if $(MODELS),-models $(MODELS))

crash: ## every point of the crash matrix: each fault at each operation of an update (minutes)
	go test -timeout 60m -count=1 -v ./ota -run '^TestCrashMatrix$$' -crash-every 1 | grep -E 'crash-matrix|--- FAIL|crash_test|^(ok|FAIL)'

kill: ## the real daemon killed at random moments and system calls through whole updates; ROUNDS (default 200)
	@.ci/setup test
	@$(MAKE) --no-print-directory programs
	DROVER_PROGRAMS=$(CURDIR)/build go test -timeout 600m -count=1 -v ./test/kill -rounds $(or $(ROUNDS),200)

soak: ## updates under kills, broker restarts, partitions and full disks; MINUTES (default 2), UPDATES (at most, default 1000), DEVICES (default 3)
	@.ci/setup test
	@$(MAKE) --no-print-directory programs
	DROVER_PROGRAMS=$(CURDIR)/build go test -timeout 6000m -count=1 -v ./test/soak -for $(or $(MINUTES),2)m -updates $(or $(UPDATES),1000) -devices $(or $(DEVICES),3)

clean: ## remove what make built
	rm -rf build demo

.PHONY: help setup build programs demo test short lint fuzz bench-delta crash kill soak clean
