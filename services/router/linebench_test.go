package router

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
	"github.com/warmpath/warmpath/services/router/ledger"
)

// BenchmarkDecisionLine is what a decision's log line and record cost after the choice.
func BenchmarkDecisionLine(b *testing.B) {
	for _, n := range []int{8, 100} {
		b.Run(fmt.Sprintf("engines=%d", n), func(b *testing.B) {
			d := &ledger.Decision{Engine: fleet.Engine{Name: "e0"}, Reason: "warm"}
			for i := range n {
				d.Names, d.Matched, d.Costs = append(d.Names, fmt.Sprintf("10.0.0.%d:8000", i)), append(d.Matched, 1+i), append(d.Costs, rand.Float64())
			}
			log := daemon.NewProcess("router", io.Discard, slog.LevelInfo).Log
			w := &ledger.Wish{Model: model, Score: &scorerv1.ScoreResponse{}}
			var room []byte
			b.ReportAllocs()
			for b.Loop() {
				l := newLine(w, d)
				l.log(log)
				r := record{line: l}
				room = r.appendJSON(room[:0])
			}
		})
	}
}
