"""Who may speak? Whoever knows the token, which itself never travels.

Each frame carries a tag under a key made of the token, of a number that each side has drawn, and of the
direction; so a frame can be neither forged, nor changed, nor sent twice.
"""

import hmac
import secrets
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fedsim.errors import InputError

MIN_TOKEN = 16
NONCE_BYTES = 16


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A shared secret; its text never shows in a message."""

    text: bytes

    def key(self, *parts: str) -> bytes:
        """Return a key for one purpose."""
        return hmac.digest(self.text, "\0".join(("fedsim", *parts)).encode(), "sha256")


def new_nonce() -> str:
    """Draw a number that is used once."""
    return secrets.token_hex(NONCE_BYTES)


def tag(key: bytes, number: int, head: bytes, body: bytes) -> bytes:
    """Return the tag of the frame with this number on its way from one side to the other."""
    mac = hmac.new(key, number.to_bytes(8), sha256)
    mac.update(len(head).to_bytes(8))
    mac.update(head)
    mac.update(body)
    return mac.digest()


def read_token(path: Path, *, make: bool = False) -> Token:
    """Read the token of a file.

    Args:
        path: Of the file; only its owner may read it.
        make: Whether a file that is not there is made, with a fresh token.

    Raises:
        InputError: If it is not there, or too short, or others may read it.
    """
    if make and not path.exists():
        _make(path)
    try:
        text = path.read_text(encoding="utf-8").strip()
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path}: cannot be read: {error}; copy the server's file") from error
    if mode & 0o077:
        raise InputError(f"--token-file {path}: others may read it (mode {mode:o}); chmod 600 {path}")
    if len(text) < MIN_TOKEN:
        raise InputError(
            f"--token-file {path}: expected at least {MIN_TOKEN} characters, got {len(text)}; "
            "remove the file, and serve makes one"
        )
    return Token(text.encode())


def _make(path: Path) -> None:
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(secrets.token_hex(32) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--token-file {path}: cannot be made: {error.strerror}") from error
