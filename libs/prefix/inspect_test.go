package prefix

import "fmt"

// keyOf is the key of a row, the other way round from spread.
func keyOf(seg int, word uint64) uint64 {
	h := uint64(seg)<<54 | word>>10
	h ^= h>>29 ^ h>>58
	h *= 0xf1de83e19937733d // inverse of scatter's factor
	return h ^ h>>32
}

// holdings tells row by row which keys each engine holds in any tier, and what is wrong inside the tables. Only beside
// no writer.
func (x *Index) holdings() (map[string]map[uint64]bool, error) {
	holds, rows := map[string]map[uint64]bool{}, 0
	for i := range x.segments {
		s := &x.segments[i]
		if x.tables[i].Load() != s.table {
			return nil, fmt.Errorf("segment %d: readers have another table", i)
		}
		used, passed := 0, 0
		for at, r := range s.rows {
			if r.key&occupied == 0 {
				passed += int(r.key & 2 / 2)
				continue
			}
			used++
			key := keyOf(i, r.key)
			if seg, word := spread(key); seg != i || word != r.key || s.find(word) != at {
				return nil, fmt.Errorf("segment %d: key %x is not found where it is, slot %d", i, key, at)
			}
			if err := x.hold(holds, s, key, r.set); err != nil {
				return nil, err
			}
		}
		if used != s.used || passed != s.passed {
			return nil, fmt.Errorf("segment %d: %d rows and %d tombstones, counted %d and %d", i, used, passed, s.used, s.passed)
		}
		rows += used
	}
	if rows != x.rows || rows != x.Rows() {
		return nil, fmt.Errorf("%d rows, counted %d", rows, x.rows)
	}
	return holds, nil
}

func (x *Index) hold(holds map[string]map[uint64]bool, s *segment, key, set uint64) error {
	for _, m := range x.order {
		for _, h := range []holder{m.gpu, m.beside} {
			w := writing{s: s, set: set}
			if h == noHolder || !w.has(h) {
				continue
			}
			if holds[m.id] == nil {
				holds[m.id] = map[uint64]bool{}
			}
			if holds[m.id][key] {
				return fmt.Errorf("%s: key %x in both sets", m.id, key)
			}
			holds[m.id][key] = true
		}
	}
	return nil
}
