# make demo    the main job, end to end, in a lab on this machine
# make test    every check and every test
# make bench   what it costs, beside what it must be at most
# make interop the gateway with other WireGuards
# make kernel  what needs a kernel with WireGuard or MACsec, in a machine of its own
# make build   target/release/tieline
# make soak    the tunnel at full rate for SOAK_MINUTES (10), with rekeys, roaming and changes; needs root
# make fuzz    whatever comes from outside, for FUZZ_SECONDS (60) a target
# Each installs what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tieline/tools/bin
export PATH := $(TOOLS):$(PATH)
WIREGUARDS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tieline/wireguards/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Runs a command and prints how many minutes it took.
stage = @start=$$(date +%s); printf '\n== %s\n' '$(1)'; $(2); \
	awk -v s=$$(( $$(date +%s) - start )) 'BEGIN { printf "== %s: %.1f min\n", "$(1)", s / 60 }'

.PHONY: help build demo bench bench-dataplane soak fuzz test tools-build tools-test fmt clippy deny machete nextest openapi faults interop kernel

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

tools-build:
	@scripts/install-tools.sh

tools-test:
	@scripts/install-tools.sh test

build: tools-build
	CARGO_TARGET_DIR=$(CURDIR)/target cargo build --release -p tieline

demo: tools-build
	cargo build -p tieline
	$(TARGET)/debug/tieline demo $(if $(KEEP),--keep) $(DEMO_FLAGS)

# BENCH='api_sqlite scale dataplane' chooses; BENCH_SECONDS, BENCH_LINKS and BENCH_RUNS shorten it.
bench: tools-build
ifneq ($(BENCH),dataplane)
	CARGO_TARGET_DIR=$(CURDIR)/target cargo build --release -p tieline
	$(if $(wildcard api/benches/negotiate.rs),CARGO_TARGET_DIR=$(CURDIR)/target cargo bench -p tieline-api --bench negotiate)
	CARGO_TARGET_DIR=$(CURDIR)/target cargo bench -p tieline-api --bench bench -- $(filter-out dataplane,$(BENCH))
endif
	$(if $(or $(filter dataplane,$(BENCH)),$(if $(BENCH),,all)),@$(MAKE) --no-print-directory bench-dataplane)

# The tunnel beside other userspace WireGuards; the figures join those of the report.
bench-dataplane:
	@scripts/install-tools.sh bench
	@scripts/install-wireguards.sh
	CARGO_TARGET_DIR=$(CURDIR)/target cargo bench -p tieline-dataplane --bench tunnel

test:
	$(call stage,tools,$(MAKE) --no-print-directory tools-test)
	$(call stage,fmt,$(MAKE) --no-print-directory fmt)
	$(call stage,deny,$(MAKE) --no-print-directory deny)
	$(call stage,machete,$(MAKE) --no-print-directory machete)
	$(call stage,clippy,$(MAKE) --no-print-directory clippy)
	$(call stage,build,cargo build --workspace --all-targets)
	$(call stage,nextest,$(MAKE) --no-print-directory nextest)

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets -- -D warnings

deny:
	cargo deny --log-level error check licenses bans sources
	@cargo deny --log-level error fetch db >/dev/null 2>&1 && cargo deny --log-level error check advisories \
		|| echo 'advisories: SKIPPED, the advisory database cannot be reached from here'

machete:
	cargo machete

# One more than there are cores: some tests wait most of their life.
nextest:
	TIELINE_BIN=$(abspath $(TARGET))/debug/tieline cargo nextest run --workspace --all-targets --test-threads $$(( $$(nproc) + 1 ))

# Writes the committed documents anew from the code.
openapi:
	TIELINE_UPDATE=1 cargo nextest run -p tieline-openapi -p tieline-api committed_document

# The engine under 20,000 random schedules on SQLite and 2,000 on Postgres: for a nightly run.
faults: tools-test
	TIELINE_FAULT_SEEDS=20000 cargo nextest run --profile faults -p tieline-api faults

# The gateway with each WireGuard that can be had here, and with the kernel's in a machine of its own: for a nightly run.
interop: tools-test
	@scripts/install-wireguards.sh
	@for peer in wireguard-go gotatun boringtun-cli; do \
		program=$(WIREGUARDS)/$$peer; \
		if [ ! -x $$program ]; then echo "$$peer: SKIPPED, it cannot be had here"; continue; fi; \
		printf '\n== %s %s\n' $$peer "$$(cat $(WIREGUARDS)/../$$peer.version)"; \
		TIELINE_WIREGUARD_GO=$$program cargo nextest run -p tieline-dataplane --no-fail-fast -E 'test(/^interop/)' || failed=1; \
	done; \
	if machine=$$(scripts/install-kernel-machine.sh); then \
		printf '\n== the kernel %s\n' "$$(cat $$machine/version)"; \
		TIELINE_KERNEL_MACHINE=$$machine cargo nextest run -p tieline-dataplane --no-fail-fast -E 'test(/^interop/)' || failed=1; \
	else echo "the kernel's WireGuard: SKIPPED, it cannot be had here"; fi; exit $${failed:-0}

# An HTTP client wants certificates, though nothing there has any use for them.
CERTIFICATES := $(wildcard /etc/ssl/certs/ca-certificates.crt)
# Emulated, and some twenty times slower than others: for a nightly run.
kernel: tools-test
	@scripts/install-kernel-machine.sh >/dev/null
	@built=$$(cargo build --workspace --all-targets --message-format json-render-diagnostics | grep '"name":"it"'); \
	tests() { sed -n 's/.*#tieline-'$$1'@.*"executable":"\([^"]*\)".*/\1/p' <<<"$$built"; }; \
	inside() { MACHINE_SECONDS=1800 scripts/in-kernel-machine.sh \
		$(foreach file,$(CERTIFICATES),-f $(file) -e SSL_CERT_FILE=/bin/$(notdir $(file))) "$$@" --test-threads 1 --nocapture; }; \
	inside -f bird "$$(tests lab)" macsec:: || failed=1; \
	inside -f $(TARGET)/debug/tieline -e TIELINE_BIN=/bin/tieline "$$(tests dataplane)" kernel:: || failed=1; exit $${failed:-0}

soak: tools-test
	SOAK_MINUTES=$(or $(SOAK_MINUTES),10) cargo nextest run --profile soak --no-capture -p tieline-dataplane runs_for_as_long

# Coverage without a sanitizer needs no nightly compiler; what is written anew to the corpus stays out of the repository.
fuzz:
	@scripts/install-tools.sh fuzz
	cd dataplane/fuzz && for target in $(or $(FUZZ_TARGETS),network tun coalesce probe control); do \
		mkdir -p $(abspath $(TARGET))/fuzz/$$target && \
		CARGO_TARGET_DIR=$(abspath $(TARGET))/fuzz/build cargo fuzz run --sanitizer none $$target $(abspath $(TARGET))/fuzz/$$target \
			corpus/$$target -- -max_total_time=$(or $(FUZZ_SECONDS),60) -timeout=5 -rss_limit_mb=1024 -max_len=70000 || exit 1; \
	done
