# proxycoop: `make help` lists the targets. Python >= 3.11 with pip is all that must be there beforehand.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SITE   := site
OTHERS := flower rllib benchmarl agilerl
OUT    ?= out
SEEDS  ?= 10
QUIET  := FLWR_TELEMETRY_ENABLED=0 RAY_USAGE_STATS_ENABLED=0
# PyPI's wheels of torch for Linux bring gigabytes of CUDA. For the CPU build: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
torch_of = $(if $(TORCH_INDEX),$(1)/bin/python -m pip install --quiet --disable-pip-version-check --index-url $(TORCH_INDEX) $$(grep -E '^torch(vision)?==' $(2)),:)
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-postgres slow compat compat-changed $(OTHERS:%=compat-%) lint types bench operations estimators fidelity table sweeps lessons libraries values settlement temptations models cluster defences traversal federation federation-run federation-kills docs linkcheck clean
.PRECIOUS: .venv-%/.ready

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## create .venv with everything in it (done once)

$(READY): pyproject.toml constraints/core.txt constraints/byzfl.txt
	@command -v $(PYTHON) > /dev/null || { echo "proxycoop needs Python >= 3.11; there is no $(PYTHON). Call: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "proxycoop needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version 2>&1). Call: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; a few minutes on a slow line) ..."
	@$(call torch_of,$(VENV),constraints/core.txt)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints/core.txt --editable '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints/byzfl.txt
	@touch $@

demo: $(READY)  ## train proxies under four credit rules on complement; writes $(OUT)/demo/report.html
	@$(BIN)/proxycoop compare --scenario complement --rule equal --rule data_size --rule loo --rule shapley --library ippo --seeds 1 \
		--evaluation-splits 8 --episodes 3 --out $(OUT)/demo
	@$(BIN)/proxycoop report $(OUT)/demo

test: $(READY)  ## run the tests, but for the slow ones
	@$(BIN)/python -m pytest -n 2

test-postgres: $(READY)  ## run the ledger's tests on a PostgreSQL of their own; installs Debian's where there is none
	@.ci/postgres $(BIN)/python -m pytest -n 2 -m postgres

slow: $(READY)  ## train under every credit rule; a minute or two
	@$(BIN)/python -m pytest -n 2 -m slow

compat: $(READY) $(OTHERS:%=compat-%)  ## train for real with every RL library, and test Flower, each in an environment of its own
	@$(BIN)/python -m pytest tests/training/libraries/test_sb3.py tests/training/libraries/test_ippo.py tests/root/test_examples.py -m 'slow or not slow'

# Ray, BenchMARL with TorchRL, AgileRL and Flower want versions that exclude each other, so none of them is in .venv.
# A library's tests are in tests/LIBRARY, its examples begin with its name, the versions known to work are in constraints/LIBRARY.txt.
$(OTHERS:%=compat-%): compat-%: .venv-%/.ready
	@$(QUIET) .venv-$*/bin/python -m pytest tests/$*
	@for example in examples/$*_*.py; do echo "$$example"; $(QUIET) .venv-$*/bin/python $$example || exit 1; done
	@$(if $(filter flower,$*),,.ci/fingerprint --record $*)

# .ci/compat.lock says for which state of its adapter, of the environments and of the training's core (see .ci/fingerprint) each library passed last;
# only those for which that has changed are run again.
compat-changed: $(READY)  ## the same, but only where something that matters to the library changed since it passed last
	@for library in $(filter-out flower,$(OTHERS)); do \
		if .ci/fingerprint --passed $$library; then echo "$$library: unchanged since it passed"; else $(MAKE) compat-$$library || exit 1; fi; done

.venv-%/.ready: pyproject.toml constraints/%.txt
	@test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	@echo "installing into .venv-$* (once; a few minutes on a slow line) ..."
	@$(call torch_of,.venv-$*,constraints/$*.txt)
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints/$*.txt --editable '.[$*]' pytest hypothesis
	@touch $@

lint: $(READY)  ## check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)  ## check the types of an installed copy (checkers cannot see through the editable mapping)
	@rm -rf build
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/typed .
	@MYPYPATH=build/typed $(BIN)/mypy -p proxycoop
	@rm -rf build

bench: $(READY)  ## print the speed of the engine and of exact credit beside others', and how screening holds
	@$(BIN)/python benchmarks/training/engine.py --markdown docs/results/engine.md
	@$(BIN)/python benchmarks/credit/exact.py
	@$(BIN)/python benchmarks/values/screening.py

# PettingZoo's particles and VMAS want an old gym, and run in an environment of their own that has nothing else.
operations: $(READY)  ## print the operations of a round, and speed beside PettingZoo's particles and VMAS; ten minutes
	@test -x .venv-mpe/bin/python || $(PYTHON) -m venv .venv-mpe
	@$(call torch_of,.venv-mpe,constraints/mpe.txt)
	@.venv-mpe/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints/mpe.txt
	@$(BIN)/python benchmarks/training/operations.py --markdown docs/results/operations.md

