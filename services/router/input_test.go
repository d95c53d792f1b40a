package router

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

func checkError(t *testing.T, name string, resp *http.Response, body string, status int, code, param string) {
	t.Helper()
	var e struct {
		Error *struct {
			Message, Type string
			Param, Code   *string
		}
	}
	d := json.NewDecoder(strings.NewReader(body))
	if err := d.Decode(&e); err != nil || e.Error == nil || e.Error.Message == "" || e.Error.Type == "" {
		t.Errorf("%s: %d %q is no error object: %v", name, resp.StatusCode, body, err)
		return
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	if resp.StatusCode != status || text(e.Error.Code) != code || text(e.Error.Param) != param {
		t.Errorf("%s: %d %s, want %d, code %q, param %q", name, resp.StatusCode, body, status, code, param)
	}
	if resp.Header.Get("X-Request-Id") == "" {
		t.Errorf("%s: no request id", name)
	}
}

func TestBadInputIsAnsweredInTheAPIsForm(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e1", plain(okAnswer))
	ok := fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)
	for _, c := range []struct {
		name, path, body, kind string
		status                 int
		code, param            string
	}{
		{"malformed JSON", "/v1/completions", `{"model":"m",`, "", 400, "invalid_json", ""},
		{"truncated string", "/v1/chat/completions", `{"model":"m`, "", 400, "invalid_json", ""},
		{"an array", "/v1/completions", `[]`, "", 400, "invalid_json", ""},
		{"empty body", "/v1/completions", ``, "", 400, "invalid_json", ""},
		{"deeply nested", "/v1/completions", `{"a":` + strings.Repeat("[", 100_000), "", 400, "invalid_json", ""},
		{"a million members", "/v1/completions", `{"a":1` + strings.Repeat(`,"":1`, 1_000_000) + `}`, "", 400, "invalid_json", ""},
		{"byte order mark", "/v1/completions", "\xef\xbb\xbf" + ok, "", 400, "invalid_json", ""},
		{"no model", "/v1/completions", `{"prompt":"hi"}`, "", 400, "", "model"},
		{"model of another type", "/v1/completions", `{"model":7,"prompt":"hi"}`, "", 400, "", "model"},
		{"unknown model", "/v1/completions", `{"model":"other","prompt":"hi"}`, "", 404, "model_not_found", "model"},
		{"unknown model, other API", "/v1/embeddings", `{"model":"other","input":"hi"}`, "", 404, "model_not_found", "model"},
		{"empty messages", "/v1/chat/completions", `{"model":"` + model + `","messages":[ ]}`, "", 400, "", "messages"},
		{"no messages", "/v1/chat/completions", `{"model":"` + model + `"}`, "", 400, "", "messages"},
		{"messages of another type", "/v1/chat/completions", `{"model":"` + model + `","messages":"hi"}`, "", 400, "", "messages"},
		{"no prompt", "/v1/completions", `{"model":"` + model + `"}`, "", 400, "", "prompt"},
		{"prompt of another type", "/v1/completions", `{"model":"` + model + `","prompt":{}}`, "", 400, "", "prompt"},
		{"empty prompt", "/v1/completions", `{"model":"` + model + `","prompt":[]}`, "", 400, "", "prompt"},
		{"negative max_tokens", "/v1/completions", `{"model":"` + model + `","prompt":"x","max_tokens":-1}`, "", 400, "", "max_tokens"},
		{"max_tokens of another type", "/v1/completions", `{"model":"` + model + `","prompt":"x","max_tokens":"9"}`, "", 400, "", "max_tokens"},
		{"stream of another type", "/v1/completions", `{"model":"` + model + `","prompt":"x","stream":"yes"}`, "", 400, "", "stream"},
		{"bad stream_options", "/v1/completions", `{"model":"` + model + `","prompt":"x","stream":true,"stream_options":3}`, "", 400, "", "stream_options"},
		{"wrong content type", "/v1/completions", ok, "text/plain", 415, "", ""},
		{"form", "/v1/completions", ok, "application/x-www-form-urlencoded", 415, "", ""},
		{"no such path", "/v2/completions", ok, "", 404, "not_found", ""},
	} {
		resp, body := g.post(c.path, c.body, func(r *http.Request) {
			if c.kind != "" {
				r.Header.Set("Content-Type", c.kind)
			}
		})
		if c.name == "no such path" {
			resp.Header.Set("X-Request-Id", "-")
		}
		checkError(t, c.name, resp, body, c.status, c.code, c.param)
		if resp, body = g.post("/v1/completions", ok); resp.StatusCode != 200 || body != okAnswer {
			t.Fatalf("after %s: %d %s", c.name, resp.StatusCode, body)
		}
	}
	g.idle()
}

