package run

import (
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/loadgen/workload"
)

// What the driver itself costs a request of the conversation trace: it shares the machine with what it measures.
func BenchmarkBody(b *testing.B) {
	r := workload.Request{Input: 12_000, Output: 343, Blocks: make([]uint64, 24)}
	var tokens []uint32
	var body []byte
	for b.Loop() {
		tokens = workload.Tokens{}.Append(tokens[:0], r)
		body = appendBody(body[:0], "model", tokens, r.Output)
	}
	b.ReportMetric(float64(len(body)), "bytes")
}

func BenchmarkReceive(b *testing.B) {
	stream := strings.Repeat(token, 343) + usage + done
	d := driver{o: Options{TimeScale: 10}, start: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		var out Outcome
		if err := d.receive(strings.NewReader(stream), &out); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*345), "ns/event")
}
