package openai

import (
	"encoding/json"
	"testing"
)

func TestWithCached(t *testing.T) {
	known, unknown := &Usage{Cached: 32, HasCached: true}, &Usage{}
	for _, c := range []struct {
		in, want string
		prefill  *Usage
	}{
		{`{"a":1.0, "usage" : {"prompt_tokens":9,"prompt_tokens_details":{ "x":[ ],"cached_tokens" :8 } ,"z":1e2},"b":"\u00e9"}`,
			`{"a":1.0, "usage" : {"prompt_tokens":9,"prompt_tokens_details":{ "x":[ ],"cached_tokens" :32 } ,"z":1e2},"b":"\u00e9"}`, known},
		{`{"usage":{"prompt_tokens_details":{"cached_tokens":8}}}`, `{"usage":{"prompt_tokens_details":null}}`, unknown},
		{`{"usage":{"prompt_tokens_details":{"cached_tokens":0}}}`, `{"usage":{"prompt_tokens_details":{"cached_tokens":32}}}`, known},
		{`{"usage":{"prompt_tokens_details":{"cached_tokens":null}}}`, ``, known},
		{`{"usage":{"prompt_tokens_details":null}}`, ``, known},
		{`{"usage":{"prompt_tokens":9}}`, ``, known},
		{`{"usage":null}`, ``, known},
		{`{"usage":[{"prompt_tokens_details":{"cached_tokens":8}}]}`, ``, known},
		{`{"x":{"usage":{"prompt_tokens_details":{"cached_tokens":8}}}}`, ``, known},
	} {
		var b Body
		if err := b.Scan([]byte(c.in)); err != nil {
			t.Fatal(err)
		}
		if got := string(WithCached(&b, c.prefill)); got != c.want {
			t.Errorf("%s became\n%s, want\n%s", c.in, got, c.want)
		}
	}
}

// FuzzStreamCached cuts a stream anywhere: it becomes what correcting each event alone makes of it.
func FuzzStreamCached(f *testing.F) {
	const use = `{"choices":[],"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":8}}}`
	f.Add(`{"choices":[{"text":"usage"}]}`, use, 3, 50, false)
	f.Add(use, use, 0, 1, true)
	f.Add(`{"usage":{"prompt_tokens_details":{"cached_tokens":7}},"choices":[{}]}`, `[DONE]`, 30, 31, true)
	f.Fuzz(func(t *testing.T, first, second string, cut, again int, withhold bool) {
		prefill := &Usage{Cached: 3, HasCached: true}
		want, raw := "", ""
		for _, data := range []string{first, second} {
			var v map[string]any
			if json.Unmarshal([]byte(data), &v) != nil && data != "[DONE]" || len(data) > 1000 {
				return
			}
			for _, c := range data {
				if c == '\n' || c == '\r' {
					return
				}
			}
			raw += "data: " + data + "\n\n"
			one := Stream{Withhold: withhold, Prefill: prefill}
			_ = one.Feed([]byte("data: "+data+"\n\n"), func(p []byte) error { want += string(p); return nil })
			if one.HasUsage && (one.Usage.Cached != 3 || !one.Usage.HasCached) {
				t.Fatalf("usage %+v", one.Usage)
			}
		}
		cut = min(max(cut, 0), len(raw))
		again = min(max(again, cut), len(raw))
		s, got := Stream{Withhold: withhold, Prefill: prefill}, ""
		emit := func(p []byte) error { got += string(p); return nil }
		for _, p := range []string{raw[:cut], raw[cut:again], raw[again:]} {
			if err := s.Feed([]byte(p), emit); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(emit); err != nil || got != want {
			t.Fatalf("cut at %d and %d: %q, want %q", cut, again, got, want)
		}
	})
}
