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
	"github.com/warmpath/warmpath/services/router/internal/tenants"
)

// oneAtATime is an objective by which an engine takes one sequence.
var oneAtATime = SLO{ITL: time.Microsecond}

// turnstile is an engine that says which prompt it got and answers when it is told to.
type turnstile struct {
	got chan string
	go1 chan struct{}

	mu      sync.Mutex
	headers []http.Header
}

func (g *rig) addTurnstile(name string) *turnstile {
	e := &turnstile{got: make(chan string, 1000), go1: make(chan struct{}, 1000)}
	g.addEngine(name, func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Prompt string }
		raw, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(raw, &body)
		e.mu.Lock()
		e.headers = append(e.headers, r.Header.Clone())
		e.mu.Unlock()
		e.got <- strings.TrimRight(body.Prompt, ".")
		select {
		case <-e.go1:
		case <-r.Context().Done():
			return
		case <-g.t.Context().Done(): // the test has failed
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, okAnswer)
	})
	return e
}

// next is the prompt that the engine gets next, once it may end what it has.
func (e *turnstile) next(t *testing.T) string {
	t.Helper()
	e.go1 <- struct{}{}
	return e.now(t)
}

func (e *turnstile) now(t *testing.T) string {
	t.Helper()
	select {
	case prompt := <-e.got:
		return prompt
	case <-time.After(20 * time.Second):
		t.Fatal("the engine got nothing")
		return ""
	}
}

// send posts in the background, and returns once the request waits in the queue.
func (g *rig) send(wait *sync.WaitGroup, prompt, key string, change ...func(http.Header)) {
	g.t.Helper()
	before := g.waiting()
	wait.Go(func() { g.ask(prompt, key, change...) })
	g.eventually("a request in the queue", func() bool { return g.waiting() > before })
}

func (g *rig) waiting() int { return g.rt.pool(poolRecord.ID).door.Waiting().Requests }

func (g *rig) ask(prompt, key string, change ...func(http.Header)) (*http.Response, string) {
	return g.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":1}`, model, prompt), func(r *http.Request) {
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		for _, f := range change {
			f(r.Header)
		}
	})
}

// fill occupies an engine that takes one request at a time.
func (g *rig) fill(wait *sync.WaitGroup, e *turnstile, key string) {
	g.t.Helper()
	wait.Go(func() { g.ask("first", key) })
	select {
	case <-e.got:
	case <-time.After(20 * time.Second):
		g.t.Fatal("the engine got nothing")
	}
}

func (g *rig) setKeys(keys ...fleet.APIKey) {
	for i := range keys {
		keys[i].Hash = fleet.KeyHash("key-of-" + keys[i].Tenant)
		if err := keys[i].Check(); err != nil {
			g.t.Fatal(err)
		}
	}
	g.rt.keys.Set(tenants.File, keys)
}

func TestOnlyKnownKeysAreServed(t *testing.T) {
	g := newRig(t, Config{EngineKey: "of-the-engine"})
	e := g.addTurnstile("e1")
	e.go1 <- struct{}{}
	if resp, _ := g.ask("open", ""); resp.StatusCode != 200 {
		t.Errorf("without any key: %d", resp.StatusCode)
	}
	g.setKeys(fleet.APIKey{Tenant: "a", Tier: "gold"}, fleet.APIKey{Tenant: "old", Expires: time.Now().Add(-time.Hour)})
	for _, key := range []string{"", "wrong-key", "key-of-old", "key-of-a "[:7]} {
		resp, body := g.ask("x", key)
		var answer struct {
			Error struct{ Message, Type, Code string }
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || resp.StatusCode != 401 || answer.Error.Code != "invalid_api_key" ||
			answer.Error.Type != "authentication_error" || resp.Header.Get("Www-Authenticate") != "Bearer" || key != "" && strings.Contains(body, key) {
			t.Errorf("key %q: %d %s", key, resp.StatusCode, body)
		}
	}
	resp, err := http.Get(g.url + "/v1/models")
	if err != nil || resp.StatusCode != 401 {
		t.Errorf("models without a key: %v, %v", resp.StatusCode, err)
	}
	resp.Body.Close()
	for _, path := range []string{"/health"} {
		if resp, err := http.Get(g.url + path); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v", path, err)
		}
	}
	e.go1 <- struct{}{}
	if resp, body := g.ask("known", "key-of-a"); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	g.idle()
	if r := g.mail.last(); r.Tenant != "a" || r.Tier != "gold" {
		t.Errorf("record of %q, %q", r.Tenant, r.Tier)
	}
	for _, h := range e.headers {
		if h.Get("Authorization") != "Bearer of-the-engine" || strings.Contains(fmt.Sprint(h), "key-of-a") {
			t.Errorf("the engine got %v", h)
		}
	}
	raw, _ := json.Marshal(g.mail.last())
	for _, secret := range []string{"key-of-a", fleet.KeyHash("key-of-a"), "wrong-key"} {
		if strings.Contains(g.logs.b.String(), secret) || strings.Contains(string(raw), secret) {
			t.Errorf("%s is in the log or the record", secret)
		}
	}
	g.rt.keys.Set(tenants.File, nil) // the last key is revoked: nobody may, rather than everybody
	if resp, _ := g.ask("x", ""); resp.StatusCode != 401 {
		t.Errorf("after the last key was revoked: %d", resp.StatusCode)
	}
}

