package router

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/warmpath/warmpath/libs/fleet"
)

// TestAPromptIsComputedByOneEngineAndDecodedByAnother compares both legs byte for byte with what the contract asks.
func TestAPromptIsComputedByOneEngineAndDecodedByAnother(t *testing.T) {
	g, w := newRig(t, Config{Policy: "least-tokens", EngineKey: "k"}), &witness{}
	rank := func(e *fleet.Engine) { e.Ranks, e.Rank = 4, 3 }
	g.addEngine("p", w.engine("p", plain(prefillAnswer)), role(fleet.Prefill), rank)
	g.addEngine("d", w.engine("d", plain(decodeAnswer)), role(fleet.Decode), func(e *fleet.Engine) { e.Ranks, e.Rank = 2, 1 })
	for _, c := range []struct{ tail, prefill, decode string }{
		{
			` , "seed":1e2}`,
			` , "seed":1e2,"stream":false,"max_tokens":1,"kv_transfer_params":` + askTransfer + `}`,
			` , "seed":1e2,"kv_transfer_params":` + oddParams + `}`,
		},
		{
			`,"stream": false,"max_tokens":50,"min_tokens":7, "max_completion_tokens" : 9,"stream_options":null }`,
			`,"stream": false,"max_tokens":1,"max_completion_tokens" : 1,"kv_transfer_params":` + askTransfer + ` }`,
			`,"stream": false,"max_tokens":50,"min_tokens":7, "max_completion_tokens" : 9,"stream_options":null,"kv_transfer_params":` + oddParams + ` }`,
		},
		{ // what a client forges is replaced, every time
			`,"kv_transfer_params":{"remote_host":"evil"},"kv_transfer_params":7,"n":1,"best_of":1}`,
			`,"kv_transfer_params":` + askTransfer + `,"kv_transfer_params":` + askTransfer + `,"n":1,"best_of":1,"stream":false,"max_tokens":1}`,
			`,"kv_transfer_params":` + oddParams + `,"kv_transfer_params":` + oddParams + `,"n":1,"best_of":1}`,
		},
	} {
		head := fmt.Sprintf(`{"model":%q,"prompt":%q`, model, longPrompt())
		resp, answer := g.post("/v1/completions?a=b", head+c.tail, func(r *http.Request) {
			r.Header.Set("X-Request-Id", "one-id")
			r.Header.Set("X-Prefiller-Host-Port", "10.0.0.1:80")
			r.Header.Set("Authorization", "Bearer tenant")
		})
		legs := w.took()
		if names(legs) != "p d" {
			t.Fatalf("asked %s", names(legs))
		}
		if want := head + c.prefill; legs[0].body != want {
			t.Errorf("prefill got  %s\nwant %s", legs[0].body[len(head):], c.prefill)
		}
		if want := head + c.decode; legs[1].body != want {
			t.Errorf("decode got  %s\nwant %s", legs[1].body[len(head):], c.decode)
		}
		for i, rank := range []string{"3", "1"} {
			h := legs[i].header
			if h.Get("X-Request-Id") != "one-id" || h.Get("X-Data-Parallel-Rank") != rank || h.Get("X-Prefiller-Host-Port") != "" ||
				h.Get("Authorization") != "Bearer k" || h.Get("Content-Length") != fmt.Sprint(len(legs[i].body)) {
				t.Errorf("leg %d: %v", i, h)
			}
		}
		if want := strings.Replace(decodeAnswer, "1099", "32", 1); answer != want || resp.StatusCode != 200 || resp.Header.Get("X-Warmpath-Engine") != "d" {
			t.Errorf("%d, client got %s\nwant %s", resp.StatusCode, answer, want)
		}
		g.idle()
	}
	r := g.mail.last()
	s := r.Split
	if r.Engine != "id-d" || r.PromptTokens != 1100 || r.CachedMeasured != nil || s == nil || s.Outcome != splitRemote || s.Engine != "id-p" || s.Prefill != "p" ||
		s.Generation != 1 || *s.CachedMeasured != 32 || r.Computed != 1100-32 || r.Prefill == nil || *r.Prefill <= 0 || s.Seconds <= 0 || s.Transfer != nil || s.Reason != splitCheaper {
		t.Errorf("record %+v, split %+v", r, s)
	}
	line, _ := g.logs.lines("Got pod scores")[0]["split"].(map[string]any)
	if line["prefill"] != "p" || line["reason"] != string(splitCheaper) {
		t.Errorf("line %v", line)
	}
}

