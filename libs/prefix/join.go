package prefix

import (
	"strings"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// joinable reports whether the blocks of a stored event can be joined to requests at all. They cannot where a LoRA
// adapter has an id and no name, where a multimodal engine sends no extra keys, where tokens and hashes do not pair, where extra keys do not, and where block sizes
// do not divide.
func (e *Engine) joinable(ev *kvevent.Event) bool {
	if ev.HasLoRAID && ev.LoRAName == "" || e.o.Multimodal && !ev.HasExtra || ev.BlockSize <= 0 || ev.BlockSize > maxBlockSize ||
		len(ev.Tokens) != len(ev.Hashes)*ev.BlockSize || len(ev.Extra) != 0 && len(ev.Extra) != len(ev.Hashes) {
		return false
	}
	if ev.BlockSize == e.sized {
		return true
	}
	if err := blockkey.CheckSizes(e.o.BlockSize, ev.BlockSize); err != nil {
		e.refused = err.Error()
		return false
	}
	e.sized = ev.BlockSize
	return true
}

const (
	maxBlockSize = 1 << 20
	maxEnd       = 1 << 31 // tokens of a prompt
)

// extras are the extra keys of one block, sorted by what they are.
type extras struct {
	items   []blockkey.Item // that begin in the block
	digests [][]byte        // of prompt embeds
	salt    string          // only of a block that begins a prompt
}

// read sorts the extra keys of block i of an event. It returns false where the block cannot be joined to requests:
// bare identifiers of multimodal items (vLLM before 2026-03-20) say nothing of where the item is. At the start of a
// prompt the last bare text that is not the LoRA name is the cache salt.
func (x *extras) read(ev *kvevent.Event, i int) bool {
	x.items, x.digests, x.salt = x.items[:0], x.digests[:0], ""
	if len(ev.Extra) == 0 {
		return true
	}
	lora, bare := ev.LoRAName == "", 0
	for _, k := range ev.Extra[i] {
		switch {
		case k.Bytes != nil:
			x.digests = append(x.digests, k.Bytes)
		case k.IsInt:
			if ev.LoRAName == "" {
				return false
			}
		case k.HasOffset:
			if k.Offset >= int64(ev.BlockSize) {
				return false
			}
			if k.Offset >= 0 {
				x.items = append(x.items, blockkey.Item{ID: k.Text, Start: int(k.Offset)})
			}
		case !lora && k.Text == ev.LoRAName:
			lora = true
		default:
			x.salt = k.Text
			bare++
		}
	}
	return bare == 0 || bare == 1 && i == 0 && !ev.HasParent
}

// clone returns extras that no event's slices are part of, and about how many bytes they take.
func (x *extras) clone() (c extras, size int) {
	for _, it := range x.items {
		c.items = append(c.items, blockkey.Item{ID: strings.Clone(it.ID), Start: it.Start})
		size += len(it.ID) + 24
	}
	for _, d := range x.digests {
		c.digests = append(c.digests, append([]byte(nil), d...))
		size += len(d) + 24
	}
	return c, size
}

// setRoot makes the chain's state before the first piece that of a prompt with this LoRA name and cache salt.
func (e *Engine) setRoot(lora, salt string) {
	if e.rootKnown && e.rootLoRA == lora && e.rootSalt == salt {
		return
	}
	e.rootLoRA, e.rootSalt, e.rootKnown = strings.Clone(lora), strings.Clone(salt), true
	e.rootState = blockkey.Scope{Seed: e.o.Seed, Pool: e.o.Pool, BlockSize: e.o.BlockSize, LoRA: lora, Salt: salt}.Root()
}

// fitsAfter reports whether a prompt may go on from a block for so many tokens.
func (e *Engine) fitsAfter(at uint32, tokens int) bool {
	return int64(e.blocks[at].end)+int64(tokens) <= maxEnd
}

// nameByTokens gives a block its key by carrying the chain on from its parent, which has one.
func (e *Engine) nameByTokens(at, parent uint32, tokens []uint32, x *extras) {
	state := e.stateAfter(parent)
	for _, d := range x.digests {
		state = blockkey.MixBytes(state, d)
	}
	e.states = blockkey.Advance(e.states[:0], state, e.piece, tokens, x.items)
	e.nameByStates(at, parent, len(tokens), e.states)
}

// stateAfter is the chain's state at the end of a keyed block.
func (e *Engine) stateAfter(at uint32) uint64 {
	if at == root {
		return e.rootState
	}
	return e.blocks[at].key
}

// nameByStates gives a block its key from the chain's states at the ends of its pieces.
func (e *Engine) nameByStates(at, parent uint32, size int, states []uint64) {
	start := int(e.blocks[parent].end)
	e.keyList = e.keyList[:0]
	for i, s := range states {
		if (start+(i+1)*e.piece)%e.o.BlockSize == 0 {
			e.keyList = append(e.keyList, s)
		}
	}
	e.name(at, parent, states[len(states)-1], size, e.keyList)
}

// hashed are the states of a chain at the ends of the pieces of an event's blocks from..to, computed at once, as if
// nothing but tokens were hashed.
type hashed struct {
	from, to int
	pieces   int    // a block
	before   uint64 // state before the first
	states   []uint64
}

// hashAhead computes the chain for the next blocks and fetches the memory where their keys belong.
func (e *Engine) hashAhead(s *storing, i int) {
	h := &s.hashed
	n := min(len(s.ev.Hashes)-i, window)
	h.from, h.to, h.states = i, i+n, e.chain[:0]
	if s.opaque || s.lost || !s.join || !s.known || e.blocks[s.prev].flags&keyed == 0 {
		return
	}
	if s.prev == root {
		if !e.extras.read(s.ev, i) {
			return
		}
		e.setRoot(s.ev.LoRAName, e.extras.salt)
	}
	size := s.ev.BlockSize
	h.pieces, h.before = size/e.piece, e.stateAfter(s.prev)
	h.states = blockkey.Advance(h.states, h.before, e.piece, s.ev.Tokens[i*size:(i+n)*size], nil)
	e.chain = h.states
	for j := h.pieces - 1; j < len(h.states); j += h.pieces {
		e.fetch.seen += uint64(e.keys.guess(h.states[j]))
	}
}

// of returns the states of block i after a given one, nil where they were not computed.
func (h *hashed) of(i int, before uint64, x *extras) []uint64 {
	first := (i - h.from) * h.pieces
	if len(h.states) == 0 || len(x.items)+len(x.digests) > 0 {
		return nil
	}
	if first > 0 && before != h.states[first-1] || first == 0 && before != h.before {
		return nil
	}
	return h.states[first:][:h.pieces]
}

// name makes a block keyed: it hangs under its parent, and shows these index keys.
func (e *Engine) name(at, parent uint32, key uint64, size int, shown []uint64) {
	if old := e.blocks[at].parent; old != parent {
		e.unlink(at)
		e.link(at, parent)
		e.release(old)
	}
	e.waiting.cut(at)
	b := &e.blocks[at]
	b.key, b.end = key, e.blocks[parent].end+uint32(size)
	b.flags |= keyed
	if len(shown) == 1 && shown[0] == key && int(b.end)%e.o.BlockSize == 0 {
		b.flags |= plain
	} else {
		b.list = e.keepList(shown)
	}
	if n, _ := e.keys.find(e.blocks, key, -1); n != 0 { // further ones know of one another
		b.flags |= twin
		e.blocks[n].flags |= twin
	}
	e.keys.put(e.blocks, at)
}

// shows returns the index keys of a keyed block, valid until the next block is named.
func (e *Engine) shows(at uint32) []uint64 {
	b := &e.blocks[at]
	if b.flags&plain != 0 {
		e.own[0] = b.key
		return e.own[:]
	}
	return e.lists[b.list:][:e.boundaries(at):e.boundaries(at)]
}

// boundaries is how many index keys a keyed block has: canonical blocks that end in it.
func (e *Engine) boundaries(at uint32) uint32 {
	size := uint32(e.o.BlockSize)
	return e.blocks[at].end/size - e.start(at)/size
}

func (e *Engine) keepList(shown []uint64) uint32 {
	n := uint32(len(shown))
	if n == 0 {
		return 0
	}
	if free := e.freeLists[n]; len(free) > 0 {
		at := free[len(free)-1]
		e.freeLists[n] = free[:len(free)-1]
		copy(e.lists[at:], shown)
		return at
	}
	e.lists = append(e.lists, shown...)
	return uint32(len(e.lists)) - n
}

func (e *Engine) freeList(at uint32) {
	if n := e.boundaries(at); e.blocks[at].flags&plain == 0 && n > 0 {
		e.freeLists[n] = append(e.freeLists[n], e.blocks[at].list)
	}
}
