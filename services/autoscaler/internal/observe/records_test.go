package observe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

func TestRecordsBecomeRequests(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name, record string
		want         *decide.Request // nil is none
	}{
		{"whole", `{"pool":"p","prompt_tokens":1000,"computed_tokens":300,"cached_predicted":1,"cached_measured":2,"output_tokens":20,
			"queued_s":0.5,"prefill_s":0.02,"ttft_s":0.6,"itl_s":0.03,"status":200,"outcome":"ok","keys":"AAAA"}`,
			&decide.Request{Prompt: 1000, Uncached: 300, Output: 20, Waited: 500 * ms, Prefill: 20 * ms, TTFT: 600 * ms, ITL: 30 * ms}},
		{"an older router's", `{"prompt_tokens":1000,"cached_predicted":400,"cached_measured":600,"prefill_s":null,"ttft_s":null,"itl_s":null,"status":200,"outcome":"ok"}`,
			&decide.Request{Prompt: 1000, Uncached: 400}},
		{"not measured", `{"prompt_tokens":1000,"cached_predicted":400,"cached_measured":null,"status":200,"outcome":"ok"}`,
			&decide.Request{Prompt: 1000, Uncached: 600}},
		{"lost", `{"prompt_tokens":10,"computed_tokens":10,"status":200,"outcome":"lost"}`, &decide.Request{Prompt: 10, Uncached: 10, Failed: true}},
		{"unreachable", `{"prompt_tokens":10,"computed_tokens":10,"status":502,"outcome":"unreachable"}`, &decide.Request{Prompt: 10, Uncached: 10, Failed: true}},
		{"refused", `{"prompt_tokens":10,"status":400,"outcome":"refused"}`, nil},
		{"left early", `{"prompt_tokens":10,"status":499,"outcome":"cancelled"}`, nil},
		{"left late", `{"prompt_tokens":10,"computed_tokens":10,"output_tokens":5,"ttft_s":1,"status":499,"outcome":"cancelled"}`,
			&decide.Request{Prompt: 10, Uncached: 10, Output: 5, TTFT: time.Second}},
	} {
		var s records
		if err := s.add([]byte(c.record)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got := s.take()
		if (c.want == nil) != (len(got) == 0) || c.want != nil && got[0] != *c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	var s records
	for _, bad := range []string{``, `[]`, `{"prompt_tokens":-1}`, `{"ttft_s":-1}`, `{"itl_s":1e9}`, `{"output_tokens":1e300}`, strings.Repeat(" ", maxRecord+1)} {
		if err := s.add([]byte(bad)); err == nil {
			t.Errorf("%.40q is taken", bad)
		}
	}
	if got := s.take(); len(got) != 0 {
		t.Errorf("of what cannot be, %d requests came", len(got))
	}
}

// The sample is bounded, and fair: of 20 times as many requests each twentieth of them gets its share.
func TestTheSampleIsBoundedAndFair(t *testing.T) {
	var s records
	const all = 20 * maxEnded
	for i := range all {
		if err := s.add(fmt.Appendf(nil, `{"prompt_tokens":%d,"status":200,"outcome":"ok"}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	var of [4]int
	got := s.take()
	for _, q := range got {
		of[q.Prompt*len(of)/all]++
	}
	if len(got) != maxEnded {
		t.Fatalf("%d requests", len(got))
	}
	for i, n := range of { // 128 expected, standard deviation below 10
		if n < 70 || n > 190 {
			t.Errorf("quarter %d has %d of %d", i, n, maxEnded)
		}
	}
	if got := s.take(); len(got) != 0 {
		t.Errorf("%d are told twice", len(got))
	}
}
