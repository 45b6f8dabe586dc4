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
"""Builds what is carried to a GPU machine without a network: python tools/gpu_kit/prepare.py [--rows ROWS.jsonl]

Downloads verl, Ray, vLLM and what else the machine lacks for its Python from the package index, takes out what a
training does not need and the machine code of other GPUs, packs all of it, and deals it into the folders kit1, kit2 and
kit3 of --output, each small enough for one transfer. Nothing is installed. It takes 6 GB of disk.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from bundle import MANIFEST, MIB, deal, pack  # noqa: E402
from fatbin_thin import thin  # noqa: E402

VLLM = "vllm==0.24.0"
FLASH = "flash-attn==2.8.3"
# Bundles that each call needs first.
ORDER = (("product", "core", "ray", "flash"), ("vllm-min", "vllm"), ("data", "model"))
SCRIPTS = (
    ("bundle.py", "device_env.sh", "call1.sh", "look.py", "check_flash.py"),
    ("bundle.py", "call2.sh"),
    ("bundle.py", "call3.sh", "step.sh"),
)
# What is taken out after unpacking: programs, and parts that no text model of a training on one GPU loads.
DROPPED = {
    "core": ("bin", "tests", "tutorial", "recipe", "scripts"),
    "ray": ("bin", "ray/jars", "ray/rllib", "ray/serve", "ray/llm", "ray/dashboard/client/build"),
    "vllm-min": ("bin",),
    "vllm": (
        *("bin", "vllm/vllm-rs", "vllm/third_party/fmha_sm100", "vllm/third_party/deep_gemm"),
        *("vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so", "vllm/_moe_C_stable_libtorch.abi3.so"),
        *("vllm/_qutlass_C.abi3.so", "vllm/_flashmla*.so", "vllm/model_executor/layers/fused_moe/configs/*.json"),
    ),
    "product": ("bin",),
}
_FLASH_DROPPED = (
    "cute",
    "flash_attn_triton_amd",
    "modules",
    "models",
    "layers",
    "flash_attn_triton*",
    "flash_blocksparse*",
)


def pip(*arguments: str) -> None:
    """pip of this environment, for nothing that is installed here."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], check=True, env=environment)


def for_the_machine(python: str) -> list[str]:
    """Options of pip that choose wheels for the other machine."""
    chosen = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    for libc in (39, 36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5):
        chosen += ["--platform", f"manylinux_2_{libc}_x86_64"]
    return [*chosen, "--platform", "manylinux2014_x86_64", "--platform", "manylinux1_x86_64"]


