package router

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestAHerdOfEqualColdPromptsStaysTogether sends equal prompts at once, none of them in any cache yet: the first
// choice is booked before the next, so that the others follow it; also where a score comes too late.
func TestAHerdOfEqualColdPromptsStaysTogether(t *testing.T) {
	const requests, engines = 8, 8
	for _, c := range []struct {
		policy string
		least  int // engines that get something
		most   int
	}{{"warm", 1, 2}, {"round-robin", engines, engines}} {
		g := newRig(t, Config{Policy: c.policy})
		var wait sync.WaitGroup
		release := make(chan struct{})
		for i := range engines {
			g.addEngine(fmt.Sprintf("e%d", i), func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-release
				sse(event1, doneMark)(w, r)
			})
		}
		g.addScorer()
		g.scorer.say(scoreOf(200, nil))
		var mu sync.Mutex
		got := map[string]int{}
		for i := range requests {
			wait.Go(func() {
				body := fmt.Sprintf(`{"model":%q,"prompt":%q,"stream":true,"seed":%d}`, model, strings.Repeat("the same ", 1400), i)
				resp, err := http.Post(g.url+"/v1/completions", "application/json", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				mu.Lock()
				defer mu.Unlock()
				got[resp.Header.Get("X-Warmpath-Engine")]++
			})
		}
		g.eventually("all booked", func() bool { return len(g.logs.lines("Got pod scores")) == requests })
		close(release)
		wait.Wait()
		if len(got) < c.least || len(got) > c.most {
			t.Errorf("%s: %d requests went to %v", c.policy, requests, got)
		}
		g.idle()
	}
}
