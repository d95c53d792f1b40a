package scalers

import "testing"

// Stable and panic windows, and that nothing falls in panic.
func TestKPA(t *testing.T) {
	k := &kpa{target: 10, window: kpaStable, spec: 4}
	see := func(second int, total float64, ready int) int {
		k.sampled.add(at(second), total, kpaStable)
		return k.next(ready, at(second))
	}
	for second := 0; second < 60; second += 5 {
		if n := see(second, 40, 4); n != 4 {
			t.Fatalf("40 at once, 10 a pod: %d", n)
		}
	}
	// 90 at once need 9 pods by the panic window: 2.25 times the 4 that are ready.
	if n := see(60, 90, 4); n != 5 {
		t.Fatalf("one sample of 90: 65 over 6 s are no panic, 44.2 over 60 s want 5: got %d", n)
	}
	if n := see(65, 90, 4); n != 9 {
		t.Fatalf("a burst of 90 makes %d pods, want 9", n)
	}
	for second := 70; second <= 125; second += 5 {
		if n := see(second, 0, 4); n != 9 {
			t.Fatalf("%d s: in panic it fell to %d", second, n)
		}
	}
	// Calm after one stable window; the mean of 60 s is zero then, and it at most halves.
	if n := see(130, 0, 9); n != 4 {
		t.Errorf("after the panic: %d, want half of 9", n)
	}
	if n := see(135, 0, 4); n != 2 {
		t.Errorf("then: %d, want half of 4", n)
	}
}
