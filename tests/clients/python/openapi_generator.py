"""The scenario with a client by OpenAPI Generator."""

import json

import scenario
import wxgate_og
from wxgate_og import AppRegistration, MessageRequest, SubscribeMessage


def message(user, value="保温杯"):
    given = {"channel": "subscribe", "touser": user, "template_id": scenario.TEMPLATE, "data": {"thing1": {"value": value}}}
    return MessageRequest(SubscribeMessage.from_dict(given))


def main():
    given = scenario.given()
    with open(given.keys, encoding="utf-8") as file:
        key = json.load(file)["tenant"]

    settings = wxgate_og.Configuration(host=given.gateway)
    gateway = wxgate_og.ApiClient(settings)
    token = wxgate_og.OauthApi(gateway).issue_token(
        "client_credentials", client_id=key["client_id"], client_secret=key["client_secret"]
    )
    settings.access_token = token.access_token

    appid = scenario.new_appid()
    app = wxgate_og.AppsApi(gateway).register_app(AppRegistration(appid=appid, secret=scenario.APP_SECRET))
    scenario.check("registered", app.appid, appid)

    messages = wxgate_og.MessagesApi(gateway)
    sent = [
        messages.send_message(appid, message(f"o{number}"), prefer="wait=20") for number in range(scenario.MESSAGES)
    ]
    scenario.check("sent", {one.status for one in sent}, {wxgate_og.Status.SENT})
    read = messages.get_message(sent[0].id)
    scenario.check("read", (read.touser, read.attempts[0].errcode), ("o0", 0))

    listed, cursor, more = [], None, True
    while more:
        page = messages.list_messages(appid, limit=scenario.PAGE, cursor=cursor)
        listed += [one.id for one in page.data]
        cursor, more = page.next_cursor, page.next_cursor is not None
    scenario.check("listed", listed, [one.id for one in reversed(sent)])

    try:
        messages.send_message(appid, message("o0", "more than twenty characters"))
    except wxgate_og.exceptions.UnprocessableEntityException as refusal:
        problem = refusal.data
        assert isinstance(problem, wxgate_og.Problem), problem
        scenario.check("refused", (problem.status, problem.code), (422, "validation_failed"))
        scenario.check("where", [one.pointer for one in problem.errors], ["/data/thing1/value"])
    else:
        raise AssertionError("a value that is too long was taken")


main()
