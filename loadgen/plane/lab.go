package plane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/process"
	"github.com/warmpath/warmpath/services/ingest"
)

func cores() int { return runtime.NumCPU() }

// lab is where one part is measured: a NATS server of its own, and the processes around it.
type lab struct {
	self   []string
	dir    string
	url    string
	conn   *bus.Conn
	pool   string
	nats   *process.Process
	others []*process.Process // in order of their start
}

// patience is how long what should take a moment may take on a machine that is busy with other things.
const patience = 2 * time.Minute

// eventBytes is room for the log of the largest part, so that nothing is discarded in the midst of a measurement.
const eventBytes = 4 << 30

func newLab(ctx context.Context, self []string) (*lab, error) {
	dir, err := os.MkdirTemp("", "warmpath-plane-")
	if err != nil {
		return nil, err
	}
	l := &lab{self: self, dir: dir, pool: fleet.PoolID(model)}
	if l.nats, err = process.Start(ctx, self, "nats", process.NATS{Dir: dir}, &l.url); err != nil {
		l.close()
		return nil, err
	}
	if l.conn, err = bus.Connect(ctx, l.url, bus.Options{Name: "plane", Log: logger("plane")}); err == nil {
		err = l.conn.Ensure(ctx, bus.Sizes{Events: eventBytes})
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// close ends all processes, the youngest first, and removes what they stored.
func (l *lab) close() {
	for i := len(l.others) - 1; i >= 0; i-- {
		l.others[i].Stop()
	}
	if l.conn != nil {
		l.conn.Close()
	}
	if l.nats != nil {
		l.nats.Stop()
	}
	_ = os.RemoveAll(l.dir)
}

func (l *lab) spawn(ctx context.Context, role string, config, reply any) (*process.Process, error) {
	p, err := process.Start(ctx, l.self, role, config, reply)
	if err == nil {
		l.others = append(l.others, p)
	}
	return p, err
}

// index starts an index and waits until it can serve.
func (l *lab) index(ctx context.Context, shards, shard int) (x *process.Process, address string, err error) {
	if x, err = l.spawn(ctx, "index", indexConfig{NATS: l.url, Shards: shards, Shard: shard}, &address); err != nil {
		return nil, "", err
	}
	return x, address, x.Ask("ready", nil, nil)
}

// plane is engines, ingest and index around the lab's NATS.
type plane struct {
	*lab
	engines, ingest, index *process.Process
	list                   []ingest.Engine
	address                string // of the index
}

// newPlane starts engines, fills their caches, starts an ingest and an index, and waits until the index has all.
func (l *lab) newPlane(ctx context.Context, cfg enginesConfig) (p *plane, err error) {
	p, cfg.NATS = &plane{lab: l}, l.url
	if p.engines, err = l.spawn(ctx, "engines", cfg, &p.list); err != nil {
		return nil, err
	}
	if err = p.engines.Ask("fill", engineCall{}, nil); err != nil {
		return nil, err
	}
	if p.ingest, err = l.spawn(ctx, "ingest", ingestConfig{NATS: l.url, Instance: "ingest-a", Engines: p.list}, nil); err != nil {
		return nil, err
	}
	if p.index, p.address, err = l.index(ctx, 1, 0); err != nil {
		return nil, err
	}
	return p, p.settled(ctx)
}

// settled waits until the index has all that the engines published, and every engine has a record.
func (p *plane) settled(ctx context.Context) error {
	if err := p.engines.Ask("settled", engineCall{Index: p.address, Seconds: patience.Seconds()}, nil); err != nil {
		return err
	}
	_, err := p.records(ctx, func(fleet.Engine) bool { return true })
	return err
}

// verify compares the index with the engines, which must publish nothing now; chains is how many of each to ask for.
func (p *plane) verify(chains int) (v verdict, err error) {
	err = p.engines.Ask("verify", engineCall{Index: p.address, Chains: chains, Seconds: 10}, &v)
	return v, err
}

// play has the engines publish and returns what they did.
func (p *plane) play(rate, seconds float64) (done played, err error) {
	if err = p.engines.Ask("begin", engineCall{Rate: rate, Seconds: seconds}, nil); err != nil {
		return done, err
	}
	err = p.engines.Ask("end", engineCall{}, &done)
	return done, err
}

// records waits until each engine has a record that is as it should be, and returns them.
func (p *plane) records(ctx context.Context, ok func(fleet.Engine) bool) (records []fleet.Engine, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := fleet.Watch(ctx, p.conn, logger("plane"))
	if err != nil {
		return nil, err
	}
	err = until(ctx, patience, func() error {
		records = w.View().InPool(p.pool)
		n := 0
		for _, e := range records {
			if e.Generation != 0 && ok(e) {
				n++
			}
		}
		if n < len(p.list) {
			return fmt.Errorf("%d of %d engines have the record that they should", n, len(p.list))
		}
		return nil
	})
	return records, err
}

// counted reads a sum of a service's metric.
func counted(p *process.Process, name string) (float64, error) {
	var sums map[string]float64
	if err := p.Ask("metrics", nil, &sums); err != nil {
		return 0, err
	}
	n, ok := sums[name]
	if !ok {
		return 0, errors.New(p.Role + " has no metric " + name)
	}
	return n, nil
}
