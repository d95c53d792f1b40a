package kvevent_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/warmpath/warmpath/libs/kvevent"
)

// compare decodes a payload and tells how that differs from what the reference reads.
func compare(t testing.TB, d *kvevent.Decoder, b *kvevent.Batch, payload []byte) {
	t.Helper()
	err := d.Decode(payload, b)
	want := reference(payload)
	switch {
	case want == nil && (!errors.Is(err, kvevent.ErrBatch) || len(b.Events) > 0):
		t.Fatalf("%x is no batch; decoded with error %v: %+v", payload, err, b.Events)
	case want != nil && err != nil:
		t.Fatalf("%x: %v; the reference reads %+v", payload, err, want)
	case want != nil:
		if diff := difference(want, b); diff != "" {
			t.Fatalf("%x: %s", payload, diff)
		}
	}
}

// A scribe writes well-formed batches of every form that vLLM has had, and now and then a field that means nothing.
type scribe struct{ *rand.Rand }

func (s scribe) one(of ...any) any { return of[s.IntN(len(of))] }

func (s scribe) hash() any {
	digest := binary.BigEndian.AppendUint64(bytes.Repeat([]byte{7}, s.IntN(3)*12), s.Uint64())
	return s.one(s.Uint64(), s.Uint64(), -s.Int64(), s.IntN(200), digest, digest, digest[:1+s.IntN(len(digest))])
}

func (s scribe) rarely(odd, usual any) any {
	if s.IntN(60) == 0 {
		return odd
	}
	return usual
}

func (s scribe) hashes(n int) list {
	l := list{}
	for range n {
		l = append(l, s.rarely(1.5, s.hash()))
	}
	return l
}

func (s scribe) extra(n int) list {
	l := list{}
	for range n {
		keys := list{}
		for range s.IntN(3) {
			keys = append(keys, s.rarely(list{"a"}, s.one("adapter", list{"image", s.IntN(90) - 60}, []byte{1, 2}, s.IntN(9), "salt")))
		}
		l = append(l, s.one(nil, nil, keys))
	}
	return l
}

// values are the fields of a stored event in the order of the array form, and those that only maps have.
func (s scribe) values() list {
	n := s.IntN(40)
	size := []int{0, 1, 16}[s.IntN(3)]
	tokens := list{}
	for range n * size {
		tokens = append(tokens, s.rarely(-1, s.one(s.Uint32N(150_000), s.IntN(100), s.Uint32())))
	}
	return list{s.hashes(n), s.one(nil, s.hash()), tokens, s.rarely("16", size), s.one(nil, 3, -1), s.one(nil, "GPU", "cpu", "STORAGE"),
		s.one(nil, "adapter", ""), s.one(nil, s.extra(n), s.extra(n)), s.one(nil, 0, 2), s.one(nil, "full_attention", "mamba"),
		s.one(nil, 128), s.one(nil, "LOCAL"), s.one(nil, "tier"), s.rarely(raw("\xa2\xff\xfe"), s.one(nil, "session"))}
}

func (s scribe) event() any {
	names, tag, values := arrayFields["BlockStored"][1:], "BlockStored", s.values()
	names = append(slices.Clone(names), "locality", "ownership", "session_id")
	switch s.IntN(5) {
	case 0:
		return s.one(list{"AllBlocksCleared"}, pairs{"type", "AllBlocksCleared"}, pairs{"type", "BlockInactive", "x", 1}, list{"Other", nil}, 7)
	case 1, 2:
		names, tag = append(slices.Clone(arrayFields["BlockRemoved"][1:]), "locality", "ownership"), "BlockRemoved"
		values = list{s.hashes(1 + s.IntN(3)), values[5], values[8], values[11], values[12]}
	}
	if s.IntN(2) == 0 {
		return append(list{tag}, values[:1+s.IntN(len(values)-1)]...)
	}
	fields := pairs{"type", tag}
	for i, v := range values {
		if v != nil || s.IntN(2) == 0 {
			fields = append(fields, names[i], v)
		}
	}
	fields = append(fields, s.one(pairs{}, pairs{"origin", list{1}}, pairs{3, raw("\xc7\x03\x05abc")}).(pairs)...)
	if at := 2 * s.IntN(len(fields)/2); s.IntN(4) == 0 { // the type need not come first, and a field may come twice
		fields = append(append(slices.Clone(fields[at:]), fields[:at]...), fields[at:min(at+2*s.IntN(2), len(fields))]...)
	}
	return fields
}

func (s scribe) batch(t testing.TB) []byte {
	events := list{}
	for range s.IntN(5) {
		events = append(events, s.event())
	}
	b := list{s.one(s.Float64(), float32(1.5), s.IntN(9), s.Uint64(), -3), events, s.one(0, 3, nil, "x"), "more"}
	return pack(t, b[:s.one(2, 3, 3, 3, 4).(int)])
}

// mutate changes a few bytes, cuts, repeats and inserts.
func (s scribe) mutate(payload []byte) []byte {
	p := slices.Clone(payload)
	for range 1 + s.IntN(3) {
		if len(p) == 0 {
			break
		}
		at := s.IntN(len(p))
		switch s.IntN(5) {
		case 0:
			p[at] ^= 1 << s.IntN(8)
		case 1:
			p[at] = byte(s.Uint32())
		case 2:
			p = p[:at]
		case 3:
			p = slices.Insert(p, at, byte(0x80+s.IntN(128)))
		case 4:
			p = slices.Insert(p, at, p[at:at+s.IntN(min(8, len(p)-at))]...)
		}
	}
	return p
}

// Payloads of every form, whole and damaged, decode to just what the msgpack library finds in them.
func TestDecodeAgainstMsgpack(t *testing.T) {
	s := scribe{rand.New(rand.NewPCG(1, 2))}
	seeds := golden(t, "*.jsonl")
	var d kvevent.Decoder
	var b kvevent.Batch
	whole, damaged, events := 0, 0, 0
	for i := range 4000 {
		payload := s.batch(t)
		if i < len(seeds) {
			payload = seeds[i].payload
		}
		compare(t, &d, &b, payload)
		whole, events = whole+1, events+len(b.Events)
		for range 10 {
			compare(t, &d, &b, s.mutate(payload))
			damaged++
		}
	}
	t.Logf("%d whole batches of %d events and %d damaged ones read alike", whole, events, damaged)
	if events < whole {
		t.Errorf("only %d events in %d batches", events, whole)
	}
}

func FuzzDecodeAgainstMsgpack(f *testing.F) {
	for _, c := range golden(f, "*.jsonl") {
		if len(c.payload) < 1000 {
			f.Add(c.payload)
		}
	}
	s := scribe{rand.New(rand.NewPCG(3, 4))}
	for range 200 {
		f.Add(s.batch(f))
		f.Add(s.mutate(s.batch(f)))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 1<<16 {
			t.Skip("the reference recurses")
		}
		var d kvevent.Decoder
		var b kvevent.Batch
		compare(t, &d, &b, payload)
	})
}
