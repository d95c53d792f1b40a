package prefix

// maxRun bounds the blocks of one run, so that whoever cuts messages by size finds places to cut.
const maxRun = 1024

// An entry is what happens to one block, before it is joined to a run.
type entry struct {
	copy, gpu, any Change
	place          place
	named, hasKey  bool
	hash, key      uint64
	parent         uint64
	hasParent      bool
	size           int
	split          bool
	shown          []uint64
	deepFirst      bool // shown is to be appended from its end
}

// An output collects entries as runs.
type output struct {
	runs  []Run
	words *[]uint64 // what the next slices of runs are cut from; nil to allocate each
	want  int       // words that a new slice is likely to hold
	mute  bool      // Restore wants no runs
}

const (
	chunk   = 512 // words allocated at once: whoever keeps one short run of many keeps 4 KiB alive
	minimum = 4   // words of a slice
)

// push appends a word to a slice of a run. Slices of runs that were made one after another share chunks.
func (o *output) push(s []uint64, word uint64) []uint64 {
	if len(s) < cap(s) || o.words == nil {
		return append(s, word)
	}
	return append(append(o.cut(max(minimum, 2*len(s), min(o.want, maxRun))), s...), word)
}

// cut returns an empty slice with room for n words.
func (o *output) cut(n int) []uint64 {
	if n > chunk/4 {
		return make([]uint64, 0, n)
	}
	if len(*o.words) < n {
		*o.words = make([]uint64, chunk)
	}
	s := (*o.words)[:0:n]
	*o.words = (*o.words)[n:]
	return s
}

// emit joins an entry to the last run where it fits, else begins a new one.
func (o *output) emit(t *entry) {
	if o.mute {
		return
	}
	if n := len(o.runs); n == 0 || !fits(&o.runs[n-1], t) || !o.connect(t) {
		o.runs = append(o.runs, Run{Copy: t.copy, GPU: t.gpu, Any: t.any, Tier: t.place.tier, Group: int(t.place.group),
			Parent: t.parent, HasParent: t.hasParent, BlockSize: t.size, Split: t.split})
	}
	r := &o.runs[len(o.runs)-1]
	if t.named {
		r.Hashes = o.push(r.Hashes, t.hash)
	}
	if t.hasKey {
		r.Keys = o.push(r.Keys, t.key)
	}
	if r.Parents != nil {
		r.Parents = o.push(r.Parents, t.parent)
	}
	for i := range t.shown {
		if t.deepFirst {
			i = len(t.shown) - 1 - i
		}
		r.Shown = o.push(r.Shown, t.shown[i])
	}
}

// fits reports whether a run is of an entry's kind, and has room.
func fits(r *Run, t *entry) bool {
	return !r.Clear && r.Copy == t.copy && r.GPU == t.gpu && r.Any == t.any && r.Tier == t.place.tier &&
		r.Group == int(t.place.group) && r.BlockSize == t.size && r.Split == t.split &&
		(len(r.Hashes) > 0) == t.named && (len(r.Keys) > 0) == t.hasKey &&
		max(len(r.Hashes), len(r.Keys), len(r.Shown)) < maxRun
}

// connect reports whether the last run can tell an entry's parent. A block that follows the last one costs 16 bytes in
// the log, one with a parent of its own 24, and a run about 20: so a run of one block takes in what follows another
// block, but two blocks that follow one another are a run of their own.
func (o *output) connect(t *entry) bool {
	r := &o.runs[len(o.runs)-1]
	if t.copy == Removed || !t.named {
		return true
	}
	if !t.hasParent {
		return !t.hasKey && !r.HasParent
	}
	follows := t.parent == r.Hashes[len(r.Hashes)-1]
	switch {
	case !t.hasKey:
		return follows && r.HasParent
	case r.Parents == nil && follows:
		return true
	case r.Parents == nil && r.HasParent && len(r.Hashes) == 1:
		r.Parents = o.push(nil, r.Parent)
		r.Parent, r.HasParent = 0, false
		return true
	case r.Parents == nil || follows && r.Split: // nobody knows which of Shown are the last block's
		return false
	case follows:
		o.part()
	}
	return true
}

// part takes the last block from the last run, whose blocks have Parents, and begins another run with it.
func (o *output) part() {
	r := &o.runs[len(o.runs)-1]
	last, next := len(r.Hashes)-1, *r
	next.Parent, next.HasParent, next.Parents = r.Parents[last], true, nil
	next.Hashes, next.Keys = o.push(nil, r.Hashes[last]), o.push(nil, r.Keys[last])
	r.Hashes, r.Keys, r.Parents = r.Hashes[:last], r.Keys[:last], r.Parents[:last]
	if last == 1 {
		r.Parent, r.HasParent, r.Parents = r.Parents[0], true, nil
	}
	o.runs = append(o.runs, next)
}
