package ledger

import (
	"testing"
	"time"
)

func TestHealthOpensHalfway(t *testing.T) {
	now := time.Unix(1000, 0)
	var h health
	for i := range failuresToEject {
		if !h.usable(now) {
			t.Fatalf("ejected after %d failures", i)
		}
		if h.bad(now) != (i == failuresToEject-1) {
			t.Fatalf("failure %d", i)
		}
	}
	if h.usable(now.Add(ejectFirst - 1)) {
		t.Error("usable while ejected")
	}
	now = now.Add(ejectFirst)
	if !h.usable(now) {
		t.Error("not probed")
	}
	h.chosen()
	if h.usable(now) {
		t.Error("probed twice at once")
	}
	if !h.bad(now) || h.usable(now.Add(2*ejectFirst-1)) || !h.usable(now.Add(2*ejectFirst)) {
		t.Error("the second ejection is not twice as long")
	}
	h.answers()
	if !h.usable(now) || h.failures == 0 {
		t.Error("not open again, or forgiven before the answer's end")
	}
	h.good()
	if !h.usable(now) || h != (health{}) {
		t.Error("not forgiven")
	}
}
