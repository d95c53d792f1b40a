package hop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/process"
)

var errUnscored = errors.New("not scored by the router")

// lab is where one part is measured.
type lab struct {
	load

	dir      string
	conn     *bus.Conn
	pool     string
	started  []*process.Process // in order of their start
	router   *process.Process
	address  string   // of the router
	engines  []string // addresses
	payloads map[string]*payload
	numbers  atomic.Uint64 // of requests
	late     float64       // share of requests that may be unscored
	read     uint64        // sequence of the last record that was read
}

func newLab(ctx context.Context, o Options, what load) (*lab, error) {
	l := &lab{load: what, late: o.Late, pool: fleet.PoolID(modelID)}
	if err := l.start(ctx, o.Self); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// start starts everything, makes the engines members of the fleet, and waits until a routed request is scored.
func (l *lab) start(ctx context.Context, self []string) (err error) {
	if l.dir, err = os.MkdirTemp("", "warmpath-hop-"); err != nil {
		return err
	}
	l.payloads = l.load.payloads()
	if _, err = l.spawn(ctx, self, "nats", process.NATS{Dir: l.dir}, &l.NATS); err != nil {
		return err
	}
	if l.conn, err = bus.Connect(ctx, l.NATS, bus.Options{Name: "hop", Log: logger("hop")}); err != nil {
		return err
	}
	if err = l.conn.Ensure(ctx, bus.Sizes{}); err != nil {
		return err
	}
	if _, err = l.spawn(ctx, self, "backend", l.load, &l.engines); err != nil {
		return err
	}
	if err = l.register(ctx); err != nil {
		return err
	}
	asked, err := l.spawn(ctx, self, "scorer", l.load, nil)
	if err != nil {
		return err
	}
	if l.router, err = l.spawn(ctx, self, "router", routerConfig{NATS: l.NATS}, &l.address); err != nil {
		return err
	}
	return l.warm(ctx, asked)
}

func (l *lab) spawn(ctx context.Context, self []string, role string, config, reply any) (*process.Process, error) {
	p, err := process.Start(ctx, self, role, config, reply)
	if err == nil {
		l.started = append(l.started, p)
	}
	return p, err
}

// register writes the records that an ingest would.
func (l *lab) register(ctx context.Context) error {
	if _, err := fleet.EnsurePool(ctx, l.conn, fleet.Pool{ID: l.pool, Model: modelID, BlockSize: blockSize}); err != nil {
		return err
	}
	for i, address := range l.engines {
		if err := fleet.PutEngine(ctx, l.conn, fleet.Engine{
			ID: engineID(i), Name: address, Pool: l.pool, URL: "http://" + address, Role: fleet.Both, Ranks: 1,
			Models: []fleet.Model{{ID: modelID, MaxModelLen: 1 << 20}}, BlockSize: blockSize, Blocks: 20_000, Generation: 1, State: fleet.OK,
		}); err != nil {
			return err
		}
	}
	return nil
}

// warm sends requests until one is scored, and then a few more.
func (l *lab) warm(ctx context.Context, scorer *process.Process) error {
	c := newConnection(l.address)
	defer c.close()
	sent := 0
	one := func() error {
		_, err := c.do(l.task(l.Sizes[0], routed))
		if err == nil {
			sent++
		}
		return err
	}
	err := until(ctx, patience, func() error {
		var n int
		if err := errors.Join(one(), scorer.Ask("asked", nil, &n)); err != nil || n > 0 {
			return err
		}
		return errUnscored
	})
	for i := 0; err == nil && i < 100; i++ {
		err = one()
	}
	if err != nil {
		return fmt.Errorf("send the first requests: %w", err)
	}
	return until(ctx, patience, func() error { // none of these records is read
		s, err := l.conn.StreamState(ctx, bus.Requests)
		if l.read = s.Last; err == nil && s.Last < uint64(sent) {
			err = fmt.Errorf("%d of %d records came: %w", s.Last, sent, errUnscored)
		}
		return err
	})
}

// close ends all processes, the youngest first, and removes what they stored.
func (l *lab) close() {
	for i := len(l.started) - 1; i >= 0; i-- {
		p := l.started[i]
		if p.Role == "nats" && l.conn != nil {
			l.conn.Close()
		}
		p.Stop()
	}
	_ = os.RemoveAll(l.dir)
}

// task is a new request with a body of that size: in turn each of its variants.
func (l *lab) task(size int, way string) *task {
	n := l.numbers.Add(1)
	return &task{payload: l.payloads[payloadName(size, int(n%variants))], way: way, number: n, chunks: 4}
}

// target is where a way begins: the router, or the engines in turn.
func (l *lab) target(way string, connection int) string {
	if way == routed {
		return l.address
	}
	return l.engines[connection%len(l.engines)]
}

// record is what the figures need of the router's record of a request.
type record struct {
	ID      string `json:"x-request-id"`
	Unknown bool   `json:"unknown"`
	Engine  string `json:"engine"`
	Outcome string `json:"outcome"`
	Keys    []byte `json:"keys"`
	Us      struct {
		Score float64 `json:"score"`
		Pick  float64 `json:"pick"`
	} `json:"us"`
}

// records reads the records of so many requests that have just ended, by request id. All must be there; few may be
// unscored, as they are where the scorer's process did not get a core in time.
func (l *lab) records(ctx context.Context, n int) (found map[string]record, unscored int, err error) {
	err = until(ctx, patience/4, func() error {
		s, err := l.conn.StreamState(ctx, bus.Requests)
		if err == nil && s.Last < l.read+uint64(n) {
			err = fmt.Errorf("%d of %d requests left a record: %w", s.Last-l.read, n, errUnscored)
		}
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	found = make(map[string]record, n)
	span := bus.Span{Stream: bus.Requests, From: l.read + 1, To: l.read + uint64(n)}
	l.read = span.To
	var bad error
	err = l.conn.Read(ctx, span, func(m bus.Message) {
		var r record
		if err := json.Unmarshal(m.Data, &r); err != nil || r.Engine == "" || r.Outcome != "ok" || r.Unknown != (len(r.Keys) == 0) {
			bad = fmt.Errorf("record %s: outcome %q, unknown %v: %w", r.ID, r.Outcome, r.Unknown, errors.Join(err, errUnscored))
		}
		if found[r.ID] = r; r.Unknown {
			unscored++
		}
	})
	if err = errors.Join(err, bad); err == nil && len(found) != n {
		err = fmt.Errorf("%d requests in %d records: %w", len(found), n, errUnscored)
	}
	return found, unscored, err
}

// scored fails where more requests than may be were not scored.
func (l *lab) scored(ctx context.Context, n int) error {
	_, unscored, err := l.records(ctx, n)
	return errors.Join(err, l.few(unscored, n))
}

func (l *lab) few(unscored, n int) error {
	if float64(unscored) > l.late*float64(n) {
		return fmt.Errorf("%d of %d requests: %w", unscored, n, errUnscored)
	}
	return nil
}

// spent is what the router used between two moments.
type spent struct {
	cpu    float64 // seconds
	allocs float64
	took   time.Duration
}

// meter starts to measure what the router uses; stop ends that.
func (l *lab) meter() (stop func() (spent, error), err error) {
	var before, after memory
	if err := l.router.Ask("memory", nil, &before); err != nil {
		return nil, err
	}
	used, err := l.router.CPU()
	began := time.Now()
	return func() (spent, error) {
		took := time.Since(began)
		now, err := l.router.CPU()
		if err == nil {
			err = l.router.Ask("memory", nil, &after)
		}
		return spent{now - used, float64(after.Mallocs - before.Mallocs), took}, err
	}, err
}
