package router

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// natsFor starts a server for a test and returns its URL.
func natsFor(t *testing.T) *embedded.Server {
	t.Helper()
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return server
}

// join lets a rig's router share its ledger through NATS.
func (g *rig) join(url string) *bus.Conn {
	g.t.Helper()
	conn, err := bus.Connect(g.t.Context(), url, bus.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		g.t.Fatal(err)
	}
	g.rt.bus = conn
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.rt.peers.Run(ctx, conn) }()
	g.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Errorf("peers: %v", err)
		}
		conn.Close()
	})
	return conn
}

// slowEngines hold every request until the test lets the oldest of all go; they know what truly waits in them.
type slowEngines struct {
	over    <-chan struct{} // closed once the test has ended, be it in the middle
	mu      sync.Mutex
	waiting []held  // in order of arrival
	cost    float64 // tokens before and of each request on its engine when it came, summed
	got     int
}

type held struct {
	engine string
	tokens int
	answer chan struct{}
}

func (s *slowEngines) serve(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, rest, _ := strings.Cut(string(body), `"prompt":"`)
		digits, _, _ := strings.Cut(rest, " ")
		tokens, _ := strconv.Atoi(digits)
		one := held{"id-" + name, tokens, make(chan struct{})}
		s.mu.Lock()
		s.got++
		s.waiting = append(s.waiting, one)
		s.cost += float64(s.tokens()[one.engine])
		s.mu.Unlock()
		select {
		case <-one.answer:
			sse(event1, doneMark)(w, r)
		case <-s.over:
		case <-r.Context().Done():
		}
	}
}

// tokens are those that wait on each engine. The lock is held.
func (s *slowEngines) tokens() map[string]int {
	sum := map[string]int{}
	for _, one := range s.waiting {
		sum[one.engine] += one.tokens
	}
	return sum
}

// pop answers the oldest request.
func (s *slowEngines) pop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.waiting[0].answer)
	s.waiting = s.waiting[1:]
}

func (s *slowEngines) came() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

// known says whether every router's ledger has just what waits.
func (s *slowEngines) known(rigs []*rig) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	truth := s.tokens()
	for _, g := range rigs {
		for id, l := range g.rt.pool(poolRecord.ID).Together() {
			if l.WaitContext != truth[id] || l.Active != l.Waiting {
				return false
			}
		}
	}
	return true
}

// fleetQuality sends one sequence of requests, of very different lengths, through some routers in turn and returns the tokens
// that a request finds before it and brings, in the mean.
func fleetQuality(t *testing.T, routers int, policy string, share bool) float64 {
	const engines, requests = 6, 120
	server := natsFor(t)
	over := make(chan struct{})
	slow := &slowEngines{over: over}
	var rigs []*rig
	for i := range routers {
		g := newRig(t, Config{Policy: policy, Seed: 7, Instance: fmt.Sprint("r", i)})
		if i == 0 {
			for j := range engines {
				g.addEngine(fmt.Sprintf("e%d", j), slow.serve(fmt.Sprintf("e%d", j)),
					func(e *fleet.Engine) { e.Models[0].MaxModelLen = 0 })
			}
		} else {
			g.fleet.set(func(v *fleet.View) { v.Engines = rigs[0].fleet.View().Engines })
		}
		g.fleet.set(func(v *fleet.View) {
			for j := range routers {
				v.Members = append(v.Members, fleet.Member{Service: "router", Instance: fmt.Sprint("r", j), Ready: true})
			}
		})
		g.addScorer()
		g.scorer.say(scoreByNumber)
		if share {
			g.join(server.URL())
		}
		rigs = append(rigs, g)
	}
	t.Cleanup(func() { close(over) }) // before engines and routers wait for their requests
	random := rand.New(rand.NewPCG(5, 6))
	var wait sync.WaitGroup
	for i := range requests {
		g, tokens := rigs[random.IntN(2)%routers], 50+int(20_000/(1+30*random.Float64()))
		wait.Go(func() { g.stream(fmt.Sprintf("%d %d", tokens, i)) })
		g.eventually("arrived", func() bool { return slow.came() == i+1 })
		if i > 3*engines {
			slow.pop()
		}
		g.eventually("known to all", func() bool { return !share || slow.known(rigs) })
	}
	for range min(requests, 3*engines+1) {
		slow.pop()
	}
	wait.Wait()
	for _, g := range rigs {
		g.idle()
	}
	return slow.cost / requests
}

// stream asks for a stream and reads it to its end.
func (g *rig) stream(prompt string) {
	resp, err := http.Post(g.url+"/v1/completions", "application/json", strings.NewReader(fmt.Sprintf(`{"model":%q,"prompt":%q,"stream":true}`, model, prompt)))
	if err != nil {
		g.t.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		g.t.Errorf("status %d, %v", resp.StatusCode, err)
	}
}

// scoreByNumber takes the prompt's first word for its length in tokens.
func scoreByNumber(r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
	words := strings.Fields(strings.Trim(string(r.Spans[0].Value), `"`))
	tokens, _ := strconv.Atoi(words[0])
	id, _ := strconv.Atoi(words[1])
	return &scorerv1.ScoreResponse{PromptTokens: uint32(tokens), BlockSize: 16, Keys: []uint64{uint64(id) + 1}}, nil
}

// TestTwoRoutersPlaceLikeOne holds two routers on one NATS server against one router, on the same requests: within 2 %;
// and against two that do not hear each other, which place worse. The policy is one whose costs do not depend on the
// time that passes between two requests; what hearing is worth to warm is simulated (TestTwoRoutersServeLikeOne).
func TestTwoRoutersPlaceLikeOne(t *testing.T) {
	const policy = "least-tokens"
	one, two, deaf := fleetQuality(t, 1, policy, true), fleetQuality(t, 2, policy, true), fleetQuality(t, 2, policy, false)
	t.Logf("one router %.0f tokens, two %.0f (%+.2f %%), two that are deaf %.0f (%+.2f %%)", one, two, 100*(two/one-1), deaf, 100*(deaf/one-1))
	if two > 1.02*one {
		t.Errorf("two routers place %.1f %% worse than one", 100*(two/one-1))
	}
	if deaf < 1.05*one {
		t.Errorf("without hearing they place only %.1f %% worse: this test sees nothing", 100*(deaf/one-1))
	}
}

func TestWhatPeersSendIsJudged(t *testing.T) {
	g := newRig(t, Config{})
	g.addEngine("e1", plain(okAnswer))
	for _, data := range []string{"", "{", `{"router":""}`, `{"router":"` + strings.Repeat("x", 300) + `","seq":1}`,
		`{"router":"a","life":1,"seq":1,"engines":[{"e":"id-e1","a":-1}]}`} {
		g.rt.peers.Hear(bus.LedgerSubject(poolRecord.ID), []byte(data))
	}
	good := []byte(`{"router":"a","life":1,"seq":1,"engines":[{"e":"id-e1","a":5}]}`)
	g.rt.peers.Hear("ledger.nobody", good)
	p := g.rt.pool(poolRecord.ID)
	if n := p.Together()["id-e1"].Active; n != 0 {
		t.Errorf("%d under way", n)
	}
	g.rt.peers.Hear(bus.LedgerSubject(poolRecord.ID), good)
	if n := p.Together()["id-e1"].Active; n != 5 {
		t.Errorf("%d under way", n)
	}
	if n := p.report(g.fleet.View(), "r", time.Now(), time.Now()).Engines["id-e1"].Inflight; n != 0 {
		t.Errorf("%d of a peer's requests are reported as ours: they would count twice", n)
	}
}
