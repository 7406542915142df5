"""What the secret of a key must be, wherever it is given; and how new ones are made."""

from __future__ import annotations

import base64
import secrets

#: Characters. Shorter ones can be guessed by asking.
SHORTEST = 16

#: Completes "... must be".
WANTED = f"at least {SHORTEST} visible ASCII characters, no blanks"


def is_fit(secret: str) -> bool:
    """Long enough, and of what a header can carry."""
    return len(secret) >= SHORTEST and secret.isascii() and secret.isprintable() and " " not in secret


def new_secret() -> str:
    """256 random bits, to be shown once."""
    return "tg-" + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
