"""The command lines of the control plane's three daemons."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tenantry.local.certificates import Certificates
from tenantry.local.ports import LOOPBACK

SERVICE_ADDRESS = "10.96.0.1"
"""Cluster IP of the `kubernetes` Service: the first of the range below."""
_SERVICE_RANGE = "10.96.0.0/16"
_ISSUER = "https://kubernetes.default.svc.cluster.local"

# Controllers of nodes, of volumes on nodes and of devices: without a node they have nothing to do.
_CONTROLLERS_OFF = (
    "device-taint-eviction-controller",
    "node-ipam-controller",
    "node-lifecycle-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "resourceclaim-controller",
    "taint-eviction-controller",
    "ttl-controller",
)


@dataclass(frozen=True)
class Ports:
    """What the daemons listen on, all on the loopback address. The controller manager listens on nothing."""

    api_server: int
    etcd: int
    etcd_peer: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def etcd(program: Path, data: Path, certificates: Certificates, ports: Ports, *, durable: bool) -> list[str]:
    """Return the command line of etcd: one member, which only a client certificate of its own CA reaches."""
    client, peer = f"https://{LOOPBACK}:{ports.etcd}", f"https://{LOOPBACK}:{ports.etcd_peer}"
    tls = {
        "cert-file": certificates.etcd_server.certificate,
        "key-file": certificates.etcd_server.key,
        "trusted-ca-file": certificates.etcd_authority.certificate,
    }
    return [
        str(program),
        "--name=tenantry",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=tenantry={peer}",
        *(f"--{prefix}{flag}={path}" for prefix in ("", "peer-") for flag, path in tls.items()),
        "--client-cert-auth",
        "--peer-client-cert-auth",
        "--log-format=console",
        # Alone, it need not listen for a second whether there is another leader.
        "--heartbeat-interval=20",
        "--election-timeout=200",
        *([] if durable else ["--unsafe-no-fsync"]),
    ]


@dataclass(frozen=True)
class Audit:
    """Which requests the API server writes down, and where, a line of JSON for each."""

    policy: Path
    """A file with an `audit.k8s.io/v1` Policy."""
    log: Path


def api_server(
    program: Path, certificates: Certificates, ports: Ports, audit: Audit | None = None
) -> list[str]:
    """Return the command line of kube-apiserver, with the authorization and admission of a real cluster."""
    return [
        str(program),
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={ports.api_server}",
        # Endpoints of the `kubernetes` Service may not be loopback addresses.
        "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={_SERVICE_RANGE}",
        f"--etcd-servers=https://{LOOPBACK}:{ports.etcd}",
        f"--etcd-cafile={certificates.etcd_authority.certificate}",
        f"--etcd-certfile={certificates.etcd_client.certificate}",
        f"--etcd-keyfile={certificates.etcd_client.key}",
        f"--tls-cert-file={certificates.api_server.certificate}",
        f"--tls-private-key-file={certificates.api_server.key}",
        f"--client-ca-file={certificates.authority.certificate}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # As kubeadm has it: Pod Security decides who may be privileged.
        "--allow-privileged=true",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={certificates.service_account_key}",
        f"--service-account-signing-key-file={certificates.service_account_key}",
        "--profiling=false",
        *([f"--audit-policy-file={audit.policy}", f"--audit-log-path={audit.log}"] if audit else []),
    ]


def controller_manager(program: Path, kubeconfig: Path, certificates: Certificates) -> list[str]:
    """Return the command line of kube-controller-manager."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        "--secure-port=0",
        # There is one, and after a kill -9 nothing should wait for its lease to run out.
        "--leader-elect=false",
        # As kubeadm has it: each controller has its own ServiceAccount, which admission policies see.
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={certificates.service_account_key}",
        f"--root-ca-file={certificates.authority.certificate}",
        f"--cluster-signing-cert-file={certificates.authority.certificate}",
        f"--cluster-signing-key-file={certificates.authority.key}",
        f"--controllers=*,{','.join(f'-{name}' for name in _CONTROLLERS_OFF)}",
        # A burst of hundreds of tenants should meet the operator's limits, not these.
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
        "--concurrent-namespace-syncs=50",
        "--concurrent-gc-syncs=40",
        "--concurrent-resource-quota-syncs=20",
        "--concurrent-serviceaccount-token-syncs=20",
    ]
