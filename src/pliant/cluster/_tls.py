"""Certificates for the connections between the command, the scheduler and the workers."""

from pathlib import Path
from typing import Any, NamedTuple

from pliant.errors import UserError


class Tls(NamedTuple):
    """Files of certificates, as the TLS options of `distributed`."""

    ca_file: Path | None = None
    """Of the authority that signed all certificates."""
    cert: Path | None = None
    key: Path | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is any."""
        return any(self)


NO_TLS = Tls()


def security_of(tls: Tls) -> Any:
    """The `Security` of `distributed` for some files; None without.

    Raises:
      UserError: if one of the files does not exist.
    """
    if not tls.is_given:
        return None
    from distributed.security import Security

    for name, file in tls._asdict().items():
        if file is None or not file.expanduser().is_file():
            raise UserError(
                got=f"--tls-{name.replace('_', '-')} {file}",
                wanted="a PEM file",
                do="Give --tls-ca-file, --tls-cert and --tls-key.",
            )
    ca_file, cert, key = (str(file.expanduser()) for file in tls if file)
    files = {"cert": cert, "key": key}
    roles = {f"tls_{role}_{part}": files[part] for role in ("client", "scheduler", "worker") for part in files}
    return Security(tls_ca_file=ca_file, require_encryption=True, **roles)
