# Two commands do everything: `make serve` and `make test`. CI calls `make test` and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEVICE := target/device/device
# Changes to the Rust or the packaging mean a new build.
SOURCES := $(shell find src python -name '*.rs' -o -name '*.py' -o -name '*.pyi') Cargo.toml Cargo.lock pyproject.toml

.PHONY: serve test test-rust test-python test-wheel lint fmt bench bench-instructions fuzz soak autobahn audit wheel clean

serve: $(VENV)/installed
	$(BIN)/cuttlefish-signaling serve $(ARGS)

test: lint test-rust test-python test-wheel

test-rust:
	cargo test --locked
	cargo test --locked --features shuttle --test interleavings

test-python: $(VENV)/develop $(DEVICE)
	$(BIN)/python -m pytest $(ARGS)

# The wheel, built once, on every CPython there is.
test-wheel: wheel $(VENV)/tools
	$(BIN)/python tests/wheel.py dist/*.whl

lint: $(VENV)/develop
	cargo fmt --check
	cargo clippy --locked --lib --test interleavings --features shuttle -- -D warnings
	PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON=$(BIN)/python cargo clippy --locked --all-targets --features python -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
	$(BIN)/ruff format --check python tests examples benches
	$(BIN)/ruff check python tests examples benches
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest cuttlefish_signaling

fmt: $(VENV)/tools
	cargo fmt
	$(BIN)/ruff check --fix --quiet python tests examples benches
	$(BIN)/ruff format python tests examples benches

# Twenty minutes: the parts of the core, this server beside others (docs/performance.md and its picture are written
# anew), what it costs the process it lives in, and what an honest pair feels of a siege.
bench: $(VENV)/installed
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --group bench
	cargo bench --locked --bench core
	$(BIN)/python benches/compare.py --out docs/figures.json $(ARGS)
	$(BIN)/python benches/plot.py docs/figures.json
	$(BIN)/python benches/life.py
	$(BIN)/python benches/isolation.py

# Fails where the path of a message takes 5 % more instructions than the committed figures. Needs valgrind.
bench-instructions:
	$(PYTHON) benches/instructions.py $(ARGS)

# Long: not part of `make test`, which replays the seeds. Needs `cargo install cargo-fuzz`.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := envelope sessions connection http hooks
fuzz:
	for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target && (cd fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target \
			corpus/$$target seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=1 -print_final_stats=1) || exit 1; \
	done

# Long: fuzzing, a million messages against the model, then real devices through restarts and kills, churn and faults on a
# release build.
soak: $(VENV)/installed fuzz
	cargo test --locked --release --test core -- --ignored
	$(BIN)/pip install --quiet pytest
	$(BIN)/python tests/exits.py --times 100 $(BIN)/python
	$(BIN)/pip install --quiet 'websockets>=15'
	$(BIN)/python tests/python/survival.py --failures 200
	$(BIN)/python tests/soak.py --minutes 10 --pairs 2000

# Long: the WebSocket's own test suite, which needs CPython 2.7 (PYTHON2=/path names it).
autobahn:
	cargo build --release --example echo
	python3 tests/autobahn.py target/release/examples/echo

# What the dependencies are, and are known for. Needs `cargo install cargo-deny`. Advisories come over the network: where
# there is none, that is said, and the rest counts.
audit: $(VENV)/tools
	cargo deny check bans licenses sources
	if cargo deny fetch db; then cargo deny check advisories; else echo "NOT CHECKED: RustSec's advisories"; fi
	$(BIN)/pip install --quiet pip-audit
	if $(BIN)/python -c 'import urllib.request as r; r.urlopen("https://pypi.org/pypi/pip/json", timeout=10)'; then \
		$(BIN)/pip-audit --skip-editable; else echo "NOT CHECKED: PyPI's advisories"; fi

wheel: $(VENV)/tools
	rm -rf dist
	$(BIN)/maturin build --release --out dist

# A device on libwebsockets, which tests/python runs.
$(DEVICE): tests/device/device.c
	@command -v pkg-config >/dev/null && pkg-config --exists libwebsockets && command -v $(CC) >/dev/null || \
		{ echo "$< needs libwebsockets: apt-get install gcc pkg-config libwebsockets-dev" >&2; exit 1; }
	mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -o $@.$$$$ $< $$(pkg-config --cflags --libs libwebsockets) && \
		mv $@.$$$$ $@

clean:
	rm -rf $(VENV) dist target

# The virtual environment, in steps: each file tells that its step is done.

$(VENV)/tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --group dev
	touch $@

# For tests: a debug build, with Python's files read from here.
$(VENV)/develop: $(VENV)/tools $(SOURCES)
	$(BIN)/maturin develop --quiet
	rm -f $(VENV)/installed
	touch $@

# For use: a release build.
$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet .
	rm -f $(VENV)/develop
	touch $@
