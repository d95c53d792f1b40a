package plane

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/loadgen/process"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// writer is the role that writes the log of a shard's engines directly, in ingest's form and by its rules: one owner and
// one fenced publish in flight a bucket, and what comes due meanwhile is the next message.
type writer struct {
	conn    *bus.Conn
	pool    string
	buckets []*writerBucket
	engines []*ring
}

type writerBucket struct {
	n       int
	w       *bus.Writer
	counter uint64
	engines []*ring
	due     []time.Time // when each engine publishes next
}

type writerConfig struct {
	NATS          string
	Engines       int // of the whole fleet
	Shards, Shard int
	Blocks        int // of each engine
}

const (
	writerName = "writer-a"
	mostBytes  = 256 << 10 // of a message
	mostPart   = 4 << 10   // of what is not a run
)

// written is what the log holds after load.
type written struct {
	Engines, Entries, Buckets int
	Bytes                     int
}

// startWriter answers with what it wrote.
func startWriter(ctx context.Context, config []byte) (process.Role, any, error) {
	var cfg writerConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	scope, err := scopeOf(ctx, cfg.NATS)
	if err != nil {
		return nil, nil, err
	}
	conn, err := bus.Connect(ctx, cfg.NATS, bus.Options{Name: "writer", Log: logger("writer")})
	if err != nil {
		return nil, nil, err
	}
	w := &writer{conn: conn, pool: scope.Pool}
	by := map[int]*writerBucket{}
	for i, id := range fleetOf(cfg.Engines, cfg.Shards, cfg.Shard) {
		n := fleet.Bucket(id)
		b := by[n]
		if b == nil {
			b = &writerBucket{n: n, w: conn.Writer(bus.EventSubject(w.pool, n))}
			by[n] = b
			w.buckets = append(w.buckets, b)
		}
		r := newRing(id, uint64(i), cfg.Blocks)
		b.engines, w.engines = append(b.engines, r), append(w.engines, r)
	}
	all, err := w.load(ctx)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return w, all, nil
}

func (w *writer) Close() { w.conn.Close() }

func (w *writer) Handle(ctx context.Context, name string, encoded []byte) (any, error) {
	var args engineCall
	if err := json.Unmarshal(encoded, &args); err != nil {
		return nil, err
	}
	switch name {
	case "play":
		return w.play(ctx, args.Rate, args.Seconds)
	case "digests":
		return w.digests(ctx, args.Wrong)
	case "verify":
		return w.verify(ctx, args.Index, args.Chains, args.Seconds)
	}
	return nil, process.ErrUnknownCall
}

// each works on all buckets, each in a goroutine of its own, as ingest does.
func (w *writer) each(ctx context.Context, work func(context.Context, *writerBucket) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, b := range w.buckets {
		group.Go(func() error { return work(ctx, b) })
	}
	return group.Wait()
}

func (b *writerBucket) publish(ctx context.Context, parts ...*eventsv1.Part) (seq uint64, size int, err error) {
	b.counter++
	data, err := proto.Marshal(&eventsv1.Message{Version: eventlog.Version, Owner: writerName, Counter: b.counter, Parts: parts})
	if err != nil {
		return 0, 0, err
	}
	if parts[0].GetClaim() != nil {
		seq, err = b.w.Claim(ctx, data)
	} else {
		seq, err = b.w.Publish(ctx, data)
	}
	return seq, len(data), err
}

// load writes for each engine a reset and a snapshot, and a digest behind all; and the records that go with them.
func (w *writer) load(ctx context.Context) (all written, err error) {
	sizes := make([]int, fleet.Buckets)
	if err := w.each(ctx, func(ctx context.Context, b *writerBucket) (err error) {
		sizes[b.n], err = b.load(ctx, w)
		return err
	}); err != nil {
		return all, fmt.Errorf("write the log: %w", err)
	}
	for _, n := range sizes {
		all.Bytes += n
	}
	for _, e := range w.engines {
		all.Entries += e.blocks
		if err := fleet.PutEngine(ctx, w.conn, fleet.Engine{ID: e.id, Name: e.id, Pool: w.pool, URL: "http://" + e.id, Role: fleet.Both,
			Ranks: 1, BlockSize: blockSize, Blocks: e.blocks, Generation: e.generation, State: fleet.OK}); err != nil {
			return all, err
		}
	}
	all.Engines, all.Buckets = len(w.engines), len(w.buckets)
	return all, nil
}

func (b *writerBucket) load(ctx context.Context, w *writer) (bytes int, err error) {
	first, bytes, err := b.publish(ctx, &eventsv1.Part{Body: &eventsv1.Part_Claim{Claim: &eventsv1.Claim{}}})
	if err != nil {
		return bytes, err
	}
	for _, e := range b.engines {
		var size int
		if e.generation, size, err = b.publish(ctx, &eventsv1.Part{Engine: e.id, Body: &eventsv1.Part_Reset_{Reset_: &eventsv1.Reset{Reason: "load"}}}); err != nil {
			return bytes, err
		}
		bytes += size
		parts := e.parts()
		for i, s := range parts {
			s.Part, s.Parts, s.Generation, s.Batch = uint32(i+1), uint32(len(parts)), e.generation, e.batch(time.Now())
			if i == len(parts)-1 {
				count, digest := e.digest()
				s.Count, s.Digest = uint64(count), digest
			}
			if _, size, err = b.publish(ctx, &eventsv1.Part{Engine: e.id, Body: &eventsv1.Part_Snapshot{Snapshot: s}}); err != nil {
				return bytes, err
			}
			bytes += size
		}
	}
	return bytes, fleet.PutPosition(ctx, w.conn, fleet.BucketID{Pool: w.pool, N: b.n}, first)
}

