# From a fresh clone: `make demo` and `make test` do their own set-up.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= results/demo
RUN = $(abspath $(VENV))/bin/python
export HF_HUB_OFFLINE = 1
# Threads that spin while they wait make a busy machine many times slower.
export OMP_WAIT_POLICY = PASSIVE
# Memory that is given back after each step has to be had again for the next.
export MALLOC_MMAP_THRESHOLD_ = 4294967296
export MALLOC_TRIM_THRESHOLD_ = 8589934592

.PHONY: setup demo test test-faults lint clean

setup: $(VENV)/.installed

# torch and torchvision first, then torchaudio: that order resolves to one
# build of torch. facenet-pytorch pins an old torch that it does not need.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch torchvision
	$(RUN) -m pip install --quiet --constraint constraints.txt torchaudio
	$(RUN) -m pip install --quiet --constraint constraints.txt \
		--editable ".[ssl,demo,test,dev]"
	$(RUN) -m pip install --quiet --no-deps facenet-pytorch==2.6.0
	touch $@

# The corpus is drawn and voiced by seed, in CREMA-D's own layout. There are no
# pretrained encoders here, so: log-mel features, a fixed description of the
# face, and a network and learning rate that fit a small corpus.
demo: setup
	$(RUN) -m synthetic $(DEMO)/corpus --frame-rate 10
	cd recipes/CREMA-D && $(RUN) train.py hparams/vavl_cls.yaml \
		--data_folder $(abspath $(DEMO))/corpus \
		--output_folder $(abspath $(DEMO)) \
		--feature_folder $(abspath $(DEMO))/features \
		--audio_encoder_source logmel --visual_encoder_weights null \
		--frame_rate 5 --detection_rate 2.5 \
		--audio_frame_average 2 --d_model 64 --batch_size 8 \
		--encoder_layers 1 --shared_layers 1 \
		--lr 0.001 --lr_final 0.0001 --number_of_epochs 20
	cat $(DEMO)/scores.txt

# As many processes as there are cores, with one thread each; the tests of a
# file stay together, for what they share, and the long files come first.
test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile \
		--no-loadscope-reorder

test-faults: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist load \
		-m faults tests/faults

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m yamllint --strict recipes
	$(RUN) -m codespell_lib vavl_sb synthetic recipes tests docs benchmarks README.md

clean:
	rm -rf results recipes/*/results build *.egg-info
