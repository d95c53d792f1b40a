package observe

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const (
	maxEnded  = 512           // requests of a pool that are kept between two observations
	longest   = 1_000_000     // seconds and
	mostTok   = 1_000_000_000 // tokens of a request; more cannot be
	maxRecord = 4 << 20       // bytes
)

// record is what is read of a request record.
type record struct {
	Prompt    int      `json:"prompt_tokens"`
	Computed  *int     `json:"computed_tokens"` // null before routers wrote it; then
	Predicted int      `json:"cached_predicted"`
	Measured  *int     `json:"cached_measured"`
	Output    int      `json:"output_tokens"`
	Waited    float64  `json:"queued_s"`
	Prefill   *float64 `json:"prefill_s"`
	TTFT      *float64 `json:"ttft_s"`
	ITL       *float64 `json:"itl_s"`
	Status    int      `json:"status"`
	Outcome   string   `json:"outcome"`
}

// request translates a record; ok is false for one whose request the engine refused or whose client left before the
// first token: it says nothing of how engines do.
func (r *record) request() (q decide.Request, ok bool, err error) {
	uncached := r.Prompt - r.Predicted
	switch {
	case r.Computed != nil:
		uncached = *r.Computed
	case r.Measured != nil:
		uncached = r.Prompt - *r.Measured
	}
	failed := r.Status >= 500 || r.Outcome == "lost" || r.Outcome == "unreachable"
	if !failed && (r.Status >= 400 && r.Outcome != "cancelled" || r.Outcome == "cancelled" && r.TTFT == nil) {
		return q, false, nil
	}
	q = decide.Request{Prompt: r.Prompt, Uncached: max(0, uncached), Output: r.Output, Failed: failed}
	sound := r.Prompt >= 0 && r.Prompt <= mostTok && q.Uncached <= mostTok && r.Output >= 0 && r.Output <= mostTok
	for _, d := range []struct {
		to      *time.Duration
		seconds *float64
	}{{&q.Waited, &r.Waited}, {&q.Prefill, r.Prefill}, {&q.TTFT, r.TTFT}, {&q.ITL, r.ITL}} {
		if d.seconds != nil {
			sound = sound && *d.seconds >= 0 && *d.seconds <= longest
			*d.to = time.Duration(*d.seconds * float64(time.Second))
		}
	}
	if !sound {
		return q, false, fmt.Errorf("read a request record: %w", errImpossible)
	}
	return q, true, nil
}

// records keeps a fair sample of the requests that ended in one pool. The zero value is ready to use.
type records struct {
	mu    sync.Mutex
	seen  int
	ended []decide.Request
}

// add takes in a record. Those that the sample has no place for are not even parsed.
func (s *records) add(data []byte) error {
	s.mu.Lock()
	at := len(s.ended)
	if at >= maxEnded {
		at = rand.IntN(s.seen + 1)
	}
	s.mu.Unlock()
	if at >= maxEnded {
		s.mu.Lock()
		s.seen++
		s.mu.Unlock()
		return nil
	}
	var r record
	if len(data) > maxRecord {
		return fmt.Errorf("read a request record of %d bytes: %w", len(data), errImpossible)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read a request record: %w", err)
	}
	q, ok, err := r.request()
	if err != nil || !ok {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	if at < len(s.ended) {
		s.ended[at] = q
	} else {
		s.ended = append(s.ended, q)
	}
	return nil
}

// take returns the sample and begins the next.
func (s *records) take() []decide.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := s.ended
	s.seen, s.ended = 0, nil
	return ended
}
