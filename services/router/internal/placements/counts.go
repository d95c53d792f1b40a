package placements

import "math/bits"

// counts is a map of small counters: half the time of Go's, which looks each key up once more to write it. Open
// addressing, linear probing, backward-shift deletion; it grows by doubling and keeps its size. The zero value is empty.
type counts struct {
	slots []counter // a power of two; a counter of 0 is an empty slot
	used  int
}

type counter struct {
	key keyAt
	n   int32
}

// slot is where a key's counter is, or would be.
func (c *counts) slot(key keyAt) int {
	i := c.home(key)
	for c.slots[i].n != 0 && c.slots[i].key != key {
		i = (i + 1) & (len(c.slots) - 1)
	}
	return i
}

// home is where a key belongs: the upper bits of a product, as many as the slots' number has.
func (c *counts) home(key keyAt) int {
	high, _ := bits.Mul64(uint64(key)*0x9e3779b97f4a7c15, uint64(len(c.slots)))
	return int(high)
}

func (c *counts) get(key keyAt) int32 {
	if c.used == 0 {
		return 0
	}
	return c.slots[c.slot(key)].n
}

// inc counts one more.
func (c *counts) inc(key keyAt) {
	if c.used >= len(c.slots)*3/4 {
		old := c.slots
		c.slots = make([]counter, max(64, 2*len(old)))
		for _, one := range old {
			if one.n != 0 {
				c.slots[c.slot(one.key)] = one
			}
		}
	}
	at := &c.slots[c.slot(key)]
	if at.n == 0 {
		at.key = key
		c.used++
	}
	at.n++
}

// dec counts one less of what was counted.
func (c *counts) dec(key keyAt) {
	hole := c.slot(key)
	if c.slots[hole].n--; c.slots[hole].n > 0 {
		return
	}
	c.used--
	mask := len(c.slots) - 1
	for i := (hole + 1) & mask; c.slots[i].n != 0; i = (i + 1) & mask {
		if (i-c.home(c.slots[i].key))&mask >= (i-hole)&mask { // it belongs at the hole or before
			c.slots[hole] = c.slots[i]
			hole = i
		}
	}
	c.slots[hole] = counter{}
}
