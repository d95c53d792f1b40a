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
	"github.com/warmpath/warmpath/services/router/ledger"
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

// settles waits until so much is left: the charge is corrected when the request has ended.
func (g *rig) settles(what string, want fleet.Budget) {
	g.t.Helper()
	g.idle()
	g.eventually(fmt.Sprintf("%s: %+v are left, and it should be %+v", what, g.left(), want), func() bool { return g.left() == want })
}

func (g *rig) withBudget() {
	g.holdTheMinute()
	g.setKeys(fleet.APIKey{Tenant: "b", TokensPerMinute: 1000, RequestsPerMinute: 1000})
}

// holdTheMinute stops the clock of budgets: a minute that ended in the middle would be another budget.
func (g *rig) holdTheMinute() {
	now := time.Now()
	g.rt.wall = func() time.Time { return now }
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
	g.settles("a client that left", fleet.Budget{Requests: 999, Tokens: 900})
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
		g.settles(fmt.Sprint("status ", status), want)
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
		g.settles(usage, fleet.Budget{Requests: 999, Tokens: 900})
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

// A proxy that is trusted orders its requests within the bands there are, and no higher.
func TestPrioritiesAreBounded(t *testing.T) {
	g := newRig(t, Config{})
	g.setKeys(fleet.APIKey{Tenant: "proxy", Trusted: true})
	for said, want := range map[string]int{"1000": fleet.MostPriority, "-1000": -fleet.MostPriority, "7": 7, "x": 0} {
		h := http.Header{"Authorization": {"Bearer key-of-proxy"}, http.CanonicalHeaderKey(priorityHeader): {said}}
		if c, e := g.rt.authenticate(h, time.Now()); e != nil || c.band != want {
			t.Errorf("%s is %d, %v", said, c.band, e)
		}
	}
}

// Metrics name so many tenants and no more, and go on to name those they have.
func TestTenantsInMetricsAreBounded(t *testing.T) {
	m := newMetrics(nil)
	named := map[string]bool{}
	for i := range 3 * mostTenants {
		named[m.tenant(fmt.Sprint(i%(2*mostTenants)))] = true
	}
	if len(named) != mostTenants+1 || !named["other"] || m.tenant("0") != "0" || m.tenant("") != "none" {
		t.Errorf("%d are named", len(named))
	}
}

// Prompts that are read only to free their blocks are bounded, and one that is not read does not count.
func TestPromptsReadForNobodyAreBounded(t *testing.T) {
	g := newRig(t, Config{})
	x := &exchange{rt: g.rt, res: &ledger.Reservation{Engine: fleet.Engine{ID: "d"}}} // without a request to send
	g.rt.given.now.Store(maxAbandoned)
	x.abandon(t.Context())
	if n := g.rt.given.now.Load(); n != maxAbandoned {
		t.Errorf("%d count", n)
	}
	g.rt.given.now.Store(0)
	x.apart.by.ID = "d"
	x.abandon(t.Context())
	if n := g.rt.given.now.Load(); n != 0 {
		t.Errorf("%d count of an engine that needs not read from itself", n)
	}
}

// A prefill engine that hangs is left as any other: the prompt is computed elsewhere, and its client learns nothing of it.
func TestAHungPrefillEngineIsLeft(t *testing.T) {
	g, w := newRig(t, Config{Policy: "round-robin"}), &witness{}
	var asked atomic.Int64
	g.addEngine("d", w.engine("d", plain(decodeAnswer)), role(fleet.Decode))
	g.addEngine("p0", hung(&asked), role(fleet.Prefill))
	g.addEngine("p1", w.engine("p1", plain(prefillAnswer)), role(fleet.Prefill))
	status := make(chan int, 1)
	go func() {
		resp, _ := g.post("/v1/completions", longBody(""))
		status <- resp.StatusCode
	}()
	g.eventually("asked", func() bool { return asked.Load() == 1 })
	g.later(15 * time.Second) // suspected: the probe takes its two seconds
	select {
	case got := <-status:
		if outcome := g.outcome(); got != 200 || outcome != splitRetried || names(w.took()) != "p1 d" {
			t.Errorf("%d, outcome %s", got, outcome)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the request waits for the hung engine")
	}
}

// Who bills reads what each tenant used of each model.
func TestUsageIsCountedByTenantAndModel(t *testing.T) {
	g := newRig(t, Config{Metrics: prometheus.NewRegistry()})
	g.setKeys(fleet.APIKey{Tenant: "a"}, fleet.APIKey{Tenant: "proxy", Trusted: true})
	g.addEngine("e1", plain(okAnswer))
	for range 2 {
		g.ask("x", "key-of-a")
	}
	g.idle()
	r, _ := http.NewRequest(http.MethodGet, g.url+"/metrics", nil)
	r.Header.Set("Authorization", "Bearer key-of-proxy")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for kind, n := range map[string]int{"prompt": 14, "cached": 8, "completion": 10} {
		if want := fmt.Sprintf("warmpath_router_tokens_total{kind=%q,model=%q,tenant=\"a\"} %d\n", kind, model, n); !strings.Contains(string(page), want) {
			t.Errorf("no %s", want)
		}
	}
}