# shapiq 1.8 needs Python 3.12, and runs in an environment of its own that has nothing else. Without one, the installed version is taken.
PYTHON312 ?= python3.12
estimators: $(READY)  ## reproduce the errors of estimators beside shapiq's; half an hour
	@$(PYTHON312) -c '' 2> /dev/null || echo "there is no $(PYTHON312), so the shapiq of $(VENV) is taken: make estimators PYTHON312=/path/to/python3.12"
	@$(PYTHON312) -c '' 2> /dev/null && { test -x .venv-estimators/bin/python || $(PYTHON312) -m venv .venv-estimators; } \
		&& .venv-estimators/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints/estimators.txt || true
	@$(BIN)/python benchmarks/credit/estimators.py --markdown docs/results/estimators.md

fidelity: $(READY)  ## reproduce the fidelity of every rule, published facts, what a second name gains, and the page on vetoes; six minutes
	@$(BIN)/python benchmarks/credit/fidelity.py --markdown docs/results/fidelity.md
	@$(BIN)/python benchmarks/credit/vetoes.py --markdown docs/credit/vetoes.md

table: $(READY)  ## reproduce what each rule teaches where members interact: four scenarios, five rules, ten seeds (SEEDS=10); an hour and a half
	@$(BIN)/proxycoop compare -s complement -s redundant -s digits-steep -s digits-graded \
		-r equal -r data_size -r standalone -r loo -r shapley --library ippo --steps 200000 \
		--seeds $(SEEDS) --first-seed 10 --out $(OUT)/table
	@$(BIN)/proxycoop report $(OUT)/table --parts docs/results --overwrite

sweeps: $(READY)  ## reproduce where the findings hold: five sweeps, ten seeds; what transfers from split to split; an hour and a half
	@$(BIN)/python benchmarks/training/sweeps.py --steps 60000 --evaluation-splits 5 --episodes 8 --first-seed 10 \
		--out $(OUT)/sweeps --markdown docs/results/sweeps.md
	@$(BIN)/python benchmarks/training/transfer.py --out $(OUT)/transfer --rules equal shapley --markdown docs/results/transfer.md

values: $(READY)  ## reproduce what values cost and how they hold: screening, harm, filters, governance, fairness; a quarter of an hour
	@$(BIN)/python benchmarks/values/screening.py --markdown docs/results/screening.md
	@$(BIN)/python benchmarks/values/harm.py --markdown docs/results/harm.md
	@$(BIN)/python benchmarks/values/strictness.py --markdown docs/results/price.md
	@$(BIN)/python benchmarks/values/limits.py --markdown docs/results/limits.md
	@$(BIN)/python benchmarks/values/governance.py --markdown docs/results/governance.md
	@$(BIN)/python benchmarks/values/preferences.py --markdown docs/results/preferences.md
	@$(BIN)/python benchmarks/values/fairness.py --markdown docs/results/fairness.md
	@$(BIN)/python benchmarks/values/shared_rows.py --markdown docs/results/shared-rows.md
	@$(BIN)/python benchmarks/values/interaction.py --markdown docs/results/interaction.md --changes docs/results/interaction-changes.md

settlement: $(READY)  ## reproduce what delayed settlement costs, and the ledger under crashes, writers and tampering; 25 minutes
	@$(BIN)/python benchmarks/training/delay.py --markdown docs/results/delay.md
	@.ci/postgres $(BIN)/python benchmarks/ledger/ledger.py crash --markdown docs/results/ledger-crash.md
	@.ci/postgres $(BIN)/python benchmarks/ledger/ledger.py writers --markdown docs/results/ledger-writers.md
	@.ci/postgres $(BIN)/python benchmarks/ledger/ledger.py tamper --markdown docs/results/ledger-tamper.md

libraries: $(READY) $(patsubst %,.venv-%/.ready,$(filter-out flower,$(OTHERS)))  ## reproduce what RL libraries reach, decompositions, speed of ippo and of every face, imports; an hour
	@$(BIN)/python benchmarks/training/libraries.py libraries --markdown docs/results/libraries.md
	@$(BIN)/python benchmarks/training/libraries.py decompositions --seeds 5 --first-seed 20 --markdown docs/results/decompositions.md
	@$(BIN)/python benchmarks/training/ippo.py --seeds 3 --steps 60000 --markdown docs/results/ippo.md
	@$(BIN)/python benchmarks/training/ippo.py --groups --seeds 2 --steps 60000 --markdown docs/results/groups.md
	@$(BIN)/python benchmarks/training/imports.py --markdown docs/results/imports.md
	@.venv-benchmarl/bin/python benchmarks/training/faces.py --markdown docs/results/faces.md

lessons: $(READY)  ## reproduce what the rules of learning cooperatives teach: digits, 15 rules, three seeds; rules that remember, by discount
	@$(BIN)/proxycoop compare -s digits -r comfedsv -r data_shapley -r in_run -r cgsv -r shapfed -r "fael(window=8)" -r g_shapley \
		-r peer_ranking -r cumulation -r valuation -r veto_shapley -r veto_own -r veto_shared -r aristocrat -r expected_difference \
		--seeds 3 --first-seed 10 --out $(OUT)/lessons
	@$(BIN)/proxycoop report $(OUT)/lessons --parts docs/results/lessons --overwrite
	@$(BIN)/python benchmarks/training/ippo.py --memory --seeds 3 --steps 30000 --markdown docs/results/memory.md

