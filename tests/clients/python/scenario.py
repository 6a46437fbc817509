"""What every generated client is asked to do, and how what it did is looked at.

Each client has a file that says the same in its own words: fetch a token, register an app, send a message, wait until
it is sent, read it, walk through all pages of the list, and meet a refusal as a type of its own.
"""

import argparse
import secrets
from typing import NamedTuple

# WeChat's own are 18 characters; each run registers an app that nobody has.
APP_SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
TEMPLATE = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k"
MESSAGES = 5
PAGE = 2


class Given(NamedTuple):
    gateway: str
    keys: str


def given():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--gateway", default="http://127.0.0.1:8080")
    arguments.add_argument("--keys", default="wxgate-data/dev.json", help="the file that `wxgate dev` writes")
    known, _ = arguments.parse_known_args()
    return Given(known.gateway, known.keys)


def new_appid():
    return f"wx{secrets.token_hex(8)}"


def check(what, seen, expected):
    print(f"{what}: {seen}")
    assert seen == expected, f"{what}: {seen!r}, not {expected!r}"
