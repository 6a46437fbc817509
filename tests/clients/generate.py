"""Makes clients of openapi/openapi.json with the generators of other people, and runs the same scenario with each
against a gateway.

    target/tools/python/bin/python tests/clients/generate.py [NAME...] --gateway http://127.0.0.1:8080 --keys wxgate-data/dev.json

With `--start PROGRAM` it starts that `wxgate`, on free ports and in a folder of its own, for as long as it runs. What is generated goes into a folder of its own beside the tools, made anew each time.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENTS = HERE.parent.parent / "openapi"
BIN = pathlib.Path(sys.executable).parent
TOOLS = BIN.parent.parent
NODE = TOOLS / "node"


def run(*command, **options):
    """A command that must succeed; its words are shown when it does not."""
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command):.400}\n{done.stdout}")
    return done.stdout


def python(folder, scenario, given):
    environment = os.environ | {"PYTHONPATH": f"{folder}:{HERE / 'python'}", "PYTHONDONTWRITEBYTECODE": "1"}
    return run(sys.executable, HERE / "python" / scenario, *given, env=environment)


def openapi_python_client(folder, given):
    document = DOCUMENTS / "openapi.json"
    package = folder / "wxgate_opc"
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    command = [BIN / "openapi-python-client", "generate", "--path", document, "--output-path", package, "--meta", "none"]
    run(*command, "--overwrite", env=environment)
    return python(folder, "openapi_python_client.py", given)


def openapi_generator(folder, generator, **properties):
    """OpenAPI Generator reads the 3.0 form: what it makes of 3.1 is beta."""
    settings = ",".join(f"{name}={value}" for name, value in properties.items())
    command = [BIN / "openapi-generator-cli", "generate", "--generator-name", generator, "--output", folder]
    return run(*command, "--input-spec", DOCUMENTS / "openapi-3.0.json", f"--additional-properties={settings}")


def openapi_generator_python(folder, given):
    openapi_generator(folder, "python", packageName="wxgate_og")
    return python(folder, "openapi_generator.py", given)


def openapi_typescript(folder, given):
    # Beside the packages: that is where Node.js and TypeScript look for them.
    place = NODE / folder.name
    shutil.copytree(HERE / "typescript", place, dirs_exist_ok=True)
    environment = os.environ | {"PATH": f"{BIN}:{NODE / 'node_modules' / '.bin'}:{os.environ['PATH']}"}
    types = place / "generated" / "wxgate.ts"
    run("openapi-typescript", DOCUMENTS / "openapi.json", "--output", types, env=environment)
    run("tsc", "--project", place, env=environment)
    return run("node", place / "scenario.ts", *given, env=environment)


def openapi_generator_java(folder, given):
    if shutil.which("javac") is None:
        sys.exit("there is no javac: install a JDK, such as default-jdk-headless")
    package = {"invokerPackage": "wxgate", "apiPackage": "wxgate.api", "modelPackage": "wxgate.model"}
    options = {"library": "native", "documentationProvider": "none", "openApiNullable": "false", "hideGenerationTimestamp": "true"}
    openapi_generator(folder, "java", **package, **options)
    # Jackson is in the generator itself: no Maven is needed to find it.
    jackson = next(TOOLS.glob("python/lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar"))
    sources = [*folder.glob("src/main/**/*.java"), *HERE.glob("java/**/*.java")]
    classes = folder / "classes"
    run("javac", "-nowarn", "-encoding", "UTF-8", "-classpath", jackson, "-d", classes, *sources)
    return run("java", "-classpath", f"{classes}:{jackson}", "Scenario", *given)


def openapi_generator_rust(folder, given):
    shutil.copytree(HERE / "rust", folder, dirs_exist_ok=True)
    openapi_generator(folder / "client", "rust", packageName="wxgate-client", library="reqwest")
    # The versions of the gateway's own dependencies, where both have them; compiled once, whatever is generated.
    shutil.copy(HERE.parent.parent / "Cargo.lock", folder)
    environment = os.environ | {"CARGO_TARGET_DIR": str(TOOLS / "rust")}
    manifest = ["--quiet", "--manifest-path", folder / "Cargo.toml"]
    return run("cargo", "run", *manifest, "--", *given, env=environment)


CLIENTS = {
    "openapi-python-client": openapi_python_client,
    "openapi-generator-python": openapi_generator_python,
    "openapi-typescript": openapi_typescript,
    "openapi-generator-java": openapi_generator_java,
    "openapi-generator-rust": openapi_generator_rust,
}


@contextlib.contextmanager
def started(program):
    """`wxgate dev` in a folder of its own: how it is reached."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [os.path.abspath(program), "dev", "--json", "--listen", f"127.0.0.1:{port}", "--simulator-port", "0"]
        gateway = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            for line in gateway.stdout:
                if line.startswith("{") and "base_url" in (told := json.loads(line)):
                    break
            else:
                sys.exit("wxgate dev ended before it was there")
            yield ["--gateway", told["base_url"], "--keys", f"{folder}/wxgate-data/dev.json"]
        finally:
            gateway.terminate()
            gateway.wait()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("clients", nargs="*", metavar="NAME", help=f"of {', '.join(CLIENTS)}; all without one")
    arguments.add_argument("--gateway", default="http://127.0.0.1:8080")
    arguments.add_argument("--keys", default="wxgate-data/dev.json", help="the file that `wxgate dev` writes")
    arguments.add_argument("--start", metavar="PROGRAM", help="start this wxgate instead of calling a gateway that is there")
    asked = arguments.parse_args()
    there = contextlib.nullcontext(["--gateway", asked.gateway, "--keys", asked.keys])
    with started(asked.start) if asked.start else there as given:
        make(asked.clients or CLIENTS, given)


def make(clients, given):
    """Each client in a folder of its own, which goes when it has done its work."""
    for name in clients:
        folder = TOOLS / "generated" / f"{name}-{os.getpid()}"
        folder.mkdir(parents=True)
        try:
            print(f"{name}:", CLIENTS[name](folder, given), sep="\n")
        finally:
            for place in (folder, NODE / folder.name):
                shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
