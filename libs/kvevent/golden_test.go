package kvevent_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// goldenCase is one payload that genuine vLLM published and what another msgpack library makes of it.
type goldenCase struct {
	name    string // file:line case
	file    string
	id      string
	payload []byte
	decoded []any // nil where the line has none
}

type goldenLine struct {
	Case          string
	Frames        []string
	Decoded       []any
	ReplyMessages [][]string `json:"reply_messages"`
	LiveMessages  [][]string `json:"live_messages"`
}

// golden reads the payloads of every line of the files that match.
func golden(t testing.TB, pattern string) []goldenCase {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/" + pattern)
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 64<<20)
		for n := 1; lines.Scan(); n++ {
			var l goldenLine
			dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
			dec.UseNumber()
			if err := dec.Decode(&l); err != nil {
				t.Fatalf("%s:%d: %v", file, n, err)
			}
			add := func(frames []string, decoded []any) {
				payload, err := hex.DecodeString(frames[len(frames)-1])
				if err != nil {
					t.Fatalf("%s:%d: %v", file, n, err)
				}
				name := fmt.Sprintf("%s:%d %s", filepath.Base(file), n, l.Case)
				cases = append(cases, goldenCase{name, filepath.Base(file), l.Case, payload, decoded})
			}
			if len(l.Frames) == 3 {
				add(l.Frames, l.Decoded)
			}
			for _, m := range append(l.ReplyMessages, l.LiveMessages...) {
				if m[len(m)-1] != "" { // the end of a replay has an empty payload
					add(m, nil)
				}
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return cases
}

func TestDecodeGolden(t *testing.T) {
	compared, replayed := 0, 0
	var d kvevent.Decoder
	var b kvevent.Batch
	live := map[string]bool{}
	for _, c := range append(append(golden(t, "frames_*"), golden(t, "flow_*")...), golden(t, "offload_*")...) {
		if err := d.Decode(c.payload, &b); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := wantBatch(t, c.decoded)
		if diff := difference(want, &b); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		live[string(c.payload)] = true
		compared++
	}
	for _, c := range golden(t, "replay_*") {
		if err := d.Decode(c.payload, &b); err != nil || b.Bad != 0 || b.Ignored != 0 || len(b.Events) == 0 {
			t.Errorf("%s: %v, %+v", c.name, err, b)
		}
		replayed++
	}
	t.Logf("%d payloads compared with their decoded form, %d replayed payloads decoded", compared, replayed)
	if compared < 400 || replayed < 50 {
		t.Errorf("only %d and %d golden payloads found", compared, replayed)
	}
}

// The encoder makes the very bytes of vLLM where it can say the same: integer hashes and a rank.
func TestAppendGolden(t *testing.T) {
	skip := map[string]string{
		"stored_root_bytes_1block":   "hashes as bytes",
		"stored_chain_bytes_3blocks": "hashes as bytes",
		"stored_bytes16":             "hashes as bytes",
		"mixed_gpu_int_cpu_bytes":    "hashes as bytes",
		"removed_bytes_2":            "hashes as bytes",
	}
	for _, form := range []struct {
		pattern string
		enc     kvevent.Encoding
		least   int
	}{
		{"frames_main-2026-08-17.jsonl", kvevent.MapForm, 40},
		{"frames_main-2026-06-23.jsonl", kvevent.MapForm, 35},
		{"frames_DERIVED-*.jsonl", kvevent.MapForm, 40},
		{"frames_v0.23.0.jsonl", kvevent.ArrayForm, 35},
		{"flow_main-2026-08-17_*_int.jsonl", kvevent.MapForm, 50},
		{"flow_v0.23.0_*_int.jsonl", kvevent.ArrayForm, 20},
	} {
		equal := 0
		for _, c := range golden(t, form.pattern) {
			if skip[c.id] != "" {
				continue
			}
			b := decode(t, c.payload)
			if got := kvevent.Append(nil, b, form.enc); !bytes.Equal(got, c.payload) {
				t.Errorf("%s:\n got %x\nwant %x", c.name, got, c.payload)
			}
			equal++
		}
		if equal < form.least {
			t.Errorf("%s: only %d payloads", form.pattern, equal)
		}
		t.Logf("%s: %d payloads equal byte for byte", form.pattern, equal)
	}
}

// Whatever was decoded survives being written and read again.
func TestRoundTripGolden(t *testing.T) {
	cases := golden(t, "*.jsonl")
	if len(cases) < 500 {
		t.Fatalf("only %d payloads", len(cases))
	}
	for _, c := range cases {
		b := decode(t, c.payload)
		again := decode(t, kvevent.Append([]byte("head"), b, kvevent.MapForm)[4:])
		b.HasRank = true
		if diff := difference(b, again); diff != "" {
			t.Errorf("%s: map form: %s", c.name, diff)
		}
		again = decode(t, kvevent.Append(nil, b, kvevent.ArrayForm))
		for i := range b.Events {
			ev := &b.Events[i]
			ev.Locality, ev.Ownership, ev.SessionID = "", "", ""
		}
		if diff := difference(b, again); diff != "" {
			t.Errorf("%s: array form: %s", c.name, diff)
		}
	}
}

func decode(t testing.TB, payload []byte) *kvevent.Batch {
	t.Helper()
	var d kvevent.Decoder
	b := new(kvevent.Batch)
	if err := d.Decode(payload, b); err != nil {
		t.Fatalf("%x: %v", payload, err)
	}
	return b
}

// wantBatch reads the golden `decoded` on its own terms: it shares no code with the decoder.
func wantBatch(t *testing.T, decoded []any) *kvevent.Batch {
	t.Helper()
	b := &kvevent.Batch{TS: float(t, decoded[0])}
	for _, e := range decoded[1].([]any) {
		b.Events = append(b.Events, wantEvent(t, e))
	}
	if len(decoded) > 2 {
		b.Rank, b.HasRank = int(low64(t, decoded[2])), true
	}
	return b
}

var arrayFields = map[string][]string{
	"BlockStored": {"type", "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name",
		"extra_keys", "group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window"},
	"BlockRemoved":     {"type", "block_hashes", "medium", "group_idx"},
	"AllBlocksCleared": {"type"},
}

var kinds = map[string]kvevent.Kind{
	"BlockStored": kvevent.Stored, "BlockRemoved": kvevent.Removed, "AllBlocksCleared": kvevent.Cleared,
}

func wantEvent(t *testing.T, e any) kvevent.Event {
	t.Helper()
	fields, ok := e.(map[string]any)
	if !ok {
		items := e.([]any)
		names := arrayFields[items[0].(string)]
		fields = map[string]any{}
		for i, v := range items {
			fields[names[i]] = v
		}
	}
	ev := kvevent.Event{Kind: kinds[fields["type"].(string)]}
	for name, v := range fields {
		if v == nil || name == "type" {
			continue
		}
		switch name {
		case "block_hashes":
			for _, h := range v.([]any) {
				ev.Hashes = append(ev.Hashes, low64(t, h))
			}
		case "parent_block_hash":
			ev.Parent, ev.HasParent = low64(t, v), true
		case "token_ids":
			for _, x := range v.([]any) {
				ev.Tokens = append(ev.Tokens, uint32(low64(t, x)))
			}
		case "block_size":
			ev.BlockSize = int(low64(t, v))
		case "lora_id":
			ev.LoRAID, ev.HasLoRAID = int64(low64(t, v)), true
		case "medium":
			ev.Medium = v.(string)
		case "lora_name":
			ev.LoRAName = v.(string)
		case "extra_keys":
			ev.Extra, ev.HasExtra = wantExtra(t, v.([]any)), true
		case "group_idx":
			ev.Group, ev.HasGroup = int(low64(t, v)), true
		case "kv_cache_spec_kind":
			ev.SpecKind = v.(string)
		case "kv_cache_spec_sliding_window":
			ev.SlidingWindow = int(low64(t, v))
		case "locality":
			ev.Locality = v.(string)
		case "ownership":
			ev.Ownership = v.(string)
		case "session_id":
			ev.SessionID = v.(string)
		default:
			t.Fatalf("golden event has a field %q that this test does not know", name)
		}
	}
	return ev
}

func wantExtra(t *testing.T, blocks []any) [][]kvevent.ExtraKey {
	t.Helper()
	out := make([][]kvevent.ExtraKey, len(blocks))
	for i, keys := range blocks {
		if keys == nil {
			continue
		}
		for _, k := range keys.([]any) {
			var key kvevent.ExtraKey
			switch k := k.(type) {
			case string:
				key.Text = k
			case json.Number:
				key.Int, key.IsInt = int64(low64(t, k)), true
			case []any:
				key.Text, key.Offset, key.HasOffset = k[0].(string), int64(low64(t, k[1])), true
			case map[string]any:
				key.Bytes = unhex(t, k["$bytes"].(string))
			}
			out[i] = append(out[i], key)
		}
	}
	return out
}

// low64 is the value of a golden hash or number as 64 bits.
func low64(t *testing.T, v any) uint64 {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		raw := unhex(t, v["$bytes"].(string))
		return binary.BigEndian.Uint64(raw[len(raw)-8:])
	case json.Number:
		if strings.HasPrefix(v.String(), "-") {
			n, err := strconv.ParseInt(v.String(), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return uint64(n)
		}
		n, err := strconv.ParseUint(v.String(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatalf("golden number is a %T", v)
	return 0
}

func float(t *testing.T, v any) float64 {
	t.Helper()
	f, err := v.(json.Number).Float64()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// difference says in what two batches differ; nil and empty slices are the same.
func difference(want, got *kvevent.Batch) string {
	if math.Float64bits(want.TS) != math.Float64bits(got.TS) || want.Rank != got.Rank || want.HasRank != got.HasRank {
		return fmt.Sprintf("want ts %v rank %d %v, got %v %d %v", want.TS, want.Rank, want.HasRank, got.TS, got.Rank, got.HasRank)
	}
	if got.Bad != want.Bad || got.Ignored != want.Ignored {
		return fmt.Sprintf("%d bad, %d ignored: %v", got.Bad, got.Ignored, got.Errs)
	}
	if len(want.Events) != len(got.Events) {
		return fmt.Sprintf("want %d events, got %d", len(want.Events), len(got.Events))
	}
	for i := range want.Events {
		w, g := plain(want.Events[i]), plain(got.Events[i])
		if !reflect.DeepEqual(w, g) {
			return fmt.Sprintf("event %d:\nwant %+v\n got %+v", i, w, g)
		}
	}
	return ""
}

// plain makes empty slices nil.
func plain(ev kvevent.Event) kvevent.Event {
	if len(ev.Hashes) == 0 {
		ev.Hashes = nil
	}
	if len(ev.Tokens) == 0 {
		ev.Tokens = nil
	}
	extra := ev.Extra
	ev.Extra = nil
	for _, keys := range extra {
		ev.Extra = append(ev.Extra, append([]kvevent.ExtraKey(nil), keys...))
	}
	return ev
}