// controls are the headers by which clients of other routers steer routing and priority, and ours.
var controls = map[string]string{
	"x-llm-d-inference-objective": "critical", "x-gateway-inference-objective": "critical", "x-llm-d-inference-fairness-id": "unique",
	"x-gateway-inference-fairness-id": "unique", "x-llm-d-model-name-rewrite": "other", "x-gateway-model-name-rewrite": "other",
	"x-llm-d-slo-ttft-ms": "1", "x-llm-d-slo-tpot-ms": "1", "x-slo-ttft-ms": "1", "x-slo-tpot-ms": "1",
	"x-gateway-destination-endpoint": "10.0.0.1:1", "x-gateway-destination-endpoint-subset": "10.0.0.1:1",
	"x-gateway-destination-endpoint-served": "10.0.0.1:1", "x-gateway-destination-endpoint-scores": "{}",
	"x-prefiller-host-port": "10.0.0.1:1", "x-encoder-hosts-ports": "10.0.0.1:1", "x-data-parallel-host-port": "10.0.0.1:1",
	"x-data-parallel-rank": "3", "x-kv-cache-source-host-port": "10.0.0.1:1", "prefer": "if-available", "epp-profile": "fast",
	"x-warmpath-priority": "100", "priority": "u=0", "x-priority": "100", "x-request-priority": "100",
}

// No header of a client moves it before others, unless its key is trusted.
func TestNoClientRaisesItsOwnPriority(t *testing.T) {
	g := newRig(t, Config{SLO: oneAtATime})
	e := g.addTurnstile("e1")
	g.setKeys(fleet.APIKey{Tenant: "bold"}, fleet.APIKey{Tenant: "plain"}, fleet.APIKey{Tenant: "paid", Priority: 5}, fleet.APIKey{Tenant: "proxy", Trusted: true})
	var wait sync.WaitGroup
	g.fill(&wait, e, "key-of-plain")
	for name, value := range controls {
		set := func(h http.Header) { h.Set(name, value) }
		dear := " " + name + strings.Repeat(".", 4*6000) // more than a turn pays for, and no two begin alike
		g.send(&wait, "bold"+dear, "key-of-bold", set)
		g.send(&wait, "bold,"+dear, "key-of-bold", func(h http.Header) { h.Set(name, value+"2") })
		g.send(&wait, "plain"+dear, "key-of-plain")
		g.send(&wait, "paid"+dear, "key-of-paid")
		var got []string
		for range 4 {
			who, _, _ := strings.Cut(e.next(t), " ")
			got = append(got, strings.TrimRight(who, ","))
		}
		// The band of the key first; then each tenant in its turn, whatever it calls itself.
		if want := "[paid bold plain bold]"; fmt.Sprint(got) != want {
			t.Errorf("with %s: served %v, want %s", name, got, want)
		}
		if r := g.mail.last(); r.Priority != 0 && r.Tenant == "bold" {
			t.Errorf("with %s: priority %d", name, r.Priority)
		}
	}
	g.send(&wait, "paid", "key-of-paid")
	g.send(&wait, "proxied", "key-of-proxy", func(h http.Header) { h.Set("x-warmpath-priority", "50") })
	if got := []string{e.next(t), e.next(t)}; got[0] != "proxied" || got[1] != "paid" {
		t.Errorf("of a trusted key: served %v", got)
	}
	e.go1 <- struct{}{}
	wait.Wait()
	g.idle()
	for _, h := range e.headers {
		for name, value := range controls {
			if got := h.Get(name); got != "" && got != "session" {
				t.Errorf("the engine got %s: %s (%s was sent)", name, got, value)
			}
		}
	}
}

