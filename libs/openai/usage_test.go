package openai

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestUsageAsEncodingJSONReadsIt compares the counts of usage objects of every make with those that encoding/json reads.
func TestUsageAsEncodingJSONReadsIt(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	number := func() string {
		return pick("0", "7", "12", "1099511627776", "1099511627777", "-1", "null", "9223372036854775807", "9223372036854775808", "1.5", `"7"`, "true", "[]", "{}")
	}
	read := map[bool]int{}
	for range 20_000 {
		details := pick("null", "{}", "[]", "3", fmt.Sprintf(`{"cached_tokens":%s}`, number()), fmt.Sprintf(`{"audio_tokens":0,"cached_tokens":%s,"x":{"cached_tokens":1}}`, number()))
		raw := fmt.Sprintf(`{"prompt_tokens":%s,%s"completion_tokens":%s%s}`, pick("9", "9", number()), pick("", `"total_tokens":"?",`),
			pick("2", "2", number()), pick("", `,"prompt_tokens_details":`+details, `,"prompt_tokens_details":`+details+`,"completion_tokens_details":null`))
		var b Body
		if err := b.Scan([]byte(`{"usage":` + raw + `}`)); err != nil {
			t.Fatal(raw, err)
		}
		got, ok := ReadUsage(&b)
		want := decoded(raw)
		if ok != (want != nil) || ok && *got != *want {
			t.Fatalf("%s: %+v, %v, want %+v", raw, got, ok, want)
		}
		read[ok]++
	}
	if read[true] < 1000 || read[false] < 1000 {
		t.Errorf("%v", read)
	}
}

func decoded(raw string) *Usage {
	var wire struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Details    *struct {
			Cached *int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
	if json.Unmarshal([]byte(raw), &wire) != nil || min(wire.Prompt, wire.Completion) < 0 || max(wire.Prompt, wire.Completion) > mostTokens {
		return nil
	}
	u := &Usage{Prompt: wire.Prompt, Completion: wire.Completion}
	if d := wire.Details; d != nil && d.Cached != nil && *d.Cached >= 0 && *d.Cached <= u.Prompt {
		u.Cached, u.HasCached = *d.Cached, true
	}
	return u
}
