package router

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/openai"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/internal/bodies"
)

// FuzzRequest reads foreign bodies: each is refused with a status of 4xx, or leaves a body that scans, with usage asked
// for where it streams, and otherwise byte for byte as it came.
func FuzzRequest(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","prompt":"x"}`,
		`{"model":"m","prompt":[1,2],"stream":true,"stream_options":{"include_usage":false},"max_tokens":1e2}`,
		`{"model":"m","messages":[{}],"stream":true,"stream_options":null,"cache_salt":"s","tools":[]}`,
		`{"model":"m","model":"n","prompt":null,"prompt_embeds":"x"}`,
		`{"model":"m","prompt":"x","kv_transfer_params":{"do_remote_prefill":true},"kv_transfer_params":{}}`,
		`{"model":"m","prompt":"x","stream":false,"stream":true,"stream_options":{"x":[1 , 2],"include_usage":null} ,"stream_options":{} }`,
		`{"model":"m","prompt":"\ud800","\u0073tream":true,"stream\u005foptions":{ "continuous_usage_stats":true },"n":1e400}` + "\n",
		"{\"model\":\"m\",\"prompt\":\"\xff\",\"stream\":true\t}\r\n",
		`{"model":1}`, `{}`, ``, `[`,
	} {
		f.Add(body, true)
		f.Add(body, false)
	}
	f.Fuzz(func(t *testing.T, raw string, chat bool) {
		kind := scorerv1.Kind_KIND_COMPLETIONS
		if chat {
			kind = scorerv1.Kind_KIND_CHAT
		}
		var pool bodies.Pool
		b, e := pool.Read(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(raw)))
		if e != nil {
			t.Fatal(e)
		}
		defer b.Release()
		q := &request{kind: kind, body: b}
		if e := q.read(); e != nil {
			if e.Status < 400 || e.Status > 499 {
				t.Fatalf("status %d", e.Status)
			}
			return
		}
		var sent openai.Body
		if err := sent.Scan(b.Sent); err != nil {
			t.Fatalf("%q became %q: %v", raw, b.Sent, err)
		}
		if sent.Value(transferParams) != nil {
			t.Fatalf("%q became %q", raw, b.Sent)
		}
		if !q.stream && q.scan.Value(transferParams) == nil && string(b.Sent) != raw {
			t.Fatalf("%q became %q", raw, b.Sent)
		}
		var options openai.Body
		if q.stream && (options.Scan(sent.Value("stream_options")) != nil || string(options.Value("include_usage")) != "true") {
			t.Fatalf("%q became %q", raw, b.Sent)
		}
		if q.stream && q.scan.Value(transferParams) == nil {
			checkForwarded(t, raw, string(b.Sent), q)
		}
		q.spans()
		q.text()
	})
}

// checkForwarded takes what the router may change out of both sides: what is left is equal.
func checkForwarded(t *testing.T, raw, sent string, q *request) {
	t.Helper()
	const added = `,"stream_options":{"include_usage":true}`
	before, after := cut(t, raw), cut(t, sent)
	if _, had := q.scan.Find("stream_options"); !had {
		at := max(0, strings.LastIndex(sent, added))
		before, after = raw, sent[:at]+strings.TrimPrefix(sent[at:], added)
	}
	if before != after || q.ownsUse && raw != sent {
		t.Fatalf("%q became %q", raw, sent)
	}
}

// cut takes the values of stream_options out of a body.
func cut(t *testing.T, text string) (left string) {
	t.Helper()
	var b openai.Body
	if err := b.Scan([]byte(text)); err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, m := range b.Members {
		if b.Name(m) == "stream_options" {
			left += text[at:m.Start]
			at = m.End
		}
	}
	return left + text[at:]
}