// Who asks ten times as much is served as much as the other, and each engine is kept busy while anybody waits.
func TestTenantsTakeTurns(t *testing.T) {
	g := newRig(t, Config{SLO: oneAtATime})
	e := g.addTurnstile("e1")
	g.setKeys(fleet.APIKey{Tenant: "greedy"}, fleet.APIKey{Tenant: "polite"})
	var wait sync.WaitGroup
	long := strings.Repeat(".", 4*4096) // one costs more than a turn
	g.fill(&wait, e, "key-of-greedy")
	for i := range 10 {
		g.send(&wait, fmt.Sprint("greedy ", i, long), "key-of-greedy") // no two begin alike: what is cached costs less
	}
	for i := range 3 {
		g.send(&wait, fmt.Sprint("polite ", i, long), "key-of-polite")
	}
	served := map[string]int{}
	for n := range 13 {
		tenant, _, _ := strings.Cut(e.next(t), " ")
		served[tenant]++
		if n == 5 && (served["polite"] < 2 || served["polite"] > 3) {
			t.Errorf("of the first six: %v", served)
		}
	}
	e.go1 <- struct{}{}
	wait.Wait()
	if g.idle(); served["greedy"] != 10 || served["polite"] != 3 {
		t.Errorf("served %v", served)
	}
	if r := g.mail.last(); r.Waited <= 0 {
		t.Errorf("waited %v", r.Waited)
	}
}

func TestARequestThatWaitsTooLongIsRefused(t *testing.T) {
	g := newRig(t, Config{SLO: oneAtATime, QueueTTL: 30 * time.Millisecond})
	e := g.addTurnstile("e1")
	var wait sync.WaitGroup
	g.fill(&wait, e, "")
	resp, body := g.ask("x", "")
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, `"queue_timeout"`) ||
		resp.Header.Get("X-Llm-D-Request-Dropped-Reason") != "rejected-ttl-expired" {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	e.go1 <- struct{}{}
	wait.Wait()
	g.idle()
}

func TestTheQueueShedsWhenItIsFull(t *testing.T) {
	g := newRig(t, Config{SLO: oneAtATime})
	e := g.addTurnstile("e1")
	g.setKeys(fleet.APIKey{Tenant: "low", Priority: -1}, fleet.APIKey{Tenant: "high"})
	g.rt.pool(poolRecord.ID).door.Limits.Requests = 3
	var wait sync.WaitGroup
	g.fill(&wait, e, "key-of-high")
	shed := make(chan *http.Response, 1)
	g.send(&wait, "low 1", "key-of-low")
	wait.Go(func() {
		resp, _ := g.ask("low 2", "key-of-low")
		shed <- resp
	})
	g.eventually("two waiting", func() bool { return g.waiting() == 2 })
	g.send(&wait, "high 1", "key-of-high")
	wait.Go(func() { g.ask("high 2", "key-of-high") })
	if resp := <-shed; resp.StatusCode != 429 || resp.Header.Get("X-Llm-D-Request-Dropped-Reason") != "rejected-saturated" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if got := fmt.Sprint(e.next(t), ",", e.next(t), ",", e.next(t)); got != "high 1,high 2,low 1" {
		t.Errorf("served %s", got)
	}
	e.go1 <- struct{}{}
	wait.Wait()
	g.idle()
	g.rt.sendReports()
	var r report
	if err := json.Unmarshal(g.mail.sent["report."+poolRecord.ID+".r1"], &r); err != nil || r.Shed != 1 || r.Queued != 0 || r.QueuedTokens != 0 {
		t.Errorf("report %+v, %v", r, err)
	}
}