// parts cuts the engine's state into snapshots that fit a message each.
func (r *ring) parts() (parts []*eventsv1.Snapshot) {
	left := 0
	for run := range r.snapshot {
		size := runBytes(run)
		if len(parts) == 0 || size > left {
			parts, left = append(parts, &eventsv1.Snapshot{}), mostBytes-mostPart
		}
		last := parts[len(parts)-1]
		last.Runs, left = append(last.Runs, run), left-size
	}
	return parts
}

// runBytes is at least what a run takes in a message.
func runBytes(r *eventsv1.Run) int { return 56 + 8*(len(r.Hashes)+len(r.Keys)) }

func (r *ring) batch(at time.Time) *eventsv1.Batch {
	return &eventsv1.Batch{Sequence: r.batches, Ts: float64(at.UnixNano()) / 1e9}
}

// play lets every engine churn at its share of the rate: a batch is received when it comes due, however late it is
// written. It returns what was written.
func (w *writer) play(ctx context.Context, rate, seconds float64) (played, error) {
	begin := time.Now()
	end := begin.Add(time.Duration(seconds * float64(time.Second)))
	perOp := time.Duration(float64(len(w.engines)) / rate * float64(time.Second))
	sums := make([]played, fleet.Buckets)
	err := w.each(ctx, func(ctx context.Context, b *writerBucket) (err error) {
		b.due = b.due[:0]
		for i := range b.engines { // not all at the same moment
			b.due = append(b.due, begin.Add(perOp*time.Duration(80*i/len(b.engines))))
		}
		sums[b.n], err = b.play(ctx, end, perOp)
		return err
	})
	p := played{Seconds: max(seconds, time.Since(begin).Seconds())}
	for _, s := range sums {
		p.add(s.total)
		p.Last = max(p.Last, s.Last)
	}
	return p, err
}

func (b *writerBucket) play(ctx context.Context, end time.Time, perOp time.Duration) (sum played, err error) {
	for ctx.Err() == nil {
		now := time.Now()
		var parts []*eventsv1.Part
		next, left := end, mostBytes
		for i, e := range b.engines {
			if part, ops, size := b.take(i, e, now, end, perOp, left); part != nil {
				parts, left = append(parts, part), left-size
				sum.Ops += ops
				sum.Batches++
			}
			if b.due[i].Before(next) {
				next = b.due[i]
			}
		}
		if len(parts) > 0 {
			last, size, err := b.publish(ctx, parts...)
			if err != nil {
				return sum, err
			}
			sum.Bytes, sum.Last = sum.Bytes+size, last
			continue
		}
		if !next.Before(end) {
			return sum, nil
		}
		time.Sleep(time.Until(next))
	}
	return sum, ctx.Err()
}

// take makes one delta of all batches of an engine that are due, as far as there is room.
func (b *writerBucket) take(i int, e *ring, now, end time.Time, perOp time.Duration, left int) (p *eventsv1.Part, ops, size int) {
	var d *eventsv1.Delta
	for !b.due[i].After(now) && b.due[i].Before(end) && size+mostPart+mostPrompt*3*(56+16) <= left {
		if d == nil {
			d, size = &eventsv1.Delta{Received: b.due[i].UnixNano()}, 200
		}
		runs, n := e.churn()
		d.Runs, d.Batch, ops = append(d.Runs, runs...), e.batch(b.due[i]), ops+n
		for _, r := range runs {
			size += runBytes(r)
		}
		b.due[i] = b.due[i].Add(perOp * time.Duration(n))
	}
	if d == nil {
		return nil, 0, 0
	}
	return &eventsv1.Part{Engine: e.id, Body: &eventsv1.Part_Delta{Delta: d}}, ops, size
}

// digests writes the digest of every engine, falsified where wrong is set, and returns the sequence of the last one.
func (w *writer) digests(ctx context.Context, wrong bool) (last uint64, err error) {
	ends := make([]uint64, fleet.Buckets)
	err = w.each(ctx, func(ctx context.Context, b *writerBucket) error {
		var parts []*eventsv1.Part
		for _, e := range b.engines {
			count, digest := e.digest()
			if wrong {
				digest++
			}
			parts = append(parts, &eventsv1.Part{Engine: e.id, Body: &eventsv1.Part_Digest{Digest: &eventsv1.Digest{
				Batch: e.batch(time.Now()), Count: uint64(count), Digest: digest}}})
		}
		var err error
		ends[b.n], _, err = b.publish(ctx, parts...)
		return err
	})
	for _, seq := range ends {
		last = max(last, seq)
	}
	return last, err
}

// verify compares the index's counts of all engines, and what it says to some chains of each, with the truth.
func (w *writer) verify(ctx context.Context, address string, chains int, seconds float64) (verdict, error) {
	x, err := dial(address, w.pool)
	if err != nil {
		return verdict{}, err
	}
	defer x.close()
	limit := time.Duration(seconds * float64(time.Second))
	v := verdict{Equal: true}
	for i, e := range w.engines {
		held := map[string]truth{e.id: {keys: e.held()}}
		v.Blocks += e.blocks
		for c := range uint64(chains) {
			at := e.oldest + draw(uint64(i), c, 0)%(e.end-e.oldest)
			err := until(ctx, limit, func() error { return x.compareOne(ctx, held, e.chain(at)) })
			if v.Chains++; err != nil {
				return verdict{Why: err.Error()}, nil
			}
		}
	}
	got, err := x.match(ctx, nil)
	if err == nil && len(got) != len(w.engines) {
		return verdict{Why: fmt.Sprintf("the index knows %d engines, there are %d", len(got), len(w.engines))}, nil
	}
	return v, err
}
