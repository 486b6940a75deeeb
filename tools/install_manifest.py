"""`manifests/install.yaml`: the chart with its default values, for those who do not use Helm."""

import subprocess
from pathlib import Path

from trimtab.local.programs import Programs

NAMESPACE = "trimtab-system"
HEADER = f"""\
# Rendered from helm/trimtab by `make gen`: do not edit. First the definitions, then this:
#   kubectl apply --server-side -f crds/
#   sed "s,image: REGISTRY/,image: $REGISTRY/," manifests/install.yaml | kubectl apply --server-side -f -
# REGISTRY is where you pushed the images: docs/how-to/install.md
# Before removing it: trimtab release --all
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


def text(root: Path) -> str | None:
    """Return the manifest, or None where Helm is not on this machine yet (`trimtab cluster programs fetch helm`)."""
    helm = Programs.standard().found("helm")
    if helm is None:
        return None
    chart = str(root / "helm" / "trimtab")
    command = [
        str(helm.path),
        "template",
        "trimtab",
        chart,
        "--namespace",
        NAMESPACE,
        "--no-hooks",
        "--set",
        "image.registry=REGISTRY",
    ]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 our own program
    return HEADER + rendered.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl")
