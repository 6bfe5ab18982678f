"""Certificates for servers of tests: an authority of their own, and what it or nobody has signed."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A key, its self-signed certificate, and the folder where both and all that it signs lie."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> Path:
        """The certificate, for those who are to trust it."""
        return self.folder / "authority.pem"

    def signed(self, name: str, *, days: int = 1) -> tuple[Path, Path]:
        """Files of a certificate for a host name or address and of its key; negative days: it ended then."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name, key, self.certificate.subject, self.key, days)
        return _written(self.folder, f"{name}{days}", key, certificate)


def authority(folder: Path) -> Authority:
    """A new one, in a folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of tests")])
    certificate = _certificate("authority", key, subject, key, 1, subject)
    _written(folder, "authority", key, certificate)
    return Authority(folder, key, certificate)


def server_context(files: tuple[Path, Path]) -> ssl.SSLContext:
    """What a server with this certificate and key needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
    subject: x509.Name | None = None,
) -> x509.Certificate:
    end = datetime.datetime.now(datetime.UTC) + days * _DAY
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - 30 * _DAY)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=subject is not None, path_length=None), critical=True)
    )
    return builder.sign(signer, hashes.SHA256())


def _written(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> tuple[Path, Path]:
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
