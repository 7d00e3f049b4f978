# Two commands matter: `make repro` and `make test`. Each first installs the locked environment if it is missing.
RUN = sh tools/env.sh
.DEFAULT_GOAL := help
.PHONY: help setup repro test outputs exhaustive coverage retrain finetune studies full lab docs bench tutorial chat serve page export check lock

help:             ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'
setup:            ## create the locked environment (.venv, or the active one)
	@$(RUN)
repro:            ## fetch, verify, build the corpus, restore the released model, re-evaluate, redraw every figure, verify every claim
	@$(RUN) python tools/repro.py
test:             ## every notebook and every test but the longest few (they are listed as skipped), offline once installed
	@$(RUN) python -m pytest -q -n auto --maxprocesses 4 --dist loadfile tests
outputs:          ## do the outputs in git equal a re-execution on this machine? (numbers with a point, digests and temporary folders aside)
	@$(RUN) env CROISSANT_OUTPUTS=1 python -m pytest -q -n auto --maxprocesses 4 tests/test_notebooks_library.py tests/test_notebooks_figures.py -k "library or tutorials"
exhaustive:       ## the same with those, several times the random texts, kills at random, and the paper's plan in full
	@$(RUN) env CROISSANT_EXHAUSTIVE=1 python -m pytest -q -n auto --maxprocesses 4 --dist loadfile tests
coverage:         ## the same with a count of the lines that run, which doubles the time; fails under 92 in a hundred
	@$(RUN) python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --cov --cov-report=term --cov-fail-under=92 tests
retrain:          ## the same from raw data: corpus, tokenizer, model, report
	@$(RUN) python tools/repro.py --retrain
finetune:         ## the same for what is made from the released model: translator, chat model, and its twins
	@$(RUN) python tools/repro.py --finetune
studies:          ## the same for the studies: ladder of sizes and mixtures, data choices, vocabularies, optimisers, schedules
	@$(RUN) python tools/repro.py --studies
full:             ## the larger corpus, with Debian's text (needs apt): fetch, build, data card
	@$(RUN) sh -c 'croissant fetch --tier full && dvc repro full/dvc.yaml'
tutorial:         ## a student's first model: tokenizer, tiny Llama, first sentences
	@$(RUN) python -m croissant.stage nbs/tutorials/01_bonjour.ipynb reports/nb/01_bonjour.ipynb -p steps 600 && echo 'with its figures: reports/nb/01_bonjour.ipynb'
chat:             ## talk with the model in the terminal
	@$(RUN) croissant chat
serve:            ## OpenAI's requests on 127.0.0.1:8080, by llama.cpp behind a guard
	@$(RUN) croissant serve
page:             ## chat and translate in the browser, on 127.0.0.1:7860 (installs Gradio); with it, `make test` tests the page, too
	@$(RUN) sh -c 'python -m pip install -q --no-deps --require-hashes -r requirements-serve.lock && croissant page'
lab:              ## JupyterLab on the notebooks
	@$(RUN) jupyter lab nbs
docs:             ## the documentation site, in _docs/
	@$(RUN) python tools/site.py build
bench:            ## speed against peers, side by side; gpu.py says so and is skipped where there is no CUDA device
	@$(RUN) sh -c 'python -m pip install -q --no-deps --require-hashes -r requirements-bench.lock && for f in benchmarks/*.py; do python $$f || [ "$$? $$f" = "2 benchmarks/gpu.py" ] || exit 1; done'
export:           ## notebooks -> package, README and list of stages (after editing nbs/ or dvc.yaml)
	@$(RUN) sh -c 'nbdev_export && python tools/site.py readme'
check:            ## is everything generated up to date? style and types
	@$(RUN) sh -c 'python tools/nb.py check nbs && ruff check croissant tools tests benchmarks && mypy && python tools/site.py readme --check'
lock:             ## requirements.in -> requirements.lock (needs uv, and a CPU wheel of torch in $$PIP_FIND_LINKS)
	uv pip compile -q --find-links "$$PIP_FIND_LINKS" --python-version 3.11 --generate-hashes --no-emit-package torch --no-header requirements.in -o requirements.lock
	echo "torch; sys_platform == 'none'" | uv pip compile -q --override /dev/stdin --python-version 3.11 --generate-hashes --no-header -c requirements.lock requirements-bench.in -o requirements-bench.lock
