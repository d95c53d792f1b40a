package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var bodies = []string{
	`{}`,
	` { } `,
	`{"model":"m","prompt":"hello","stream":true}`,
	`{"a":1,"a":2,"\u0061":3}`,
	`{"é":"ü","\ud83d\ude00":"😀","\ud800":1}`,
	`{"n":-0.5e+10,"z":0,"e":1E3,"t":true,"f":false,"x":null}`,
	`{"messages":[{"role":"user","content":[{"type":"text","text":"a\"b\\c\n"}]}],"tools":[]}`,
	"{\n\t\"a\" :\r [ ] , \"b\" : { } }",
	`{"":""}`,
	"{\"raw\":\"\xff\xfe\",\"\xff\":1}",
	`{"ids":[1, 20,300,0, 5,-6,7.5,8 ,9],"a":[0,1]}`,
	`{"a":[[[[{"b":[1,2,{"c":null}]}]]]]}`,
	`{"long":"` + strings.Repeat("x", 100) + `\\"}`,
}

var badBodies = []string{
	``, ` `, `[]`, `"x"`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{a:1}`,
	"\xef\xbb\xbf{}", `{} x`, `{}{}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":1e}`, `{"a":-}`,
	`{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\`, `{"a":"` + "\n" + `"}`, `{"a":"` + "\x00" + `"}`, `{"a":tru}`,
	`{"a":nulL}`, `{"a":[1,]}`, `{"a":[1,02,3]}`, `{"a":[1,2,`, `{"a":[1,2,  ]}`, `{"a":[1,2,,3]}`, `{"a":[1,2`, `{"a":[1,2,3`, `{"a":[1}`, `{"a":{"b":1]}`, `{"a":{]}`, `{"a":[}`, `{"a":{"b"}}`, "{\"a\":\x00}", `{"a":NaN}`,
}

// oddBodies are what clients hardly send, and what a careless scanner gets wrong.
var oddBodies = []string{
	`{"model":"a","model":"b","\u006dodel":"c","mod\u0065l":null}`, // four times the same name: the last holds
	`{"stream":true,"stream":false,"stream_options":{"a":1},"stream_options":null}`,
	`{"m\u006fdel":"x","\/":1,"\"":2,"\\":3,"\\\"":4,"\u0000":5,"\u0022":6}`,
	`{"a\ud83d":1,"a\ude00":2,"\ud83dx\ude00":3,"\ude00\ud83d":4,"v":"\ud800\udbff \udfff"}`,
	"{\"\xed\xa0\x80\":1,\"\xc3\":2,\"\xf4\x90\x80\x80\":\"\xc0\xaf\",\"\xe2\x82\":\"\xe2\x82\"}",
	`{"max_tokens":1` + strings.Repeat("0", 400) + `,"n":1e999,"z":-0,"s":1e-400,"q":-1.7976931348623159e308,"i":9223372036854775808}`,
	`{"t":0.1,"top_p":1E+2,"seed":18446744073709551615,"f":4.0,"g":4.5,"h":123456789012345678,"k":-9223372036854775808}`,
	`{"a":` + strings.Repeat(`[`, MaxDepth-1) + strings.Repeat(`]`, MaxDepth-1) + `,"b":2}`,
	`{"a":` + strings.Repeat(`{"a":[`, MaxDepth/2-1) + `"]}"` + strings.Repeat(`]}`, MaxDepth/2-1) + `,"b":2}`,
	`{"prompt":"}],\"model\":\"no\",{[","a":"\\","b":"\\\"","c":"\\\\"}`,
	`{"1234567":1,"12345678":2,"123456789":3,"x":"1234567","y":"12345678","z":"1234567\"","w":"12345678\""}`,
	"{\"a\":\"\x7f\u0080\",\"tab\":\"\\t\",\"e\":\"\xe2\x80\xa8\"}",
	" \r\n\t{ \r\n\t\"a\" \r\n\t: \r\n\t1 \r\n\t, \r\n\t\"b\" \r\n\t:\r\n\t[ \r\n\t] \r\n\t} \r\n\t",
	`{"ids":[0,00]}`, `{"ids":[1,2,-0,3]}`, `{"ids":[1,2,3,{"a":[4,5]},6]}`, `{"ids":[1 ,2, 3 , 4]}`,
	"{\"a\":\"\x1f\"}", "{\"a\":\"x\ty\"}", `{"a":"\u00G0"}`, `{"a":"\uD83D\u"}`, `{'a':1}`, `{"a":1,}`, `{"a":Infinity}`, `{"a":-Infinity}`,
	"\xef\xbb\xbf{\"a\":1}", "{\xef\xbb\xbf\"a\":1}", "\xff\xfe{\x00}\x00", "{\"a\":1}\x00", "{\"a\":1}\xef\xbb\xbf", "\x00{}", "{\u00a0}",
}

// TestScanAgreesOnOddBodies and on each of their beginnings: what encoding/json takes is taken with the same members, and
// what it refuses is refused.
func TestScanAgreesOnOddBodies(t *testing.T) {
	for _, s := range append(bodies, oddBodies...) {
		for n := range len(s) + 1 {
			checkScan(t, []byte(s[:n]), false)
		}
	}
}

func TestTheLastOfEqualNamesHolds(t *testing.T) {
	var b Body
	if err := b.Scan([]byte(oddBodies[0])); err != nil {
		t.Fatal(err)
	}
	if m, ok := b.Find("model"); !ok || m.Kind != Null || b.Value("model") != nil {
		t.Errorf("model is %+v", m)
	}
}

func TestScanAgreesWithEncodingJSON(t *testing.T) {
	for _, s := range bodies {
		checkScan(t, []byte(s), true)
	}
}

func TestScanRefusesWithOffset(t *testing.T) {
	for _, s := range badBodies {
		var b Body
		err := b.Scan([]byte(s))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%q: error %v, want a SyntaxError", s, err)
			continue
		}
		if syntax.Offset < 0 || syntax.Offset > len(s) || len(b.Members) != 0 {
			t.Errorf("%q: %v with %d members", s, err, len(b.Members))
		}
	}
	var b Body
	if err := b.Scan([]byte(`{"a":[1,2 3]}`)); err == nil || err.Error() != "expected , or ] at byte 10" {
		t.Errorf("error %v", err)
	}
	if err := b.Scan([]byte(`{"a":"xy`)); err == nil || err.Error() != "body ends early: string does not end at byte 8" {
		t.Errorf("error %v", err)
	}
}

func TestScanRefusesEveryTruncation(t *testing.T) {
	var b Body
	whole := bodies[6]
	for n := range len(whole) {
		if b.Scan([]byte(whole[:n])) == nil {
			t.Errorf("accepted %q", whole[:n])
		}
	}
}

func TestScanBoundsDepth(t *testing.T) {
	nested := func(n int) []byte {
		return []byte(`{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`)
	}
	var b Body
	if err := b.Scan(nested(MaxDepth)); err != nil {
		t.Errorf("depth %d: %v", MaxDepth, err)
	}
	if err := b.Scan(nested(MaxDepth + 1)); err == nil {
		t.Errorf("depth %d accepted", MaxDepth+1)
	}
	if err := b.Scan(bytes.Repeat([]byte(`{"a":`), 1<<20)); err == nil {
		t.Error("a million open objects accepted")
	}
}

func TestScanBoundsMembers(t *testing.T) {
	members := func(n int) []byte { return []byte(`{"a":1` + strings.Repeat(`,"":1`, n-1) + `}`) }
	var b Body
	if err := b.Scan(members(MaxMembers)); err != nil || len(b.Members) != MaxMembers {
		t.Errorf("%d members: %v", len(b.Members), err)
	}
	if err := b.Scan(members(MaxMembers + 1)); err == nil || len(b.Members) != 0 {
		t.Errorf("%d members accepted, %d kept", MaxMembers+1, len(b.Members))
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	raw := []byte(bodies[6])
	var b Body
	if n := testing.AllocsPerRun(100, func() {
		if b.Scan(raw) != nil {
			t.Fail()
		}
		if _, ok := b.Find("tools"); !ok {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("%v allocations a scan", n)
	}
}

// checkScan holds a scan against encoding/json: every accepted body is valid there, with the same members and values.
// What encoding/json accepts is refused only for what we refuse on purpose.
func checkScan(t *testing.T, raw []byte, must bool) (b Body, ok bool) {
	t.Helper()
	err := b.Scan(raw)
	var want map[string]json.RawMessage
	wantErr := json.Unmarshal(raw, &want)
	if err != nil {
		deep := strings.Contains(err.Error(), "nested too deep")
		if must || wantErr == nil && want != nil && !deep {
			t.Fatalf("%q refused: %v; encoding/json: %v", raw, err, wantErr)
		}
		return b, false
	}
	if wantErr != nil {
		t.Fatalf("%q accepted; encoding/json: %v", raw, wantErr)
	}
	names := map[string]bool{}
	for _, m := range b.Members {
		names[b.Name(m)] = true
	}
	if len(names) != len(want) {
		t.Fatalf("%q: names %v, want %v", raw, names, want)
	}
	for name, value := range want {
		m, found := b.Find(name)
		if !found || !bytes.Equal(raw[m.Start:m.End], value) {
			t.Fatalf("%q: member %q is %q, want %q", raw, name, raw[m.Start:m.End], value)
		}
		checkValue(t, m, value)
	}
	return b, true
}

func checkValue(t *testing.T, m Member, value []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(value, &v); err != nil && !strings.Contains(err.Error(), "number") {
		t.Fatalf("value %q: %v", value, err)
	}
	kinds := map[string]Kind{"<nil>": Null, "bool": Bool, "float64": Number, "string": String, "[]interface {}": Array, "map[string]interface {}": Object}
	if v != nil || m.Kind == Null {
		if k := kinds[fmt.Sprintf("%T", v)]; k != m.Kind {
			t.Fatalf("value %q: kind %v, want %v", value, m.Kind, k)
		}
	}
	if m.Kind == Number {
		checkNumber(t, string(value))
	}
	if s, isString := v.(string); isString {
		if got, err := ReadString(value); err != nil || got != s {
			t.Fatalf("string %q read as %q, want %q", value, got, s)
		}
	}
}

// checkNumber holds ReadInt to what strconv makes of a number: all that is whole and exact, and nothing else.
func checkNumber(t *testing.T, value string) {
	t.Helper()
	n, err := ReadInt([]byte(value))
	exact, intErr := strconv.ParseInt(value, 10, 64)
	f, _ := strconv.ParseFloat(value, 64)
	whole := f == math.Trunc(f) && math.Abs(f) < 1<<53
	switch {
	case intErr == nil && (err != nil || n != exact):
		t.Fatalf("%s read as %d, %v", value, n, err)
	case intErr != nil && (err == nil) != whole, intErr != nil && err == nil && float64(n) != f:
		t.Fatalf("%s read as %d, %v, which is %v", value, n, err, f)
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range slices.Concat(bodies, badBodies, oddBodies) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { checkScan(t, raw, false) })
}

func TestReadSmallValues(t *testing.T) {
	for raw, want := range map[string]int64{"0": 0, "-7": -7, "16.0": 16, "1e3": 1000, "9223372036854775807": 1<<63 - 1} {
		if n, err := ReadInt([]byte(raw)); err != nil || n != want {
			t.Errorf("int %s is %d, %v", raw, n, err)
		}
	}
	for _, raw := range []string{`"5"`, "1.5", "true", "null", "[1]", "1e300", "", "{}"} {
		if n, err := ReadInt([]byte(raw)); err == nil {
			t.Errorf("int %s accepted as %d", raw, n)
		}
	}
	if v, err := ReadBool([]byte("true")); !v || err != nil {
		t.Error("true not read")
	}
	if _, err := ReadBool([]byte(`"true"`)); err == nil {
		t.Error("a string read as bool")
	}
	for raw, want := range map[string]bool{"[]": true, "[ \n]": true, "[0]": false, "{}": true, `{"a":1}`: false, `""`: true, `" "`: false} {
		if IsEmpty([]byte(raw)) != want {
			t.Errorf("empty %s is %v", raw, !want)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	text := bytes.Repeat([]byte(`Some prose with \"quotes\" and breaks.\n`), 220_000/40)
	ids := []byte(`{"model":"m","prompt":[`)
	r := rand.New(rand.NewPCG(1, 2))
	for range 8192 {
		ids = fmt.Appendf(ids, "%d,", r.IntN(150_000))
	}
	ids = append(ids[:len(ids)-1], `]}`...)
	for name, raw := range map[string][]byte{
		"text=220k": fmt.Appendf(nil, `{"model":"m","messages":[{"role":"user","content":"%s"}]}`, text),
		"ids=8192":  ids,
	} {
		b.Run(name, func(b *testing.B) {
			var body Body
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if err := body.Scan(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
