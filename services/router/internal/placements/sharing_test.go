package placements

import "testing"

func TestSharingCountsHeads(t *testing.T) {
	var s Sharing
	a, b := chainOf(100, 1), chainOf(100, 2)
	fork := append(append([]uint64(nil), a[:50]...), b[50:]...)
	first, second, third := s.Enter(a), s.Enter(fork), s.Enter(a[:3])
	for _, c := range []struct {
		keys        []uint64
		depth, want int
	}{
		{a, 100, 1}, {a, 64, 1}, {a, 63, 2}, {a, 32, 2}, {a, 3, 3}, {a, 1, 3}, {a, 0, 0}, {b, 50, 0}, {fork, 90, 1}, {nil, 9, 0}, {a[:2], 50, 3},
	} {
		if n := s.Count(c.keys, c.depth); n != c.want {
			t.Errorf("depth %d: %d, want %d", c.depth, n, c.want)
		}
	}
	s.Leave(second)
	if n := s.Count(a, 32); n != 1 {
		t.Errorf("%d after one left", n)
	}
	s.Leave(first)
	s.Leave(third)
	s.Leave(s.Enter(nil))
	if len(s.count) != 0 {
		t.Errorf("%d counters left", len(s.count))
	}
}
