"""Receives events of a gateway and verifies them as any receiver would: with the library of Standard Webhooks for Python.

The gateway signs with a library for Rust. This is the other side of it in another language: it takes what the gateway
posts, and refuses the same with one byte changed. Needs a gateway that may post to this machine
(WXGATE_ALLOW_PRIVATE_WEBHOOKS=true).

    target/tools/python/bin/python tests/clients/receive_with_standardwebhooks.py --keys wxgate-data/dev.json
"""

import argparse
import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from wxgate import APPID, TEMPLATE, Gateway

RECEIVED = queue.Queue()


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        RECEIVED.put((body, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def verified(secret):
    """The next event, which is what the gateway signed."""
    body, headers = RECEIVED.get(timeout=30)
    event = Webhook(secret).verify(body, headers)
    for wrong in (body.replace(b"{", b"{ ", 1), body + b" "):
        try:
            Webhook(secret).verify(wrong, headers)
        except WebhookVerificationError:
            continue
        sys.exit("a body that was changed is taken")
    return event


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--gateway", default="http://127.0.0.1:8080")
    arguments.add_argument("--keys", default="wxgate-data/dev.json", help="the file that `wxgate dev` writes")
    given, _ = arguments.parse_known_args()
    gateway = Gateway(given.gateway, given.keys)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    url = f"http://127.0.0.1:{server.server_port}/events"
    webhook = gateway.call("POST", "/v1/webhooks", {"url": url, "events": ["message.sent"]})
    secret = webhook["secret"]
    gateway.call("POST", f"/v1/webhooks/{webhook['id']}/test")
    event = verified(secret)
    assert event["type"] == "webhook.test", event
    print("verified:", event["type"])

    message = {"touser": "oWebhook", "template_id": TEMPLATE, "data": {"thing1": {"value": "保温杯"}}}
    message = gateway.call("POST", f"/v1/apps/{APPID}/messages", message)
    event = verified(secret)
    seen = json.dumps(event, ensure_ascii=False)
    assert event["type"] == "message.sent" and message["id"] in seen, seen
    print("verified:", event["type"], "of", message["id"])

    # Both secrets sign after a rotation: a receiver changes over when it likes.
    rotated = gateway.call("POST", f"/v1/webhooks/{webhook['id']}/rotate-secret")["secret"]
    gateway.call("POST", f"/v1/webhooks/{webhook['id']}/test")
    body, headers = RECEIVED.get(timeout=30)
    for each in (secret, rotated):
        Webhook(each).verify(body, headers)
    print("verified: with the secrets before and after a rotation")
    gateway.call("DELETE", f"/v1/webhooks/{webhook['id']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
