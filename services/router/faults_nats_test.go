package router

import (
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
)

// TestADrainingEngineFinishesAndGetsNothingNew drains an engine and calls it back through the real registry.
func TestADrainingEngineFinishesAndGetsNothingNew(t *testing.T) {
	g := newRig(t, Config{Policy: "round-robin"})
	conn, err := bus.Connect(t.Context(), natsFor(t).URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	watcher, err := fleet.Meet(t.Context(), conn, g.rt.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.EnsurePool(t.Context(), conn, poolRecord); err != nil {
		t.Fatal(err)
	}
	arrived, release := make(chan string), make(chan struct{})
	for _, name := range []string{"a", "b"} {
		g.addEngine(name, func(w http.ResponseWriter, r *http.Request) {
			arrived <- name
			select {
			case <-release:
				sse(event1, doneMark)(w, r)
			case <-r.Context().Done():
			}
		})
		if err := fleet.PutEngine(t.Context(), conn, g.fleet.View().Engines["id-"+name]); err != nil {
			t.Fatal(err)
		}
	}
	g.rt.fleet = watcher
	g.eventually("both known", func() bool {
		_, _, ok := watcher.View().PoolOf(model)
		return ok && len(watcher.View().Engines) == 2
	})
	var answers []<-chan string
	ask := func() string {
		answer := g.begin()
		answers = append(answers, answer)
		select {
		case at := <-arrived:
			return at
		case got := <-answer:
			t.Fatalf("not sent to an engine: %s", got)
			return ""
		}
	}
	for ask() != "a" {
	}
	if err := fleet.Drain(t.Context(), conn, poolRecord.ID, "id-a", fleet.DrainRecord{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	g.eventually("drained", func() bool { return watcher.View().Draining["id-a"] })
	for range 4 {
		if at := ask(); at != "b" {
			t.Errorf("a draining engine gets a request")
		}
	}
	if err := fleet.Undrain(t.Context(), conn, poolRecord.ID, "id-a"); err != nil {
		t.Fatal(err)
	}
	g.eventually("called back", func() bool { return !watcher.View().Draining["id-a"] })
	if one, two := ask(), ask(); one == two {
		t.Errorf("called back, and %s gets both", one)
	}
	close(release)
	for i, answer := range answers {
		got := <-answer
		if len(got) < 5 || got[6:] != event1+doneMark+" <nil>" {
			t.Errorf("request %d ended with %q", i, got)
		}
	}
	g.idle()
}

// TestARestartedRouterNeedsNoState starts a router beside one that has an engine full of requests: it hears of them from
// its peer, and keeps away from that engine.
func TestARestartedRouterNeedsNoState(t *testing.T) {
	server, slow := natsFor(t), &slowEngines{}
	old := newRig(t, Config{Policy: "least-tokens", Instance: "old"})
	old.addEngine("a", slow.serve("a"))
	old.join(server.URL())
	const before = 5
	var answers []<-chan string
	for range before {
		answers = append(answers, old.begin())
	}
	old.eventually("under way", func() bool { return slow.came() == before })
	old.addEngine("b", sse(event1, doneMark))
	fresh := newRig(t, Config{Policy: "least-tokens", Instance: "fresh"})
	fresh.fleet.set(func(v *fleet.View) { v.Engines = old.fleet.View().Engines })
	fresh.join(server.URL())
	fresh.eventually("heard", func() bool {
		return fresh.rt.pool(poolRecord.ID).Together()["id-a"].Active == before
	})
	for range 3 {
		if resp, _ := fresh.post("/v1/completions", streamBody); resp.Header.Get(engineHeader) != "b" {
			t.Error("a router that has just started does not see what its peer has under way")
		}
	}
	for range before {
		slow.pop()
	}
	for _, answer := range answers {
		if got := <-answer; got != fmt.Sprintf("200 a %s <nil>", event1+doneMark) {
			t.Errorf("ended with %q", got)
		}
	}
	fresh.idle()
	old.idle()
}
