import subprocess
import sys


def test_networks_load_nothing_heavier_than_torch() -> None:
    code = (
        "import sys, invrestore.networks;"
        "heavy = {'lightning', 'torchvision', 'deepinv', 'matplotlib', 'pydantic'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
