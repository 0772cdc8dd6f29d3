"""Stage `fingerprint`: what each stage's code means, so that nothing reruns for a comment.

Every other stage depends on its own file of hashes in place of source files.
"""

from pathlib import Path

from biomassters.fingerprint.closure import hash_closure
from biomassters.fingerprint.records import keep_record, write_record
from biomassters.fingerprint.stage_inputs import PIPELINE_FILE
from biomassters.params.reading import read_document
from biomassters.processes.ending import run_script
from biomassters.processes.scratch import scratch_folder


def main() -> None:
    """Write the hashes of each stage that dvc.yaml names among the outs of this one."""
    outs = read_document(PIPELINE_FILE)["stages"]["fingerprint"]["outs"]
    for path in (Path(next(iter(out))) for out in outs):
        write_record(path, hash_closure(Path("src") / f"{path.stem}.py"))
        keep_record(path, scratch_folder("fingerprints"))


if __name__ == "__main__":
    run_script(main)
