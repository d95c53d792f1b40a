package plane

import (
	"context"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/loadgen/process"
)

// Restart is how long an index of one shard takes from the start of its process until it answers. Its log is one
// snapshot of each engine's state, just written, so that it lies in the server's and the system's memory.
type Restart struct {
	Blocks int     `json:"blocks"`
	Ready  float64 `json:"ready_s"`
	// Equal says that the index found each engine's digest to be the one that was computed from the truth.
	Equal  bool `json:"index_equals_truth"`
	engine int
	cpu    float64 // seconds that the index's process took until it was ready
}

// restartEngines is how many engines hold the blocks.
const restartEngines = 160

func restart(ctx context.Context, l *lab, o Options) (*Restart, error) {
	var w written
	p, err := l.spawn(ctx, "writer", writerConfig{NATS: l.url, Engines: min(restartEngines, o.Resident/256), Shards: 1,
		Blocks: o.Resident / min(restartEngines, o.Resident/256)}, &w)
	if err != nil {
		return nil, err
	}
	s := shard{lab: l, writer: p, engines: w.Engines}
	if err := s.digests(o.wrongDigests); err != nil {
		return nil, err
	}
	r := &Restart{Blocks: w.Entries, engine: w.Engines}
	began := time.Now()
	if s.index, s.address, err = l.index(ctx, 1, 0); err != nil {
		return nil, err
	}
	r.Ready = time.Since(began).Seconds()
	if r.cpu, err = s.index.CPU(); err != nil {
		return nil, err
	}
	if r.Equal, err = true, s.verify(ctx); err != nil {
		r.Equal = false
	}
	return r, err
}

// shard is an index whose log a writer writes.
type shard struct {
	*lab
	writer, index *process.Process
	address       string
	engines       int
	last          uint64 // sequence of the last digest
}

// digests has the writer publish the true digest of each engine, which an index compares with its own as it comes.
func (s *shard) digests(wrong bool) error {
	return s.writer.Ask("digests", engineCall{Wrong: wrong}, &s.last)
}

// reached waits until the index has applied a sequence.
func (s *shard) reached(ctx context.Context, last uint64) error {
	return until(ctx, patience, func() error {
		applied, err := counted(s.index, "warmpath_index_applied_sequence")
		if err == nil && applied < float64(last) {
			err = fmt.Errorf("the index has applied %.0f, the log ends with %d", applied, last)
		}
		return err
	})
}

// verify waits until the index has come to the digests, and says what is not as in the truth: digests, engines, or
// the depth of some chains of each engine and its number of blocks.
func (s *shard) verify(ctx context.Context) error {
	if err := s.reached(ctx, s.last); err != nil {
		return err
	}
	var sums map[string]float64
	if err := s.index.Ask("metrics", nil, &sums); err != nil {
		return err
	}
	for _, name := range []string{"unequal_digests_total", "refused_total", "holes_total", "skipped_parts_total", "dropped_snapshots_total"} {
		if n := sums["warmpath_index_"+name]; n != 0 { // a counter by reason is not there while it is 0
			return fmt.Errorf("%w: warmpath_index_%s is %.0f", errNotEqual, name, n)
		}
	}
	var v verdict
	if err := s.writer.Ask("verify", engineCall{Index: s.address, Chains: 3, Seconds: 10}, &v); err != nil {
		return err
	}
	if !v.Equal {
		return fmt.Errorf("%w: %s", errNotEqual, v.Why)
	}
	return nil
}

func (r *Restart) rows(t *table) {
	t.note("restart: blocks of an index shard, of engines", "%d, %d", r.Blocks, r.engine)
	t.most("  ready after", r.Ready, 10, "s")
	t.note("  processor time until then", "%.2f s", r.cpu)
	t.must("  index equals truth (digests)", r.Equal)
}
