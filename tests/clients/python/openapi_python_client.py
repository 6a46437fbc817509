"""The scenario with a client by openapi-python-client."""

import json

import scenario
from wxgate_opc import AuthenticatedClient, Client
from wxgate_opc.api.apps import register_app
from wxgate_opc.api.messages import get_message, list_messages, send_message
from wxgate_opc.api.oauth import issue_token
from wxgate_opc.models import (
    AppRegistration,
    DataItem,
    Message,
    Problem,
    Status,
    SubscribeMessage,
    SubscribeMessageChannel,
    SubscribeMessageData,
    TokenRequest,
)
from wxgate_opc.types import UNSET


def message(user, value="保温杯"):
    data = SubscribeMessageData()
    data["thing1"] = DataItem(value=value)
    return SubscribeMessage(SubscribeMessageChannel.SUBSCRIBE, touser=user, template_id=scenario.TEMPLATE, data=data, reference=user)


def main():
    given = scenario.given()
    with open(given.keys, encoding="utf-8") as file:
        key = json.load(file)["tenant"]

    asked = TokenRequest("client_credentials", client_id=key["client_id"], client_secret=key["client_secret"])
    token = issue_token.sync(client=Client(given.gateway), body=asked)
    gateway = AuthenticatedClient(given.gateway, token.access_token, raise_on_unexpected_status=True)

    appid = scenario.new_appid()
    app = register_app.sync(client=gateway, body=AppRegistration(appid, scenario.APP_SECRET))
    scenario.check("registered", app.appid, appid)

    sent = [
        send_message.sync(appid, client=gateway, body=message(f"o{number}"), prefer="wait=20")
        for number in range(scenario.MESSAGES)
    ]
    scenario.check("sent", {one.status for one in sent}, {Status.SENT})
    read = get_message.sync(sent[0].id, client=gateway)
    assert isinstance(read, Message)
    scenario.check("read", (read.touser, read.attempts[0].errcode), ("o0", 0))

    listed, cursor = [], UNSET
    while cursor is not None:
        page = list_messages.sync(appid, client=gateway, limit=scenario.PAGE, cursor=cursor)
        listed += [one.id for one in page.data]
        cursor = page.next_cursor
    scenario.check("listed", listed, [one.id for one in reversed(sent)])

    refused = send_message.sync(appid, client=gateway, body=message("o0", "more than twenty characters"))
    assert isinstance(refused, Problem), refused
    scenario.check("refused", (refused.status, refused.code), (422, "validation_failed"))
    scenario.check("where", [one.pointer for one in refused.errors], ["/data/thing1/value"])


main()
