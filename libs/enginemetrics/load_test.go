package enginemetrics_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/enginemetrics"
)

// ParseLoad says what Parse says, of what it reads.
func TestParseLoadAgreesWithParse(t *testing.T) {
	long := "# " + strings.Repeat("long ", 20_000) + "\n"
	for _, text := range []string{v092, current(3), long + v092 + long} {
		whole := parse(t, text)
		got, err := enginemetrics.ParseLoad(strings.NewReader(text))
		if err != nil || len(got) != len(whole) {
			t.Fatalf("%d snapshots of %d: %v", len(got), len(whole), err)
		}
		for i, s := range got {
			w := whole[i]
			if s.Rank != w.Rank || s.Running != w.Running || s.Waiting != w.Waiting || s.KVUsage != w.KVUsage ||
				s.PromptTokens != w.PromptTokens || s.GenerationTokens != w.GenerationTokens || s.Preemptions != w.Preemptions || s.Cache != w.Cache {
				t.Errorf("rank %d: %+v, Parse says %+v", i, s, w)
			}
		}
	}
	if _, err := enginemetrics.ParseLoad(strings.NewReader("go_goroutines 7\n")); !errors.Is(err, enginemetrics.ErrNotVLLM) {
		t.Errorf("no vLLM: %v", err)
	}
	if _, err := enginemetrics.ParseLoad(io.LimitReader(zeros{}, enginemetrics.MaxBytes+5)); !errors.Is(err, enginemetrics.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// BenchmarkScrape compares both on a text of the size that vLLM writes.
func BenchmarkScrape(b *testing.B) {
	var text strings.Builder
	text.WriteString(current(1))
	for i := range 1500 {
		fmt.Fprintf(&text, "vllm:some_seconds_bucket{engine=\"0\",le=\"%d\",model_name=\"m\"} %d\n", i, i)
	}
	for name, f := range map[string]func(io.Reader) ([]enginemetrics.Snapshot, error){"all": enginemetrics.Parse, "load": enginemetrics.ParseLoad} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(text.Len()))
			for b.Loop() {
				if _, err := f(strings.NewReader(text.String())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
