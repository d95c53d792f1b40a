package apart

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/enginesim"
)

// prompt is a text of its own of a thousand tokens.
func prompt(i int) string {
	return fmt.Sprintf("request number %d:", i) + strings.Repeat(" and so on", 333)
}

func options(c enginesim.Connector, lease time.Duration) enginesim.Options {
	return enginesim.Options{Connector: c, Lease: lease}
}

// TestAnswersAreThoseOfOneEngine asks through both legs, with each API, streaming or not, and each connector: the answer
// is what one engine alone says, the decode engine computes no prompt, and nothing stays in use.
func TestAnswersAreThoseOfOneEngine(t *testing.T) {
	for _, c := range []struct {
		connector enginesim.Connector
		policy    string
	}{{enginesim.NIXL, "least-tokens"}, {enginesim.OldNIXL, "least-tokens"}, {enginesim.NIXL, "warm"}} {
		w := newWorld(t, c.policy, member{"p", fleet.Prefill, options(c.connector, whole)}, member{"d", fleet.Decode, options(c.connector, whole)})
		alone, err := enginesim.Start(t.Context(), enginesim.Options{Model: model, Blocks: blocks})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(alone.Close)
		asked := 0
		for i, path := range []string{"/v1/completions", "/v1/chat/completions"} {
			for _, rest := range []string{``, `,"stream":true,"stream_options":{"include_usage":true}`, `,"min_tokens":3`} {
				text := fmt.Sprintf(`"prompt":%q`, prompt(asked))
				if i == 1 {
					text = fmt.Sprintf(`"messages":[{"role":"user","content":%q}]`, prompt(asked))
				}
				body := fmt.Sprintf(`{"model":%q,%s,"max_tokens":7%s}`, model, text, rest)
				got, err := w.ask(t.Context(), w.address.Router, path, body)
				want, direct := w.ask(t.Context(), alone.URL(), path, body)
				if err != nil || direct != nil || got.text != want.text || got.text == "" || got.engine != "d" {
					t.Errorf("%d %s: %+v %v, want %+v %v", c.connector, path, got, err, want, direct)
				}
				if got.cached < 0 || got.cached >= 512 {
					t.Errorf("%s: %d cached tokens are not the prefill engine's", path, got.cached)
				}
				asked++
			}
		}
		w.free()
		if n := w.splits("remote"); c.policy != "warm" && n != asked {
			t.Errorf("%d of %d requests were split", n, asked)
		}
		if s := w.engines["d"].Stats(); c.policy != "warm" && s.Queries < 6000 {
			t.Errorf("the decode engine was asked %+v", s)
		}
		if n := w.engines["p"].Expired() + w.metric("warmpath_router_stranded_total", ""); n != 0 {
			t.Errorf("%d prompts were nobody's", n)
		}
	}
}

// TestPools holds to what docs/operations.md says of each pool.
func TestPools(t *testing.T) {
	for name, c := range map[string]struct {
		members []member
		outcome string // of every request; empty is none
		expires bool
	}{
		"only both":       {[]member{{"a", fleet.Both, options(0, 0)}, {"b", fleet.Both, options(0, 0)}}, "", false},
		"only decode":     {[]member{{"a", fleet.Decode, options(0, 0)}, {"b", fleet.Decode, options(0, 0)}}, "", false},
		"only prefill":    {[]member{{"a", fleet.Prefill, options(0, 0)}, {"b", fleet.Prefill, options(0, 0)}}, "", false},
		"both and decode": {[]member{{"a", fleet.Both, options(0, whole)}, {"d", fleet.Decode, options(0, whole)}}, "", false},
		"no connector":    {[]member{{"p", fleet.Prefill, options(enginesim.NoConnector, 0)}, {"d", fleet.Decode, options(0, 0)}}, "fallback", false},
		"an older prefill engine": {[]member{
			{"p", fleet.Prefill, options(enginesim.OldNIXL, 100*time.Millisecond)}, {"d", fleet.Decode, options(0, 0)},
		}, "remote", true},
		"one older of two": {[]member{
			{"p", fleet.Prefill, options(0, whole)}, {"q", fleet.Prefill, options(enginesim.NoConnector, 0)}, {"d", fleet.Decode, options(0, whole)},
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "round-robin", c.members...)
			for i := range 3 {
				body := fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":5}`, model, prompt(i))
				if got, err := w.ask(t.Context(), w.address.Router, "/v1/completions", body); err != nil || got.text == "" {
					t.Errorf("%+v %v", got, err)
				}
			}
			w.free()
			if n := w.splits(c.outcome); c.outcome != "" && n != 3 {
				t.Errorf("%d of 3 requests are %s", n, c.outcome)
			}
			expired := 0
			for _, e := range w.engines {
				expired += e.Expired()
			}
			if (expired > 0) != c.expires {
				t.Errorf("%d leases ran out", expired)
			}
		})
	}
}

// TestClientsThatLeaveAtRandomPinNothing lets clients leave at random moments of their requests. What a prefill engine
// computes is fetched, or a decode engine is made to fetch it in the client's place: no lease runs out.
func TestClientsThatLeaveAtRandomPinNothing(t *testing.T) {
	w := newWorld(t, "least-tokens",
		member{"p", fleet.Prefill, options(0, whole)}, member{"q", fleet.Prefill, options(enginesim.NIXL, whole)},
		member{"d", fleet.Decode, options(0, 0)}, member{"e", fleet.Decode, options(0, 0)})
	var clients sync.WaitGroup
	var left, stayed atomic.Int64
	for client := range 6 {
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(11, uint64(client)))
			for i := range 25 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(60_000))*time.Microsecond)
				if i%5 == 0 {
					cancel()
					ctx, cancel = context.WithCancel(t.Context())
				}
				body := fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":20,"stream":%v}`, model, prompt(1000*client+i), i%2 == 0)
				_, err := w.ask(ctx, w.address.Router, "/v1/completions", body)
				if left.Add(1); ctx.Err() == nil {
					left.Add(-1)
					stayed.Add(1)
					if err != nil {
						t.Errorf("a client that stayed: %v", err)
					}
				}
				cancel()
			}
		})
	}
	clients.Wait()
	w.free()
	expired := w.engines["p"].Expired() + w.engines["q"].Expired()
	stranded := w.metric("warmpath_router_stranded_total", "")
	t.Logf("%d stayed, %d left, %d of these before a decode engine was asked", stayed.Load(), left.Load(), w.splits("cancelled"))
	if expired+stranded > 0 {
		t.Errorf("%d leases ran out and %d prompts were stranded", expired, stranded)
	}
	if left.Load() < 20 || w.splits("cancelled") < 5 || stayed.Load() < 20 || w.splits("remote") < 20 {
		t.Errorf("%d left, %d stayed, %d were split: too few to tell", left.Load(), stayed.Load(), w.splits("remote"))
	}
}
