package openai

import (
	"encoding/json"
	"slices"
)

// Patch collects changes to a scanned body. Bytes outside the members that it names stay as they are.
// It belongs to one goroutine; the body must not change until Append.
type Patch struct {
	body    *Body
	changes map[int]change // by index into body.Members
	added   []byte         // members to add, each after a comma
}

type change struct {
	value []byte
	drop  bool
}

// NewPatch returns an empty patch of a scanned body.
func NewPatch(b *Body) *Patch { return &Patch{body: b} }

// Set gives every member of that name the value, which must be valid JSON, or adds one at the end.
// A name is set at most once, and not after Delete.
func (p *Patch) Set(name string, value []byte) {
	if p.mark(name, change{value: value}) {
		return
	}
	key, _ := json.Marshal(name) // a string: cannot fail
	p.added = slices.Grow(p.added, len(key)+len(value)+2)
	p.added = append(p.added, ',')
	p.added = append(p.added, key...)
	p.added = append(p.added, ':')
	p.added = append(p.added, value...)
}

// Delete removes every member of that name.
func (p *Patch) Delete(name string) { p.mark(name, change{drop: true}) }

func (p *Patch) mark(name string, c change) (found bool) {
	for i := range p.body.Members {
		if !p.body.named(&p.body.Members[i], name) {
			continue
		}
		if p.changes == nil {
			p.changes = make(map[int]change, 1)
		}
		p.changes[i] = c
		found = true
	}
	return found
}

// Append appends the patched body to dst. A deleted member goes with the comma and white space up to the next member,
// or, at the end, from the member before it.
func (p *Patch) Append(dst []byte) []byte {
	raw, members := p.body.Bytes, p.body.Members
	last := len(members) - 1 // last member that stays
	for last >= 0 && p.changes[last].drop {
		last--
	}
	at := 0 // everything before is in dst, or deleted
	for i := 0; i <= last; i++ {
		c, ok := p.changes[i]
		if !ok {
			continue
		}
		if c.drop {
			dst = append(dst, raw[at:members[i].KeyStart]...)
			at = members[i+1].KeyStart
			continue
		}
		dst = append(dst, raw[at:members[i].Start]...)
		dst = append(dst, c.value...)
		at = members[i].End
	}
	added := p.added
	if last < 0 {
		dst = append(dst, raw[at:p.body.open+1]...)
		at = p.body.open + 1
		if len(added) > 0 {
			added = added[1:]
		}
	} else if at < members[last].End {
		dst = append(dst, raw[at:members[last].End]...)
		at = members[last].End
	}
	dst = append(dst, added...)
	if len(members) > 0 && last < len(members)-1 {
		at = members[len(members)-1].End
	}
	return append(dst, raw[at:]...)
}
