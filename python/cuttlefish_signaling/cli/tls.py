"""The certificate of `cuttlefish-signaling serve`: none, from files, kept in the state directory, or in memory."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping

from .. import _native
from .._checks import names as checked_names
from .._log import log
from .._tls import DEFAULT_NAMES, Tls, authority_kept_in, prepare
from ..errors import ConfigError, StateDirError
from .listeners import all_listeners, hosts_for_tls
from .sources import Found


def certificate(found: Found) -> tuple[Tls | None, Callable[[], None]]:
    """Returns the certificate of these settings, and a function that writes and logs its new files.

    Raises ConfigError, or StateDirError where `--state-dir` cannot be used.
    """
    if not any(one.is_tls for one in all_listeners(found)):
        why = "--listen: no URL in it is https" if found["listen"] else "--no-tls"
        if found["tls_cert"] or found["tls_key"]:
            raise ConfigError("tls-cert", f"contradicts {why}")
        if found["state_dir"]:
            raise ConfigError("state-dir", f"contradicts {why}: there is no certificate to keep")
        return None, _nothing
    chain, key = found["tls_cert"], found["tls_key"]
    if chain and key:
        if found["state_dir"]:
            raise ConfigError(
                "state-dir", "contradicts --tls-cert and --tls-key: no certificate is made that it could keep"
            )
        return Tls.from_files(chain, key), _nothing
    if chain or key:
        raise ConfigError("tls-cert" if key else "tls-key", "is missing: a certificate and its key come together")
    names = _names(found)
    if found["state_dir"]:
        return prepare(found["state_dir"], names)
    try:
        tls, save = prepare(default_directory(os.environ), names)
    except StateDirError as error:
        reason = error
        return Tls.self_signed(names), lambda: _warn(reason)
    return tls, lambda: _save_or_warn(tls, save)


def authority_pem(found: Found) -> str:
    """Returns the output of `--print-ca`. Raises ConfigError, or StateDirError where the state directory fails."""
    if not any(one.is_tls for one in all_listeners(found)):
        why = "--listen: no URL in it is https" if found["listen"] else "--no-tls: there is no certificate"
        raise ConfigError("print-ca", f"contradicts {why}")
    if found["tls_cert"] or found["tls_key"]:
        raise ConfigError(
            "print-ca", "contradicts --tls-cert and --tls-key: the authority is the one that has signed there"
        )
    return authority_kept_in(found["state_dir"] or default_directory(os.environ), _names(found))


def fingerprints(tls: Tls) -> str:
    """Returns lines with the fingerprints of certificate and authority, like `openssl x509 -fingerprint -sha256`."""
    lines = f"certificate: SHA-256 {tls.fingerprint}"
    if tls.authority_fingerprint:
        place = f"in {tls.authority_file}" if tls.authority_file else "in memory"
        lines += f"\nauthority: SHA-256 {tls.authority_fingerprint} {place}"
    return lines


def default_directory(environment: Mapping[str, str]) -> str:
    """Returns the state directory of systemd, else of the user. Raises StateDirError where there is neither."""
    if directories := environment.get("STATE_DIRECTORY"):
        return directories.split(":")[0]
    base = environment.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):  # The specification says to ignore it.
        base = os.path.join(os.path.expanduser("~"), ".local", "state")
    path = os.path.join(base, "cuttlefish-signaling")
    if not os.path.isabs(path):
        raise StateDirError(path, "this user has no home directory: name a directory with --state-dir")
    return path


def _names(found: Found) -> list[str]:
    """Returns the names of a certificate that is made here: of this machine, and of `--allow-host`."""
    hosts = [host.partition("%")[0] for host in hosts_for_tls(found)]  # A certificate has no interface in addresses.
    implied = [*hosts, socket.gethostname()]
    names = [*DEFAULT_NAMES, *filter(_native.Tls.is_name, implied)]
    for name in checked_names("allowed_hosts", found["allow_host"] or ()):
        if name == "*":
            continue
        if not _native.Tls.is_name(name):
            raise ConfigError("allow-host", f"{name!r} is no DNS name and no address: no certificate can be for it")
        names.append(name)
    return names


def _nothing() -> None:
    pass


def _save_or_warn(tls: Tls, save: Callable[[], None]) -> None:
    try:
        save()
    except StateDirError as error:
        tls.authority_file = None
        _warn(error)


def _warn(error: StateDirError) -> None:
    text = "the certificate is kept in memory, and clients have to trust it anew after each start: %s"
    log(logging.WARNING, text, error, event="certificate_not_kept", reason=str(error))
