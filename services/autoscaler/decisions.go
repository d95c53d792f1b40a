package autoscaler

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// RecordVersion is that of Record.
const RecordVersion = 1

// recordEvery is the time between two records of a pool where nothing changes.
const recordEvery = time.Minute

// Record is a decision as it is logged on bus.ScaleSubject: one for each tick that changes anything, and one a minute
// otherwise.
type Record struct {
	Version int    `json:"v"`
	Pool    string `json:"pool"`
	decide.Decision
}

// differs says whether a decision is worth a record after another.
func differs(before, d *decide.Decision) bool {
	if before.Mode != d.Mode || before.Blind != d.Blind || len(before.Roles) != len(d.Roles) {
		return true
	}
	for role, r := range d.Roles {
		b, ok := before.Roles[role]
		if !ok || b.Now != r.Now || b.Target != r.Target || b.Rule != r.Rule || b.Short != r.Short || !slices.Equal(b.Blocked, r.Blocked) {
			return true
		}
	}
	return false
}

// record logs a decision: to the stream, as far as NATS is there, and to who asks this process.
func (s *scaler) record(ctx context.Context, id string, d *decide.Decision) {
	data, err := json.Marshal(Record{RecordVersion, id, *d})
	if err == nil {
		s.log.add(data)
		err = s.conn.Append(ctx, bus.ScaleSubject(id), data)
	}
	if err != nil {
		s.metrics.dropped.Inc()
	}
	for role, r := range d.Roles {
		if before := s.pools[id].last.Roles[role]; before.Target != r.Target {
			s.cfg.Log.Info("desired replicas changed", "pool", id, "role", role, "from", before.Target, "to", r.Target, "rule", r.Rule, "mode", d.Mode)
		}
	}
}

// maxDecisions is how many records a process keeps for who asks.
const maxDecisions = 512

// decisions are the last records of this process, of all pools. The zero value is ready to use.
type decisions struct {
	mu   sync.Mutex
	last []json.RawMessage // oldest first
}

func (l *decisions) add(data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == maxDecisions {
		l.last = slices.Delete(l.last, 0, 1)
	}
	l.last = append(l.last, data)
}

// ServeHTTP answers with the records as a JSON array, oldest first.
func (l *decisions) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	all := slices.Clone(l.last)
	l.mu.Unlock()
	if all == nil {
		all = []json.RawMessage{}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all) // whoever asked may be gone
}
