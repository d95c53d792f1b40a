package hop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Streams is how many streams the router carried at once.
type Streams struct {
	Concurrent int `json:"concurrent"`
	Lost       int `json:"lost"` // without the whole answer, byte for byte
	// Growth is what the router's process held more, after collections, after the last of three waves of streams than
	// after the first.
	Growth int64 `json:"rss_growth_bytes"`
}

// flow is where equal requests go, and what they are.
type flow struct {
	address string
	way     string
	size    int
}

// routed is a flow through the router.
func (l *lab) routed() flow { return flow{l.address, routed, l.Sizes[0]} }

// stream sends n equal requests, one every apart, each answered with so many chunks, and returns how many failed, and
// why.
func stream(l *lab, f flow, n, chunks int, apart, gap time.Duration) (lost int, err error) {
	failed := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			time.Sleep(time.Duration(i) * apart)
			c := newConnection(f.address)
			defer c.close()
			t := l.task(f.size, f.way)
			t.chunks, t.gap = chunks, gap
			_, failed[i] = c.do(t)
		})
	}
	wait.Wait()
	for _, e := range failed {
		if e != nil {
			lost, err = lost+1, e
		}
	}
	return lost, err
}

// chunks measures the router's processor time for each event of streams.
func chunks(ctx context.Context, l *lab, o Options, f *Figures) error {
	us, err := chunkCost(l, l.routed(), o, l.router.CPU)
	if err == nil {
		err = l.scored(ctx, 2*chunkStreams)
	}
	f.ChunkUS = us
	return err
}

const chunkStreams = 20

// chunkCost is the processor time for each event of 20 streams, in microseconds. Each event comes alone, so that each
// is read and flushed alone.
func chunkCost(l *lab, f flow, o Options, cpu func() (float64, error)) (us float64, err error) {
	const gap = 5 * time.Millisecond
	n := max(1, int(o.Seconds/gap.Seconds()))
	if _, err := stream(l, f, chunkStreams, 1, 0, gap); err != nil { // connections to engines, buffers
		return 0, err
	}
	before, err := cpu()
	if err != nil {
		return 0, err
	}
	if _, err := stream(l, f, chunkStreams, n, 0, gap); err != nil {
		return 0, err
	}
	after, err := cpu()
	return 1e6 * (after - before) / float64(chunkStreams*n), err
}

// most measures how many requests a second go through with everything on this machine.
func most(ctx context.Context, l *lab, o Options, f *Figures) error {
	const connections = 16
	rps, core, unscored := map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, size := range l.Sizes {
		if _, err := capacity(ctx, l, size, connections); err != nil {
			return err
		}
		stop, err := l.meter()
		if err != nil {
			return err
		}
		end := time.Now().Add(time.Duration(o.Seconds / 2 * float64(time.Second)))
		var done atomic.Int64
		if err := closedLoops(ctx, l, size, connections, func(n int) bool {
			if n > 0 {
				done.Add(1)
			}
			return time.Now().Before(end)
		}); err != nil {
			return err
		}
		used, err := stop()
		if err != nil {
			return err
		}
		rps[sizeName(size)], core[sizeName(size)] = float64(done.Load())/used.took.Seconds(), float64(done.Load())/used.cpu
		_, late, err := l.records(ctx, int(done.Load()))
		if err != nil {
			return err
		}
		unscored[sizeName(size)] = float64(late) / float64(done.Load())
	}
	f.MaxRPS, f.CoreRPS, f.Unscored = rps, core, unscored
	return nil
}

// request measures the router's processor time for 100,000 tokens of prompt and 1,000 of output.
func request(ctx context.Context, l *lab, o Options, f *Figures) error {
	const tokens = 1000
	gap := time.Duration(o.Seconds / tokens * float64(time.Second))
	apart := 20 * gap // each alone with its 400 KB, so that none is scored late
	n := max(1, int(3*o.Seconds))
	if _, err := stream(l, l.routed(), n, 1, apart, gap); err != nil {
		return err
	}
	stop, err := l.meter()
	if err != nil {
		return err
	}
	if _, err := stream(l, l.routed(), n, tokens, apart, gap); err != nil {
		return err
	}
	used, err := stop()
	if err == nil {
		err = l.scored(ctx, 2*n)
	}
	f.RequestCPU = used.cpu / float64(n)
	return err
}

// idle measures the router without requests.
func idle(ctx context.Context, l *lab, o Options, f *Figures) error {
	stop, err := l.meter()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(o.Seconds * float64(time.Second))):
	}
	used, err := stop()
	cores := used.cpu / used.took.Seconds()
	f.IdleCores = &cores
	return err
}

// decision reads the time of choice and reservation from the records of an open loop.
func decision(ctx context.Context, l *lab, o Options, f *Figures) error {
	const connections = 8
	rate, err := capacity(ctx, l, l.Sizes[0], connections)
	if err != nil {
		return err
	}
	loop := openLoop{lab: l, size: l.Sizes[0], connections: connections, each: max(1, o.Requests/connections), rate: rate / 2}
	samples := loop.run(ctx, routed)
	for _, s := range samples {
		err = errors.Join(err, s.err)
	}
	if err != nil {
		return err
	}
	records, _, err := l.records(ctx, len(samples))
	var us []float64
	for _, r := range records {
		us = append(us, r.Us.Pick)
	}
	q := quantiles(us)
	f.Decision = &q
	return err
}

// streams opens all streams at once, three times.
func streams(ctx context.Context, l *lab, o Options, f *Figures) error {
	s := &Streams{Concurrent: o.Streams}
	const waves, gap = 3, 250 * time.Millisecond
	var first, last memory
	var failed error
	for wave := range waves {
		lost, err := stream(l, l.routed(), o.Streams, max(2, int(o.Seconds/gap.Seconds())), 0, gap)
		s.Lost += lost
		failed = errors.Join(failed, err)
		if _, _, err := l.records(ctx, o.Streams); err != nil { // a thousand at once: the last are scored late
			failed = errors.Join(failed, err)
		}
		if err := l.router.Ask("settle", nil, &last); err != nil {
			return err
		}
		if wave == 0 {
			first = last
		}
	}
	s.Growth = last.Resident - first.Resident
	f.Streams = s
	if failed != nil {
		return fmt.Errorf("%d streams lost: %w", s.Lost, failed)
	}
	return nil
}