// What a client may spell in a path reaches an engine as it is spelt, or not at all, and is never the engine's fault.
func TestOddPathsHarmNoEngine(t *testing.T) {
	g := newRig(t, Config{})
	var mu sync.Mutex
	var seen []string
	g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.RequestURI)
		mu.Unlock()
		plain(okAnswer)(w, r)
	})
	asked := func() (paths []string) {
		mu.Lock()
		defer mu.Unlock()
		paths, seen = seen, nil
		return paths
	}
	body := fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)
	for _, path := range []string{
		"/v1/%2e%2e/reset_prefix_cache", "/v1/..%2freset_prefix_cache", "/v1/x%2f..%2f..%2fsleep", "/v1/completions/",
		"/v1/", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/load%5flora_adapter",
		"/v1/" + strings.Repeat("x", 300),
	} {
		resp, answer := g.post(path, body)
		if paths := asked(); resp.StatusCode != http.StatusNotFound || !strings.Contains(answer, `"code":"not_found"`) || len(paths) > 0 {
			t.Errorf("%s: %d %s, the engine was asked for %q", path, resp.StatusCode, answer, paths)
		}
	}
	for _, path := range []string{"/v1/a%3Fb=c", "/v1/a%20b%0d%0aX:1", "/v1/%252e%252e/x", "/v1/embeddings?a=b&c", "/v1/caf%C3%A9"} {
		for range 10 {
			resp, answer := g.post(path, body)
			if paths := asked(); resp.StatusCode != http.StatusOK || len(paths) != 1 || paths[0] != path {
				t.Fatalf("%s: %d %s, the engine was asked for %q", path, resp.StatusCode, answer, paths)
			}
		}
	}
	g.idle()
}

// A client that never ends its body holds its place no longer than the body's time; one that was in time may then wait
// for its answer for longer than that.
func TestABodyThatDoesNotEndIsGivenUp(t *testing.T) {
	g := newRig(t, Config{})
	g.rt.bodyTime = 50 * time.Millisecond
	g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(4 * g.rt.bodyTime) // an engine that is slower than a body may be: time is what is under test
		plain(okAnswer)(w, r)
	})
	in, out := io.Pipe()
	defer out.Close()
	go func() { _, _ = io.WriteString(out, `{"model":`) }()
	r, err := http.NewRequest(http.MethodPost, g.url+"/v1/completions", in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, "a body without end", resp, string(body), http.StatusRequestTimeout, "request_timeout", "")
	if resp, answer := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)); answer != okAnswer {
		t.Errorf("a slow answer: %d %s", resp.StatusCode, answer)
	}
	g.idle()
}

func TestATooLargeBodyIsRefusedBeforeItIsRead(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e1", plain(okAnswer))
	resp, body := g.post("/v1/completions", strings.Repeat("x", 20<<20))
	checkError(t, "20 MB announced", resp, body, 413, "request_too_large", "")

	// A body that grows without end is cut at the limit.
	in, out := io.Pipe()
	go func() {
		chunk := []byte(strings.Repeat(" ", 1<<20))
		for {
			if _, err := out.Write(chunk); err != nil {
				return
			}
		}
	}()
	r, _ := http.NewRequest(http.MethodPost, g.url+"/v1/completions", in)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	in.Close()
	if err == nil { // the client may see the connection close before it sees the answer
		defer resp.Body.Close()
		if resp.StatusCode != 413 {
			t.Errorf("endless body: %d", resp.StatusCode)
		}
	}
	if resp, _ := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)); resp.StatusCode != 200 {
		t.Errorf("afterwards: %d", resp.StatusCode)
	}
}

