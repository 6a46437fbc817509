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


def typescript(folder, scenario, generate, given):
    """`generate` makes the client in the scenario's folder, which is put beside the packages: that is where Node.js and
    TypeScript look for them."""
    place = NODE / folder.name
    shutil.copytree(HERE / scenario, place, dirs_exist_ok=True)
    programs = {"PATH": f"{BIN}:{NODE / 'node_modules' / '.bin'}:{os.environ['PATH']}"}
    environment = os.environ | programs | {"WXGATE_DOCUMENT": str(DOCUMENTS / "openapi.json")}
    run(*generate, cwd=place, env=environment)
    run("tsc", "--project", place, env=environment)
    return run("node", place / "scenario.ts", *given, env=environment)


def openapi_typescript(folder, given):
    generate = ["openapi-typescript", DOCUMENTS / "openapi.json", "--output", "generated/wxgate.ts"]
    return typescript(folder, "typescript", generate, given)


def hey_api(folder, given):
    return typescript(folder, "hey-api", ["openapi-ts", "--silent"], given)


def need(program, package):
    """A compiler that tests do not need is not installed by `make setup`."""
    if shutil.which(program) is None:
        sys.exit(f"there is no {program}: install {package}")


def openapi_generator_java(folder, given):
    need("javac", "a JDK, such as default-jdk-headless")
    package = {"invokerPackage": "wxgate", "apiPackage": "wxgate.api", "modelPackage": "wxgate.model"}
    options = {"library": "native", "documentationProvider": "none", "openApiNullable": "false", "hideGenerationTimestamp": "true"}
    openapi_generator(folder, "java", **package, **options)
    # Jackson is in the generator itself: no Maven is needed to find it.
    jackson = next(TOOLS.glob("python/lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar"))
    sources = [*folder.glob("src/main/**/*.java"), *HERE.glob("java/**/*.java")]
    classes = folder / "classes"
    run("javac", "-nowarn", "-encoding", "UTF-8", "-classpath", jackson, "-d", classes, *sources)
    return run("java", "-classpath", f"{classes}:{jackson}", "Scenario", *given)


def openapi_generator_go(folder, given):
    """Go finds the packages of Debian where it looks for the client: in a workspace of the form before modules."""
    need("go", "golang-go and golang-golang-x-oauth2-dev")
    home = folder / "src" / "wxgate"
    # Without the prefix two enumerations that have a word in common make two constants of one name.
    openapi_generator(home, "go", packageName="wxgate", enumClassPrefix="true")
    shutil.rmtree(home / "test", ignore_errors=True)
    shutil.copytree(HERE / "go" / "scenario", folder / "src" / "scenario")
    shutil.copytree(HERE / "go" / "validator", folder / "src" / "gopkg.in" / "validator.v2")
    environment = os.environ | {"GO111MODULE": "off", "GOPATH": f"{folder}:/usr/share/gocode", "GOFLAGS": ""}
    run("go", "vet", "wxgate", "scenario", env=environment)
    return run("go", "run", "scenario", *given, env=environment)


def openapi_generator_php(folder, given):
    need("php", "php-cli, php-curl, php-mbstring and php-guzzlehttp-guzzle")
    openapi_generator(folder / "client", "php", invokerPackage="Wxgate")
    shutil.copytree(HERE / "php", folder, dirs_exist_ok=True)
    return run("php", folder / "scenario.php", *given)


def openapi_generator_csharp(folder, given):
    """Compiled and run by Mono, which is the C# that Debian has."""
    need("mcs", "mono-mcs, mono-runtime, libmono-system-{net-http,runtime-serialization,componentmodel-dataannotations,web}4.0-cil")
    options = {"library": "httpclient", "targetFramework": "net48", "packageName": "Wxgate"}
    openapi_generator(folder, "csharp", **options)
    json_net = NODE / "node_modules/jillejr.newtonsoft.json-for-unity/Plugins/Newtonsoft.Json Editor/Newtonsoft.Json.dll"
    shutil.copy(json_net, folder)
    parts = ["Net.Http", "Web", "Runtime.Serialization", "ComponentModel.DataAnnotations"]
    references = [f"-r:System.{part}" for part in parts] + [f"-r:{json_net}"]
    sources = [*folder.glob("src/Wxgate/**/*.cs"), *HERE.glob("csharp/*.cs")]
    program = folder / "Scenario.exe"
    run("mcs", "-langversion:7.2", "-nowarn:0109,0472,1591", f"-out:{program}", *references, *sources)
    return run("mono", program, *given)


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
    "hey-api": hey_api,
    "openapi-generator-java": openapi_generator_java,
    "openapi-generator-go": openapi_generator_go,
    "openapi-generator-php": openapi_generator_php,
    "openapi-generator-csharp": openapi_generator_csharp,
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
