package ingest

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// written collects what is logged.
type written struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *written) count(s string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.text.String(), s)
}

func TestSilence(t *testing.T) {
	type look struct {
		at       int // seconds
		heard    uint64
		computed float64
		proven   bool
		silent   bool
	}
	for name, looks := range map[string][]look{
		"never heard":                        {{at: 0}, {at: 5, computed: 33}, {at: 10, computed: 33, silent: true}, {at: 15, computed: 33, silent: true}, {at: 20, heard: 1, computed: 33}},
		"two blocks are too few":             {{at: 0}, {at: 10, computed: 32}, {at: 100, computed: 32}},
		"computed before we came":            {{at: 0, computed: 1e6}, {at: 10, computed: 1e6}},
		"counted just after its events":      {{at: 0, heard: 3, computed: 0}, {at: 5, heard: 3, computed: 999}, {at: 10, heard: 3, computed: 999}, {at: 60, heard: 3, computed: 999}},
		"falls silent":                       {{at: 0, heard: 3}, {at: 5, heard: 3, computed: 999}, {at: 10, heard: 3, computed: 1999, silent: true}},
		"events go on":                       {{at: 0, heard: 3}, {at: 10, heard: 4, computed: 999}, {at: 20, heard: 5, computed: 1999}, {at: 30, heard: 6, computed: 2999}},
		"counters begin anew":                {{at: 0, computed: 500}, {at: 5, computed: 20}, {at: 10, computed: 40}, {at: 15, computed: 60, silent: true}},
		"proven to have nothing to say":      {{at: 0}, {at: 10, computed: 999, proven: true}, {at: 15, computed: 1999, proven: true}},
		"silent since it was proven not so":  {{at: 0, computed: 5, proven: true}, {at: 5, computed: 99}, {at: 10, computed: 99, silent: true}},
		"silent, then events, then too late": {{at: 0}, {at: 10, computed: 99, silent: true}, {at: 15, heard: 1, computed: 200}, {at: 20, heard: 1, computed: 200}, {at: 90, heard: 1, computed: 200}},
	} {
		var s silence
		for _, l := range looks {
			s.look(time.Unix(int64(l.at), 0), l.heard, l.computed, l.proven, 10*time.Second, 32)
			if s.on != l.silent {
				t.Errorf("%s: after %d s silent is %v", name, l.at, s.on)
			}
		}
	}
}

// An engine that computes prompts without a word is silent until its events arrive, and warned of once.
func TestSilentEngine(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	log := &written{}
	p.logger = slog.New(slog.NewTextHandler(log, nil))
	deaf, mute, idle := newEngine(t, 16, kvwire.PublisherOptions{}), newEngine(t, 16, kvwire.PublisherOptions{}), newEngine(t, 16, kvwire.PublisherOptions{})
	// Nothing listens where the engine's events are expected: the usual mistake.
	gone, err := kvwire.Listen("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", kvwire.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	deaf.config.Events, deaf.config.Replay = gone.Endpoints()
	gone.Close()
	mute.config.Replay = "" // one that listens, and publishes nothing
	p.ingest("a", deaf, mute, idle)
	silent := func(r fleet.Engine) bool { return r.State == fleet.Silent && strings.Contains(r.Why, "no event") }
	p.record(idle, "known", func(r fleet.Engine) bool { return r.State == fleet.OK })
	for _, e := range []*engine{deaf, mute} {
		p.record(e, "known", func(r fleet.Engine) bool { return r.Generation > 0 })
	}
	eventually(t, "silence seen", func() bool {
		deaf.prompt(20, 4)
		mute.prompt(20, 4)
		idle.prompt(20, 20) // all of it was cached
		return p.count("engines", "state=silent") == 2
	})
	p.record(deaf, "silent", silent)
	p.record(mute, "silent", silent)
	p.record(idle, "ok", func(r fleet.Engine) bool { return r.State == fleet.OK })
	if n := log.count("publishes no events"); n != 2 {
		t.Errorf("%d warnings, want one for each engine", n)
	}
	port := deaf.config.Events[strings.LastIndexByte(deaf.config.Events, ':'):]
	if log.count("--kv-events-config") != 2 || log.count("tcp://*"+port) != 1 {
		t.Error("the warning does not name the flags with their ports")
	}

	pub, err := kvwire.Listen(deaf.config.Events, deaf.config.Replay, kvwire.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	deaf.pub = pub
	deaf.publish(deaf.stored(0, 1))
	p.holds(deaf, held(1))
	p.record(deaf, "ok again", func(r fleet.Engine) bool { return r.State == fleet.OK })
	mute.pub.Skip() // what it never sent is missed
	mute.publish(mute.stored(0, 1))
	p.holds(mute, held(1))
	p.record(mute, "partial", func(r fleet.Engine) bool { return r.State == fleet.Partial })
	eventually(t, "nobody silent", func() bool { return p.count("engines", "state=silent") == 0 })
}