// A stream's usage tells what the prefill engine found cached, in each chunk that has one; nothing else changes.
func TestCachedTokensOfAStreamAreThePrefillEngines(t *testing.T) {
	event := func(cached string) string {
		return `data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":` + cached + `}}}` + "\n\n"
	}
	for _, c := range []struct{ details, want string }{
		{`{"cached_tokens":4}`, event("4")},
		{`null`, strings.Replace(event("8"), `{"cached_tokens":8}`, "null", 1)},
	} {
		g, w := newRig(t, Config{Policy: "least-tokens"}), &witness{}
		prefill := plain(strings.Replace(prefillAnswer, `{"cached_tokens":32}`, c.details, 1))
		w.apart(g, prefill, sse(event1, event("8")[:30], event("8")[30:], doneMark))
		_, answer := g.post("/v1/completions", longBody(`,"stream":true,"stream_options":{"include_usage":true}`))
		if answer != event1+c.want+doneMark {
			t.Errorf("client got %q", answer)
		}
		if legs := w.took(); strings.Contains(legs[0].body, "stream_options") || !strings.Contains(legs[0].body, `"stream":false`) {
			t.Errorf("prefill leg %s", tail(legs[0].body))
		}
		if _, answer = g.post("/v1/completions", longBody(`,"stream":true`)); answer != event1+doneMark {
			t.Errorf("client got %q", answer)
		}
		if g.outcome() != splitRemote || g.mail.last().Split.Transfer == nil || *g.mail.last().Split.Transfer <= 0 {
			t.Errorf("record %+v", g.mail.last().Split)
		}
	}
}

// TestAFailedPrefillIsTriedOnceMore has each failure on one prefill engine, and on both, and on all that one may ask.
func TestAFailedPrefillIsTriedOnceMore(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	large := strings.Replace(prefillAnswer, `"text":"x"`, `"text":"`+strings.Repeat("x", maxRead)+`"`, 1)
	for name, c := range map[string]struct {
		bad   http.HandlerFunc
		blame bool
		stays bool // the decode engine shall answer at once
	}{
		"dial":           {nil, true, false},
		"internal":       {status(500), true, false},
		"unavailable":    {status(503), true, false},
		"busy":           {status(429), false, false},
		"hangs up":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true, false},
		"none":           {plain(okAnswer), true, false},
		"null":           {plain(strings.Replace(prefillAnswer, oddParams, "null", 1)), true, false},
		"empty":          {plain(strings.Replace(prefillAnswer, oddParams, "{}", 1)), true, false},
		"another type":   {plain(strings.Replace(prefillAnswer, oddParams, `"x"`, 1)), true, false},
		"garbage":        {plain(`{"kv_transfer_params":` + oddParams), true, false},
		"large":          {plain(large), true, false},
		"client's fault": {status(400), false, true},
	} {
		g, w := newRig(t, Config{Policy: "round-robin"}), &witness{}
		g.addEngine("d", w.engine("d", plain(decodeAnswer)), role(fleet.Decode))
		server := g.addEngine("p0", w.engine("p0", orAnything(c.bad)), role(fleet.Prefill))
		if c.bad == nil {
			server.Close()
		}
		g.addEngine("p1", w.engine("p1", plain(prefillAnswer)), role(fleet.Prefill))
		want, outcome := "p0 p1 d", splitRetried
		if c.bad == nil {
			want = "p1 d"
		}
		if c.stays {
			want, outcome = "p0 d", splitFallback
		}
		body := longBody("")
		resp, _ := g.post("/v1/completions", body)
		legs := w.took()
		if got := g.outcome(); resp.StatusCode != 200 || names(legs) != want || got != outcome {
			t.Errorf("%s: %d, asked %s, outcome %s", name, resp.StatusCode, names(legs), got)
		}
		if last := legs[len(legs)-1].body; outcome == splitRetried && !strings.Contains(last, oddParams) || outcome == splitFallback && last != body {
			t.Errorf("%s: decode got %s", name, tail(last))
		}
		g.fleet.set(func(v *fleet.View) { delete(v.Engines, "id-p1") })
		for range 4 {
			if resp, answer := g.post("/v1/completions", longBody("")); resp.StatusCode != 200 || answer != decodeAnswer {
				t.Errorf("%s alone: %d %s", name, resp.StatusCode, answer)
			}
		}
		g.idle()
		if n := len(g.logs.lines("engine ejected")); (n == 1) != c.blame {
			t.Errorf("%s: ejected %d times", name, n)
		}
	}
}

