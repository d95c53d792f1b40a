package kvevent_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// The reference reads a payload with the msgpack library into plain values and only then says what they mean. It is as
// slow as it is simple, and shares nothing with the decoder but the types of its results.

// extension is a value of a type that msgpack leaves to others.
type extension struct{}

// A reader is the library at work on a payload.
type reader struct {
	*msgpack.Decoder
	in *bytes.Reader // not buffered: what is left is what was not read
}

// generic reads one value: list, pairs, or what the library makes of a scalar.
func (d reader) generic() (any, error) {
	code, err := d.PeekCode()
	if err != nil {
		return nil, err
	}
	switch {
	case msgpcode.IsString(code), msgpcode.IsBin(code):
		n, err := d.DecodeBytesLen()
		if err != nil || n > d.in.Len() { // the library would allocate what is claimed
			return nil, io.ErrUnexpectedEOF
		}
		content := make([]byte, n)
		if err := d.ReadFull(content); err != nil || msgpcode.IsBin(code) {
			return content, err
		}
		return string(content), nil
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		n, err := d.DecodeArrayLen()
		if err != nil {
			return nil, err
		}
		return d.several(n)
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		n, err := d.DecodeMapLen()
		if err != nil {
			return nil, err
		}
		items, err := d.several(2 * n)
		return pairs(items), err
	case msgpcode.IsExt(code):
		_, n, err := d.DecodeExtHeader()
		if err != nil {
			return nil, err
		}
		_, err = io.CopyN(io.Discard, d.in, int64(n))
		return extension{}, err
	}
	return d.DecodeInterface()
}

