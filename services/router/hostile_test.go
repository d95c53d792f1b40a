package router

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/fleet"
)

// What clients and engines may do to one another's cost, without meaning well.

// lengthy is a streaming request whose prompt no other begins like.
func lengthy(n int) string {
	return fmt.Sprintf(`{"model":%q,"stream":true,"prompt":"%d %s"}`, model, n, strings.Repeat("word ", 8000))
}

// An engine refuses in a moment what it would compute for a while: that is no speed, no first byte and no cached prompt.
func TestARefusalTeachesNothing(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusInternalServerError} {
		g := newRig(t, Config{})
		var asked atomic.Int64
		g.addEngine("e1", func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":{"message":"no"}}`)
		})
		predicted := []float64{}
		for i := range 20 {
			resp, body := g.post("/v1/completions", lengthy(i))
			if resp.StatusCode != status || body != `{"error":{"message":"no"}}` {
				t.Fatalf("%d %s", resp.StatusCode, body)
			}
			g.idle()
			r := g.mail.last()
			if r.TTFT != nil || r.Outcome != outcomeRefused || r.Retries != 0 {
				t.Fatalf("record %+v", r)
			}
			predicted = append(predicted, r.TTFTPredicted)
		}
		if first, last := predicted[0], predicted[19]; last < first/2 || asked.Load() != 20 {
			t.Errorf("after refusals with %d a prompt of %.2f s is predicted to take %.2f", status, first, last)
		}
	}
}

// Where no engine is left to be asked, nothing was tried again: the budget of retries is for those who can.
func TestRetriesThatAreNotMadeCostNothing(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("a", nil).Close()
	for range 40 {
		if resp, _ := g.post("/v1/completions", `{"model":"`+model+`","prompt":"x"}`); resp.StatusCode != 502 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	for n := range retryBurst {
		if !g.rt.retries.take() {
			t.Fatalf("%d retries are left", n)
		}
	}
}

// Tokens of tenant b, and requests, that are left of a thousand in this minute.
func (g *rig) left() fleet.Budget {
	key := &fleet.APIKey{Tenant: "b", TokensPerMinute: 1000, RequestsPerMinute: 1000}
	_, s, _ := g.rt.budgets.Spend(g.t.Context(), key, 5000, time.Now())
	return s.Left
}

func (g *rig) withBudget() {
	g.setKeys(fleet.APIKey{Tenant: "b", TokensPerMinute: 1000, RequestsPerMinute: 1000})
	for time.Now().Second() > 50 { // a minute that ends in the middle would be another budget
		time.Sleep(100 * time.Millisecond)
	}
}

// Whoever sends prompts and leaves before the first byte has the engines compute them all the same.
func TestWhoLeavesPaysForThePrompt(t *testing.T) {
	g := newRig(t, Config{})
	g.withBudget()
	e := g.addTurnstile("e1")
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		body := fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":1}`, model, strings.Repeat("y", 398))
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/completions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer key-of-b")
		_, err := http.DefaultClient.Do(r)
		ended <- err
	}()
	e.now(t)
	leave()
	<-ended
	g.idle()
	if got, want := g.left(), (fleet.Budget{Requests: 999, Tokens: 900}); got != want {
		t.Errorf("left %+v, want %+v", got, want)
	}
}

// What an engine refuses for what it is counts as a request; what nobody could serve costs nothing.
func TestWhatIsNotServedCostsNoTokens(t *testing.T) {
	for status, want := range map[int]fleet.Budget{
		400: {Requests: 999, Tokens: 1000}, 429: {Requests: 1000, Tokens: 1000}, 500: {Requests: 1000, Tokens: 1000},
		503: {Requests: 1000, Tokens: 1000}, 0: {Requests: 1000, Tokens: 1000},
	} {
		g := newRig(t, Config{})
		g.withBudget()
		server := g.addEngine("e1", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "no")
		})
		if status == 0 {
			server.Close()
		}
		g.ask(strings.Repeat("y", 398), "key-of-b")
		g.idle()
		if got := g.left(); got != want {
			t.Errorf("after %d: left %+v, want %+v", status, got, want)
		}
	}
}