func orAnything(h http.HandlerFunc) http.HandlerFunc {
	if h == nil {
		return func(http.ResponseWriter, *http.Request) {}
	}
	return h
}

// No more than two prefill engines are asked, and the budget of retries is kept.
func TestPrefillRetriesAreBounded(t *testing.T) {
	g, w := newRig(t, Config{Policy: "round-robin"}), &witness{}
	var asked atomic.Int64
	g.addEngine("d", plain(decodeAnswer), role(fleet.Decode))
	for _, name := range []string{"p0", "p1", "p2", "p3"} {
		g.addEngine(name, w.engine(name, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(429) }), role(fleet.Prefill))
	}
	g.post("/v1/completions", longBody(""))
	if n := asked.Load(); n != 2 || g.outcome() != splitFallback {
		t.Errorf("%d prefill engines asked", n)
	}
	for range 40 {
		g.post("/v1/completions", longBody(""))
	}
	g.idle()
	if n := asked.Load(); n > 41+retryBurst+5 {
		t.Errorf("%d legs for 41 requests", n)
	}
}

// TestWhatIsNotSplit lists requests and pools that one engine serves alone, each with its reason in the record.
func TestWhatIsNotSplit(t *testing.T) {
	g, w := newRig(t, Config{Policy: "least-tokens"}), &witness{}
	w.apart(g, plain(prefillAnswer), plain(decodeAnswer))
	g.setKeys(fleet.APIKey{Tenant: "proxy", Trusted: true}, fleet.APIKey{Tenant: "a"})
	key := func(tenant string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer key-of-"+tenant) }
	}
	ids := `[1` + strings.Repeat(",2", 2000) + `]`
	more := `[3` + strings.Repeat(",4", 2000) + `]`
	for _, c := range []struct {
		body   string
		reason string
		change func(*http.Request)
	}{
		{longBody(`,"n":2`), string(wholeAnswers), nil},
		{longBody(`,"best_of":4`), string(wholeAnswers), nil},
		{longBody(`,"n":"x"`), string(wholeAnswers), nil},
		{longBody(`,"use_beam_search":true`), string(wholeAnswers), nil},
		{longBody(`,"echo":true`), string(wholeEcho), nil},
		{longBody(`,"prompt_logprobs":0`), string(wholeEcho), nil},
		{fmt.Sprintf(`{"model":%q,"prompt":[%q,"b"]}`, model, longPrompt()), string(wholePrompts), nil},
		{fmt.Sprintf(`{"model":%q,"prompt":[%s,[1]]}`, model, ids), string(wholePrompts), nil},
		{fmt.Sprintf(`{"model":%q,"prompt":"short"}`, model), string(wholeShort), nil},
		{fmt.Sprintf(`{"model":%q,"prompt":%q}`, model, longPrompt()[:1000]), string(wholeCheaper), nil},
		{longBody(`,"kv_transfer_params":{"mine":1}`), string(wholeOwn), key("proxy")},
	} {
		if c.change == nil {
			c.change = key("a")
		}
		_, answer := g.post("/v1/completions", c.body, c.change)
		legs := w.took()
		g.idle()
		if names(legs) != "d" || legs[0].body != c.body || answer != decodeAnswer {
			t.Errorf("%.30s: asked %s", c.body[max(0, len(c.body)-30):], names(legs))
		}
		if s := g.mail.last().Split; s == nil || string(s.Reason) != c.reason || s.Outcome != splitLocal || s.Prefill != "" {
			t.Errorf("%.30s: %+v", c.body[max(0, len(c.body)-30):], s)
		}
	}
	for _, body := range []string{
		longBody(`,"n":1,"best_of":1,"echo":false,"prompt_logprobs":null,"use_beam_search":false`),
		fmt.Sprintf(`{"model":%q,"prompt":[%q]}`, model, longPrompt()), fmt.Sprintf(`{"model":%q,"prompt":%s}`, model, more),
		longBody(`,"stop":["x"],"logprobs":3,"response_format":{"type":"json_object"},"seed":1`),
	} {
		if g.post("/v1/completions", body, key("a")); names(w.took()) != "p d" {
			t.Errorf("not split: %s", body[len(body)-30:])
		}
	}
	g.post("/v1/embeddings", longBody(""), key("a"))
	g.eventually("a record", func() bool { return g.mail.last().API == "/v1/embeddings" })
	if names(w.took()) != "d" || g.mail.last().Split != nil {
		t.Error("another API is split")
	}
}

