package eventlog

import (
	"maps"
	"os"
	"testing"
	"time"
)

// The message of layout 1 was written when that was the newest: engine x from its reset on, with single blocks that
// grow, a removal, another tier and blocks that waited for their parent, and a snapshot of the same state as engine y.
func TestLayout1IsReadAsItWas(t *testing.T) {
	data, err := os.ReadFile("testdata/version1.binpb")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := Decode(data); err != nil || m.Version != 1 {
		t.Fatalf("layout %d: %v", m.GetVersion(), err)
	}
	f := &Fold{New: empty}
	if err := f.Message(1, time.Unix(1, 0), data); err != nil || f.Unequal != 0 || f.Refused != 0 {
		t.Fatalf("%v: %+v", err, f)
	}
	copies := map[uint64]int{1: 2, 2: 2, 3: 1, 4: 1, 5: 1, 11: 1, 12: 1, 13: 1, 21: 1, 22: 1, 100: 1, 101: 1, 102: 1, 103: 1}
	engines := f.Engines()
	for _, id := range []string{"x", "y"} {
		e := engines[id]
		if e == nil || e.Behind || e.Batch.GetSequence() != 7 || e.Generation != 1 {
			t.Fatalf("%s: %+v", id, e)
		}
		s := e.Cache.Stats()
		if s.Digest != 9561108666034494269 || s.VisibleGPU != 12 || s.VisibleAny != 14 || s.Malformed != 0 {
			t.Errorf("%s: %+v", id, s)
		}
		if got := copiesOf(e.Cache); !maps.Equal(got, copies) {
			t.Errorf("%s holds %v, not %v", id, got, copies)
		}
	}
}
