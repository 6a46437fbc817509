using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net.Http;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;
using Wxgate.Api;
using Wxgate.Client;
using Wxgate.Model;

/// <summary>The scenario of a generated client (see python/scenario.py) with a client by OpenAPI Generator, library `httpclient`.</summary>
public static class Scenario
{
    private const int Messages = 5;
    private const long PageSize = 2;
    private const string Template = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";

    private static MessageRequest Message(string user, string value)
    {
        var data = new Dictionary<string, DataItem> { ["thing1"] = new DataItem(value: new DataItemValue(value)) };
        return new MessageRequest(new SubscribeMessage(
            channel: SubscribeMessage.ChannelEnum.Subscribe, touser: user, templateId: Template, data: data));
    }

    private static void Check(string what, object seen, object expected)
    {
        Console.WriteLine(what + ": " + seen);
        if (!Equals(seen, expected))
        {
            throw new Exception(what + ": " + seen + ", not " + expected);
        }
    }

    /// <summary>Arguments: --gateway URL --keys FILE.</summary>
    public static void Main(string[] arguments)
    {
        var key = JObject.Parse(File.ReadAllText(arguments[3]))["tenant"];
        var http = new HttpClient();
        var anonymous = new Configuration { BasePath = arguments[1] };
        var token = new OauthApi(http, anonymous)
            .IssueToken("client_credentials", (string)key["client_id"], (string)key["client_secret"]).AccessToken;
        var gateway = new Configuration { BasePath = arguments[1], AccessToken = token };

        var appid = "wx" + Guid.NewGuid().ToString("N").Substring(0, 16);
        var app = new AppRegistration(appid: appid, secret: "0f1e2d3c4b5a69788796a5b4c3d2e1f0");
        Check("registered", new AppsApi(http, gateway).RegisterApp(app).Appid, appid);

        var messages = new MessagesApi(http, gateway);
        var sent = new List<string>();
        for (var number = 0; number < Messages; number++)
        {
            var one = messages.SendMessage(appid, Message("o" + number, "保温杯"), "wait=20");
            Check("sent", one.Status, Status.Sent);
            sent.Add(one.Id);
        }
        var read = messages.GetMessage(sent[0]);
        Check("read", read.Touser + " " + read.Attempts[0].Errcode, "o0 0");

        var listed = new List<string>();
        string cursor = null;
        do
        {
            var page = messages.ListMessages(appid, limit: PageSize, cursor: cursor);
            listed.AddRange(page.Data.Select(one => one.Id));
            cursor = page.NextCursor;
        } while (cursor != null);
        sent.Reverse();
        Check("listed", string.Join(" ", listed), string.Join(" ", sent));

        try
        {
            messages.SendMessage(appid, Message("o0", "more than twenty characters"));
            throw new Exception("a value that is too long was taken");
        }
        catch (ApiException refusal)
        {
            var problem = JsonConvert.DeserializeObject<Problem>((string)refusal.ErrorContent);
            Check("refused", problem.Code, "validation_failed");
            Check("where", problem.Errors[0].Pointer, "/data/thing1/value");
        }
    }
}
