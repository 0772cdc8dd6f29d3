import subprocess
import sys
from pathlib import Path

from example_models import build

from biomassters.model.weights import save_weights
from repository_copy import SRC

READ = """
import sys
from pathlib import Path
from biomassters.model.weights_header import read_packages
print(read_packages(Path(sys.argv[1]))["python"], "torch" in sys.modules)
"""


def test_header_is_read_without_importing_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, build(), {})
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [sys.version.split()[0], "False"]