// Pools whose engines are all alike serve as if there were no roles.
func TestPoolsThatAreNotApart(t *testing.T) {
	for _, r := range []fleet.Role{fleet.Both, fleet.Prefill, fleet.Decode} {
		g, w := newRig(t, Config{Policy: "least-tokens"}), &witness{}
		g.addEngine("a", w.engine("a", plain(decodeAnswer)), role(r))
		g.addEngine("b", w.engine("a", plain(decodeAnswer)), role(r))
		body := longBody("")
		_, answer := g.post("/v1/completions", body)
		g.idle()
		if legs := w.took(); len(legs) != 1 || legs[0].body != body || answer != decodeAnswer || g.mail.last().Split != nil ||
			g.logs.lines("Got pod scores")[0]["split"] != nil {
			t.Errorf("%s: asked %s, split %+v", r, names(legs), g.mail.last().Split)
		}
	}
}

// What a decode engine may have read is computed again; what none can have read goes to the next.
func TestALostDecodeEngine(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		bad  http.HandlerFunc
		want string
	}{
		"away":        {nil, "p d1"},
		"busy":        {status(429), "p d0 d1"},
		"unavailable": {status(503), "p d0 p d1"},
		"hangs up":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "p d0 p d1"},
	} {
		g, w := newRig(t, Config{Policy: "round-robin"}), &witness{}
		var prompts atomic.Int64
		g.addEngine("p", w.engine("p", func(w http.ResponseWriter, r *http.Request) {
			plain(strings.Replace(prefillAnswer, "5600", fmt.Sprint(5600+prompts.Add(1)), 1))(w, r)
		}), role(fleet.Prefill))
		server := g.addEngine("d0", w.engine("d0", orAnything(c.bad)), role(fleet.Decode))
		if c.bad == nil {
			server.Close()
		}
		g.addEngine("d1", w.engine("d1", plain(decodeAnswer)), role(fleet.Decode))
		resp, _ := g.post("/v1/completions", longBody(""))
		g.idle()
		legs := w.took()
		if resp.StatusCode != 200 || names(legs) != c.want || g.outcome() != splitRemote || g.mail.last().Retries != 1 {
			t.Errorf("%s: %d, asked %s, %+v", name, resp.StatusCode, names(legs), g.mail.last().Split)
		}
		if port := fmt.Sprintf(`"remote_port":%d,`, 5600+prompts.Load()); !strings.Contains(legs[len(legs)-1].body, port) {
			t.Errorf("%s: the last decode leg lacks %s", name, port)
		}
	}
	g, w := newRig(t, Config{Policy: "round-robin"}), &witness{}
	w.apart(g, plain(prefillAnswer), nil)
	g.fleet.set(func(v *fleet.View) {
		e := v.Engines["id-d"]
		e.URL = "http://127.0.0.1:1"
		v.Engines["id-d"] = e
	})
	body := longBody("")
	resp, _ := g.post("/v1/completions", body) // with nobody else a prefill engine does all, as it was sent
	if legs := w.took(); resp.StatusCode != 200 || names(legs) != "p p" || legs[1].body != body || g.outcome() != splitFallback {
		t.Errorf("no decode engine: %d, asked %s", resp.StatusCode, names(legs))
	}
	g.idle()
}

