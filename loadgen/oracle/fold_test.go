package oracle

import (
	"testing"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

const shown = eventsv1.Change_CHANGE_ADDED

func shows(keys ...uint64) []*eventsv1.Run {
	return []*eventsv1.Run{{Copy: shown, Gpu: shown, Any: shown, Keys: keys}}
}

func digestOf(keys ...uint64) (count, digest uint64) {
	var sum prefix.Sum
	sum.Add(&prefix.Run{GPU: prefix.Added, Any: prefix.Added, Keys: keys})
	return uint64(sum.Count), sum.Digest
}

// A fold takes snapshots as a reader must, and tells when the log contradicts itself.
func TestFoldReadsSnapshotsAndDigests(t *testing.T) {
	f, seq := NewFold(), uint64(0)
	add := func(want int, parts ...*eventsv1.Part) {
		t.Helper()
		for _, p := range parts {
			if p.GetClaim() == nil {
				p.Engine = "e"
			}
		}
		seq++
		if got := f.Add(Logged{Seq: seq, Bucket: fleet.Bucket("e"), Message: &eventsv1.Message{Parts: parts}}); len(got) != want {
			t.Errorf("message %d: contradictions %v, want %d", seq, got, want)
		}
	}
	depth := func(want int) {
		t.Helper()
		if got := f.Index.Match([]uint64{1, 2, 3, 4}, nil); len(got) != 1 || got[0].GPU != want {
			t.Errorf("after message %d: %v, want depth %d", seq, got, want)
		}
	}
	digest := func(keys ...uint64) *eventsv1.Part {
		count, sum := digestOf(keys...)
		return &eventsv1.Part{Body: &eventsv1.Part_Digest{Digest: &eventsv1.Digest{Count: count, Digest: sum}}}
	}
	snapshot := func(part, parts uint32, sum []uint64, keys ...uint64) *eventsv1.Part {
		s := &eventsv1.Snapshot{Part: part, Parts: parts, Runs: shows(keys...)}
		s.Count, s.Digest = digestOf(sum...)
		return &eventsv1.Part{Body: &eventsv1.Part_Snapshot{Snapshot: s}}
	}
	add(0, &eventsv1.Part{Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{}}})
	add(0, &eventsv1.Part{Body: &eventsv1.Part_Delta{Delta: &eventsv1.Delta{Runs: shows(1, 2)}}})
	depth(2)
	add(0, digest(1, 2))
	add(1, digest(1))
	add(0, snapshot(1, 2, nil, 1))
	depth(2)
	add(0, snapshot(2, 2, []uint64{1, 2, 3}, 2, 3))
	depth(3)
	add(0, snapshot(1, 2, nil, 9), &eventsv1.Part{Body: &eventsv1.Part_Claim{Claim: &eventsv1.Claim{}}}, snapshot(2, 2, nil, 8))
	depth(3) // what a claim cut off counts for nothing
	add(1, snapshot(1, 1, []uint64{1}, 1, 2))
	depth(2)
}
