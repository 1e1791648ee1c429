"""The address of a store: read, and shown without secrets."""

from __future__ import annotations

import re

from sqlalchemy import URL, make_url

from ledger.core.errors import MissingExtraError

_HIDDEN = "***"

_HARMLESS = (
    "host hostaddr port dbname user options application_name fallback_application_name "
    "connect_timeout client_encoding sslmode sslnegotiation sslrootcert sslcert sslkey sslcrl "
    "sslcrldir sslsni sslcompression ssl_min_protocol_version ssl_max_protocol_version "
    "requirepeer require_auth channel_binding passfile service gssencmode gsslib krbsrvname "
    "gssdelegation keepalives keepalives_idle keepalives_interval keepalives_count "
    "tcp_user_timeout target_session_attrs load_balance_hosts replication "
    "mode vfs cache psow nolock immutable uri timeout check_same_thread cached_statements "
    "detect_types isolation_level autocommit"
)
_SHOWN = frozenset(_HARMLESS.split())
"""Parameters of libpq and SQLite that hold no secret. The values of all others are not shown."""

_USER_PART = re.compile(r"(\w://[^\s/:@]*):[^\s'\"]*@")
_PARAMETER = re.compile(
    r"((?:password|passwd|pwd|passphrase|secret|token)\w*\s*=\s*)('[^']*'|[^\s&'\")]+)",
    re.IGNORECASE,
)

_HOST = r"(?:\[[^\]/?#@]*\]|[^/?#@,:\[\]]*)(?::\d*)?"
_SEVERAL = re.compile(
    r"(?P<scheme>postgres(?:ql)?(?:\+psycopg)?)://"
    rf"(?P<rest>(?:[^/?#]*@)?(?=[^/?#@]*[,%]){_HOST}(?:,{_HOST})*(?:[/?].*)?)"
)
"""Matches an address with several or encoded hosts, which only libpq itself can read."""


def read_address(text: str) -> URL:
    """Read an address; for PostgreSQL in every form that libpq accepts.

    Raises:
        MissingExtraError: It needs libpq, which is not installed.
        ValueError: It is no address. SQLAlchemy may raise an error of its own.
    """
    found = _SEVERAL.fullmatch(text)
    if found is None:
        return make_url(text)
    try:
        from psycopg import ProgrammingError  # noqa: PLC0415 - an optional extra
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(what="psycopg", extra="postgresql") from error
    try:
        parts = {
            name: str(value)
            for name, value in conninfo_to_dict(f"postgresql://{found['rest']}").items()
        }
    except ProgrammingError as error:
        raise ValueError("libpq cannot read it") from error
    user, password, database = (parts.pop(name, None) for name in ("user", "password", "dbname"))
    return URL.create(
        found["scheme"], username=user, password=password, database=database, query=parts
    )


def shown_address(url: URL) -> str:
    """Return a store's address without its password, wherever it stands in the address."""
    hidden = dict.fromkeys(parted(url)[1], _HIDDEN)
    shown = url.update_query_dict(hidden).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", _HIDDEN)


def parted(url: URL) -> tuple[URL, dict[str, str | tuple[str, ...]]]:
    """Return an address without the parameters that may be secret, and those parameters.

    The driver gets them separately, so that the address that it keeps and shows has no secrets.
    """
    apart = {name: value for name, value in url.query.items() if name.lower() not in _SHOWN}
    return url.difference_update_query(apart), apart


def without_secrets(text: str, url: URL | None = None) -> str:
    """Return a message without passwords: those of addresses in it, and those of `url`.

    Args:
        text: A message, of a driver or of ours.
        url: The address that was in use.
    """
    for secret in () if url is None else _secrets(url):
        text = text.replace(secret, _HIDDEN)
    return _PARAMETER.sub(rf"\1{_HIDDEN}", _USER_PART.sub(rf"\1:{_HIDDEN}@", text))


def _secrets(url: URL) -> list[str]:
    values = [] if url.password is None else [str(url.password)]
    for value in parted(url)[1].values():
        values += [value] if isinstance(value, str) else value
    return sorted(filter(None, values), key=len, reverse=True)
