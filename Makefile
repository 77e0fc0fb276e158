# make demo    sets up what is missing and gives the tour
# make test    sets up what is missing and runs every test
# The rest is for those who work on s4.

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -X main.version=$(VERSION)
FUZZTIME ?= 1m

.PHONY: demo test build install tools-demo tools-test tools-bench unit race e2e fuzz lint bench clean

demo: tools-demo build
	scripts/demo.sh bin/s4

# Everything runs once, under the race detector: packages, command line
# scripts, and the whole program on real borg, sshd and FUSE.
test: tools-test
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt on these'; exit 1; }
	go vet ./...
	scripts/test.sh

build:
	go build -ldflags '$(LDFLAGS)' -o bin/s4 ./cmd/s4

install: build
	install -D -m 755 bin/s4 $(DESTDIR)/usr/local/bin/s4

tools-demo tools-test tools-bench:
	scripts/tools.sh $(@:tools-%=%)

unit:
	go test $$(go list ./... | grep -v /e2e)

race:
	go test -race $$(go list ./... | grep -v /e2e)

e2e:
	go test -count=1 ./e2e

fuzz:
	scripts/fuzz.sh $(FUZZTIME)

lint:
	go run $(GOLANGCI_LINT) run

bench: tools-bench build
	scripts/bench.sh bin/s4

clean:
	rm -rf bin bench.out
