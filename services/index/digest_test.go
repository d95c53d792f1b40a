package index

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// A digest is compared by count and by sum, and one that differs keeps the state until the snapshot that is asked for.
func TestUnequalDigestIsCountedAndAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	asks := w.asked(3)
	o, e := w.owner("a", 3), engineIn(3, 0)
	o.claim()
	seq := o.write(resetOf(e), digestOf(e), show(e, 1, 2), digestOf(e, 2, 1))
	r.match(seq)
	if n := r.count("unequal_digests_total"); n != 0 {
		t.Errorf("%v digests differ, want none", n)
	}
	onlyCount := digestOf(e, 1, 2)
	onlyCount.GetDigest().Count++
	for i, wrong := range []*eventsv1.Part{digestOf(e, 1, 3), onlyCount} {
		seq = o.write(wrong)
		r.expect(seq, map[string]string{e: "2/2"}, 1, 2)
		if n := r.count("unequal_digests_total"); int(n) != i+1 {
			t.Errorf("%v digests differ, want %d", n, i+1)
		}
	}
	w.wait(asks)
	seq = o.write(snapshotOf(e, 1, 1, 1, 1, 2, 3))
	r.expect(seq, map[string]string{e: "3/3"}, 1, 2, 3)
	if n := r.count("asks_total"); n != 1 {
		t.Errorf("asked %v times, want once", n)
	}
}

// A routine snapshot says what is held already, and costs a replica nothing; nor is it a repair.
func TestSnapshotOfWhatIsHeldChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.startIndex(Config{})
	k := w.keeper(1, 3, 1, 40)
	for range 50 {
		k.each(1, k.store)
		k.each(1, k.snapshot)
	}
	r.match(k.last)
	if n := r.count("replaced_states_total") + r.count("unequal_digests_total"); n != 0 {
		t.Errorf("%v snapshots changed something", n)
	}
	if got := r.states(); !maps.Equal(got, k.want()) {
		t.Errorf("the state is %v, want %v", got, k.want())
	}
}

// A replica that goes wrong beside a sound one repairs itself: by its owner's next digest, its question, and the
// snapshot that answers it.
func TestReplicaRepairsItself(t *testing.T) {
	t.Parallel()
	const digests = 200 * time.Millisecond
	w := newWorld(t)
	k := w.keeper(2, 5, 3, 60)
	wrong, sound := w.startIndex(Config{}), w.startIndex(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var owners sync.WaitGroup
	owners.Go(func() { k.churn(ctx, 2*time.Millisecond, digests) })
	defer owners.Wait()
	defer cancel()

	begun := time.Now()
	wrong.change(func(s *store) {
		x := s.pool(testPool).x
		x.Apply(k.engines[0].id, &prefix.Run{GPU: prefix.Added, Any: prefix.Added, Keys: []uint64{1, 2, 3}})
		x.Apply(k.engines[1].id, &prefix.Run{GPU: prefix.Removed, Any: prefix.Removed, Keys: k.keys})
	})
	w.eventually("a snapshot repairs the replica", func() bool {
		return wrong.count("unequal_digests_total") > 0 && wrong.count("asks_total") > 0 && equalAtRest(k, wrong, sound)
	})
	if took := time.Since(begun); took > digests+5*time.Second {
		t.Errorf("repaired after %v, digests each %v", took, digests)
	}
	if n := sound.count("unequal_digests_total") + sound.count("asks_total"); n != 0 {
		t.Errorf("the sound replica found %v faults", n)
	}
}

// equalAtRest holds the owner while it compares both replicas with it.
func equalAtRest(k *keeper, replicas ...*replica) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	want := k.want()
	for _, r := range replicas {
		r.match(k.last)
		if !maps.Equal(r.states(), want) {
			return false
		}
	}
	return true
}
