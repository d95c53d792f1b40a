package kvevent

import (
	"fmt"
	"math/bits"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// field is a field of an event, by its name in vllm/distributed/kv_events.py.
type field uint8

const (
	unknownField field = iota
	blockHashes
	parentBlockHash
	tokenIDs
	blockSize
	loraID
	medium
	loraName
	extraKeys
	groupIdx
	kvCacheSpecKind
	kvCacheSpecSlidingWindow
	locality
	ownership
	sessionID
)

var fieldNames = [...]string{
	blockHashes: "block_hashes", parentBlockHash: "parent_block_hash", tokenIDs: "token_ids", blockSize: "block_size",
	loraID: "lora_id", medium: "medium", loraName: "lora_name", extraKeys: "extra_keys", groupIdx: "group_idx",
	kvCacheSpecKind: "kv_cache_spec_kind", kvCacheSpecSlidingWindow: "kv_cache_spec_sliding_window",
	locality: "locality", ownership: "ownership", sessionID: "session_id",
}

// The array forms: what stands behind the tag. Each version only ever appended.
var (
	storedArray = []field{blockHashes, parentBlockHash, tokenIDs, blockSize, loraID, medium, loraName, extraKeys, groupIdx,
		kvCacheSpecKind, kvCacheSpecSlidingWindow}
	removedArray = []field{blockHashes, medium, groupIdx}
)

// fieldOf names the field of a map-form event that the key means, for an event of this kind.
func fieldOf(k Kind, key []byte) field {
	switch string(key) {
	case "block_hashes":
		return onlyIf(k != Cleared, blockHashes)
	case "medium":
		return onlyIf(k != Cleared, medium)
	case "group_idx":
		return onlyIf(k != Cleared, groupIdx)
	case "locality":
		return onlyIf(k != Cleared, locality)
	case "ownership":
		return onlyIf(k != Cleared, ownership)
	case "parent_block_hash":
		return onlyIf(k == Stored, parentBlockHash)
	case "token_ids":
		return onlyIf(k == Stored, tokenIDs)
	case "block_size":
		return onlyIf(k == Stored, blockSize)
	case "lora_id":
		return onlyIf(k == Stored, loraID)
	case "lora_name":
		return onlyIf(k == Stored, loraName)
	case "extra_keys":
		return onlyIf(k == Stored, extraKeys)
	case "kv_cache_spec_kind":
		return onlyIf(k == Stored, kvCacheSpecKind)
	case "kv_cache_spec_sliding_window":
		return onlyIf(k == Stored, kvCacheSpecSlidingWindow)
	case "session_id":
		return onlyIf(k == Stored, sessionID)
	}
	return unknownField
}

func onlyIf(known bool, f field) field {
	if known {
		return f
	}
	return unknownField
}

// required are the fields without which an event means nothing, as bits.
func required(k Kind) uint32 {
	switch k {
	case Stored:
		return 1<<blockHashes | 1<<tokenIDs | 1<<blockSize
	case Removed:
		return 1 << blockHashes
	}
	return 0
}

// field reads the value of f into ev. Nil leaves it unset, but for the required fields.
func (d *Decoder) field(f field, ev *Event, b *Batch) (err error) {
	if required(ev.Kind)&(1<<f) == 0 && d.in.peek() == msgpcode.Nil {
		d.in.off++
		return nil
	}
	switch f {
	case blockHashes:
		ev.Hashes, err = d.hashes(b)
	case parentBlockHash:
		ev.Parent, err = d.in.hash()
		ev.HasParent = true
	case tokenIDs:
		ev.Tokens, err = d.tokens(b)
	case blockSize:
		ev.BlockSize, err = d.count()
	case loraID:
		ev.LoRAID, err = d.signed()
		ev.HasLoRAID = true
	case medium:
		ev.Medium, err = d.text()
	case loraName:
		ev.LoRAName, err = d.text()
	case extraKeys:
		ev.Extra, err = d.extra(b)
		ev.HasExtra = true
	case groupIdx:
		ev.Group, err = d.count()
		ev.HasGroup = true
	case kvCacheSpecKind:
		ev.SpecKind, err = d.text()
	case kvCacheSpecSlidingWindow:
		ev.SlidingWindow, err = d.count()
	case locality:
		ev.Locality, err = d.text()
	case ownership:
		ev.Ownership, err = d.text()
	case sessionID:
		ev.SessionID, err = d.text()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", fieldNames[f], err)
	}
	return nil
}

// event reads the next event and appends it to b, or nothing where its tag is unknown.
func (d *Decoder) event(b *Batch) error {
	code := d.in.peek()
	switch {
	case isArray(code):
		return d.arrayEvent(b)
	case isMap(code):
		return d.mapEvent(b)
	}
	return d.in.unexpected("an event")
}

func (d *Decoder) arrayEvent(b *Batch) error {
	start := d.in.off
	n, err := d.in.head()
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%w: event without a tag", ErrShape)
	}
	kind, err := d.tag()
	if err != nil {
		return err
	}
	if kind == 0 {
		d.in.off = start
		return d.ignore(b)
	}
	var fields []field
	switch kind {
	case Stored:
		fields = storedArray
	case Removed:
		fields = removedArray
	}
	ev, seen := b.add(kind), uint32(0)
	for i := range n - 1 {
		if i >= len(fields) {
			err = d.ignore(b)
		} else {
			err = d.field(fields[i], ev, b)
			seen |= 1 << fields[i]
		}
		if err != nil {
			return err
		}
	}
	return ev.check(seen)
}

