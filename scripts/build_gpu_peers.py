"""Builds a directory with the samplers of FlashInfer and vLLM, for benches/gpu/peers.py on a machine without network.

usage: build_gpu_peers.py DIRECTORY VLLM_WHEEL

FlashInfer compiles its kernels when they are first used. Here they are compiled before, for the GPUs in
FLASHINFER_CUDA_ARCH_LIST (default: 9.0a). DIRECTORY then contains the compiled kernels, and only the Python files that
the samplers need. PyTorch is not needed for the build, so a mock takes its place.
"""

import importlib.machinery
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types
import unittest.mock
import zipfile

FLASHINFER_FILES = (
    "_build_meta.py", "api_logging.py", "cake_sampling.py", "compilation_context.py", "fi_trace.py", "sampling.py",
    "topk.py", "utils.py", "version.py", "jit/_cuda_architecture.py", "jit/cake_blackwell_softmax.py",
    "jit/cake_sampling.py", "jit/core.py", "jit/cpp_ext.py", "jit/env.py", "jit/sampling.py", "jit/spdlog.py",
    "jit/topk.py", "jit/utils.py", "trace", "data/csrc/cake_sampling/generated/manifest.json",
)  # fmt: skip

VLLM_FILES = (
    "vllm/v1/sample/ops/topk_topp_triton.py",
    "vllm/model_executor/warmup/jit_warmup.py",
    "vllm/model_executor/warmup/jit_warmup_triton_helper.py",
    "vllm/utils/math_utils.py",
)

# Replacements for the other modules of vLLM that VLLM_FILES import. They contain only what these files use.
VLLM_MODULES = {
    "vllm/envs.py": "VLLM_TRITON_JIT_WARMUP_NUM_THREADS = 1\n",
    "vllm/platforms.py": """\
class current_platform:
    device_type = "cuda"
    is_cuda = is_cuda_alike = staticmethod(lambda: True)
""",
    "vllm/triton_utils.py": "import triton\nimport triton.language as tl\n\nHAS_TRITON = True\n",
    "vllm/utils/gpu_sync_debug.py": "from contextlib import nullcontext as gpu_sync_allowed\n",
    "vllm/utils/platform_utils.py": """\
import functools

import torch


@functools.cache
def num_compute_units(device_id=0):
    return torch.cuda.get_device_properties(device_id or 0).multi_processor_count
""",
}


class MockTorch:
    """Finds a mock for the module torch and for each of its submodules."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            return importlib.machinery.ModuleSpec(name, MockTorch, is_package=True)
        return None

    @staticmethod
    def create_module(spec):
        return unittest.mock.MagicMock(__path__=[], __spec__=spec)

    @staticmethod
    def exec_module(module):
        pass


def packages(name):
    """Makes the package `name` and its package `jit` importable without running their __init__.py."""
    directory = pathlib.Path(importlib.machinery.PathFinder.find_spec(name).submodule_search_locations[0])
    for package, path in ((name, directory), (f"{name}.jit", directory / "jit")):
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(path)]
    return directory


def cuda_directory(work):
    """Returns the directory of CUDA's wheels. Sets the options with which FlashInfer links against these wheels."""
    (cuda,) = pathlib.Path(importlib.machinery.PathFinder.find_spec("nvidia").submodule_search_locations[0]).glob("cu*")
    libraries = work / "lib"
    libraries.mkdir(parents=True, exist_ok=True)
    (runtime,) = (cuda / "lib").glob("libcudart.so.*")
    (libraries / "libcudart.so").unlink(missing_ok=True)
    (libraries / "libcudart.so").symlink_to(runtime)
    # The driver's library exists only on a machine with a GPU. The linker gets an empty library in its place.
    options = ["-shared", "-Wl,-soname,libcuda.so.1", "-x", "c", "/dev/null", "-o", libraries / "libcuda.so"]
    subprocess.run(["cc", *options], check=True)
    os.environ["FLASHINFER_EXTRA_LDFLAGS"] = f"-L{libraries.resolve()}"
    return cuda


def topk_without_cub(topk, core, work):
    """Returns the module of top_k without the kernels of CUB, which compile for half an hour.

    FlashInfer's samplers request sorted results. For sorted results, FlashInfer does not use the kernels of CUB.
    """
    module = topk.gen_topk_module()
    sources = [pathlib.Path(source) for source in module.sources]
    (binding,) = (source for source in sources if source.name == "flashinfer_topk_binding.cu")
    declarations = re.findall(r"^(?:void|int64_t) cub_topk\w*\([^;]*\);", binding.read_text(), re.MULTILINE)
    body = ' { TVM_FFI_THROW(RuntimeError) << "compiled without CUB"; }\n'
    replacement = work / "without_cub.cu"
    replacement.write_text(
        '#include "tvm_ffi_utils.h"\n\nusing tvm::ffi::Optional;\n\n' + "".join(d[:-1] + body for d in declarations)
    )
    return core.gen_jit_spec("topk", [s for s in sources if s.name != "cub_topk.cu"] + [replacement])


def build_flashinfer(target, work):
    # tvm_ffi works without PyTorch, but not with a mock of it. So it is imported before the mock is installed.
    import tvm_ffi  # noqa: F401

    sys.meta_path.insert(0, MockTorch)
    source = packages("flashinfer")
    os.environ.setdefault("FLASHINFER_CUDA_ARCH_LIST", "9.0a")
    os.environ["FLASHINFER_WORKSPACE_BASE"] = str(work)
    os.environ["CUDA_HOME"] = str(cuda_directory(work))
    os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    from flashinfer.jit import cake_sampling, core, sampling, topk

    specs = (
        sampling.gen_sampling_module(),
        topk_without_cub(topk, core, work),
        cake_sampling.gen_cake_sampling_module(),
    )
    for spec in specs:
        print(f"build_gpu_peers: compiling {spec.name}", flush=True)
        spec.build(verbose=False)
        library = target / f"data/aot/{spec.name}/{spec.name}.so"
        library.parent.mkdir(parents=True)
        shutil.copyfile(spec.jit_library_path, library)
    for name in FLASHINFER_FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / name, target / name)
    (target / "jit/__init__.py").touch()
    # FlashInfer checks that this directory exists, even if nothing is compiled.
    (target / "data/include").mkdir()
    # FlashInfer derives the name of this module from the sources of its kernels, which are not copied.
    (target / "__init__.py").write_text(
        "from .jit import cake_sampling as _cake_sampling\n\n"
        f'_cake_sampling.get_cake_sampling_uri = lambda: "{specs[-1].name}"\n'
    )


def copy_vllm(wheel, target):
    with zipfile.ZipFile(wheel) as archive:
        for name in VLLM_FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(archive.read(name))
    for name, text in VLLM_MODULES.items():
        (target / name).write_text(text)
    for directory in [target / "vllm", *(path for path in (target / "vllm").rglob("*") if path.is_dir())]:
        (directory / "__init__.py").touch()
    version = pathlib.Path(wheel).name.split("-")[1]
    (target / "vllm/version.py").write_text(f'__version__ = "{version}"\n')


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    target, wheel = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    copy_vllm(wheel, target)
    tvm_ffi = importlib.machinery.PathFinder.find_spec("tvm_ffi").submodule_search_locations[0]
    shutil.copytree(tvm_ffi, target / "tvm_ffi", ignore=shutil.ignore_patterns("__pycache__", "include", "*.a", "src"))
    build_flashinfer(target / "flashinfer", target.parent / "work")


if __name__ == "__main__":
    main()
