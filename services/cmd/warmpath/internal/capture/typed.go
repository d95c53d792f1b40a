package capture

import (
	"encoding/binary"
	"fmt"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// The array form of each event, as vllm/distributed/kv_events.py declares its fields.
var arrayFields = map[string][]string{
	"BlockStored": {"type", "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium",
		"lora_name", "extra_keys", "group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window"},
	"BlockRemoved":     {"type", "block_hashes", "medium", "group_idx"},
	"AllBlocksCleared": {"type"},
}

// checkBatch compares a batch with the plain values of its payload, field by field and both ways.
func checkBatch(b *kvevent.Batch, plain any) error {
	items, ok := plain.([]any)
	if !ok || len(items) < 2 {
		return fmt.Errorf("the batch is %s", brief(plain))
	}
	if d := differ("ts", items[0], b.TS); d != "" {
		return fmt.Errorf("batch %s", d)
	}
	if len(items) > 2 && items[2] != nil {
		if d := differ("rank", items[2], signed(int64(b.Rank))); d != "" || !b.HasRank {
			return fmt.Errorf("batch %s", d)
		}
	}
	events, ok := items[1].([]any)
	if !ok {
		return fmt.Errorf("the events are %s", brief(items[1]))
	}
	next := 0
	for i, e := range events {
		fields, tag := named(e)
		if arrayFields[tag] == nil {
			continue // an event of a version to come
		}
		if next == len(b.Events) {
			return fmt.Errorf("event %d is missing in the batch", i)
		}
		if d := differ(fmt.Sprintf("event %d", i), known(fields, tag), fieldsOf(&b.Events[next], tag)); d != "" {
			return fmt.Errorf("batch %s", d)
		}
		next++
	}
	if next != len(b.Events) {
		return fmt.Errorf("the batch has %d events too many", len(b.Events)-next)
	}
	return nil
}

// named gives the fields of an event in either form, and its tag.
func named(e any) (map[string]any, string) {
	switch e := e.(type) {
	case map[string]any:
		tag, _ := e["type"].(string)
		return e, tag
	case []any:
		if len(e) == 0 {
			return nil, ""
		}
		tag, _ := e[0].(string)
		fields := make(map[string]any)
		for i, name := range arrayFields[tag] {
			if i < len(e) {
				fields[name] = e[i]
			}
		}
		return fields, tag
	}
	return nil, ""
}

// known keeps what a batch can hold of an event: known fields that are not nil, hashes as 64 bits. Empty text is nil.
func known(fields map[string]any, tag string) map[string]any {
	names := arrayFields[tag]
	switch tag {
	case "BlockStored":
		names = append(names[:len(names):len(names)], "locality", "ownership", "session_id")
	case "BlockRemoved":
		names = append(names[:len(names):len(names)], "locality", "ownership")
	}
	out := make(map[string]any)
	for _, name := range names {
		v := fields[name]
		if v == nil || v == any("") {
			continue
		}
		switch name {
		case "block_hashes":
			list, _ := v.([]any)
			hashes := make([]any, len(list))
			for i := range list {
				hashes[i] = low64(list[i])
			}
			v = hashes
		case "parent_block_hash":
			v = low64(v)
		case "extra_keys":
			v = emptyIsNil(v)
		case "kv_cache_spec_sliding_window":
			if v == any(uint64(0)) {
				continue
			}
		}
		out[name] = v
	}
	return out
}

// emptyIsNil makes nil of the blocks whose extra keys are an empty array: a batch does not tell them apart.
func emptyIsNil(v any) any {
	blocks, ok := v.([]any)
	if !ok {
		return v
	}
	out := make([]any, len(blocks))
	for i, keys := range blocks {
		if list, ok := keys.([]any); !ok || len(list) > 0 {
			out[i] = keys
		}
	}
	return out
}

// low64 is an engine hash as 64 bits: the last 8 bytes, or the bits of an integer.
func low64(v any) any {
	switch v := v.(type) {
	case int64:
		return uint64(v)
	case []byte:
		var low [8]byte
		tail := v[max(0, len(v)-8):]
		copy(low[8-len(tail):], tail)
		return binary.BigEndian.Uint64(low[:])
	}
	return v
}

// fieldsOf is an event of a batch as plain values.
func fieldsOf(ev *kvevent.Event, tag string) map[string]any {
	out := map[string]any{"type": tag}
	text := func(name, value string) {
		if value != "" {
			out[name] = value
		}
	}
	if ev.Kind != kvevent.Cleared {
		out["block_hashes"] = list(ev.Hashes)
	}
	if ev.Kind == kvevent.Stored {
		out["token_ids"] = list(ev.Tokens)
		out["block_size"] = uint64(ev.BlockSize)
	}
	if ev.HasParent {
		out["parent_block_hash"] = ev.Parent
	}
	if ev.HasLoRAID {
		out["lora_id"] = signed(ev.LoRAID)
	}
	if ev.HasExtra {
		out["extra_keys"] = extraOf(ev.Extra)
	}
	if ev.HasGroup {
		out["group_idx"] = uint64(ev.Group)
	}
	if ev.SlidingWindow != 0 {
		out["kv_cache_spec_sliding_window"] = uint64(ev.SlidingWindow)
	}
	text("medium", ev.Medium)
	text("lora_name", ev.LoRAName)
	text("kv_cache_spec_kind", ev.SpecKind)
	text("locality", ev.Locality)
	text("ownership", ev.Ownership)
	text("session_id", ev.SessionID)
	return out
}

func extraOf(blocks [][]kvevent.ExtraKey) []any {
	out := make([]any, len(blocks))
	for i, keys := range blocks {
		out[i] = plainExtra(keys)
	}
	return out
}

// plainExtra is the extra keys of one block as plain values: nil where there are none.
func plainExtra(keys []kvevent.ExtraKey) any {
	if len(keys) == 0 {
		return nil
	}
	out := make([]any, len(keys))
	for i, k := range keys {
		switch {
		case k.IsInt:
			out[i] = signed(k.Int)
		case k.Bytes != nil:
			out[i] = k.Bytes
		case k.HasOffset:
			out[i] = []any{k.Text, signed(k.Offset)}
		default:
			out[i] = k.Text
		}
	}
	return out
}

func list[T uint32 | uint64](values []T) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = uint64(v)
	}
	return out
}

func signed(n int64) any {
	if n >= 0 {
		return uint64(n)
	}
	return n
}