func (d *Decoder) mapEvent(b *Batch) error {
	start := d.in.off
	n, err := d.in.head()
	if err != nil {
		return err
	}
	first := d.in.off
	kind, before, err := d.mapKind(n)
	if err != nil {
		return err
	}
	if kind == 0 {
		d.in.off = start
		return d.ignore(b)
	}
	if before == 0 {
		n-- // the type is read, and nothing else
	} else {
		d.in.off = first
	}
	ev, seen := b.add(kind), uint32(0)
	for range n {
		key, err := d.key()
		if err != nil {
			return err
		}
		if string(key) == "type" {
			err = d.in.skip()
		} else if f := fieldOf(kind, key); f != unknownField {
			err = d.field(f, ev, b)
			seen |= 1 << f
		} else {
			err = d.ignore(b)
		}
		if err != nil {
			return err
		}
	}
	return ev.check(seen)
}

// mapKind finds the tag among the n pairs of a map and says how many pairs stand before it: none in all that vLLM
// sends, but the order means nothing.
func (d *Decoder) mapKind(n int) (kind Kind, before int, err error) {
	for i := range n {
		key, err := d.key()
		if err != nil {
			return 0, 0, err
		}
		if string(key) == "type" {
			kind, err := d.tag()
			return kind, i, err
		}
		if err := d.in.skip(); err != nil {
			return 0, 0, err
		}
	}
	return 0, 0, fmt.Errorf("%w: event without a type", ErrShape)
}

// key reads the key of a pair; one that is no string is passed over and is no known field.
func (d *Decoder) key() ([]byte, error) {
	if !isString(d.in.peek()) {
		return nil, d.in.skip()
	}
	return d.content()
}

// tag reads the name of an event; 0 is a name that we do not know.
func (d *Decoder) tag() (Kind, error) {
	if !isString(d.in.peek()) {
		return 0, d.in.unexpected("the name of an event")
	}
	name, err := d.content()
	if err != nil {
		return 0, err
	}
	switch string(name) {
	case "BlockStored":
		return Stored, nil
	case "BlockRemoved":
		return Removed, nil
	case "AllBlocksCleared":
		return Cleared, nil
	}
	return 0, nil
}

// ignore passes over the next value and counts it.
func (d *Decoder) ignore(b *Batch) error {
	if err := d.in.skip(); err != nil {
		return err
	}
	b.Ignored++
	return nil
}

// check says why an event whose fields were all readable means nothing all the same.
func (ev *Event) check(seen uint32) error {
	if missing := required(ev.Kind) &^ seen; missing != 0 {
		return fmt.Errorf("%w: %s is missing", ErrShape, fieldNames[bits.TrailingZeros32(missing)])
	}
	if ev.HasExtra && len(ev.Extra) != len(ev.Hashes) {
		return fmt.Errorf("%w: extra keys of %d blocks for %d hashes", ErrShape, len(ev.Extra), len(ev.Hashes))
	}
	return nil
}