// A client that leaves the queue leaves nothing behind, at whatever moment it does.
func TestClientsThatLeaveTheQueueAreForgotten(t *testing.T) {
	g := newRig(t, Config{SLO: oneAtATime})
	e := g.addTurnstile("e1")
	client := &http.Client{Transport: &http.Transport{}}
	var wait sync.WaitGroup
	for i := range 60 {
		wait.Go(func() {
			client := *client
			client.Timeout = time.Duration(1+i*i/4) * time.Millisecond
			resp, err := client.Post(g.url+"/v1/completions", "application/json", strings.NewReader(fmt.Sprintf(`{"model":%q,"prompt":"x"}`, model)))
			if err == nil {
				resp.Body.Close()
			}
		})
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	for busy := true; busy; {
		select {
		case <-e.got:
			e.go1 <- struct{}{}
		case <-done:
			busy = false
		}
	}
	g.eventually("an empty queue", func() bool { return g.waiting() == 0 })
	g.idle()
	wait.Go(func() { g.ask("last", "") })
	for e.next(t) != "last" { // it has room; before it may be who left just now
	}
	e.go1 <- struct{}{}
	wait.Wait()
}

func TestBudgetsAreHeld(t *testing.T) {
	g := newRig(t, Config{})
	e := g.addTurnstile("e1")
	g.holdTheMinute()
	g.setKeys(fleet.APIKey{Tenant: "a", RequestsPerMinute: 3}, fleet.APIKey{Tenant: "b", TokensPerMinute: 40})
	for i := range 3 {
		e.go1 <- struct{}{}
		resp, _ := g.ask("x", "key-of-a")
		if h := resp.Header; resp.StatusCode != 200 || h.Get("X-Ratelimit-Limit-Requests") != "3" || h.Get("X-Ratelimit-Remaining-Requests") != fmt.Sprint(2-i) ||
			!strings.HasSuffix(h.Get("X-Ratelimit-Reset-Requests"), "s") || h.Get("X-Ratelimit-Limit-Tokens") != "" {
			t.Errorf("%d %v", resp.StatusCode, h)
		}
	}
	resp, body := g.ask("x", "key-of-a")
	if resp.StatusCode != 429 || !strings.Contains(body, `"rate_limit_exceeded"`) || !strings.Contains(body, `"rate_limit_error"`) ||
		resp.Header.Get("X-Llm-D-Request-Dropped-Reason") != "rejected-over-budget" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	var after int
	if _, err := fmt.Sscan(resp.Header.Get("Retry-After"), &after); err != nil || after < 1 || after > 60 {
		t.Errorf("retry after %q", resp.Header.Get("Retry-After"))
	}
	// A prompt of 80 bytes is taken for 20 tokens and one is asked for; it turns out to be 7 and 5.
	for i := range 3 {
		e.go1 <- struct{}{}
		resp, body = g.ask(strings.Repeat("y", 78), "key-of-b")
		g.idle()
		g.eventually("the charge corrected", func() bool {
			_, s, _ := g.rt.budgets.Spend(t.Context(), &fleet.APIKey{Tenant: "b", TokensPerMinute: 40}, 100, time.Now())
			return s.Left.Tokens == int64(40-12*(i+1)) || resp.StatusCode != 200
		})
		if want := []int{200, 200, 429}[i]; resp.StatusCode != want {
			t.Errorf("request %d: %d %s", i, resp.StatusCode, body)
		}
		if want := []string{"19", "7", "16"}[i]; resp.Header.Get("X-Ratelimit-Remaining-Tokens") != want {
			t.Errorf("request %d: %s tokens are left", i, resp.Header.Get("X-Ratelimit-Remaining-Tokens"))
		}
	}
}

// One tenant's bodies that wait do not hold all the bytes there are.
func TestWhatWaitsLeavesBytesForOthers(t *testing.T) {
	g := newRig(t, Config{SLO: oneAtATime, BodyBytes: 100_000})
	g.rt.memory.Wait = 20 * time.Millisecond
	e := g.addTurnstile("e1")
	g.setKeys(fleet.APIKey{Tenant: "greedy"}, fleet.APIKey{Tenant: "polite"})
	var wait sync.WaitGroup
	g.fill(&wait, e, "key-of-polite")
	shed := make(chan int, 10)
	for i := range 10 {
		wait.Go(func() {
			resp, _ := g.ask(fmt.Sprint("greedy", i, strings.Repeat(".", 20_000)), "key-of-greedy")
			shed <- resp.StatusCode
		})
	}
	for range 8 { // two may wait
		if got := <-shed; got != 429 {
			t.Errorf("shed with %d", got)
		}
	}
	g.send(&wait, "polite", "key-of-polite")
	for range 3 {
		e.next(t)
	}
	e.go1 <- struct{}{}
	wait.Wait()
	g.idle()
}

// held is an engine that begins an answer when it is told to, and ends it when it is told again.
func (g *rig) addHeld(name string) (got chan string, on chan struct{}) {
	got, on = make(chan string, 10), make(chan struct{}, 10)
	g.addEngine(name, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		got <- string(raw)
		for _, part := range []string{event1, doneMark} {
			select {
			case <-on:
			case <-g.t.Context().Done():
				return
			}
			sse(part)(w, r)
		}
	})
	return got, on
}

