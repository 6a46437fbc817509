// The scenario of a generated client (see python/scenario.py) with a client by OpenAPI Generator.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"

	"golang.org/x/oauth2"
	"wxgate"
)

const (
	messages = 5
	page     = 2
	template = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k"
)

func message(user, value string) wxgate.MessageRequest {
	item := wxgate.NewDataItem(wxgate.StringAsDataItemValue(&value))
	data := map[string]wxgate.DataItem{"thing1": *item}
	one := wxgate.NewSubscribeMessage("subscribe", data, template, user)
	return wxgate.SubscribeMessageAsMessageRequest(one)
}

func check[T comparable](what string, seen, expected T) {
	fmt.Printf("%s: %v\n", what, seen)
	if seen != expected {
		log.Fatalf("%s: %v, not %v", what, seen, expected)
	}
}

// must is for what has no reason to fail.
func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	at := flag.String("gateway", "http://127.0.0.1:8080", "the gateway's URL")
	keys := flag.String("keys", "wxgate-data/dev.json", "the file that `wxgate dev` writes")
	flag.Parse()
	written, err := os.ReadFile(*keys)
	must(err)
	var known struct{ Tenant map[string]string }
	must(json.Unmarshal(written, &known))
	key := known.Tenant

	settings := wxgate.NewConfiguration()
	settings.Servers = wxgate.ServerConfigurations{{URL: *at}}
	gateway := wxgate.NewAPIClient(settings)
	ctx := context.Background()
	token, _, err := gateway.OauthAPI.IssueToken(ctx).GrantType("client_credentials").
		ClientId(key["client_id"]).ClientSecret(key["client_secret"]).Execute()
	must(err)
	signedIn := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token.AccessToken})
	ctx = context.WithValue(ctx, wxgate.ContextOAuth2, signedIn)

	random := make([]byte, 8)
	_, err = rand.Read(random)
	must(err)
	appid := "wx" + hex.EncodeToString(random)
	registration := *wxgate.NewAppRegistration(appid, "0f1e2d3c4b5a69788796a5b4c3d2e1f0")
	app, _, err := gateway.AppsAPI.RegisterApp(ctx).AppRegistration(registration).Execute()
	must(err)
	check("registered", app.Appid, appid)

	var sent []string
	for number := 0; number < messages; number++ {
		body := message(fmt.Sprintf("o%d", number), "保温杯")
		one, _, err := gateway.MessagesAPI.SendMessage(ctx, appid).MessageRequest(body).Prefer("wait=20").Execute()
		must(err)
		check("sent", one.Status, wxgate.STATUS_SENT)
		sent = append(sent, one.Id)
	}
	read, _, err := gateway.MessagesAPI.GetMessage(ctx, sent[0]).Execute()
	must(err)
	check("read", fmt.Sprint(read.Touser, " ", read.Attempts[0].GetErrcode()), "o0 0")

	var listed []string
	request := gateway.MessagesAPI.ListMessages(ctx, appid).Limit(page)
	for {
		got, _, err := request.Execute()
		must(err)
		for _, one := range got.Data {
			listed = append([]string{one.Id}, listed...)
		}
		next, more := got.GetNextCursorOk()
		if !more || next == nil {
			break
		}
		request = request.Cursor(*next)
	}
	check("listed", fmt.Sprint(listed), fmt.Sprint(sent))

	body := message("o0", "more than twenty characters")
	_, _, err = gateway.MessagesAPI.SendMessage(ctx, appid).MessageRequest(body).Execute()
	var refusal *wxgate.GenericOpenAPIError
	if !errors.As(err, &refusal) {
		log.Fatal("a value that is too long was taken: ", err)
	}
	problem, is := refusal.Model().(wxgate.Problem)
	check("a problem", is, true)
	check("refused", problem.Code, "validation_failed")
	check("where", problem.Errors[0].Pointer, "/data/thing1/value")
}
