package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/eventlog"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// writer is what a bucket needs of bus.Writer.
type writer interface {
	Claim(ctx context.Context, data []byte) (uint64, error)
	Publish(ctx context.Context, data []byte) (uint64, error)
}

// bucket publishes the engines of one pool's bucket: one message in flight, and what arrives meanwhile is the next.
type bucket struct {
	name    string // its subject, for the log
	owner   string
	w       writer
	history history // nil where there is none
	log     *slog.Logger
	m       *metrics
	fenced  time.Duration // how long to leave the bucket alone after another owner wrote
	counter uint64        // of the last message
	dirty   chan struct{} // holds one token when there may be something to take
	last    chan struct{} // closed when nothing will be folded any more: run ends once all is published
	changed func()        // called when the bucket is ours no more
	ours    atomic.Bool   // it is claimed, and nobody else has claimed it since as far as we know

	mu      sync.Mutex
	caches  []*cache                    // sorted by id
	turn    int                         // which of them comes first in the next message
	told    map[string]*eventlog.Engine // what the log told of engines that are not in caches; nil until it is read
	toldAt  time.Time                   // when it was read
	written int                         // bytes of the bucket's log, since where we began to read it
	cutting *cache                      // whose snapshot is on its way
	odd     bool                        // the next message is for deltas first
}

func newBucket(subject, owner string, w writer, fenced time.Duration, log *slog.Logger, m *metrics) *bucket {
	return &bucket{name: subject, owner: owner, w: w, fenced: fenced, log: log, m: m, changed: func() {},
		dirty: make(chan struct{}, 1), last: make(chan struct{})}
}

func (b *bucket) wake() { token(b.dirty) }

// add begins to publish an engine, with what the log told of it, as soon as the log has been read.
func (b *bucket) add(c *cache) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caches = append(b.caches, c)
	slices.SortFunc(b.caches, func(x, y *cache) int { return strings.Compare(x.id, y.id) })
	if b.told != nil {
		b.hand(c)
	}
	b.wake()
}

// hand gives a cache what the log told of it.
func (b *bucket) hand(c *cache) {
	c.adopt(b.told[c.id])
	delete(b.told, c.id)
}

// remove ends the publishing of an engine.
func (b *bucket) remove(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caches = slices.DeleteFunc(b.caches, func(c *cache) bool { return c.id == id })
}

// finish says that nothing will be folded any more. It must be called once at most.
func (b *bucket) finish() { close(b.last) }

// run takes the bucket over and publishes until ctx ends, or all is published after finish. A superseded owner leaves
// the bucket alone for a while and takes it over again: whoever should not own it is told so by the fleet view and ends
// ctx.
func (b *bucket) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := b.own(ctx)
		b.ours.Store(false)
		if ctx.Err() != nil || err == nil {
			return
		}
		pause := time.Second
		if errors.Is(err, bus.ErrFenced) {
			b.m.fenced.Inc()
			pause = b.fenced
		}
		b.log.Warn("bucket lost", "bucket", b.name, "err", err, "again_in", pause)
		b.changed()
		select {
		case <-ctx.Done():
		case <-b.last:
			return // whoever owns the bucket now reads the engines itself
		case <-time.After(pause):
		}
	}
}

// each does the same to every engine.
func (b *bucket) each(do func(*cache)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.caches {
		do(c)
	}
}

// own takes the bucket over and publishes until that fails, or with nil all that there will ever be.
func (b *bucket) own(ctx context.Context) error {
	data, err := b.encode([]*eventsv1.Part{claimPart()})
	if err != nil {
		return err
	}
	began := time.Now()
	claim, err := b.w.Claim(ctx, data)
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	b.ours.Store(true)
	if err := b.takeOver(ctx, claim, began); err != nil {
		return err
	}
	for final := false; ; {
		parts, receipts := b.next()
		if len(parts) == 0 {
			if final {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-b.dirty:
			case <-b.last:
				final = true // what was folded just before is still taken
			}
			continue
		}
		if err := b.publish(ctx, parts, receipts); err != nil {
			return err
		}
	}
}

func (b *bucket) publish(ctx context.Context, parts []*eventsv1.Part, receipts []receipt) error {
	data, err := b.encode(parts)
	if err != nil {
		return err
	}
	began := time.Now()
	seq, err := b.w.Publish(ctx, data)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	b.m.publish.Observe(time.Since(began).Seconds())
	b.m.published.Add(float64(len(data)))
	b.mu.Lock()
	at := eventlog.Place{Sequence: seq, Time: time.Now(), Bytes: b.written}
	b.written += len(data)
	b.mu.Unlock()
	for _, r := range receipts {
		r.acknowledged(at)
	}
	return nil
}

func (b *bucket) encode(parts []*eventsv1.Part) ([]byte, error) {
	b.counter++
	data, err := proto.Marshal(&eventsv1.Message{Version: eventlog.Version, Owner: b.owner, Counter: b.counter, Parts: parts})
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return data, nil
}

// next gathers one message: by turns what engines have changed, and a part of a snapshot, which fills a message.
func (b *bucket) next() (parts []*eventsv1.Part, receipts []receipt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.odd = !b.odd; b.odd {
		parts, receipts = b.nextDeltas()
	}
	if len(parts) == 0 {
		if part, r := b.nextPart(); part != nil {
			parts, receipts = []*eventsv1.Part{part}, []receipt{r}
		}
	}
	if len(parts) == 0 && !b.odd {
		parts, receipts = b.nextDeltas()
	}
	if len(parts) > 0 {
		b.wake() // there may be more
	}
	return parts, receipts
}

// nextDeltas gathers what engines have changed, beginning with another engine each time.
func (b *bucket) nextDeltas() (parts []*eventsv1.Part, receipts []receipt) {
	n, left := len(b.caches), maxMessage-headroom
	for i := range n {
		c := b.caches[(b.turn+i)%n]
		more, size, r := c.take(left, len(parts) == 0)
		parts, left = append(parts, more...), left-size
		if r.reset || r.deltas {
			receipts = append(receipts, r)
		}
		if left < 2*headroom {
			break
		}
	}
	if n > 0 {
		b.turn = (b.turn + 1) % n
	}
	return parts, receipts
}
