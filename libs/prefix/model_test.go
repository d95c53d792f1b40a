package prefix

import (
	"fmt"
	"maps"
	"slices"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// A world is the universe of prompts of a test: a tree of pieces of tokens, so that prompts share prefixes.
type world struct {
	size, piece int // canonical block size, piece, in tokens
	nodes       []node
	keyParent   map[uint64]uint64 // index key -> the one before it in the chain; its own at the start
}

type node struct {
	parent int // -1 for the start of a prompt
	depth  int // pieces
	tokens []uint32
	scope  blockkey.Scope
	key    uint64   // of the chain at the node's end
	keys   []uint64 // of the prompt that ends here, as a scorer would make them
}

var testSeed = blockkey.Seed{1, 2, 3}

func scopeOf(size int, lora, salt string) blockkey.Scope {
	return blockkey.Scope{Seed: testSeed, Pool: "pool", BlockSize: size, LoRA: lora, Salt: salt}
}

// newWorld grows a tree of n pieces at most depth deep, in three scopes.
func newWorld(pick func(n int) int, size, n, depth int) *world {
	w := &world{size: size, piece: blockkey.PieceSize(size), keyParent: map[uint64]uint64{}}
	scopes := []blockkey.Scope{scopeOf(size, "", ""), scopeOf(size, "", "salt"), scopeOf(size, "lora", "")}
	for len(w.nodes) < n {
		parent := -1
		if len(w.nodes) > 8 && pick(20) != 0 {
			parent = len(w.nodes) - 1
			if pick(6) == 0 {
				parent = pick(len(w.nodes))
			}
			if w.nodes[parent].depth >= depth {
				parent = -1
			}
		}
		nd := node{parent: parent, depth: 1, scope: scopes[pick(3)]}
		if parent >= 0 {
			nd.depth, nd.scope = w.nodes[parent].depth+1, w.nodes[parent].scope
		}
		for range w.piece {
			nd.tokens = append(nd.tokens, uint32(pick(50000)))
		}
		w.nodes = append(w.nodes, nd)
		at := len(w.nodes) - 1
		keys := slices.Clip(blockkey.Keys(nil, nd.scope, w.tokens(w.path(at)), nil))
		w.nodes[at].keys = keys
		if nd.depth*w.piece%size == 0 {
			key := keys[len(keys)-1]
			w.nodes[at].key = key
			w.keyParent[key] = key
			if len(keys) > 1 {
				w.keyParent[key] = keys[len(keys)-2]
			}
		}
	}
	return w
}

func (w *world) path(at int) []int {
	var p []int
	for ; at >= 0; at = w.nodes[at].parent {
		p = append(p, at)
	}
	slices.Reverse(p)
	return p
}

func (w *world) tokens(path []int) (tokens []uint32) {
	for _, n := range path {
		tokens = append(tokens, w.nodes[n].tokens...)
	}
	return tokens
}

// A copyKey is what copies are counted by.
type copyKey struct {
	tier  Tier
	group int
	hash  uint64
}

// A modelEngine is what an engine holds, as plain maps worked out anew for every question.
type modelEngine struct {
	w       *world
	id      string
	size    int // tokens per block
	salt    uint64
	tiers   int // tiers that it announces
	groups  int // indexed groups
	sliding bool

	copies map[copyKey]int
	blocks map[uint64]*modelBlock
	seen   map[int]bool // groups

	a, b *Engine // b is fed with a's runs alone
	life uint64
	gone bool // not in the index
	lost bool // a gpu copy was removed in this life
	gpu  map[uint64]bool
	any  map[uint64]bool
}

type modelBlock struct {
	end       int // node at its end; -1 if only its hash is known
	parent    uint64
	hasParent bool
}

func (m *modelEngine) reset() {
	m.copies, m.blocks, m.seen = map[copyKey]int{}, map[uint64]*modelBlock{}, map[int]bool{}
	m.gpu, m.any = map[uint64]bool{}, map[uint64]bool{}
	m.lost = false
}

func (m *modelEngine) hash(end int) uint64 {
	if end == 0 {
		return 0 // a legal hash
	}
	return finish(uint64(end)*31 + m.salt)
}

// keyed reports whether a block's place in a prompt is known all the way up.
func (m *modelEngine) keyed(h uint64) bool {
	b := m.blocks[h]
	return b != nil && b.end >= 0 && (!b.hasParent || m.keyed(b.parent))
}

func (m *modelEngine) held(h uint64, anyTier bool) bool {
	for g := range m.seen {
		n := m.copies[copyKey{GPU, g, h}]
		if anyTier {
			n += m.copies[copyKey{CPU, g, h}] + m.copies[copyKey{Storage, g, h}]
		}
		if n == 0 {
			return false
		}
	}
	return len(m.seen) > 0
}

func (m *modelEngine) visible(h uint64, anyTier bool) bool {
	b := m.blocks[h]
	return m.keyed(h) && m.held(h, anyTier) && (!b.hasParent || m.visible(b.parent, anyTier))
}

// shown is the set of nodes whose index keys some visible block covers.
func (m *modelEngine) shown(anyTier bool) map[int]bool {
	shown := map[int]bool{}
	for h, b := range m.blocks {
		if b.end < 0 || !m.visible(h, anyTier) {
			continue
		}
		at := b.end
		for range m.size / m.w.piece {
			if m.w.nodes[at].depth*m.w.piece%m.w.size == 0 {
				shown[at] = true
			}
			at = m.w.nodes[at].parent
		}
	}
	return shown
}

// prune forgets blocks that have neither copies nor blocks below them.
func (m *modelEngine) prune() {
	for {
		needed := map[uint64]bool{}
		for k, n := range m.copies {
			if n > 0 {
				needed[k.hash] = true
			}
		}
		for _, b := range m.blocks {
			if b.hasParent {
				needed[b.parent] = true
			}
		}
		before := len(m.blocks)
		maps.DeleteFunc(m.blocks, func(h uint64, _ *modelBlock) bool { return !needed[h] })
		if len(m.blocks) == before {
			return
		}
	}
}

// ends are the nodes along the way to a node at which this engine's blocks end.
func (m *modelEngine) ends(at int) (ends []int) {
	for _, n := range m.w.path(at) {
		if m.w.nodes[n].depth*m.w.piece%m.size == 0 {
			ends = append(ends, n)
		}
	}
	return ends
}

// storeEvent makes the event that announces blocks from..to of the prompt that ends at a node.
func (m *modelEngine) storeEvent(ends []int, from, to int, tier Tier, group int) kvevent.Event {
	ev := kvevent.Event{Kind: kvevent.Stored, BlockSize: m.size, Medium: []string{"", "cpu", "STORAGE"}[tier]}
	if m.groups > 1 || m.sliding {
		ev.Group, ev.HasGroup, ev.SpecKind = group, true, "full_attention"
	}
	path := m.w.path(ends[to-1])
	scope := m.w.nodes[ends[0]].scope
	n := m.size / m.w.piece
	ev.Tokens = m.w.tokens(path[from*n : to*n])
	ev.LoRAName = scope.LoRA
	if ev.LoRAName != "" {
		ev.LoRAID, ev.HasLoRAID = 7, true
	}
	ev.HasExtra, ev.Extra = true, make([][]kvevent.ExtraKey, to-from)
	for i := from; i < to; i++ {
		ev.Hashes = append(ev.Hashes, m.hash(ends[i]))
		if scope.LoRA != "" {
			ev.Extra[i-from] = append(ev.Extra[i-from], kvevent.ExtraKey{Text: scope.LoRA})
		}
	}
	if from > 0 {
		ev.Parent, ev.HasParent = m.hash(ends[from-1]), true
	} else if scope.Salt != "" {
		ev.Extra[0] = append(ev.Extra[0], kvevent.ExtraKey{Text: scope.Salt})
	}
	return ev
}

// store is what storeEvent means.
func (m *modelEngine) store(ends []int, from, to int, tier Tier, group int) {
	m.seen[group] = true
	for i := from; i < to; i++ {
		h := m.hash(ends[i])
		m.copies[copyKey{tier, group, h}]++
		if m.keyed(h) {
			continue
		}
		b := &modelBlock{end: ends[i]}
		if i > 0 {
			b.parent, b.hasParent = m.hash(ends[i-1]), true
			if m.blocks[b.parent] == nil {
				m.blocks[b.parent] = &modelBlock{end: -1}
			}
		}
		m.blocks[h] = b
	}
}

// placeholder announces a hash without tokens.
func (m *modelEngine) placeholder(h uint64, tier Tier, group int) {
	m.seen[group] = true
	m.copies[copyKey{tier, group, h}]++
	if m.blocks[h] == nil {
		m.blocks[h] = &modelBlock{end: -1}
	}
}

func (m *modelEngine) remove(k copyKey) {
	m.lost = m.lost || k.tier == GPU
	if m.copies[k] > 1 {
		m.copies[k]--
	} else {
		delete(m.copies, k)
	}
	m.prune()
}

func (m *modelEngine) clear() {
	m.lost = true
	maps.DeleteFunc(m.copies, func(k copyKey, _ int) bool { return k.tier == GPU })
	m.prune()
}

func copiesOf(e *Engine) map[copyKey]int {
	got := map[copyKey]int{}
	e.Copies(func(t Tier, g int, h uint64, n int) bool {
		got[copyKey{t, g, h}] += n
		return true
	})
	return got
}

// follow applies a run to the sets that a reader would hold, key by key, and tells of the first one that breaks the
// closure: shown before its parent, or hidden before what is below it.
func (m *modelEngine) follow(r *Run) error {
	if r.Clear {
		clear(m.gpu)
		clear(m.any)
		return nil
	}
	keys := r.Keys
	if r.Split {
		keys = r.Shown
	}
	for _, key := range keys {
		if err := m.followKey(m.gpu, key, r.GPU); err != nil {
			return fmt.Errorf("gpu set: %w", err)
		}
		if err := m.followKey(m.any, key, r.Any); err != nil {
			return fmt.Errorf("any set: %w", err)
		}
	}
	return nil
}

func (m *modelEngine) followKey(set map[uint64]bool, key uint64, c Change) error {
	if c == Unchanged {
		return nil
	}
	parent, known := m.w.keyParent[key]
	if !known {
		return fmt.Errorf("key %x is of no prompt", key)
	}
	if set[key] == (c == Added) {
		return fmt.Errorf("key %x: change %d, shown already is %t", key, c, set[key])
	}
	if c == Removed {
		delete(set, key)
		for other := range set {
			if m.w.keyParent[other] == key && other != key {
				return fmt.Errorf("key %x hidden before %x below it", key, other)
			}
		}
		return nil
	}
	if set[key] = true; !set[parent] {
		return fmt.Errorf("key %x shown before its parent", key)
	}
	return nil
}
