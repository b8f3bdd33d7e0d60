"""Packaging of vavl_sb."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "vavl_sb/__init__.py").read_text()
).group(1)

setup(
    name="vavl_sb",
    version=VERSION,
    description="Versatile audio-visual emotion recognition for SpeechBrain",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The vavl_sb authors",
    python_requires=">=3.10",
    packages=find_packages(include=["vavl_sb", "vavl_sb.*"]),
    install_requires=[
        "torch>=2.6",
        "torchvision",
        "torchaudio",
        "speechbrain>=1.1,<1.2",
        "hyperpyyaml",
        "sentencepiece",
        "numpy",
        "scipy",
        "av>=14,<19",
        "soundfile",
        "timm",
        "safetensors",
        "matplotlib",
        "tqdm",
    ],
    extras_require={
        "ssl": ["transformers>=4.57"],
        "slurm": ["submitit>=1.5"],
        "demo": ["gradio>=6.31,<7"],
        "test": [
            "pytest",
            "hypothesis",
            "scikit-learn",
            "torchmetrics",
            "submitit",
            "selenium",
        ],
        "dev": ["ruff", "yamllint", "codespell", "tensorboard"],
    },
    entry_points={"console_scripts": ["vavl = vavl_sb.cli:main"]},
)
