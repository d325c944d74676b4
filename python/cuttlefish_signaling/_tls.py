"""A server's certificate: read, made for one run, or kept in a directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING

from . import _native
from ._annotations import late_annotations
from .errors import TlsError

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

DEFAULT_NAMES = ("localhost", "127.0.0.1", "::1")
"""Names of a certificate that is made for this machine."""


class Tls:
    """A server's certificate and key. Make one with `self_signed`, `kept_in`, `from_files` or `from_pem`."""

    __slots__ = ("_native", "authority_file")

    authority_file: Path | None
    """The file of that authority, for a certificate of `kept_in`."""

    def __init__(self, native: _native.Tls, authority_file: Path | None = None) -> None:
        self._native = native
        self.authority_file = authority_file

    @property
    def certificate_pem(self) -> str:
        """The certificate that a client has to trust, PEM: the authority of a self-signed one, else the certificate."""
        return self._native.trusted_pem

    @classmethod
    def self_signed(
        cls,
        names: Sequence[str] = DEFAULT_NAMES,
        *,
        client_ca: str | PathLike[str] | bytes | None = None,
    ) -> Tls:
        """Makes a certificate for these DNS names and IP addresses, valid for 824 days.

        It is sent with its authority. Both are in memory only: `kept_in` keeps them in files.

        Raises TlsError where a name is neither.
        """
        native = _native.Tls.self_signed(_names(names), _authority(client_ca))
        return cls(native)

    @classmethod
    def kept_in(
        cls,
        directory: str | PathLike[str],
        names: Sequence[str] = DEFAULT_NAMES,
        *,
        client_ca: str | PathLike[str] | bytes | None = None,
    ) -> Tls:
        """Returns the certificate that a directory keeps for these names. Clients have to trust its authority once.

        Makes the directory (mode 0700), an authority that may sign for these DNS names only (10 years), and a
        certificate (825 days) that is renewed by the first call in its last 30 days, and by a server that runs then
        (`tls_check_interval`). New files are logged; changed names and a new authority are warnings. Several processes
        may use the directory at once.

        Raises StateDirError where the directory cannot be used, or a file in it is broken or not private; such a file
        is never overwritten. Raises TlsError where a name is neither a DNS name nor an address.
        """
        tls, save = prepare(directory, names, client_ca=client_ca)
        save()
        return tls

    @classmethod
    def from_files(
        cls,
        certificate: str | PathLike[str],
        key: str | PathLike[str],
        *,
        client_ca: str | PathLike[str] | bytes | None = None,
    ) -> Tls:
        """Reads a certificate chain, leaf first, and its private key, both PEM.

        A server reads the files again while it runs, and takes a new certificate for new connections
        (`tls_check_interval`, `reload_tls()`).

        Args:
            client_ca: The authorities of client certificates, a file or PEM in memory. Only peers with a certificate of
                theirs are accepted; hooks get its subject as `Peer.certificate`.

        Raises TlsError where a file cannot be read or is not PEM, or the two do not belong together.
        """
        chain, secret = _read(certificate, "certificate"), _read(key, "private key")
        authorities = None if isinstance(client_ca, bytes) or client_ca is None else _absolute(client_ca)
        files = (_absolute(certificate), _absolute(key), authorities)
        return cls(_native.Tls.from_pem(chain, secret, _authority(client_ca), files))

    @classmethod
    def from_pem(
        cls,
        certificate: str | bytes,
        key: str | bytes,
        *,
        client_ca: str | PathLike[str] | bytes | None = None,
    ) -> Tls:
        """Like `from_files`, with PEM in memory. Raises TlsError."""
        chain, secret = _pem(certificate, "certificate"), _pem(key, "private key")
        return cls(_native.Tls.from_pem(chain, secret, _authority(client_ca), None))

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the certificate, as `openssl x509 -fingerprint -sha256` prints it."""
        return self._native.fingerprint

    @property
    def authority_fingerprint(self) -> str | None:
        """The SHA-256 fingerprint of the authority; None for a certificate that was not made here."""
        return self._native.authority_fingerprint

    def client_context(self) -> ssl.SSLContext:
        """Returns an `ssl.SSLContext` for clients that trusts this server only."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=self.certificate_pem)
        return context

    def __repr__(self) -> str:
        return "<Tls>"


def _names(names: Sequence[str]) -> list[str]:
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise TlsError("tls", f"names must be a list of strings, got {names!r}")
    found = list(names)
    for name in found:
        if not isinstance(name, str) or name != name.encode("utf-8", "replace").decode():
            raise TlsError("tls", f"names must be a list of strings, got {name!r} in it")
    return found


def _directory(path: str | PathLike[str]) -> str:
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TlsError("tls", f"directory must be a path, got {path!r}") from None
    if not text:
        raise TlsError("tls", "directory must be a path, got an empty string")
    return text


def prepare(
    directory: str | PathLike[str],
    names: Sequence[str],
    *,
    client_ca: str | PathLike[str] | bytes | None = None,
) -> tuple[Tls, Callable[[], None]]:
    """Does `Tls.kept_in` in two steps. Returns the certificate, and a function that writes and logs the new files.

    The directory is locked until that function is called, and no file in it changes before.
    """
    native, file, notices, unsaved = _native.Tls.kept_in(_directory(directory), _names(names), _authority(client_ca))

    def save() -> None:
        unsaved.save()
        _log(notices)

    return Tls(native, file), save


def renew(tls: Tls) -> bool:
    """Takes the certificate from its files. Returns whether it is another one. Raises TlsError or StateDirError."""
    is_new, notices = tls._native.renew()
    _log(notices)
    return is_new


def authority_kept_in(directory: str | PathLike[str], names: Sequence[str]) -> str:
    """Returns the authority that a directory keeps for these names, PEM. Makes it like `Tls.kept_in`."""
    pem, notices = _native.Tls.authority_kept_in(_directory(directory), _names(names))
    _log(notices)
    return pem


def _log(notices: Iterable[tuple[bool, str]]) -> None:
    # Imported here: most programs keep no certificate.
    import logging

    from ._log import log

    for is_warning, text in notices:
        if is_warning:
            log(logging.WARNING, "%s", text, event="certificate_replaced", reason=text)
        else:
            log(logging.INFO, "%s", text, event="certificate_created", reason=text)


def _authority(client_ca: str | PathLike[str] | bytes | None) -> bytes | None:
    if client_ca is None or isinstance(client_ca, bytes):
        return client_ca
    return _read(client_ca, "authority of clients")


def _pem(text: str | bytes, what: str) -> bytes:
    if isinstance(text, str):
        return text.encode("utf-8", "replace")
    if not isinstance(text, bytes | bytearray):
        raise TlsError("tls", f"the {what} must be PEM, a string or bytes, got a value of type {type(text).__name__}")
    return bytes(text)


def _absolute(path: str | PathLike[str]) -> str:
    """Returns the path from the root, for a process that changes its directory. Links in it are not followed."""
    return os.path.join(os.getcwd(), os.fsdecode(path))


def _read(path: str | PathLike[str], what: str) -> bytes:
    try:
        # A number would be a file descriptor, which `open` reads and closes.
        with open(os.fspath(path), "rb") as file:
            return file.read()
    except (OSError, TypeError, ValueError) as error:
        raise TlsError("tls", f"cannot read the {what} {path!r}: {error}") from error


late_annotations(globals())
