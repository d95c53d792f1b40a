package router

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/services/router/internal/engines"
)

// BenchmarkFirstByte is the time to the first byte of a stream, straight from an engine that answers at once and by
// way of the router, without a scorer and with one on loopback.
func BenchmarkFirstByte(b *testing.B) {
	for _, size := range []int{2_048, 8_192, 220_000, 800_000} {
		for _, way := range []string{"direct", "unscored", "scored"} {
			b.Run(fmt.Sprintf("body=%d/%s", size, way), func(b *testing.B) { firstByte(b, size, way) })
		}
	}
}

func firstByte(b *testing.B, size int, way string) {
	g := newRig(b, Config{})
	g.rt.log = slog.New(slog.NewJSONHandler(io.Discard, nil))
	url := ""
	for i := range 8 {
		url = g.addEngine(fmt.Sprintf("e%d", i), sse(event1, useEvent, doneMark)).URL
	}
	if way != "direct" {
		url = g.url
	}
	if way == "scored" {
		g.addScorer()
	}
	g.scorer.say(scoreOf(max(1, size/64), map[string]uint32{"id-e1": 20}))
	body := fmt.Sprintf(`{"model":%q,"prompt":"%s","stream":true}`, model, strings.Repeat("word ", size/5))
	client := &http.Client{Transport: engines.NewTransport()}
	defer client.CloseIdleConnections()
	var first time.Duration
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		resp, err := client.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := resp.Body.Read(buf); err != nil && err != io.EOF {
			b.Fatal(err)
		}
		first += time.Since(began)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	b.ReportMetric(float64(first.Microseconds())/float64(b.N), "us-to-first-byte")
}
