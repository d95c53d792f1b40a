package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/enginemetrics"
)

// The truth check (event-log.md 8): what engines report of their requests against what the index had claimed of them.
const (
	truthRow    = 5           // requests in a row that find nothing, until the cache counts as wiped
	truthBlocks = 64          // of the pool's size, that the index must have claimed for a request to tell
	truthLag    = time.Second // what is claimed must not be older
)

// record is what the truth check needs of a router's request record.
type record struct {
	Engine     string `json:"engine"`
	Generation uint64 `json:"generation"`
	BlockSize  int    `json:"block_size"` // 0 where the index was not asked
	Predicted  int    `json:"cached_predicted"`
	Measured   *int   `json:"cached_measured"` // nil is no report
	Outcome    string `json:"outcome"`
	Split      *struct {
		Engine     string `json:"engine"`
		Generation uint64 `json:"generation"`
		Predicted  int    `json:"cached_predicted"`
		Measured   *int   `json:"cached_measured"`
	} `json:"split"` // who computed the prompt for Engine: then that one tells of its cache
	Depths []struct {
		Engine     string `json:"engine"`
		GPU        int    `json:"gpu"`
		Generation uint64 `json:"generation"`
	} `json:"depths"`
}

var errRecord = errors.New("a request record of another shape")

func readRecord(data []byte) (r record, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%w: %w", errRecord, err)
	}
	if s := r.Split; s != nil && s.Engine != "" && s.Measured != nil {
		r.Engine, r.Generation, r.Predicted, r.Measured = s.Engine, s.Generation, s.Predicted, s.Measured
	}
	if r.BlockSize < 0 || r.Predicted < 0 || r.Measured != nil && *r.Measured < 0 {
		return r, errRecord
	}
	return r, nil
}

// claimed is how many tokens the index said that the engine held in gpu memory. What the router believed beside that,
// since it had just placed such a prompt there, proves nothing.
func (r *record) claimed() int {
	for _, d := range r.Depths {
		if d.Engine == r.Engine && d.Generation == r.Generation {
			return min(d.GPU, 1<<30) * r.BlockSize
		}
	}
	return 0
}

// told takes a request record.
func (s *service) told(_ string, data []byte) {
	r, err := readRecord(data)
	if err != nil {
		s.m.records.Inc()
		return
	}
	k, ok := s.byID.Load(r.Engine)
	if !ok || r.Measured == nil || r.Outcome != "ok" || r.BlockSize == 0 {
		return
	}
	reading := k.(*keeper).present()
	if reading == nil || reading.cache.inForce() != r.Generation {
		return
	}
	s.m.prediction.Observe(float64(r.Predicted - *r.Measured))
	reading.compare(&r, time.Now())
}

// compare notes one report of the life in force; after enough of them that found nothing the cache counts as wiped.
func (s *session) compare(r *record, now time.Time) {
	late := s.lag(now) >= truthLag
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Generation != s.rowOf || *r.Measured > 0 || late {
		s.row, s.rowOf = 0, r.Generation
	}
	if *r.Measured > 0 || late || min(r.Predicted, r.claimed()) < truthBlocks*r.BlockSize {
		return
	}
	if s.row++; s.row >= truthRow {
		s.row = 0
		select {
		case s.wiped <- wipe{r.Generation, fmt.Sprintf("%d requests in a row found nothing of what should be cached", truthRow), false}:
		default:
		}
	}
}

// sleeps takes what the engine says of its sleep. Once for each one its cache is void.
func (s *session) sleeps(state enginemetrics.Sleep) {
	generation := s.cache.inForce()
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.asleep
	if s.asleep = state == enginemetrics.DiscardAll && generation != 0; !s.asleep || was {
		return
	}
	select {
	case s.wiped <- wipe{generation, "the engine sleeps and has discarded its cache", true}:
	default:
	}
}

// A wipe is what voids a cache though the engine's events do not tell.
type wipe struct {
	generation uint64 // that of the cache meant
	reason     string
	whole      bool // nothing has been stored since
}

// forget begins a generation with nothing held. The life goes on from its last batch: what a replay of the past would
// bring is what was wiped.
func (s *session) forget(w wipe) {
	stats, generation := s.cache.known()
	if generation != w.generation || stats.Copies == 0 {
		return
	}
	s.log.Warn("an engine's cache was wiped", "engine", s.rank.name, "reason", w.reason)
	s.m.wipes.Inc()
	s.life.known()
	if !w.whole {
		s.life.partial, s.life.late = "its cache was wiped at a time that nobody knows", true
	}
	s.mark()
	s.cache.wipe(w.reason, time.Now())
}

// lag is how old the oldest batch is that readers of the log have not been told; 0 if there is none.
func (s *session) lag(now time.Time) time.Duration {
	oldest := s.cache.oldest()
	if waits := s.in.oldest(); oldest.IsZero() || !waits.IsZero() && waits.Before(oldest) {
		oldest = waits
	}
	if oldest.IsZero() {
		return 0
	}
	return now.Sub(oldest)
}

// listenToRecords follows what routers log.
func (s *service) listenToRecords() (stop func()) {
	stop, err := s.conn.Listen(bus.AllRequests, s.told)
	if err != nil {
		s.log.Warn("caches that are wiped silently stay unnoticed: cannot listen to request records", "err", err)
		return func() {}
	}
	return stop
}
