package placements

// Sharing counts the requests in flight by the heads of their prompts, at depths that are powers of two: enough to see
// that one prefix alone keeps several engines busy. The zero value is ready. Size: a few counters a request in flight.
type Sharing struct{ count map[uint64]int32 }

// Size is the number of counters; 0 with no request in flight.
func (s *Sharing) Size() int { return len(s.count) }

// Enter counts a request with these chained keys. The result is what Leave takes at its end.
func (s *Sharing) Enter(keys []uint64) (heads []uint64) {
	for depth := 1; depth <= len(keys); depth *= 2 {
		heads = append(heads, keys[depth-1])
	}
	if s.count == nil {
		s.count = make(map[uint64]int32)
	}
	for _, head := range heads {
		s.count[head]++
	}
	return heads
}

// Leave undoes an Enter.
func (s *Sharing) Leave(heads []uint64) {
	for _, head := range heads {
		if s.count[head]--; s.count[head] == 0 {
			delete(s.count, head)
		}
	}
}

// Count is how many requests in flight share the first depth keys, depth rounded down to a power of two; 0 for none.
func (s *Sharing) Count(keys []uint64, depth int) int {
	at := 0
	for d := 1; d <= min(depth, len(keys)); d *= 2 {
		at = d
	}
	if at == 0 {
		return 0
	}
	return int(s.count[keys[at-1]])
}