// An engine says what it wants of usage; budgets and counters go by what can be true.
func TestUsageThatCannotBeTrueIsNone(t *testing.T) {
	for _, usage := range []string{
		`{"prompt_tokens":-900000,"completion_tokens":5}`, `{"prompt_tokens":5,"completion_tokens":-900000}`,
		`{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775807}`,
	} {
		g := newRig(t, Config{})
		g.withBudget()
		g.addEngine("e1", plain(`{"choices":[],"usage":`+usage+`}`))
		if resp, body := g.ask(strings.Repeat("y", 398), "key-of-b"); resp.StatusCode != 200 || !strings.Contains(body, usage) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		g.idle()
		if got := g.left(); got.Tokens != 900 {
			t.Errorf("with usage %s %d tokens are left", usage, got.Tokens)
		}
	}
}

// 5xx other than 502 and 503 is the engine's judgement of this request: it passes, and nobody else is asked.
func TestOtherServerErrorsPass(t *testing.T) {
	for _, status := range []int{500, 501, 504, 599} {
		g := newRig(t, Config{Policy: "round-robin"})
		var asked atomic.Int64
		for _, name := range []string{"a", "b"} {
			g.addEngine(name, func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "why")
			})
		}
		for i := range int64(4) {
			if resp, body := g.post("/v1/completions", streamBody); resp.StatusCode != status || body != "why" || asked.Load() != i+1 {
				t.Errorf("%d %s after %d attempts", resp.StatusCode, body, asked.Load())
			}
		}
		if g.idle(); len(g.logs.lines("engine ejected")) != 0 {
			t.Errorf("%d: an engine is blamed for the request", status)
		}
	}
}

// A status that HTTP does not know must not reach net/http's server, which panics of it.
func TestAStatusThatIsNoneIsNoAnswer(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin"})
	g.addEngine("a", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 000 Nothing\r\nContent-Length: 2\r\n\r\nno")
	})
	g.addEngine("b", plain(okAnswer))
	for range 4 {
		if resp, body := g.post("/v1/completions", `{"model":"`+model+`","prompt":"x"}`); resp.StatusCode != 200 || body != okAnswer {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	g.idle()
}

// What is told of all tenants is not told to each of them, nor to who has no key.
func TestMetricsAreForTheTrusted(t *testing.T) {
	g := newRig(t, Config{Metrics: prometheus.NewRegistry()})
	get := func(key string) int {
		r, _ := http.NewRequest(http.MethodGet, g.url+"/metrics", nil)
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := get(""); got != 200 {
		t.Errorf("where no key is needed: %d", got)
	}
	g.setKeys(fleet.APIKey{Tenant: "a"}, fleet.APIKey{Tenant: "proxy", Trusted: true})
	for key, want := range map[string]int{"": 401, "wrong": 401, "key-of-a": 403, "key-of-proxy": 200} {
		if got := get(key); got != want {
			t.Errorf("with key %q: %d, want %d", key, got, want)
		}
	}
}

// vLLM hands some members on to its connectors as they are; which engine's blocks are read is nothing that clients say
// there either.
func TestTransferParametersAreNotSmuggled(t *testing.T) {
	g := newRig(t, Config{})
	g.setKeys(fleet.APIKey{Tenant: "a"}, fleet.APIKey{Tenant: "proxy", Trusted: true})
	g.addEngine("e1", plain(okAnswer))
	for path, member := range map[string]string{
		"/v1/completions":        `"prompt":"x","vllm_xargs":{"kv_transfer_\u0070arams":{"do_remote_prefill":true}}`,
		"/v1/chat/completions":   `"messages":[{}],"vllm_xargs":{"kv_transfer_params":"x"}`,
		"/inference/v1/generate": `"sampling_params":{"extra_args":{"kv_transfer_params":{}}}`,
	} {
		for key, want := range map[string]int{"key-of-a": 400, "key-of-proxy": 200} {
			resp, body := g.post(path, `{"model":"`+model+`",`+member+`}`, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) })
			if resp.StatusCode != want {
				t.Errorf("%s with %s: %d %s", path, key, resp.StatusCode, body)
			}
		}
	}
	resp, body := g.post("/v1/completions", `{"model":"`+model+`","prompt":"x","vllm_xargs":{"a":1},"sampling_params":5}`,
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer key-of-a") })
	if resp.StatusCode != 200 {
		t.Errorf("without: %d %s", resp.StatusCode, body)
	}
	g.idle()
}
