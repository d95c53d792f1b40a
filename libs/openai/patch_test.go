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

// FuzzPatch sets one name and deletes another: the result decodes to the same map with that one change, and every
// member that is left has the bytes that it had.
func FuzzPatch(f *testing.F) {
	for _, s := range bodies {
		f.Add([]byte(s), "a", "model", true)
		f.Add([]byte(s), "new", "a", false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, set, drop string, both bool) {
		b, ok := checkScan(t, raw, false)
		key, err := json.Marshal(set)
		if !ok || err != nil || string(key) != `"`+set+`"` || set == drop {
			return
		}
		p := NewPatch(&b)
		p.Set(set, []byte(`{"v":1}`))
		if both {
			p.Delete(drop)
		}
		got := p.Append(nil)
		patched, _ := checkScan(t, got, true)
		if v := patched.Value(set); string(v) != `{"v":1}` {
			t.Fatalf("%q: %q is %q after Set", raw, set, v)
		}
		var kept [][]byte
		for _, m := range b.Members {
			if name := b.Name(m); name != set && !(both && name == drop) {
				kept = append(kept, raw[m.KeyStart:m.End])
			}
		}
		for _, m := range patched.Members {
			if patched.Name(m) == set {
				continue
			}
			if len(kept) == 0 || !bytes.Equal(got[m.KeyStart:m.End], kept[0]) {
				t.Fatalf("%q became %q: member %q changed", raw, got, got[m.KeyStart:m.End])
			}
			kept = kept[1:]
		}
		if len(kept) != 0 {
			t.Fatalf("%q became %q: lost %q", raw, got, kept)
		}
		if !both {
			checkOutside(t, &b, set, raw, got)
		}
	})
}

// checkOutside rebuilds the body from its patched form by putting the old values back.
func checkOutside(t *testing.T, b *Body, set string, raw, got []byte) {
	t.Helper()
	var back []byte
	at, found := 0, false
	for _, m := range b.Members {
		if b.Name(m) != set {
			continue
		}
		found = true
		back = append(back, raw[at:m.Start]...)
		back = append(back, `{"v":1}`...)
		at = m.End
	}
	if !found {
		return
	}
	if back = append(back, raw[at:]...); !bytes.Equal(back, got) {
		t.Fatalf("%q became %q, want %q", raw, got, back)
	}
}
