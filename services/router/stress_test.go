package router

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// TestStressEndsWithAnEmptyLedger mixes whole answers, streams, cancels, refusals, hang-ups and answers that come
// before the body was read. Every whole answer is the digest of exactly the bytes that its client sent.
func TestStressEndsWithAnEmptyLedger(t *testing.T) {
	g := newRig(t, Config{})
	digest := func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		_, _ = io.Copy(h, r.Body)
		_, _ = fmt.Fprintf(w, `{"digest":"%x"}`, h.Sum(nil))
	}
	for i := range 4 {
		g.addEngine(fmt.Sprintf("e%d", i), func(w http.ResponseWriter, r *http.Request) {
			switch r.Header.Get("X-Do") {
			case "stream":
				sse(event1, event2, useEvent, doneMark)(w, r)
			case "early":
				w.WriteHeader(http.StatusUnprocessableEntity) // the body is still on its way
			case "hang up":
				panic(http.ErrAbortHandler)
			case "lose":
				sse(event1)(w, r)
				panic(http.ErrAbortHandler)
			case "wait":
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			default:
				digest(w, r)
			}
		})
	}
	g.addScorer()
	g.scorer.say(func(r *scorerv1.ScoreRequest) (*scorerv1.ScoreResponse, error) {
		if len(r.Spans[0].Value)%3 == 0 {
			return &scorerv1.ScoreResponse{Unknown: true}, nil
		}
		return scoreOf(50, map[string]uint32{"id-e1": 20})(r)
	})
	var wait sync.WaitGroup
	for worker := range 12 {
		wait.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 30 {
				stressOne(t, g, r)
			}
		})
	}
	wait.Wait()
	g.idle()
}

func stressOne(t *testing.T, g *rig, r *rand.Rand) {
	do := []string{"stream", "early", "hang up", "lose", "wait", "", "", "", ""}[r.IntN(9)]
	size := []int{10, 3_000, 300_000}[r.IntN(3)]
	letter := string(rune('a' + r.IntN(26)))
	body := fmt.Appendf(nil, `{"model":%q,"prompt":"%s","stream":%v}`, model, strings.Repeat(letter, size+r.IntN(50)), do == "stream" || do == "lose")
	ctx := t.Context()
	if do == "wait" { // leaves somewhere between its first byte sent and the engine's wait
		var leave context.CancelFunc
		ctx, leave = context.WithTimeout(ctx, time.Duration(r.IntN(5000))*time.Microsecond)
		defer leave()
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/completions", bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Do", do)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	sum := sha256.Sum256(body)
	if do == "" && (err != nil || string(answer) != `{"digest":"`+hex.EncodeToString(sum[:])+`"}`) {
		t.Errorf("%d %s: the engine got other bytes than the client sent (%v)", resp.StatusCode, answer, err)
	}
	if do == "stream" && string(answer) != event1+event2+doneMark {
		t.Errorf("stream: %d %q", resp.StatusCode, answer)
	}
}
