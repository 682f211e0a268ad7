"""The keys and certificates of one environment.

Two authorities: whoever holds a client certificate of the API server's authority must not reach etcd with it,
because etcd knows no users.
"""

from __future__ import annotations

import datetime
import ipaddress
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tenantry.local.files import write_private

_LIFETIME = datetime.timedelta(days=3650)
# Clocks in virtual machines step back now and then.
_BACKDATE = datetime.timedelta(hours=1)

_API_SERVER_NAMES = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
]
_USAGES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


@dataclass(frozen=True)
class KeyPair:
    """The paths of a PEM certificate and of its PEM private key."""

    certificate: Path
    key: Path


class Certificates:
    """The files in one folder: authorities, certificates of servers and clients, the ServiceAccount key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = self._pair("ca")
        self.api_server = self._pair("kube-apiserver")
        self.admin = self._pair("admin")
        self.controller_manager = self._pair("kube-controller-manager")
        self.etcd_authority = self._pair("etcd-ca")
        self.etcd_server = self._pair("etcd")
        self.etcd_client = self._pair("etcd-client")
        self.service_account_key = folder / "service-account.key"

    def ensure(self, service_address: str) -> None:
        """Create everything unless it is there already; all files appear at once or not at all.

        `service_address` is the cluster IP of the `kubernetes` Service. Raises OSError.
        """
        if self.folder.exists():
            return
        scratch = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True, mode=0o700)
        _create_all(Certificates(scratch), service_address)
        scratch.replace(self.folder)

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.folder / f"{name}.crt", self.folder / f"{name}.key")


class _Authority:
    def __init__(self, name: str, pair: KeyPair) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(self._name, self._key.public_key())
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write_pair(pair, certificate, self._key)

    def issue(
        self, pair: KeyPair, user: str, *, group: str = "", names: list[str] | None = None, address: str = ""
    ) -> None:
        """Write a certificate for `user`; loopback and `names`/`address` are what a server may be called."""
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if group:
            subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(x509.Name(subject), key.public_key())
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            # etcd opens connections to itself with its serving certificate, so each may do both.
            .add_extension(x509.ExtendedKeyUsage(_USAGES), critical=False)
        )
        if names:
            addresses = [ipaddress.ip_address(each) for each in ("127.0.0.1", address) if each]
            alternatives = [*map(x509.DNSName, names), *map(x509.IPAddress, addresses)]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        _write_pair(pair, builder.sign(self._key, hashes.SHA256()), key)


def _create_all(files: Certificates, service_address: str) -> None:
    authority = _Authority("tenantry-ca", files.authority)
    authority.issue(files.api_server, "kube-apiserver", names=_API_SERVER_NAMES, address=service_address)
    authority.issue(files.admin, "admin", group="system:masters")
    authority.issue(files.controller_manager, "system:kube-controller-manager")
    etcd_authority = _Authority("tenantry-etcd-ca", files.etcd_authority)
    etcd_authority.issue(files.etcd_server, "etcd", names=["localhost"])
    etcd_authority.issue(files.etcd_client, "kube-apiserver")
    _write_key(files.service_account_key, ec.generate_private_key(ec.SECP256R1()))


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(pair: KeyPair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(pair.key, key)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    # The API server takes a private key for a list of public ones in this format only.
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    write_private(path, pem)
