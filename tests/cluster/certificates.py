"""The certificates and kubeconfigs of one cluster: every component proves who it is, as on a real one.

One authority (ECDSA), a certificate per component with the name and group that Kubernetes' own roles know,
and a key pair for service account tokens. Valid for some days: a test cluster does not live longer.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_DAYS = 30

CLIENTS = {
    "admin": ("admin", "system:masters"),
    "kcm": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "proxy": ("system:kube-proxy", None),
    "dns": ("system:coredns", None),
    "claims": ("gpuhub:claims", "gpuhub:node-controllers"),
    "netpol": ("gpuhub:netpol", "gpuhub:node-controllers"),
    "apiserver-kubelet": ("kube-apiserver-kubelet-client", "kubeadm:cluster-admins"),
}
"""File name -> common name and organisation: the user and group that the API server sees."""


@dataclass(frozen=True)
class Certificates:
    """Where the files of one cluster are: ``NAME.crt``, ``NAME.key``, ``NAME.kubeconfig``."""

    folder: Path

    def __call__(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"


def make_certificates(
    folder: Path, server: str, api_names: list[str], node: str | None = None, node_ip: str | None = None
) -> Certificates:
    """Write all files; ``server`` is the API server's address, ``api_names`` its names and IPs."""
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    authority = _Authority(folder)
    authority.sign("apiserver", "kube-apiserver", hosts=api_names)
    clients = dict(CLIENTS)
    if node is not None and node_ip is not None:
        authority.sign("kubelet-server", f"system:node:{node}", "system:nodes", hosts=[node, node_ip])
        clients["node"] = (f"system:node:{node}", "system:nodes")
    for name, (user, group) in clients.items():
        authority.sign(name, user, group)
        _kubeconfig(folder, name, server)
    tokens = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(folder / "sa.key", _private(tokens))
    public = tokens.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(folder / "sa.pub", public)
    return Certificates(folder)


class _Authority:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gpuhub test cluster")])
        built = self._builder(self.name, self.key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self._save("ca", self.key, built)

    def sign(self, file: str, user: str, group: str | None = None, hosts: list[str] | None = None) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if group is not None:
            names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        use = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(x509.Name(names), key.public_key()).add_extension(
            x509.ExtendedKeyUsage([use]), critical=False
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        self._save(file, key, builder)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        )

    def _save(self, file: str, key: ec.EllipticCurvePrivateKey, builder: x509.CertificateBuilder) -> None:
        certificate = builder.sign(self.key, hashes.SHA256())
        _write(self.folder / f"{file}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        _write(self.folder / f"{file}.key", _private(key))


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _kubeconfig(folder: Path, name: str, server: str) -> None:
    def inline(file: str) -> str:
        return b64encode((folder / file).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": inline("ca.crt")}
    user = {
        "client-certificate-data": inline(f"{name}.crt"),
        "client-key-data": inline(f"{name}.key"),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "gpuhub-test",
        "clusters": [{"name": "gpuhub-test", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "gpuhub-test", "context": {"cluster": "gpuhub-test", "user": name}}],
    }
    _write(folder / f"{name}.kubeconfig", json.dumps(content, indent=1).encode())
