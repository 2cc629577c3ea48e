"""Where an endpoint is, and the key to it."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from cosilo.errors import ConfigError


def in_clear(base_url: str) -> bool:
    """Whether what is sent to `base_url` leaves this machine unencrypted."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not here


def checked_url(base_url: str) -> str:
    """`base_url` without what some write behind it.

    Raises:
        ConfigError: it is no URL of an endpoint, or holds a password.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("base_url must begin with http:// or https:// and name a host")
    if parts.username or parts.password:
        raise ConfigError("base_url must hold no user and password; use api_key_env")
    if parts.query or parts.fragment:
        raise ConfigError("base_url must end with its path, without '?' or '#'")
    return base_url.rstrip("/").removesuffix("/chat/completions")


def key_in(variable: str) -> str:
    """The key that the environment variable holds; empty where none is named.

    Raises:
        ConfigError: there is no such variable, or what it holds is no key.
    """
    if not variable:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise ConfigError(
            "api_key_env must be the name of an environment variable, not a key itself"
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {variable!r}, named by api_key_env, is not set"
        )
    if not key.isprintable() or not key.isascii():
        raise ConfigError(f"the environment variable {variable!r} holds no key: odd characters")
    return key
