package kvevent_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// pairs is a map in the order given; raw is msgpack as it is.
type (
	pairs []any
	raw   string
)

// pack writes v with the msgpack library, so that the tests below share no code with the package.
func pack(t testing.TB, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf)
	e.UseCompactInts(true)
	packInto(t, e, &buf, v)
	return buf.Bytes()
}

func packInto(t testing.TB, e *msgpack.Encoder, buf *bytes.Buffer, v any) {
	t.Helper()
	var err error
	switch v := v.(type) {
	case raw:
		buf.WriteString(string(v))
	case []any:
		err = e.EncodeArrayLen(len(v))
		for _, x := range v {
			packInto(t, e, buf, x)
		}
	case pairs:
		err = e.EncodeMapLen(len(v) / 2)
		for _, x := range v {
			packInto(t, e, buf, x)
		}
	default:
		err = e.Encode(v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

type list = []any

var (
	stored  = list{"BlockStored", list{uint64(7)}, nil, list{1, 2}, 2, nil}
	removed = list{"BlockRemoved", list{uint64(9)}}
)

func TestDecodeForms(t *testing.T) {
	one := kvevent.Event{Kind: kvevent.Stored, Hashes: []uint64{7}, Tokens: []uint32{1, 2}, BlockSize: 2}
	with := func(change func(*kvevent.Event)) kvevent.Event {
		ev := one
		change(&ev)
		return ev
	}
	hash := func(v any) list { return list{"BlockStored", list{v}, nil, list{1, 2}, 2, nil} }
	hashIs := func(h uint64) kvevent.Event { return with(func(ev *kvevent.Event) { ev.Hashes = []uint64{h} }) }
	deep := raw(bytes.Repeat([]byte{0x91}, 100)) + "\xc0"
	for _, c := range []struct {
		name    string
		event   any
		want    kvevent.Event
		ignored int
	}{
		{"shortest array", stored[:5], one, 0},
		{"array of v0.9", stored, one, 0},
		{"array of a version to come", append(slices.Clone(stored), "GPU", "sql", list{nil}, 3, "mamba", 128, deep, pairs{"a", 1}),
			with(func(ev *kvevent.Event) {
				ev.Medium, ev.LoRAName, ev.HasExtra, ev.Extra = "GPU", "sql", true, [][]kvevent.ExtraKey{nil}
				ev.Group, ev.HasGroup, ev.SpecKind, ev.SlidingWindow = 3, true, "mamba", 128
			}), 2},
		{"removed with more", list{"BlockRemoved", list{7}, "CPU", 1, "more"},
			kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{7}, Medium: "CPU", Group: 1, HasGroup: true}, 1},
		{"cleared with more", list{"AllBlocksCleared", "GPU"}, kvevent.Event{Kind: kvevent.Cleared}, 1},
		{"map, type last", pairs{"block_size", 2, "token_ids", list{1, 2}, "block_hashes", list{7}, "type", "BlockStored"}, one, 0},
		{"map, unknown keys", pairs{"type", "BlockStored", "origin", deep, 5, "five", "block_hashes", list{7}, nil, nil,
			"token_ids", list{1, 2}, "block_size", 2}, one, 3},
		{"map of another kind's fields", pairs{"type", "BlockRemoved", "block_hashes", list{7}, "token_ids", "not even an array",
			"parent_block_hash", 1}, kvevent.Event{Kind: kvevent.Removed, Hashes: []uint64{7}}, 2},
		{"negative fixint hash", hash(-1), hashIs(math.MaxUint64), 0},
		{"int8 hash", hash(raw("\xd0\x80")), hashIs(1<<64 - 128), 0},
		{"int16 hash", hash(raw("\xd1\x80\x00")), hashIs(1<<64 - 32768), 0},
		{"int32 hash", hash(raw("\xd2\x80\x00\x00\x00")), hashIs(1<<64 - 1<<31), 0},
		{"int64 hash", hash(raw("\xd3\x80\x00\x00\x00\x00\x00\x00\x01")), hashIs(1<<63 + 1), 0},
		{"wide integer of a small value", hash(raw("\xcf\x00\x00\x00\x00\x00\x00\x00\x05")), hashIs(5), 0},
		{"zero is a hash", hash(0), hashIs(0), 0},
		{"short bytes", hash([]byte{1, 2, 3}), hashIs(0x010203), 0},
		{"8 bytes", hash([]byte("\x01\x02\x03\x04\x05\x06\x07\x08")), hashIs(0x0102030405060708), 0},
		{"long bytes", hash(append(make([]byte, 300), 9)), hashIs(9), 0},
		{"bytes parent", list{"BlockStored", list{7}, []byte{1, 0}, list{1, 2}, 2, nil},
			with(func(ev *kvevent.Event) { ev.Parent, ev.HasParent = 256, true }), 0},
		{"extra keys of every sort", append(slices.Clone(stored), nil, nil, list{list{"a", list{"b", -3}, []byte{4}, 5, []byte{}}}),
			with(func(ev *kvevent.Event) {
				ev.HasExtra = true
				ev.Extra = [][]kvevent.ExtraKey{{{Text: "a"}, {Text: "b", Offset: -3, HasOffset: true}, {Bytes: []byte{4}},
					{Int: 5, IsInt: true}, {Bytes: []byte{}}}}
			}), 0},
	} {
		b := decode(t, pack(t, list{1.5, list{c.event, removed}, 3}))
		want := &kvevent.Batch{TS: 1.5, Rank: 3, HasRank: true, Ignored: c.ignored, Events: []kvevent.Event{c.want,
			{Kind: kvevent.Removed, Hashes: []uint64{9}}}}
		if diff := difference(want, b); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// One bad event is counted, and its neighbours are not harmed.
func TestDecodeSkipsBadEvents(t *testing.T) {
	for name, event := range map[string]any{
		"no event":             7,
		"nil":                  nil,
		"empty array":          list{},
		"empty map":            pairs{},
		"number as a tag":      list{1, list{}},
		"number as a type":     pairs{"type", 1},
		"nothing but a tag":    list{"BlockStored"},
		"no block size":        stored[:4],
		"no hashes":            pairs{"type", "BlockRemoved"},
		"nil hashes":           list{"BlockRemoved", nil},
		"hashes are no array":  list{"BlockRemoved", pairs{1, 2}},
		"hash is a string":     list{"BlockRemoved", list{"x"}},
		"hash is no bytes":     list{"BlockRemoved", list{[]byte{}}},
		"hash is a float":      list{"BlockRemoved", list{1, 1.5}},
		"token too large":      list{"BlockStored", list{1}, nil, list{1 << 32}, 1},
		"token negative":       list{"BlockStored", list{1}, nil, list{-1}, 1},
		"token nil":            list{"BlockStored", list{1}, nil, list{nil}, 1},
		"tokens nil":           list{"BlockStored", list{1}, nil, nil, 1},
		"block size negative":  list{"BlockStored", list{1}, nil, list{}, -1},
		"block size huge":      list{"BlockStored", list{1}, nil, list{}, uint64(1) << 63},
		"medium is a number":   list{"BlockRemoved", list{1}, 5},
		"medium is no text":    list{"BlockRemoved", list{1}, raw("\xa2\xff\xfe")},
		"LoRA id is a string":  append(slices.Clone(stored[:5]), "seven"),
		"LoRA id is too large": append(slices.Clone(stored[:5]), uint64(1)<<63),
		"extra for two blocks": append(slices.Clone(stored), nil, nil, list{nil, nil}),
		"extra key is a map":   append(slices.Clone(stored), nil, nil, list{list{pairs{}}}),
		"extra key of three":   append(slices.Clone(stored), nil, nil, list{list{list{"a", 1, 2}}}),
		"extra key offset":     append(slices.Clone(stored), nil, nil, list{list{list{"a", "b"}}}),
		"surplus, then bad":    pairs{"more", 1, "type", "BlockRemoved", "block_hashes", 1},
	} {
		b := decode(t, pack(t, list{1.5, list{removed, event, stored}, 3, "more"}))
		want := &kvevent.Batch{TS: 1.5, Rank: 3, HasRank: true, Bad: 1, Ignored: 1, Events: []kvevent.Event{
			{Kind: kvevent.Removed, Hashes: []uint64{9}},
			{Kind: kvevent.Stored, Hashes: []uint64{7}, Tokens: []uint32{1, 2}, BlockSize: 2}}}
		if diff := difference(want, b); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if len(b.Errs) != 1 || !errors.Is(b.Errs[0], kvevent.ErrShape) {
			t.Errorf("%s: errors %v", name, b.Errs)
		}
	}
}

func TestDecodeIgnoresUnknownEvents(t *testing.T) {
	for name, event := range map[string]any{
		"array":     list{"BlockInactive", "anything", list{pairs{1, 2}}},
		"map":       pairs{"type", "BlockInactive", "block_hashes", "whatever"},
		"type last": pairs{"block_hashes", raw("\xc7\x03\x05abc"), "type", "BlockInactive"},
	} {
		b := decode(t, pack(t, list{1.5, list{event, removed}, 3}))
		if len(b.Events) != 1 || b.Events[0].Hashes[0] != 9 || b.Ignored != 1 || b.Bad != 0 {
			t.Errorf("%s: %+v", name, b)
		}
	}
}

func TestDecodeOuter(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name  string
		batch any
		want  *kvevent.Batch // nil: ErrBatch
	}{
		{"two items", list{-1.5, list{}}, &kvevent.Batch{TS: -1.5}},
		{"three", list{nan, list{}, 4}, &kvevent.Batch{TS: nan, Rank: 4, HasRank: true}},
		{"nil rank", list{1.5, list{}, nil}, &kvevent.Batch{TS: 1.5}},
		{"strange rank", list{1.5, list{}, "zero", 1, 2}, &kvevent.Batch{TS: 1.5, Ignored: 3}},
		{"float32 and whole times", list{float32(2), list{}}, &kvevent.Batch{TS: 2}},
		{"whole time", list{1700000000, list{}}, &kvevent.Batch{TS: 1.7e9}},
		{"large whole time", list{uint64(1) << 63, list{}}, &kvevent.Batch{TS: 1 << 63}},
		{"bytes behind it", raw("\x92\x00\x90rubbish"), &kvevent.Batch{Ignored: 1}},
		{"map", pairs{"ts", 1.5, "events", list{}}, nil},
		{"nothing", raw(""), nil},
		{"nil", nil, nil},
		{"no items", list{}, nil},
		{"one item", list{1.5}, nil},
		{"time is nil", list{nil, list{}}, nil},
		{"time is text", list{"now", list{}}, nil},
		{"events are nil", list{1.5, nil}, nil},
		{"events are a map", list{1.5, pairs{}}, nil},
		{"cut in the time", raw("\x92\xcb\x00"), nil},
		{"cut before the events", raw("\x92\x00"), nil},
		{"cut in the length", raw("\xdd\x00"), nil},
	} {
		var d kvevent.Decoder
		b := &kvevent.Batch{Events: []kvevent.Event{{Kind: kvevent.Cleared}}, Rank: 9, HasRank: true, Bad: 3}
		err := d.Decode(pack(t, c.batch), b)
		if c.want == nil {
			if !errors.Is(err, kvevent.ErrBatch) || len(b.Events) > 0 {
				t.Errorf("%s: error %v, batch %+v", c.name, err, b)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if diff := difference(c.want, b); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// Where a payload is cut, all whole events before the cut are there, and the loss is counted once.
func TestDecodeCutAnywhere(t *testing.T) {
	payload := pack(t, list{1.5, list{removed, stored, pairs{"type", "BlockRemoved", "block_hashes", list{5}}, list{"AllBlocksCleared"}}, 0})
	ends := []int{11} // where the first event begins, and where each ends
	for _, ev := range []any{removed, stored, pairs{"type", "BlockRemoved", "block_hashes", list{5}}, list{"AllBlocksCleared"}} {
		ends = append(ends, ends[len(ends)-1]+len(pack(t, ev)))
	}
	var d kvevent.Decoder
	var b kvevent.Batch
	for cut := ends[0]; cut < len(payload); cut++ {
		if err := d.Decode(payload[:cut], &b); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		whole := 0
		for whole+1 < len(ends) && ends[whole+1] <= cut {
			whole++
		}
		if len(b.Events) != whole || b.Bad != 1 || len(b.Errs) != 1 || !errors.Is(b.Errs[0], kvevent.ErrTruncated) {
			t.Errorf("cut at %d: %d events, want %d; %d bad, %v", cut, len(b.Events), whole, b.Bad, b.Errs)
		}
	}
}

// A claimed length of 2^32-1 costs nothing, wherever it stands.
func TestDecodeClaimedLengths(t *testing.T) {
	heads := map[string]raw{"array": "\xdd", "map": "\xdf", "str": "\xdb", "bin": "\xc6", "ext": "\xc9"}
	places := map[string]func(huge raw) any{
		"batch":     func(h raw) any { return h + "\x00\x90" },
		"time":      func(h raw) any { return list{h} },
		"events":    func(h raw) any { return list{1.5, h} },
		"rank":      func(h raw) any { return list{1.5, list{}, h} },
		"event":     func(h raw) any { return list{1.5, list{h, removed}} },
		"tag":       func(h raw) any { return list{1.5, list{list{h, list{1}}}} },
		"key":       func(h raw) any { return list{1.5, list{pairs{h, 1, "type", "BlockRemoved"}}} },
		"type":      func(h raw) any { return list{1.5, list{pairs{"type", h}}} },
		"unknown":   func(h raw) any { return list{1.5, list{list{"BlockInactive", h}}} },
		"hashes":    func(h raw) any { return list{1.5, list{list{"BlockRemoved", h + "\x01\x02"}}} },
		"hash":      func(h raw) any { return list{1.5, list{list{"BlockRemoved", list{h, 1}}}} },
		"parent":    func(h raw) any { return list{1.5, list{list{"BlockStored", list{1}, h}}} },
		"tokens":    func(h raw) any { return list{1.5, list{list{"BlockStored", list{1}, nil, h + "\x01"}}} },
		"medium":    func(h raw) any { return list{1.5, list{list{"BlockRemoved", list{1}, h + "GPU"}}} },
		"extra":     func(h raw) any { return list{1.5, list{append(slices.Clone(stored), nil, nil, h)}} },
		"extra key": func(h raw) any { return list{1.5, list{append(slices.Clone(stored), nil, nil, list{h + "\xc0"})}} },
		"item": func(h raw) any {
			return list{1.5, list{append(slices.Clone(stored), nil, nil, list{list{h + "\xc0"}})}}
		},
		"surplus": func(h raw) any { return list{1.5, list{}, 0, h} },
	}
	for where, place := range places {
		for what, head := range heads {
			payload := pack(t, place(head+"\xff\xff\xff\xff"))
			grown := allocated(func() {
				var d kvevent.Decoder
				var b kvevent.Batch
				err := d.Decode(payload, &b)
				if err == nil && b.Bad == 0 {
					t.Errorf("%s, %s: not noticed: %+v", where, what, b)
				}
			})
			if grown > 64<<10 {
				t.Errorf("%s, %s: a payload of %d bytes allocated %d", where, what, len(payload), grown)
			}
		}
	}
}

// Megabytes of opening brackets overflow no stack, and are read once.
func TestDecodeDeepNesting(t *testing.T) {
	open := raw(bytes.Repeat([]byte{0x91}, 8<<20))
	for _, payload := range []raw{open, raw(pack(t, list{1.5, list{raw("")}})) + open, "\x93\x00\x90" + open, "\x92\x00\x91\x92\xa1x" + open,
		raw(pack(t, list{1.5, list{open + "\xc0", removed}, 0}))} {
		var d kvevent.Decoder
		var b kvevent.Batch
		if err := d.Decode([]byte(payload), &b); err == nil && b.Bad != 1 {
			t.Errorf("%x...: %d bad", payload[:8], b.Bad)
		}
	}
}

func TestDecodeLimits(t *testing.T) {
	batch := pack(t, list{1.5, list{removed, list{"BlockRemoved", list{1, 2, 3}}, stored,
		append(slices.Clone(stored), nil, nil, list{list{"a", "b"}}), removed}})
	for _, c := range []struct {
		limits      kvevent.Limits
		events, bad int
	}{
		{kvevent.Limits{}, 5, 0},
		{kvevent.Limits{Events: 2}, 2, 3},
		{kvevent.Limits{Blocks: 4}, 2, 3},
		{kvevent.Limits{Tokens: 3}, 4, 1},
		{kvevent.Limits{Extra: 1}, 4, 1},
	} {
		d := kvevent.Decoder{Limits: c.limits}
		var b kvevent.Batch
		if err := d.Decode(batch, &b); err != nil || len(b.Events) != c.events || b.Bad != c.bad {
			t.Errorf("%+v: %v, %d events, %d bad", c.limits, err, len(b.Events), b.Bad)
		}
		if c.bad > 0 && !errors.Is(b.Errs[0], kvevent.ErrLimit) {
			t.Errorf("%+v: %v", c.limits, b.Errs)
		}
	}
}

// A Batch and a Decoder that were used before give the same as new ones, and events do not share memory.
func TestDecodeReuse(t *testing.T) {
	var d kvevent.Decoder
	var used kvevent.Batch
	cases := golden(t, "frames_*")
	for i := range cases {
		payload := bytes.Clone(cases[(i*7)%len(cases)].payload)
		if err := d.Decode(payload, &used); err != nil {
			t.Fatal(err)
		}
		clear(payload) // nothing refers to it any more
		if diff := difference(decode(t, cases[(i*7)%len(cases)].payload), &used); diff != "" {
			t.Fatalf("%s: %s", cases[(i*7)%len(cases)].name, diff)
		}
	}
	b := decode(t, pack(t, list{1.5, list{stored, stored}}))
	b.Events[0].Tokens = append(b.Events[0].Tokens, 99)
	b.Events[0].Hashes = append(b.Events[0].Hashes, 99)
	if b.Events[1].Tokens[0] != 1 || b.Events[1].Hashes[0] != 7 {
		t.Errorf("appending to one event's slices changed the next: %+v", b.Events[1])
	}
}

func TestDecodeKeepsFewErrors(t *testing.T) {
	many := make(list, 1000)
	b := decode(t, pack(t, list{1.5, many}))
	if b.Bad != 1000 || len(b.Errs) > 8 {
		t.Errorf("%d bad, %d errors kept", b.Bad, len(b.Errs))
	}
}

func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzDecode(f *testing.F) {
	for _, c := range golden(f, "*.jsonl") {
		if len(c.payload) < 1000 {
			f.Add(c.payload)
		}
	}
	f.Add(pack(f, list{1.5, list{stored, list{"x"}, nil, pairs{"type", "BlockRemoved", "block_hashes", list{[]byte{1}}}}, 0, 1}))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var d kvevent.Decoder
		var b kvevent.Batch
		err := d.Decode(payload, &b)
		if got := held(&b); got > len(payload) {
			t.Fatalf("%d bytes became %d values", len(payload), got)
		}
		if err != nil {
			if !errors.Is(err, kvevent.ErrBatch) || len(b.Events) > 0 {
				t.Fatalf("error %v with %d events", err, len(b.Events))
			}
			return
		}
		again := decode(t, kvevent.Append(nil, &b, kvevent.MapForm))
		b.HasRank, b.Bad, b.Ignored, b.Errs = true, 0, 0, nil
		if diff := difference(&b, again); diff != "" {
			t.Fatalf("written and read again: %s", diff)
		}
		array := decode(t, kvevent.Append(nil, &b, kvevent.ArrayForm))
		if len(array.Events) != len(b.Events) || array.Bad+array.Ignored != 0 {
			t.Fatalf("array form: %d events of %d, %v", len(array.Events), len(b.Events), array.Errs)
		}
	})
}

// held counts the values in a batch: none of them takes less than a byte of the payload.
func held(b *kvevent.Batch) int {
	n := len(b.Events)
	for _, ev := range b.Events {
		n += len(ev.Hashes) + len(ev.Tokens) + len(ev.Extra) + len(ev.Medium) + len(ev.LoRAName) + len(ev.SpecKind)
		for _, keys := range ev.Extra {
			n += len(keys)
			for _, k := range keys {
				n += len(k.Text) + len(k.Bytes)
			}
		}
	}
	return n
}

// BenchmarkDecode reports the cost of a block of 16 tokens, in events of 1 and of 16 blocks. A Decoder and a Batch that
// have seen such a batch allocate nothing.
func BenchmarkDecode(b *testing.B) {
	for _, blocks := range []int{1, 16} {
		b.Run(fmt.Sprintf("blocks=%d/map", blocks), func(b *testing.B) { benchmarkDecode(b, kvevent.MapForm, blocks) })
		b.Run(fmt.Sprintf("blocks=%d/array", blocks), func(b *testing.B) { benchmarkDecode(b, kvevent.ArrayForm, blocks) })
	}
}

func benchmarkDecode(b *testing.B, enc kvevent.Encoding, blocks int) {
	const events = 64
	payload := kvevent.Append(nil, syntheticBatch(events, blocks), enc)
	var d kvevent.Decoder
	var batch kvevent.Batch
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if err := d.Decode(payload, &batch); err != nil || len(batch.Events) != events {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events*blocks), "ns/block")
}

// syntheticBatch is what vLLM announces for plain text: nil extra keys, group 0, token ids of a large vocabulary.
func syntheticBatch(events, blocks int) *kvevent.Batch {
	x := uint64(1)
	next := func() uint64 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		return x
	}
	b := &kvevent.Batch{TS: 1735689600.25, HasRank: true}
	for range events {
		ev := kvevent.Event{Kind: kvevent.Stored, Parent: next(), HasParent: true, BlockSize: 16, Medium: "GPU",
			Extra: make([][]kvevent.ExtraKey, blocks), HasExtra: true, HasGroup: true, SpecKind: "full_attention"}
		for range blocks {
			ev.Hashes = append(ev.Hashes, next())
		}
		for range 16 * blocks {
			ev.Tokens = append(ev.Tokens, uint32(next()%151_936))
		}
		b.Events = append(b.Events, ev)
	}
	return b
}

func BenchmarkAppend(b *testing.B) {
	batch := syntheticBatch(64, 16)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = kvevent.Append(dst[:0], batch, kvevent.MapForm)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*64*16), "ns/block")
	_ = binary.BigEndian.Uint32(dst)
}
