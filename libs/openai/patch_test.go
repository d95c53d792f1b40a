package openai

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestPatch(t *testing.T) {
	for _, c := range []struct {
		body, set, value, drop, want string
	}{
		{body: `{"a":1}`, want: `{"a":1}`},
		{body: ` { "a" : 1 , "b" : [ 2 ] } `, set: "a", value: `"x"`, want: ` { "a" : "x" , "b" : [ 2 ] } `},
		{body: `{"a":1, "b":2}`, set: "c", value: `{}`, want: `{"a":1, "b":2,"c":{}}`},
		{body: `{ }`, set: "c", value: `3`, want: `{"c":3 }`},
		{body: `{"a":1, "b":2, "c":3}`, drop: "b", want: `{"a":1, "c":3}`},
		{body: `{"a":1, "b":2, "c":3 }`, drop: "c", want: `{"a":1, "b":2 }`},
		{body: `{"a":1, "b":2, "c":3}`, drop: "a", want: `{"b":2, "c":3}`},
		{body: `{ "a":1 }`, drop: "a", want: `{ }`},
		{body: `{ "a":1 }`, drop: "a", set: "b", value: "2", want: `{"b":2 }`},
		{body: `{"a":1,"b":2,"a":3}`, drop: "a", set: "c", value: "4", want: `{"b":2,"c":4}`},
		{body: `{"a":1,"\u0061":2}`, set: "a", value: "9", want: `{"a":9,"\u0061":9}`},
	} {
		var b Body
		if err := b.Scan([]byte(c.body)); err != nil {
			t.Fatal(err)
		}
		p := NewPatch(&b)
		if c.drop != "" {
			p.Delete(c.drop)
		}
		if c.set != "" {
			p.Set(c.set, []byte(c.value))
		}
		if got := string(p.Append(nil)); got != c.want {
			t.Errorf("%s: %q, want %q", c.body, got, c.want)
		}
	}
}

// FuzzPatch sets one name and deletes another: the result is the body with exactly these spans exchanged, as another
// parser finds them, and decodes to the same members with that one change.
func FuzzPatch(f *testing.F) {
	for _, s := range append(bodies, oddBodies...) {
		f.Add([]byte(s), "a", "model", true)
		f.Add([]byte(s), "new", "a", false)
		f.Add([]byte(s), "stream_options", "prompt", true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, set, drop string, both bool) {
		b, ok := checkScan(t, raw, false)
		key, err := json.Marshal(set)
		if !ok || err != nil || string(key) != `"`+set+`"` || set == drop {
			return
		}
		p := NewPatch(&b)
		p.Set(set, []byte(newValue))
		if both {
			p.Delete(drop)
		}
		got := p.Append(nil)
		var keep *string
		if both {
			keep = &drop
		}
		if want := patched(t, raw, set, keep); !bytes.Equal(got, want) {
			t.Fatalf("%q became %q, want %q", raw, got, want)
		}
		again, _ := checkScan(t, got, true)
		if v := again.Value(set); string(v) != newValue {
			t.Fatalf("%q: %q is %q after Set", raw, set, v)
		}
		if _, found := again.Find(drop); both && found {
			t.Fatalf("%q became %q: %q is still there", raw, got, drop)
		}
	})
}

const newValue = `{"v":1}`

// span is one member of a body as encoding/json finds it.
type span struct {
	name            string
	key, value, end int
}

// spansOf asks encoding/json's decoder, which shares nothing with our scanner, where the members are.
func spansOf(t *testing.T, raw []byte) (open int, spans []span) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	open = int(d.InputOffset())
	for d.More() {
		before := int(d.InputOffset())
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		at := before + bytes.IndexByte(raw[before:], '"') // past the comma and white space
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		end := int(d.InputOffset())
		spans = append(spans, span{name.(string), at, end - len(value), end})
	}
	return open, spans
}

// patched says what a patch must make of a body: every value of set exchanged, or a member added after the last that
// stays; every member drop (nil is none) cut up to the next member, or at the end from the one before.
func patched(t *testing.T, raw []byte, set string, drop *string) (want []byte) {
	t.Helper()
	at, spans := spansOf(t, raw)
	end, found, first := at, false, true // end of the last member that stays
	for _, s := range spans {
		if drop == nil || s.name != *drop {
			end, found, first = s.end, found || s.name == set, false
		}
	}
	want = append(want, raw[:at]...)
	for i, s := range spans {
		if s.key >= end {
			break
		}
		switch {
		case drop != nil && s.name == *drop:
			want, at = append(want, raw[at:s.key]...), spans[i+1].key
		case s.name == set:
			want, at = append(append(want, raw[at:s.value]...), newValue...), s.end
		}
	}
	want, at = append(want, raw[at:end]...), end
	if !found {
		if !first {
			want = append(want, ',')
		}
		want = append(want, `"`+set+`":`+newValue...)
	}
	if len(spans) > 0 {
		at = spans[len(spans)-1].end
	}
	return append(want, raw[at:]...)
}