def pins(name: str) -> list[str]:
    """Lines of a file of pins."""
    lines = (HERE / "pins" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def download(wheels: Path, python: str) -> None:
    """Wheels of each bundle; what is published as source alone and is Python alone becomes a wheel here."""
    sources = [pin for pin in pins("core") if pin.startswith(("antlr4-", "rouge-score"))]
    wanted = {
        "core": [pin for pin in pins("core") if not pin.startswith("ray==") and pin not in sources],
        "ray": [pin for pin in pins("core") if pin.startswith("ray==")],
        "vllm-min": pins("vllm"),
        "vllm": [VLLM],
    }
    for name, requirements in wanted.items():
        pip("download", *for_the_machine(python), "-d", str(wheels / name), *requirements)
    pip("wheel", "--no-deps", "-w", str(wheels / "core"), *sources)
    # Its metadata alone are built; the kernels are torch's (flash_attn_shim).
    os.environ["FLASH_ATTENTION_SKIP_CUDA_BUILD"] = "TRUE"
    pip("download", "--no-deps", "--no-build-isolation", "--no-binary=:all:", "-d", str(wheels / "flash"), FLASH)


def unpack(wheels: Path, stage: Path, python: str, architecture: int) -> None:
    """Wheels into folders, without what is not needed."""
    for name in ("core", "ray", "vllm-min", "vllm"):
        files = [str(file) for file in sorted((wheels / name).glob("*.whl"))]
        pip("install", "--no-index", "--no-compile", *for_the_machine(python), "--target", str(stage / name), *files)
        drop(stage / name, DROPPED[name])
    library = stage / "vllm" / "vllm" / "_C_stable_libtorch.abi3.so"
    thin(library, {architecture})
    unpack_flash(wheels / "flash", stage / "flash")


def drop(folder: Path, patterns: Sequence[str]) -> None:
    """Delete what matches."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def unpack_flash(wheels: Path, stage: Path) -> None:
    """flash-attn's Python with a module on torch's kernels in the place of its compiled one."""
    archive = next(wheels.glob("flash_attn-*.tar.gz"))
    version = archive.name.removeprefix("flash_attn-").removesuffix(".tar.gz")
    shutil.unpack_archive(archive, wheels / "source")
    shutil.copytree(wheels / "source" / f"flash_attn-{version}" / "flash_attn", stage / "flash_attn")
    drop(stage / "flash_attn", _FLASH_DROPPED)
    shutil.copy(HERE / "flash_attn_shim" / "flash_attn_2_cuda.py", stage)
    metadata = stage / f"flash_attn-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: flash-attn\nVersion: {version}\n")
    (metadata / "top_level.txt").write_text("flash_attn\nflash_attn_2_cuda\n")
    (metadata / "RECORD").touch()


def stage_product(work: Path, stage: Path) -> None:
    """This project as a wheel, and of its tree what the calls run; from the last commit."""
    source = work / "source"
    shutil.rmtree(source, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{PROJECT}", str(source)], check=True)
    shutil.rmtree(work / "wheels" / "product", ignore_errors=True)
    # The builder of this environment: a machine without a network has no other.
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(work / "wheels" / "product"), str(source))
    wheel = next((work / "wheels" / "product").glob("*.whl"))
    pip("install", "--no-index", "--no-compile", "--no-deps", "--target", str(stage / "product"), str(wheel))
    drop(stage / "product", DROPPED["product"])
    tree = stage / "product" / "product"
    for folder in ("tests/gpu", "tests/tools", "tests/discriminator", "benchmarks", "examples/quickstart"):
        shutil.copytree(source / folder, tree / folder, ignore=shutil.ignore_patterns("results"))
    for file in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(source / file, tree / file)


def stage_student(work: Path, stage: Path, rows: Path | None) -> None:
    """The quickstart's student, and rows of a real teacher that fit the run of call 3."""
    student = work / "student"
    quickstart = PROJECT / "examples" / "quickstart" / "student.py"
    subprocess.run([sys.executable, str(quickstart), "--output", str(student)], check=True)
    (stage / "model").mkdir(parents=True)
    cache = Path(os.environ.get("GAD_VERL_CACHE", Path.home() / ".cache" / "gad_verl"))
    shutil.copytree(cache, stage / "model" / "model", ignore=lambda _, names: [n for n in names if n[-5:] != ".gguf"])
    (stage / "data").mkdir()
    if rows is not None:
        from rows_that_fit import write_rows

        write_rows(student, rows, stage / "data" / "data")


def build(out: Path, names: Sequence[str], stage: Path, limit: int) -> list[Path]:
    """Pack, and deal into the folders of the transfers."""
    bundles = out.parent / "bundles"
    shutil.rmtree(bundles, ignore_errors=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        entries = list(pool.map(lambda name: pack(bundles, name, stage / name), names))
    manifest = dict(zip(names, entries, strict=True))
    taken = [sum((HERE / script).stat().st_size for script in scripts) for scripts in SCRIPTS]
    order = [[name for name in needed if name in manifest] for needed in ORDER]
    folders = []
    for number, files in enumerate(deal(manifest, order, limit, taken), start=1):
        folder = out / f"kit{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in files:
            shutil.copy(bundles / file, folder)
        here = {name for name, entry in manifest.items() if {part["file"] for part in entry["parts"]} & set(files)}
        text = json.dumps({name: manifest[name] for name in here}, indent=1, sort_keys=True)
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        for script in SCRIPTS[number - 1]:
            shutil.copy(HERE / script, folder)
        folders.append(folder)
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PROJECT / "build" / "gpu_kit", help="default: build/gpu_kit")
    parser.add_argument("--rows", type=Path, help="rows of a real teacher (docs/data.md); without them no call 3")
    parser.add_argument("--python", default="3.12", help="of the machine (default: 3.12)")
    parser.add_argument("--architecture", type=int, default=90, help="of the GPU, e.g. 90 for sm_90 (default: 90)")
    parser.add_argument("--transfer-mib", type=int, default=64, help="size of one transfer (default: 64)")
    parser.add_argument("--product-only", action="store_true", help="the project alone, for a simulated call 1")
    given = parser.parse_args()
    out = given.output.resolve()
    work, stage = out / "work", out / "work" / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    stage_product(work, stage)
    if not given.product_only:
        download(work / "wheels", given.python)
        unpack(work / "wheels", stage, given.python, given.architecture)
        stage_student(work, stage, given.rows)
    for cache in list(stage.rglob("__pycache__")):
        shutil.rmtree(cache)
    names = [name for needed in ORDER for name in needed if (stage / name).is_dir()]
    for folder in build(out, names, stage, given.transfer_mib * MIB):
        size = sum(file.stat().st_size for file in folder.iterdir())
        sys.stdout.write(f"{folder}: {size / MIB:.1f} MiB\n")


if __name__ == "__main__":
    main()
