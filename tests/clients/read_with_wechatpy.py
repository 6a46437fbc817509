#!/usr/bin/env python3
"""Reads what the gateway's own code has encrypted and signed for WeChat, by wechatpy.

`push_with_wechatpy.py` is the other direction. The test that runs this makes the file: a Token, an EncodingAESKey, an
appid, and replies with the message that is in each.

    target/tools/python/bin/python tests/clients/read_with_wechatpy.py replies.json

Exits with 0 when everything is as it should be, and says what is not otherwise.
"""

import argparse
import json
import sys

from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import InvalidSignatureException


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("file")
    with open(arguments.parse_args().file, encoding="utf-8") as file:
        given = json.load(file)
    crypto = WeChatCrypto(given["token"], given["aes_key"], given["appid"])
    assert given["replies"], "nothing to read"
    for reply in given["replies"]:
        signed = (reply["signature"], reply["timestamp"], reply["nonce"])
        read = crypto.decrypt_message(reply["xml"], *signed)
        assert (read.encode() if isinstance(read, str) else read) == reply["message"].encode(), reply
        try:
            crypto.decrypt_message(reply["xml"], reply["signature"], reply["timestamp"], reply["nonce"] + "0")
            raise AssertionError(f"another nonce is not noticed: {reply}")
        except InvalidSignatureException:
            pass
    print(f"{len(given['replies'])} replies are read")
    return 0


if __name__ == "__main__":
    sys.exit(main())
