package placements

// pieceKeys is how many keys one piece of Recent stands for.
const pieceKeys = 16

// maxPieces bounds the pieces of one Recent, whatever size an engine says its cache has: 8 MiB.
const maxPieces = 1 << 17

// Recent remembers what one engine was sent last, as much as its cache holds. An engine's cache forgets what was used
// longest ago, and it serves in the order sent: so this is what will be cached there when all that was sent has run,
// however much of it still waits. What only the index knows is not in it.
//
// It counts whole pieces of 16 keys. The zero value holds nothing.
type Recent struct {
	most  int
	at    map[uint64]int32 // by a piece's last key
	nodes []recentNode     // a ring in order of use; node 0 is its head
}

type recentNode struct {
	key        uint64
	prev, next int32
}

// NewRecent is for a cache of so many blocks, one to a key.
func NewRecent(blocks int) *Recent {
	return &Recent{most: max(0, min(blocks/pieceKeys, maxPieces)), at: make(map[uint64]int32), nodes: make([]recentNode, 1)}
}

// Size is the number of pieces that are remembered.
func (r *Recent) Size() int { return len(r.at) }

// Sent remembers a prompt's chained keys. Its head is the last to be forgotten, as it is in the engine. Cost: one map
// look a piece, and one write where it was not known.
func (r *Recent) Sent(keys []uint64) {
	for i := len(keys)/pieceKeys*pieceKeys - 1; i >= 0 && r.most > 0; i -= pieceKeys {
		r.use(keys[i])
	}
}

// Depth is how many leading keys are remembered; those after the last whole piece count with it. Cost: logarithmic in
// the keys, as no piece is remembered without those before it.
func (r *Recent) Depth(keys []uint64) int {
	low, high := 0, len(keys)/pieceKeys
	for low < high {
		mid := (low + high) / 2
		if _, ok := r.at[keys[(mid+1)*pieceKeys-1]]; ok {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low > 0 && low == len(keys)/pieceKeys {
		return len(keys)
	}
	return low * pieceKeys
}

// use makes a key the latest one.
func (r *Recent) use(key uint64) {
	i, ok := r.at[key]
	switch {
	case ok:
		r.cut(i)
	case len(r.at) < r.most:
		i = int32(len(r.nodes))
		r.nodes = append(r.nodes, recentNode{})
	default:
		i = r.nodes[0].prev
		r.cut(i)
		delete(r.at, r.nodes[i].key)
	}
	first := r.nodes[0].next
	r.nodes[i] = recentNode{key: key, next: first}
	r.nodes[first].prev, r.nodes[0].next = i, i
	r.at[key] = i
}

func (r *Recent) cut(i int32) {
	n := r.nodes[i]
	r.nodes[n.prev].next, r.nodes[n.next].prev = n.next, n.prev
}
