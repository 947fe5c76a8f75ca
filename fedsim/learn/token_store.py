"""Where do tokens lie, so that nobody makes them twice? In a mapped file per data set, named by content.

A file is a table: the ids of all examples one after the other, where each begins, and how much of it is
prompt. Its name is a hash of everything that the numbers depend on: texts, tokenizer, length, and the
versions of the libraries that cut them. So it never goes stale; another text is another file. Who opens it
maps it, and processes share the pages.

A file that does not hold what it should, torn or changed, is made again. Two who make the same file at once
both write under a name of their own and rename; either is right.
"""

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedsim.errors import StorageError
from fedsim.learn.encode import Encoded, encode
from fedsim.learn.example import Example
from fedsim.learn.model_files import cache_folder

FOLDER = "tokens"
SUFFIX = ".safetensors"
_FORMAT = 1
_PARTS = ("ids", "starts", "prompt_lengths")

Maker = Callable[[Any, Sequence[Example], int], list[Encoded]]


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """Examples as token ids, on disk.

    Args:
        path: The file.
        starts: Where each example begins in the ids, and where the last one ends.
        prompt_lengths: Per example.
        ids: The mapped ids; slices are read when they are asked for.
    """

    path: Path
    starts: np.ndarray
    prompt_lengths: np.ndarray
    ids: Any

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    def rows(self, indices: Sequence[int]) -> list[Encoded]:
        """Return some examples, in this order."""
        return [self._row(index) for index in indices]

    def _row(self, index: int) -> Encoded:
        ids = self.ids[int(self.starts[index]) : int(self.starts[index + 1])]
        return Encoded(tuple(ids.tolist()), int(self.prompt_lengths[index]))


def token_table(
    tokenizer: Any, examples: Sequence[Example], max_length: int, *, make: Maker = encode
) -> TokenTable:
    """Open the tokens of these examples, making them if they are not there or not whole.

    Args:
        tokenizer: Cuts the texts.
        examples: In the order in which they are asked for later.
        max_length: Longer ones are cut.
        make: Tokenises; only where there is no good file.

    Raises:
        StorageError: If the cache cannot be written.
    """
    path = cache_folder() / FOLDER / f"{content_hash(tokenizer, examples, max_length)}{SUFFIX}"
    found = _opened(path)
    if found is not None and len(found) == len(examples):
        return found
    _write(path, make(tokenizer, examples, max_length))
    made = _opened(path)
    if made is None:
        raise StorageError(
            f"{path}: what was written does not read back; a broken disk? FEDSIM_CACHE names another folder"
        )
    return made


def content_hash(tokenizer: Any, examples: Sequence[Example], max_length: int) -> str:
    """Hash everything that the tokens depend on."""
    digest = hashlib.blake2b(digest_size=16)
    about = (_FORMAT, max_length, version("tokenizers"), version("transformers"), _fingerprint(tokenizer))
    digest.update(json.dumps(about).encode())
    for example in examples:
        for text in (example.prompt, example.target):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(struct.pack("<q", len(encoded)))
            digest.update(encoded)
        digest.update(b"1" if example.learn_prompt else b"0")
    return digest.hexdigest()


def _fingerprint(tokenizer: Any) -> str:
    """Hash a tokenizer: its own serialised form where it has one, else its words; and its special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    told = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    special = json.dumps([type(tokenizer).__name__, tokenizer.eos_token_id, tokenizer.bos_token_id])
    return hashlib.blake2b((told + special).encode(), digest_size=16).hexdigest()


def _write(path: Path, encoded: Sequence[Encoded]) -> None:
    """Write whole or not at all."""
    lengths = [len(item.ids) for item in encoded]
    arrays: dict[str, np.ndarray] = {
        "ids": np.fromiter((token for item in encoded for token in item.ids), np.int32, sum(lengths)),
        "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "prompt_lengths": np.array([item.prompt_length for item in encoded], np.int32),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        try:
            save_file(arrays, name, metadata={"checksum": _checksum(arrays)})
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{path}: tokens cannot be written: {error}; make room, or name another folder with FEDSIM_CACHE"
        ) from error


def _opened(path: Path) -> TokenTable | None:
    """Map a file whose content is what it was when it was written; None where there is no such file."""
    try:
        with safe_open(path, framework="numpy") as file:
            told = (file.metadata() or {}).get("checksum")
            arrays = {name: file.get_tensor(name) for name in _PARTS}
    except (OSError, SafetensorError, KeyError):
        return None
    if told != _checksum(arrays):
        return None
    return TokenTable(path, arrays["starts"], arrays["prompt_lengths"], _mapped(path, arrays["ids"].size))


def _mapped(path: Path, count: int) -> np.ndarray:
    """Map the ids; the checked copy of them is let go, so that all processes share one in the page cache."""
    with path.open("rb") as file:
        header_bytes = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(header_bytes))
    begin = 8 + header_bytes + header["ids"]["data_offsets"][0]
    return np.memmap(path, np.int32, "r", offset=begin, shape=(count,)) if count else np.zeros(0, np.int32)


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in _PARTS:
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].size};".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
