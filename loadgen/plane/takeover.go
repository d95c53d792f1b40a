package plane

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// Takeover is what follows when the only ingest is killed and another one starts in its place.
type Takeover struct {
	Engines int `json:"engines"`
	// Seconds are from the kill until the new ingest owns all buckets and the index has all that the engines published,
	// also while nobody read them.
	Seconds float64 `json:"s"`
	Partial int     `json:"partial"` // engines whose cache the new ingest knows only in part
	blocks  int     // in all caches
	resets  int     // engines that the new ingest gave a new generation
}

// takeover kills ingest in the midst of churn, which goes on for a while. The new ingest starts at once, under another
// name: it waits until the old one's membership has expired.
func takeover(ctx context.Context, l *lab, o Options) (*Takeover, error) {
	p, err := l.newPlane(ctx, enginesConfig{Count: o.Engines, Blocks: o.FullBlocks, Running: o.Running, Seed: 2})
	if err != nil {
		return nil, err
	}
	engines, err := p.records(ctx, func(e fleet.Engine) bool { return e.State == fleet.OK })
	if err != nil {
		return nil, err
	}
	seconds := min(3, o.Seconds)
	if err := p.engines.Ask("begin", engineCall{Rate: o.Rate / 5, Seconds: seconds}, nil); err != nil {
		return nil, err
	}
	time.Sleep(time.Duration(seconds / 3 * float64(time.Second)))
	state, err := l.conn.StreamState(ctx, bus.Events)
	if err != nil {
		return nil, err
	}
	owners := p.owners(ctx, state.Last+1)
	defer owners.stop()
	p.ingest.Kill()
	killed := time.Now()
	if p.ingest, err = l.spawn(ctx, "ingest", ingestConfig{NATS: l.url, Instance: secondIngest, Engines: p.list}, nil); err != nil {
		return nil, err
	}
	var done played
	if err := p.engines.Ask("end", engineCall{}, &done); err != nil {
		return nil, err
	}
	if err := until(ctx, patience, func() error { return owners.all(secondIngest, engines) }); err != nil {
		return nil, err
	}
	if err := p.engines.Ask("settled", engineCall{Index: p.address, Seconds: patience.Seconds()}, nil); err != nil {
		return nil, err
	}
	r := &Takeover{Engines: o.Engines, Seconds: time.Since(killed).Seconds()}
	owners.mu.Lock()
	r.resets = len(owners.resets)
	owners.mu.Unlock()
	return r, p.taken(ctx, r)
}

const secondIngest = "ingest-b"

// taken asks the new ingest what it thinks of the engines, and compares the index with them.
func (p *plane) taken(ctx context.Context, r *Takeover) error {
	const states = "warmpath_ingest_engines"
	var partial float64
	if err := until(ctx, patience, func() (err error) {
		var sums map[string]float64
		if err = p.ingest.Ask("metrics", nil, &sums); err != nil {
			return err
		}
		partial = sums[states+"{partial}"]
		if known := partial + sums[states+"{ok}"]; int(known) != len(p.list) {
			err = fmt.Errorf("%s knows %.0f of %d engines", secondIngest, known, len(p.list))
		}
		return err
	}); err != nil {
		return err
	}
	r.Partial = int(partial)
	v, err := p.verify(fewChains)
	if err != nil {
		return err
	}
	if r.blocks = v.Blocks; !v.Equal {
		return fmt.Errorf("%w: %s", errNotEqual, v.Why)
	}
	return nil
}

// fewChains is how many of an engine's chains are asked for where all would take long; the number of its blocks is
// compared too.
const fewChains = 20

// owners follows who wrote last to each bucket, and which engines begin a new life.
type owners struct {
	stop context.CancelFunc

	mu     sync.Mutex
	by     map[int]string
	resets map[string]bool
}

func (p *plane) owners(ctx context.Context, from uint64) *owners {
	o := &owners{by: map[int]string{}, resets: map[string]bool{}}
	ctx, o.stop = context.WithCancel(ctx)
	go func() {
		_ = p.conn.Follow(ctx, bus.Events, nil, from, func(m bus.Message) {
			var message eventsv1.Message
			if _, n, ok := bus.ParseEventSubject(m.Subject); ok && proto.Unmarshal(m.Data, &message) == nil {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.by[n] = message.Owner
				for _, part := range message.Parts {
					if part.GetReset_() != nil {
						o.resets[part.Engine] = true
					}
				}
			}
		})
	}()
	return o
}

// all says which buckets of the engines somebody else than name owns.
func (o *owners) all(name string, engines []fleet.Engine) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	missing := map[int]bool{}
	for _, e := range engines {
		if n := fleet.Bucket(e.ID); o.by[n] != name {
			missing[n] = true
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s does not own buckets %v", name, slices.Sorted(maps.Keys(missing)))
	}
	return nil
}

func (r *Takeover) rows(t *table) {
	t.note("takeover: engines, blocks in their caches", "%d, %d", r.Engines, r.blocks)
	t.most("  ingest killed -> another owns all, index equals truth", r.Seconds, 10, "s")
	t.must("  no engine partial", r.Partial == 0)
	t.note("  engines given a new generation", "%d", r.resets)
}
