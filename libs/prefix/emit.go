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
	runs []Run
	mute bool // Restore wants no runs
}

// emit joins an entry to the last run where it fits, else begins a new one.
func (o *output) emit(t *entry) {
	if o.mute {
		return
	}
	if n := len(o.runs); n == 0 || !fits(&o.runs[n-1], t) {
		o.runs = append(o.runs, Run{Copy: t.copy, GPU: t.gpu, Any: t.any, Tier: t.place.tier, Group: int(t.place.group),
			Parent: t.parent, HasParent: t.hasParent, BlockSize: t.size, Split: t.split})
	}
	r := &o.runs[len(o.runs)-1]
	if t.named {
		r.Hashes = append(r.Hashes, t.hash)
	}
	if t.hasKey {
		r.Keys = append(r.Keys, t.key)
	}
	if !t.deepFirst {
		r.Shown = append(r.Shown, t.shown...)
		return
	}
	for i := len(t.shown) - 1; i >= 0; i-- {
		r.Shown = append(r.Shown, t.shown[i])
	}
}

func fits(r *Run, t *entry) bool {
	if r.Clear || r.Copy != t.copy || r.GPU != t.gpu || r.Any != t.any || r.Tier != t.place.tier ||
		r.Group != int(t.place.group) || r.BlockSize != t.size || r.Split != t.split ||
		(len(r.Hashes) > 0) != t.named || (len(r.Keys) > 0) != t.hasKey ||
		max(len(r.Hashes), len(r.Keys), len(r.Shown)) >= maxRun {
		return false
	}
	if t.copy == Removed || !t.named {
		return true
	}
	if t.hasParent {
		return (t.hasKey || r.HasParent) && t.parent == r.Hashes[len(r.Hashes)-1]
	}
	return !t.hasKey && !r.HasParent
}
