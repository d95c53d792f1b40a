package kvevent

import (
	"encoding/binary"
	"math"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Encoding is a form in which vLLM writes events.
type Encoding int

const (
	// MapForm is that of vLLM v0.24.0 and later: events are maps, optional fields are left out.
	MapForm Encoding = iota
	// ArrayForm is that of vLLM v0.23.0: events are arrays with every field of that version, nil where unset.
	// Locality, Ownership and SessionID do not exist there and are dropped.
	ArrayForm
)

// Append writes b as the payload of one message and returns the extended buffer. The rank is always written, as vLLM
// does; hashes are written as integers, the default of VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES. The bytes are those that
// msgspec makes of the same events in vLLM. Events of an unknown Kind are left out.
func Append(dst []byte, b *Batch, enc Encoding) []byte {
	dst = appendLen(dst, arrayCodes, 3)
	dst = append(dst, msgpcode.Double)
	dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(b.TS))
	n := 0
	for i := range b.Events {
		if k := b.Events[i].Kind; k >= Stored && k <= Cleared {
			n++
		}
	}
	dst = appendLen(dst, arrayCodes, n)
	for i := range b.Events {
		dst = appendEvent(dst, &b.Events[i], enc)
	}
	return appendInt(dst, int64(b.Rank))
}

func appendEvent(dst []byte, ev *Event, enc Encoding) []byte {
	w := eventWriter{dst: dst, named: enc == MapForm}
	head := len(dst)
	w.dst = append(w.dst, 0) // the number of fields, known at the end: never above 15
	switch ev.Kind {
	case Stored:
		w.tag("BlockStored")
		w.stored(ev)
	case Removed:
		w.tag("BlockRemoved")
		w.removed(ev)
	case Cleared:
		w.tag("AllBlocksCleared")
	default:
		return dst
	}
	w.dst[head] = msgpcode.FixedArrayLow | w.fields
	if w.named {
		w.dst[head] = msgpcode.FixedMapLow | w.fields
	}
	return w.dst
}

// eventWriter writes the fields of one event in vLLM's order.
type eventWriter struct {
	dst    []byte
	named  bool // map form
	fields byte
}

func (w *eventWriter) tag(name string) {
	if w.named {
		w.dst = appendString(w.dst, "type")
	}
	w.dst = appendString(w.dst, name)
	w.fields = 1
}

func (w *eventWriter) stored(ev *Event) {
	w.required(blockHashes)
	w.dst = appendHashes(w.dst, ev.Hashes)
	w.required(parentBlockHash)
	if ev.HasParent {
		w.dst = appendUint(w.dst, ev.Parent)
	} else {
		w.dst = append(w.dst, msgpcode.Nil)
	}
	w.required(tokenIDs)
	w.dst = appendLen(w.dst, arrayCodes, len(ev.Tokens))
	for _, t := range ev.Tokens {
		w.dst = appendUint(w.dst, uint64(t))
	}
	w.required(blockSize)
	w.dst = appendInt(w.dst, int64(ev.BlockSize))
	w.required(loraID)
	if ev.HasLoRAID {
		w.dst = appendInt(w.dst, ev.LoRAID)
	} else {
		w.dst = append(w.dst, msgpcode.Nil)
	}
	w.required(medium)
	w.dst = appendStringOrNil(w.dst, ev.Medium)
	w.required(loraName)
	w.dst = appendStringOrNil(w.dst, ev.LoRAName)
	if w.optional(extraKeys, ev.HasExtra) {
		w.dst = appendExtra(w.dst, ev.Extra)
	}
	w.optionalInt(groupIdx, ev.HasGroup, ev.Group)
	w.optionalString(kvCacheSpecKind, ev.SpecKind)
	w.optionalInt(kvCacheSpecSlidingWindow, ev.SlidingWindow != 0, ev.SlidingWindow)
	if w.named {
		w.optionalString(locality, ev.Locality)
		w.optionalString(ownership, ev.Ownership)
		w.optionalString(sessionID, ev.SessionID)
	}
}

func (w *eventWriter) removed(ev *Event) {
	w.required(blockHashes)
	w.dst = appendHashes(w.dst, ev.Hashes)
	w.required(medium)
	w.dst = appendStringOrNil(w.dst, ev.Medium)
	w.optionalInt(groupIdx, ev.HasGroup, ev.Group)
	if w.named {
		w.optionalString(locality, ev.Locality)
		w.optionalString(ownership, ev.Ownership)
	}
}

// required begins a field that is always written.
func (w *eventWriter) required(f field) {
	w.fields++
	if w.named {
		w.dst = appendString(w.dst, fieldNames[f])
	}
}

// optional begins a field that is written as nil (array form) or left out (map form) where it is not set.
func (w *eventWriter) optional(f field, set bool) bool {
	if set {
		w.required(f)
	} else if !w.named {
		w.required(f)
		w.dst = append(w.dst, msgpcode.Nil)
	}
	return set
}

func (w *eventWriter) optionalInt(f field, set bool, value int) {
	if w.optional(f, set) {
		w.dst = appendInt(w.dst, int64(value))
	}
}

func (w *eventWriter) optionalString(f field, value string) {
	if w.optional(f, value != "") {
		w.dst = appendString(w.dst, value)
	}
}

func appendHashes(dst []byte, hashes []uint64) []byte {
	dst = appendLen(dst, arrayCodes, len(hashes))
	for _, h := range hashes {
		dst = appendUint(dst, h)
	}
	return dst
}

func appendExtra(dst []byte, blocks [][]ExtraKey) []byte {
	dst = appendLen(dst, arrayCodes, len(blocks))
	for _, keys := range blocks {
		if len(keys) == 0 {
			dst = append(dst, msgpcode.Nil)
			continue
		}
		dst = appendLen(dst, arrayCodes, len(keys))
		for i := range keys {
			dst = appendExtraKey(dst, &keys[i])
		}
	}
	return dst
}

func appendExtraKey(dst []byte, k *ExtraKey) []byte {
	switch {
	case k.IsInt:
		return appendInt(dst, k.Int)
	case k.Bytes != nil:
		return append(appendLen(dst, binCodes, len(k.Bytes)), k.Bytes...)
	case k.HasOffset:
		return appendInt(appendString(appendLen(dst, arrayCodes, 2), k.Text), k.Offset)
	}
	return appendString(dst, k.Text)
}
