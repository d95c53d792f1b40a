package enginesim

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/warmpath/warmpath/libs/blockkey"
)

// BenchmarkStream measures what a streamed token costs, engine and client together, at 8 engines of 4 streams, 1.5 ms
// a step.
func BenchmarkStream(b *testing.B) {
	var engines []*Engine
	for range 8 {
		e, err := Start(b.Context(), Options{Model: "m", Profile: Profile{Base: 15}, TimeScale: 10, Blocks: 1 << 14})
		if err != nil {
			b.Fatal(err)
		}
		defer e.Close()
		engines = append(engines, e)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	var clients sync.WaitGroup
	for i := range 32 {
		clients.Go(func() {
			resp, err := http.Post(engines[i%8].URL()+"/v1/chat/completions", "application/json", strings.NewReader(fmt.Sprintf(
				`{"messages":[{"role":"user","content":"hello"}],"stream":true,"max_tokens":%d,"ignore_eos":true}`, max(1, b.N/32))))
			if err != nil {
				b.Error(err)
				return
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
		})
	}
	clients.Wait()
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "cpu-us/token")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tok/s")
}

// cpu returns the processor time of this process in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkCore measures decode tokens simulated a second on one core; one op is one token.
func BenchmarkCore(b *testing.B) {
	for _, seqs := range []int{32, 256} {
		b.Run(fmt.Sprintf("sequences=%d", seqs), func(b *testing.B) {
			c := NewCore(CoreOptions{Profile: Qwen3_32B_TP2_H100, Blocks: 1 << 16, Hash: QuickHash{}})
			var r StepResult
			tokens, id := 0, 0
			b.ReportAllocs()
			b.ResetTimer()
			for tokens < b.N {
				for len(c.ids) < seqs {
					id++
					_ = c.Submit(&Request{ID: fmt.Sprint(id), Prompt: sequential(id*512, 500), MaxTokens: 1000, Answer: uint64(id)})
				}
				c.Step(&r)
				tokens += len(r.Outputs)
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds()/1e6, "Mtok/s")
		})
	}
}

// BenchmarkHash measures one block of 16 tokens.
func BenchmarkHash(b *testing.B) {
	for name, h := range map[string]Hasher{"sha256_cbor": VLLMHash{blockkey.SHA256CBOR, "0"}, "quick": QuickHash{}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			digest, tokens := h.Root(), sequential(100_000, 16)
			var dst []byte
			for b.Loop() {
				dst = h.Next(dst[:0], digest, tokens, nil)
				digest = append(digest[:0], dst...)
			}
		})
	}
}