defences: $(READY)  ## reproduce what defends: attacks by aggregator and rule, room for only some, privacy, false names; seven hours
	@$(BIN)/python benchmarks/values/robustness.py --markdown docs/results/robustness.md --pictures docs/results
	@$(BIN)/python benchmarks/training/capacity.py --jobs 2 --markdown docs/results/capacity.md --pictures docs/results
	@$(BIN)/python benchmarks/training/capacity.py --cheats docs/results/capacity-cheats.md
	@$(BIN)/python benchmarks/training/capacity.py --cheats docs/results/capacity-cheats-4.md --places 4 --only two_names copied_lots doubler plagiarist
	@$(BIN)/python benchmarks/values/privacy.py --learned --markdown docs/results/privacy.md --pictures docs/results
	@$(BIN)/python benchmarks/values/admission.py --instances 10000 --markdown docs/results/admission.md
	@$(BIN)/python benchmarks/credit/resistance.py --cheats --markdown docs/results/resistance.md

cluster: $(READY)  ## reproduce what two nodes of Ray do to a comparison, and what happens if parts of them die; minutes on idle cores
	@$(QUIET) $(BIN)/python benchmarks/executors/cluster.py --markdown docs/results/cluster.md

MODELS ?= fashion
models: $(READY)  ## reproduce how good models that people use get, and what proxies learn (MODELS=fashion); what is done is kept; half an hour
	@$(BIN)/python benchmarks/people/people_models.py --scenarios $(MODELS) --markdown docs/results --pictures docs/results

temptations: $(READY)  ## reproduce what rules tempt proxies to do: two trials, all rules, three scenarios, five seeds; loyalty; exploits; hours
	@$(BIN)/python benchmarks/temptations/temptations.py --jobs 2 --markdown docs/results/temptations.md --pictures docs/results
	@$(BIN)/python benchmarks/training/exploits.py --out $(OUT)/exploits --markdown docs/results/exploitability.md

POLICY := $(abspath $(OUT))/federation-policy
$(POLICY)/policy.pt: | .venv-flower/.ready
	@.venv-flower/bin/python -m proxycoop train --library ippo --scenario digits --credit shapley --steps 40000 --seed 0 --out $(POLICY)

federation: $(POLICY)/policy.pt  ## reproduce that a federation over Flower is equal to the simulator, and survives kills; ten minutes
	@$(QUIET) .venv-flower/bin/python benchmarks/federation/equality.py --agent "learned(path='$(POLICY)')" --seeds 1 --rounds 8 --markdown docs/results/federation-equality.md
	@$(QUIET) .venv-flower/bin/python benchmarks/federation/kills.py --seeds 1 --markdown docs/results/federation-kills.md

federation-run: $(POLICY)/policy.pt  ## a SuperLink and six SuperNodes on this machine, trained proxies, TLS, node authentication: equal to the simulator (ports 9092 to 9098); ten minutes
	@$(QUIET) .venv-flower/bin/python benchmarks/federation/deployed.py --out $(OUT)/federation --agent "learned(path='$(POLICY)')" --markdown docs/results/federation-deployed.md

federation-kills: $(POLICY)/policy.pt  ## the same over 20 rounds with 30 random kills of SuperNodes, the ServerApp, and everything at once; half an hour
	@$(QUIET) .venv-flower/bin/python benchmarks/federation/deployed.py --out $(OUT)/federation-kills --agent "learned(path='$(POLICY)')" --rounds 20 --kills 30 --timeout 60 --markdown docs/results/federation-deployed-kills.md

traversal: $(READY)  ## reproduce what traversal learning as a protocol loses, sends and reaches; its secure mode; five minutes
	@$(BIN)/python benchmarks/traversal/lossless.py --markdown docs/results
	@$(BIN)/python benchmarks/traversal/claims.py --out $(OUT)/traversal-claims.json --markdown docs/results/traversal-claims.md

docs: $(VENV)/.docs  ## build the documentation site into $(SITE)/html, and run its notebooks; warnings are errors
	@PYTHONPATH=docs/_ext $(BIN)/python -m sphinx -W --keep-going --quiet -b html -d $(SITE)/doctrees docs $(SITE)/html
	@echo "open $(SITE)/html/index.html"

linkcheck: $(VENV)/.docs  ## ask every server that the site links to whether the page is still there (needs the internet)
	@PYTHONPATH=docs/_ext $(BIN)/python -m sphinx --keep-going --quiet -b linkcheck -d $(SITE)/doctrees docs $(SITE)/links

$(VENV)/.docs: $(READY)
	@echo "installing what builds the site into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints/core.txt --editable '.[docs]'
	@touch $@

clean:  ## remove what was built, but not $(OUT)
	@rm -rf $(VENV) $(OTHERS:%=.venv-%) $(SITE) build *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