// An engine has room again when an answer begins, not only when it ends; nobody has to look.
func TestAFirstByteLetsTheNextIn(t *testing.T) {
	g := newRig(t, Config{SLO: SLO{TTFT: 16 * time.Microsecond}}) // nothing may wait in an engine
	g.rt.pool(poolRecord.ID).door.Every = time.Hour
	got, on := g.addHeld("e1")
	var wait sync.WaitGroup
	long := func(i int) { g.post("/v1/completions", lengthy(i)) } // prefill of half a second
	wait.Go(func() { long(1) })
	<-got
	wait.Go(func() { long(2) })
	g.eventually("a request in the queue", func() bool { return g.waiting() == 1 })
	on <- struct{}{}
	select {
	case <-got:
	case <-time.After(10 * time.Second):
		t.Error("the first byte of one let nobody in")
	}
	for range 3 {
		on <- struct{}{}
	}
	wait.Wait()
	g.idle()
}

// An engine that has no room is passed over, though it is the warm one: by the pool's objective or the request's own.
func TestAFullEngineIsPassedOver(t *testing.T) {
	none := func(*http.Request) {}
	say := func(name string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(name, "0.001") } }
	for name, c := range map[string]struct {
		slo    SLO
		change func(*http.Request)
		passed bool
	}{
		"no objective":  {SLO{}, none, false},
		"of the pool":   {oneAtATime, none, true},
		"of one":        {SLO{}, say("X-Llm-D-Slo-Tpot-Ms"), true},
		"in old words":  {SLO{ITL: time.Hour}, say("X-Slo-Tpot-Ms"), true},
		"in wrong ones": {SLO{}, func(r *http.Request) { r.Header.Set("X-Llm-D-Slo-Tpot-Ms", "NaN") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			if first, second := twoAlike(t, c.slo, c.change); (first != second) != c.passed {
				t.Errorf("they went to %s and %s", first, second)
			}
		})
	}
}

// twoAlike are the engines of two requests with one prompt, of which the first decodes when the second comes.
func twoAlike(t *testing.T, slo SLO, change func(*http.Request)) (first, second string) {
	g := newRig(t, Config{SLO: slo})
	one, goOne := g.addHeld("e1")
	two, goTwo := g.addHeld("e2")
	var wait sync.WaitGroup
	ask := func() { g.post("/v1/completions", lengthy(1), change) }
	next := func() string {
		select {
		case <-one:
			return "e1"
		case <-two:
			return "e2"
		}
	}
	wait.Go(ask)
	first = next()
	on := map[string]chan struct{}{"e1": goOne, "e2": goTwo}
	on[first] <- struct{}{} // it decodes from now on
	p := g.rt.pool(poolRecord.ID)
	g.eventually("a first byte", func() bool { return p.Loads()["id-"+first].DecodeContext > 0 })
	wait.Go(ask)
	second = next()
	on[first] <- struct{}{}
	on[second] <- struct{}{}
	on[second] <- struct{}{}
	wait.Wait()
	return first, second
}