// A decode engine behind an llm-d sidecar gets one leg and the prefill engine's address; only trusted clients may name it.
func TestSidecarsOfLLMD(t *testing.T) {
	g, w := newRig(t, Config{Policy: "least-tokens"}), &witness{}
	g.addEngine("d", w.engine("d", plain(decodeAnswer)), role(fleet.Decode), func(e *fleet.Engine) { e.Sidecar = fleet.LLMD })
	first := g.addEngine("p0", w.engine("p0", plain(prefillAnswer)), role(fleet.Prefill))
	second := g.addEngine("p1", w.engine("p1", plain(prefillAnswer)), role(fleet.Prefill))
	addresses := first.Listener.Addr().String() + " " + second.Listener.Addr().String()
	for range 4 {
		body := longBody("")
		resp, answer := g.post("/v1/completions", body)
		legs := w.took()
		if named := legs[0].header.Get("X-Prefiller-Host-Port"); names(legs) != "d" || named == "" || !strings.Contains(addresses, named) ||
			legs[0].body != body || resp.StatusCode != 200 || answer != decodeAnswer {
			t.Errorf("asked %s, prefiller %q", names(legs), named)
		}
		g.idle()
		if s := g.mail.last().Split; s.Outcome != splitSidecar || s.Engine == "" || g.mail.last().CachedMeasured != nil {
			t.Errorf("record %+v", s)
		}
	}
	if g.post("/v1/completions", longBody(`,"n":2`)); w.took()[0].header.Get("X-Prefiller-Host-Port") != "" {
		t.Error("a request that is not split names a prefill engine")
	}

	g, w = newRig(t, Config{Policy: "least-tokens"}), &witness{}
	g.addEngine("d", w.engine("d", plain(decodeAnswer)), role(fleet.Decode))
	servers := map[string]string{}
	for _, name := range []string{"p0", "p1", "p2"} {
		servers[name] = g.addEngine(name, w.engine(name, plain(prefillAnswer)), role(fleet.Prefill)).Listener.Addr().String()
	}
	g.setKeys(fleet.APIKey{Tenant: "proxy", Trusted: true}, fleet.APIKey{Tenant: "a"})
	name := func(tenant, address string) string {
		g.post("/v1/completions", longBody(""), func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer key-of-"+tenant)
			r.Header.Set("X-Prefiller-Host-Port", address)
		})
		g.idle()
		return strings.Fields(names(w.took()))[0]
	}
	for want, address := range servers {
		for range 3 {
			if got := name("proxy", " 10.0.0.9:8000 , "+address); got != want || g.mail.last().Split.Reason != splitNamed {
				t.Errorf("named %s, asked %s", want, got)
			}
		}
	}
	if got := name("proxy", "10.0.0.9:8000"); !strings.HasPrefix(got, "p") || g.mail.last().Split.Reason != splitCheaper {
		t.Errorf("an address that is not in the registry: asked %s", got)
	}
	for range 3 {
		if name("a", servers["p2"]); g.mail.last().Split.Reason != splitCheaper {
			t.Error("anybody may name a prefill engine")
		}
	}
}
