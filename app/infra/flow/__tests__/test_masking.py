"""What looks like a secret is masked wherever people are shown it."""

from __future__ import annotations

from typing import Any

import pytest

from ..tools.units import MASK, is_sensitive, masked


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "DB_PASSWORD",
        "dbPassword",
        "passwd",
        "passphrase",
        "token",
        "access_token",
        "accessToken",
        "GITHUB_TOKEN",
        "api_key",
        "apikey",
        "APIKey",
        "x-api-key",
        "key",
        "private_key",
        "client-secret",
        "aws_secret_access_key",
        "authorization",
        "auth",
        "basic_auth",
        "credentials",
        "keyfile_dict",
        "service_account",
        "session_cookie",
        "jwt",
        "api_tokens",
    ],
)
def test_what_is_called_like_a_secret_is_masked(name: str) -> None:
    """In whatever way the words are joined."""
    assert masked(name, "hunter2") == MASK
    assert masked("", {name: "hunter2"}) == {name: MASK}


@pytest.mark.parametrize(
    "name",
    ["day", "author", "authors", "monkey", "keyboard", "keyword", "tokenizer", "passenger", "compass", "path", "", "pattern"],
)
def test_what_only_begins_or_ends_like_one_is_not(name: str) -> None:
    """Words count, not letters."""
    assert masked(name, "hunter2") == "hunter2"


def test_numbers_of_such_things_are_shown_and_so_is_what_is_no_value() -> None:
    """`max_tokens=4096` tells nobody a token; None and a bool tell nothing either."""
    assert masked("max_tokens", 4096) == 4096
    assert masked("max_tokens", "abc") == MASK
    assert masked("pin", 4096) == MASK
    assert masked("password", None) is None
    assert masked("use_password", True) is True
    assert not is_sensitive("max_tokens", 1)


def test_secrets_are_found_deep_inside_and_nothing_is_changed() -> None:
    """In lists of dicts, at any depth; the value itself stays as it is."""
    value = {"rows": [{"user": "ann", "password": "x", "tags": ("a", "b")}], 3: {"token": {"a": 1}}}
    assert masked("config", value) == {"rows": [{"user": "ann", "password": MASK, "tags": ["a", "b"]}], 3: {"token": MASK}}
    assert value["rows"] == [{"user": "ann", "password": "x", "tags": ("a", "b")}]
    nested: Any = {"password": "x"}
    for _ in range(50_000):
        nested = [nested]
    found = masked("", nested)
    for _ in range(50_000):
        found = found[0]
    assert found == {"password": MASK}


def test_a_password_in_a_url_is_masked_and_the_rest_of_it_shown() -> None:
    """Wherever in a text it stands; an address without one is left alone."""
    assert masked("url", "at postgres://ann:s3cr:et@db:5432/x and") == f"at postgres://ann:{MASK}@db:5432/x and"
    assert masked("urls", ["redis://:pw@cache"]) == [f"redis://:{MASK}@cache"]
    assert masked("url", "https://example.org:8080/a@b?x=1:2") == "https://example.org:8080/a@b?x=1:2"
