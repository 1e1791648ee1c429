"""`ledger metrics`: pools as a page for Prometheus."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ledger import reports
from ledger.cli.common import URL_DEFAULT, Url, existing, stderr, tell_left_out
from ledger.core.errors import InvalidInputError
from ledger.telemetry import PoolCollector

_PORT_MAX = 65_535


def metrics(
    pool: Annotated[
        list[str] | None,
        typer.Option(help="Only this pool; may be given again. By default all pools."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            help="Serve the page at this address, HOST:PORT, until interrupted; port 0 is a free "
            "one.",
            show_default=False,
        ),
    ] = None,
    url: Url = URL_DEFAULT,
) -> None:
    """Print where pools stand, and what happened in them, as a page for Prometheus.

    Example: ledger metrics --listen 127.0.0.1:9464
    """
    place = None if listen is None else _address(listen)
    with existing(url) as book:
        collector = PoolCollector(book, reports.Filter(pools=pool or ()))
        from prometheus_client import generate_latest, start_http_server  # noqa: PLC0415 - an extra

        registry = collector.registry()
        page = generate_latest(registry)  # a name that is wrong is said before anything is served
        if place is None:
            sys.stdout.write(page.decode())
            tell_left_out(collector.left_out)
            return
        host, port = place
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise InvalidInputError("--listen", f"{listen} cannot be served: {error}") from error
        bound = f"[{host}]" if ":" in host else host
        stderr().print(
            f"Serving http://{bound}:{server.server_port}/metrics", soft_wrap=True, markup=False
        )
        try:
            thread.join()
        finally:
            server.shutdown()
            server.server_close()


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
        raise InvalidInputError(
            "--listen", f"must be HOST:PORT, such as 127.0.0.1:9464: {listen!r}"
        )
    return host.strip("[]"), int(port)
