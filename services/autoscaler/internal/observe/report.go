package observe

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Report is what is read of what a router says each second of one pool: counters since it started, and gauges.
type Report struct {
	Router   string          `json:"router"`
	Started  int64           `json:"started"` // Unix seconds; another value is another life, with counters from zero
	Seq      uint64          `json:"seq"`     // counts the reports of a life from 1; 0 is of a router that does not count them
	Pool     string          `json:"pool"`
	Arrivals uint64          `json:"arrivals"`
	Prompt   uint64          `json:"prompt_tokens"`
	Uncached uint64          `json:"uncached_tokens"`
	Output   uint64          `json:"output_tokens"`
	Finished uint64          `json:"finished"`
	Queued   uint32          `json:"queued"`
	Compute  uint32          `json:"queued_uncached"`
	Held     uint32          `json:"held"`
	Engines  map[string]Load `json:"engines"`
}

// Load is what a router has under way on one engine, and the pace of its streams.
type Load struct {
	Inflight uint32  `json:"inflight"`
	Uncached uint32  `json:"uncached_tokens"`
	Decoding uint32  `json:"decoding"`
	Context  uint32  `json:"context_tokens"`
	Gaps     uint64  `json:"gaps"`
	Seconds  float64 `json:"gap_seconds"`
	Draining bool    `json:"draining"`
}

// maxName is how long a router's name may be, in bytes.
const maxName = 256

var errImpossible = errors.New("it cannot be true")

// ParseReport reads a report.
func ParseReport(data []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read a router's report: %w", err)
	}
	bad := r.Router == "" || len(r.Router) > maxName || r.Pool == ""
	for _, l := range r.Engines {
		bad = bad || l.Seconds < 0 || l.Seconds > 1e12
	}
	if bad {
		return r, fmt.Errorf("read a report of router %.64q, pool %.64q: %w", r.Router, r.Pool, errImpossible)
	}
	return r, nil
}
