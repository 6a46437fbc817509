import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.UUID;
import wxgate.ApiClient;
import wxgate.ApiException;
import wxgate.api.AppsApi;
import wxgate.api.MessagesApi;
import wxgate.api.OauthApi;
import wxgate.model.AppRegistration;
import wxgate.model.DataItem;
import wxgate.model.DataItemValue;
import wxgate.model.Message;
import wxgate.model.MessagePage;
import wxgate.model.MessageRequest;
import wxgate.model.Problem;
import wxgate.model.Status;
import wxgate.model.SubscribeMessage;

/** The scenario of a generated client (see python/scenario.py) with a client by OpenAPI Generator, library `native`. */
public final class Scenario {
    private static final int MESSAGES = 5;
    private static final long PAGE = 2;
    private static final String TEMPLATE = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";

    private Scenario() {}

    static MessageRequest message(String user, String value) {
        DataItem item = new DataItem().value(new DataItemValue(value));
        SubscribeMessage message = new SubscribeMessage()
            .channel(SubscribeMessage.ChannelEnum.SUBSCRIBE)
            .touser(user)
            .templateId(TEMPLATE)
            .putDataItem("thing1", item);
        return new MessageRequest(message);
    }

    static void check(String what, Object seen, Object expected) {
        System.out.println(what + ": " + seen);
        if (!Objects.equals(seen, expected)) {
            throw new AssertionError(what + ": " + seen + ", not " + expected);
        }
    }

    /** Arguments: --gateway URL --keys FILE. */
    public static void main(String[] arguments) throws Exception {
        var key = new ObjectMapper().readTree(Files.readString(Path.of(arguments[3]))).get("tenant");
        ApiClient gateway = new ApiClient();
        gateway.updateBaseUri(arguments[1]);
        String token = new OauthApi(gateway)
            .issueToken("client_credentials", key.get("client_id").asText(), key.get("client_secret").asText(), null)
            .getAccessToken();
        gateway.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + token));

        String appid = "wx" + UUID.randomUUID().toString().replace("-", "").substring(0, 16);
        AppRegistration app = new AppRegistration().appid(appid).secret("0f1e2d3c4b5a69788796a5b4c3d2e1f0");
        check("registered", new AppsApi(gateway).registerApp(app, null).getAppid(), appid);

        MessagesApi messages = new MessagesApi(gateway);
        List<String> sent = new ArrayList<>();
        for (int number = 0; number < MESSAGES; number++) {
            Message one = messages.sendMessage(appid, message("o" + number, "保温杯"), "wait=20", null);
            check("sent", one.getStatus(), Status.SENT);
            sent.add(one.getId());
        }
        Message read = messages.getMessage(sent.get(0));
        check("read", read.getTouser() + " " + read.getAttempts().get(0).getErrcode(), "o0 0");

        List<String> listed = new ArrayList<>();
        String cursor = null;
        do {
            MessagePage page = messages.listMessages(appid, null, null, null, null, null, null, PAGE, cursor);
            page.getData().forEach(one -> listed.add(one.getId()));
            cursor = page.getNextCursor();
        } while (cursor != null);
        Collections.reverse(sent);
        check("listed", listed, sent);

        try {
            messages.sendMessage(appid, message("o0", "more than twenty characters"), null, null);
            throw new AssertionError("a value that is too long was taken");
        } catch (ApiException refusal) {
            Problem problem = gateway.getObjectMapper().readValue(refusal.getResponseBody(), Problem.class);
            check("refused", problem.getCode(), "validation_failed");
            check("where", problem.getErrors().get(0).getPointer(), "/data/thing1/value");
        }
    }
}