func (d reader) several(n int) (list, error) {
	items := list{}
	for range n {
		v, err := d.generic()
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}

// reference is what a payload holds, or nil where it is no batch.
func reference(payload []byte) *kvevent.Batch {
	in := bytes.NewReader(payload)
	d := reader{msgpack.NewDecoder(in), in}
	code, _ := d.PeekCode()
	if !msgpcode.IsFixedArray(code) && code != msgpcode.Array16 && code != msgpcode.Array32 {
		return nil
	}
	items, err := d.DecodeArrayLen()
	if err != nil || items < 2 {
		return nil
	}
	ts, err := d.generic()
	if err != nil {
		return nil
	}
	b := &kvevent.Batch{}
	switch v := ts.(type) {
	case float32:
		b.TS = float64(v)
	case float64:
		b.TS = v
	default:
		bits, negative, ok := whole(ts)
		if b.TS = float64(bits); negative {
			b.TS = float64(int64(bits))
		}
		if !ok {
			return nil
		}
	}
	code, _ = d.PeekCode()
	if !msgpcode.IsFixedArray(code) && code != msgpcode.Array16 && code != msgpcode.Array32 {
		return nil
	}
	events, err := d.DecodeArrayLen()
	if err != nil {
		return nil
	}
	for range events {
		v, err := d.generic()
		if err != nil {
			b.Bad++ // once for all that is lost
			return b
		}
		referenceEvent(b, v)
	}
	for i := range items - 2 {
		v, err := d.generic()
		if err != nil {
			b.Bad++
			return b
		}
		rank, negative, ok := whole(v)
		switch {
		case i == 0 && v == nil:
		case i == 0 && ok && !negative && rank <= math.MaxInt32:
			b.Rank, b.HasRank = int(rank), true
		default:
			b.Ignored++
		}
	}
	if _, err := d.PeekCode(); err == nil {
		b.Ignored++
	}
	return b
}

// whole returns the bits of an integer of any width.
func whole(v any) (bits uint64, negative, ok bool) {
	switch v := v.(type) {
	case int8:
		return uint64(int64(v)), v < 0, true
	case int16:
		return uint64(int64(v)), v < 0, true
	case int32:
		return uint64(int64(v)), v < 0, true
	case int64:
		return uint64(v), v < 0, true
	case uint8:
		return uint64(v), false, true
	case uint16:
		return uint64(v), false, true
	case uint32:
		return uint64(v), false, true
	case uint64:
		return v, false, true
	}
	return 0, false, false
}

// referenceEvent adds an event, or counts it as bad or ignored.
func referenceEvent(b *kvevent.Batch, v any) {
	var fields pairs
	ignored := 0
	switch v := v.(type) {
	case list:
		names := []string(nil)
		if len(v) > 0 {
			tag, _ := v[0].(string)
			names = arrayFields[tag]
		}
		for i, item := range v {
			name := "type"
			switch {
			case i > 0 && i < len(names):
				name = names[i]
			case i > 0:
				name = ""
			}
			fields = append(fields, name, item)
		}
	case pairs:
		fields = v
	default:
		b.Bad++
		return
	}
	var tag any
	for i := len(fields) - 2; i >= 0; i -= 2 {
		if fields[i] == any("type") {
			tag = fields[i+1]
		}
	}
	name, ok := tag.(string)
	if !ok {
		b.Bad++
		return
	}
	ev := kvevent.Event{Kind: kinds[name]}
	if ev.Kind == 0 {
		b.Ignored++
		return
	}
	seen := map[string]bool{}
	for i := 0; i < len(fields); i += 2 {
		field, _ := fields[i].(string)
		if field == "type" {
			continue
		}
		if !fieldsOf[ev.Kind][field] {
			ignored++
			continue
		}
		seen[field] = true
		if !setField(&ev, field, fields[i+1]) {
			b.Bad++
			return
		}
	}
	for _, required := range map[kvevent.Kind][]string{kvevent.Stored: {"block_hashes", "token_ids", "block_size"},
		kvevent.Removed: {"block_hashes"}}[ev.Kind] {
		ok = ok && seen[required]
	}
	if !ok || ev.HasExtra && len(ev.Extra) != len(ev.Hashes) {
		b.Bad++
		return
	}
	b.Events = append(b.Events, ev)
	b.Ignored += ignored
}

// fieldsOf is which names mean something in the map form.
var fieldsOf = map[kvevent.Kind]map[string]bool{
	kvevent.Stored: {"block_hashes": true, "parent_block_hash": true, "token_ids": true, "block_size": true, "lora_id": true,
		"medium": true, "lora_name": true, "extra_keys": true, "group_idx": true, "kv_cache_spec_kind": true,
		"kv_cache_spec_sliding_window": true, "locality": true, "ownership": true, "session_id": true},
	kvevent.Removed: {"block_hashes": true, "medium": true, "group_idx": true, "locality": true, "ownership": true},
}

// setField reports whether a field has a value that vLLM could have meant.
func setField(ev *kvevent.Event, name string, v any) (ok bool) {
	if v == nil {
		return name != "block_hashes" && name != "token_ids" && name != "block_size"
	}
	items, isList := v.(list)
	switch name {
	case "block_hashes":
		ev.Hashes, ok = nil, isList
		for _, item := range items {
			h, good := hashOf(item)
			ev.Hashes, ok = append(ev.Hashes, h), ok && good
		}
	case "token_ids":
		ev.Tokens, ok = nil, isList
		for _, item := range items {
			n, good := natural(item, math.MaxUint32)
			ev.Tokens, ok = append(ev.Tokens, uint32(n)), ok && good
		}
	case "extra_keys":
		ev.Extra, ev.HasExtra, ok = make([][]kvevent.ExtraKey, len(items)), true, isList
		for i, block := range items {
			keys, good := block.(list)
			ok = ok && (good || block == nil)
			for _, k := range keys {
				key, good := extraOf(k)
				ev.Extra[i], ok = append(ev.Extra[i], key), ok && good
			}
		}
	case "parent_block_hash":
		ev.Parent, ok = hashOf(v)
		ev.HasParent = true
	case "lora_id":
		ev.LoRAID, ok = signed(v)
		ev.HasLoRAID = true
	case "group_idx":
		ev.Group, ok = natural(v, math.MaxInt32)
		ev.HasGroup = true
	case "block_size":
		ev.BlockSize, ok = natural(v, math.MaxInt32)
	case "kv_cache_spec_sliding_window":
		ev.SlidingWindow, ok = natural(v, math.MaxInt32)
	default:
		text, good := v.(string)
		ok = good && utf8.ValidString(text)
		*map[string]*string{"medium": &ev.Medium, "lora_name": &ev.LoRAName, "kv_cache_spec_kind": &ev.SpecKind,
			"locality": &ev.Locality, "ownership": &ev.Ownership, "session_id": &ev.SessionID}[name] = text
	}
	return ok
}

func hashOf(v any) (uint64, bool) {
	digest, ok := v.([]byte)
	if !ok {
		bits, _, ok := whole(v)
		return bits, ok
	}
	padded := append(make([]byte, 8), digest...)
	return binary.BigEndian.Uint64(padded[len(padded)-8:]), len(digest) > 0
}

func natural(v any, most uint64) (int, bool) {
	n, negative, ok := whole(v)
	return int(n), ok && !negative && n <= most
}

func signed(v any) (int64, bool) {
	n, negative, ok := whole(v)
	return int64(n), ok && (negative || n <= math.MaxInt64)
}

func extraOf(v any) (key kvevent.ExtraKey, ok bool) {
	switch v := v.(type) {
	case string:
		key.Text = v
		return key, utf8.ValidString(v)
	case []byte:
		key.Bytes = v
		return key, true
	case list:
		if len(v) != 2 {
			return key, false
		}
		text, isText := v[0].(string)
		key.Text, key.HasOffset = text, true
		key.Offset, ok = signed(v[1])
		return key, ok && isText && utf8.ValidString(text)
	}
	key.Int, ok = signed(v)
	key.IsInt = true
	return key, ok
}
