package router

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestRecordsAreTheirStructs writes records with every field filled, empty, and at random, and compares them with what
// encoding/json makes of the struct: the same members, and the same values down to the last bit.
func TestRecordsAreTheirStructs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		var r record
		share := []float64{0, 1, .5}[i%3] // of the fields that are filled
		fill(random, reflect.ValueOf(&r).Elem(), share)
		want, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		got := r.appendJSON(nil)
		if !json.Valid(got) {
			t.Fatalf("no JSON: %s", got)
		}
		var a, b record
		if err := json.Unmarshal(want, &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &b); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%v\n%s\n%s", err, got, want)
		}
		if membersOf(t, got) != membersOf(t, want) {
			t.Fatalf("members\n%s\n%s", membersOf(t, got), membersOf(t, want))
		}
	}
}

// membersOf are the members of an object and of those in it, in order.
func membersOf(t *testing.T, raw []byte) string {
	t.Helper()
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return ""
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		all = append(all, name+membersOf(t, members[name]))
	}
	return fmt.Sprint(all)
}

// fill sets a share of all fields to values that are not zero.
func fill(random *rand.Rand, v reflect.Value, share float64) {
	if v.Kind() != reflect.Struct && random.Float64() >= share {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(random, v.Field(i), share)
		}
	case reflect.String:
		texts := []string{"plain", `"quoted\\"`, "<&>", "\u00e9l\u2028ite", "a\x00\nb", "\xff"}
		v.SetString(texts[random.IntN(len(texts))])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(random.Int64() >> random.IntN(60) * (1 - 2*random.Int64N(2)))
	case reflect.Uint32:
		v.SetUint(uint64(random.Uint32()))
	case reflect.Uint64:
		v.SetUint(random.Uint64())
	case reflect.Float64:
		v.SetFloat((random.Float64() - .5) * []float64{1e-9, 1, 1e9, 1e25}[random.IntN(4)])
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(random, v.Elem(), share)
	case reflect.Slice:
		switch v.Type() {
		case reflect.TypeFor[json.RawMessage]():
			v.SetBytes([]byte(`{"e0":12,"e1":0.25}`))
		case reflect.TypeFor[[]byte]():
			v.SetBytes([]byte(time.Unix(random.Int64N(1<<33), 0).String())[:1+random.IntN(9)])
		default:
			v.Set(reflect.MakeSlice(v.Type(), 1+random.IntN(3), 3))
			for i := range v.Len() {
				fill(random, v.Index(i), share)
			}
		}
	default:
		panic("a kind of field that no record had: " + v.Kind().String())
	}
}

// FuzzTexts: any bytes become the string that encoding/json makes of them, and of numbers those that JSON lacks are null.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\x1f\x7f", "<>&", "\u2028\u2029", "\xff\xc0\x80", "\xed\xa0\x80", `\"/`, "\ufeff\ufffd", "\U0001f600"} {
		f.Add(s, math.NaN())
	}
	for _, v := range []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, 1e21, 1e-7} {
		f.Add("number", v)
	}
	f.Fuzz(func(t *testing.T, text string, number float64) {
		var got struct {
			Text   string
			Number *float64
		}
		raw := append(object("{").text("text", text).float("number", number), '}')
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var want string
		if err := json.Unmarshal(quoted, &want); err != nil || got.Text != want {
			t.Errorf("%q, want %q: %v", got.Text, want, err)
		}
		if none := math.IsNaN(number) || math.IsInf(number, 0); none != (got.Number == nil) || !none && *got.Number != number {
			t.Errorf("%s for %v", raw, number)
		}
	})
}

// TestRecordsWait: they are sent in their order by one flush, and what is too many is told at once.
func TestRecordsWait(t *testing.T) {
	var sent []int
	dropped := 0
	q := records{armed: true} // no flush but ours
	q.publish = func(r *record, ok bool) {
		if !ok {
			dropped++
			return
		}
		sent = append(sent, r.Status)
	}
	for i := range mostRecords + 3 {
		q.put(&record{Status: i}, nil)
	}
	if q.flush(); len(sent) != mostRecords || dropped != 3 || !slices.IsSorted(sent) {
		t.Errorf("%d sent, %d dropped", len(sent), dropped)
	}
	if q.flush(); len(sent) != mostRecords || q.armed {
		t.Error("sent twice, or no flush to come")
	}
}