func TestAPromptLongerThanTheModelTakesIsRefused(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e1", plain(okAnswer))
	g.addScorer()
	g.scorer.say(func(*scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		return &scorerv1.ScoreResponse{PromptTokens: 5000, BlockSize: 16, Keys: make([]uint64, 312)}, nil
	})
	resp, body := g.post("/v1/chat/completions", fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}]}`, model))
	checkError(t, "too long", resp, body, 400, "context_length_exceeded", "messages")
	if !strings.Contains(body, "5000") || !strings.Contains(body, "4096") {
		t.Errorf("does not say the numbers: %s", body)
	}
	g.idle()
}

func TestAKnownPoolWithoutEngineHoldsThenRefuses(t *testing.T) {
	g := newRig(t, Config{Hold: 50 * time.Millisecond})
	body := fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model)
	resp, answer := g.post("/v1/completions", body)
	checkError(t, "no engine", resp, answer, 503, "no_engine", "")
	if resp.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
	}
	g.idle()

	g = newRig(t, Config{Hold: time.Minute})
	p := g.rt.pool(poolRecord.ID)
	go func() {
		g.eventually("a held request", func() bool {
			r := p.report(g.fleet.View(), "r", time.Now(), time.Now())
			return r.Queued == 1 && r.Held == 1 && r.QueuedUncached > 0
		})
		g.addEngine("late", plain(okAnswer))
	}()
	if resp, answer := g.post("/v1/completions", body); resp.StatusCode != 200 || answer != okAnswer {
		t.Errorf("held request: %d %s", resp.StatusCode, answer)
	}
	g.fleet.set(func(v *fleet.View) { v.Draining["id-late"] = true })
	if p.Ready(g.fleet.View(), model) {
		t.Error("a draining engine counts")
	}
	g.idle()
}

// A request that was let in while the last engine was drained waits for the next one, as those do that came later.
func TestAnEngineThatDrainsWhileARequestIsScoredLosesNone(t *testing.T) {
	g := newRig(t, Config{Hold: time.Minute})
	g.addEngine("early", plain(okAnswer))
	g.addScorer()
	g.scorer.say(func(*scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		g.fleet.set(func(v *fleet.View) { v.Draining["id-early"] = true })
		return &scorerv1.ScoreResponse{Unknown: true}, nil
	})
	p := g.rt.pool(poolRecord.ID)
	go func() {
		g.eventually("a held request", func() bool {
			r := p.report(g.fleet.View(), "r", time.Now(), time.Now())
			return r.Held == 1 && r.Inflight == 1 && r.Engines["id-early"].Draining
		})
		g.addEngine("late", plain(okAnswer))
	}()
	resp, answer := g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"hi"}`, model))
	if resp.StatusCode != 200 || answer != okAnswer || resp.Header.Get("X-Warmpath-Engine") != "late" {
		t.Errorf("%d from %s: %s", resp.StatusCode, resp.Header.Get("X-Warmpath-Engine"), answer)
	}
	g.idle()
	if r := g.mail.last(); r.Waited <= 0 {
		t.Errorf("it waited for %v s", r.Waited)
	}
	if u := p.report(g.fleet.View(), "r", time.Now(), time.Now()).QueuedUncached; u != 0 {
		t.Errorf("%d tokens are left in the queue", u)
	}
}

func TestModelsAreThoseOfAllEngines(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e1", plain(""))
	g.addEngine("e2", plain(""), func(e *fleet.Engine) {
		e.Models = append(e.Models, fleet.Model{ID: "my-lora", Parent: model}, fleet.Model{ID: "alias", MaxModelLen: 10})
	})
	get := func(path string) (int, string) {
		resp, err := http.Get(g.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	_, body := get("/v1/models")
	var list struct {
		Object string
		Data   []struct {
			ID, Object  string
			Parent      *string
			MaxModelLen int `json:"max_model_len"`
		}
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || list.Object != "list" || len(list.Data) != 3 {
		t.Fatalf("%v %s", err, body)
	}
	if list.Data[1].ID != "my-lora" || *list.Data[1].Parent != model || list.Data[2].ID != model || list.Data[2].MaxModelLen != 4096 {
		t.Errorf("models %s", body)
	}
	if status, body := get("/v1/models/" + model); status != 200 || !strings.Contains(body, `"id":"org/model-7b"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get("/v1/models/none"); status != 404 || !strings.Contains(body, "model_not_found") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get("/health"); status != 200 {
		t.Errorf("health %d", status)
	}
}
