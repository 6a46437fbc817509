"""Asks everything of the OpenAPI documents of a gateway, right and wrong, and follows its links.

Fails on an answer of 5xx, on a status, content type or body that the document does not have, on wrong requests that are
taken, on right ones that are refused, on operations that need no credential though the document says so, and on operations
that never did what they are for. Bounded by schemathesis.toml.

    target/tools/python/bin/python tests/clients/schemathesis/run.py --keys wxgate-data/dev.json
"""

import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
DOCUMENTS = ["openapi.json", "openapi/drop-in.json"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--gateway", default="http://127.0.0.1:8080")
    arguments.add_argument("--keys", default="wxgate-data/dev.json", help="the file that `wxgate dev` writes")
    arguments.add_argument("--simulator", default="http://127.0.0.1:8090", help="the WeChat behind the gateway")
    arguments.add_argument("--document", choices=DOCUMENTS, action="append", help="both without one")
    given, more = arguments.parse_known_args()
    environment = os.environ | {
        "WXGATE_URL": given.gateway,
        "WXGATE_KEYS": given.keys,
        "WXGATE_SIMULATOR": given.simulator,
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [pathlib.Path(sys.executable).with_name("schemathesis"), "--config-file", HERE / "schemathesis.toml"]
    runs = [[*command, "run", f"{given.gateway}/{document}", "--no-color", *more] for document in given.document or DOCUMENTS]
    return max(subprocess.run(one, env=environment, check=False).returncode for one in runs)


if __name__ == "__main__":
    sys.exit(main())
