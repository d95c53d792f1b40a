package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
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
	log     *slog.Logger
	m       *metrics
	fenced  time.Duration // how long to leave the bucket alone after another owner wrote
	counter uint64        // of the last message
	dirty   chan struct{} // holds one token when there may be something to take
	last    chan struct{} // closed when nothing will be folded any more: run ends once all is published

	mu     sync.Mutex
	caches []*cache // sorted by id
	turn   int      // which of them comes first in the next message
}

func newBucket(subject, owner string, w writer, fenced time.Duration, log *slog.Logger, m *metrics) *bucket {
	return &bucket{name: subject, owner: owner, w: w, fenced: fenced, log: log, m: m, dirty: make(chan struct{}, 1), last: make(chan struct{})}
}

func (b *bucket) wake() {
	select {
	case b.dirty <- struct{}{}:
	default:
	}
}

func (b *bucket) add(c *cache) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caches = append(b.caches, c)
	slices.SortFunc(b.caches, func(x, y *cache) int { return strings.Compare(x.id, y.id) })
	b.wake()
}

// remove ends the publishing of an engine.
func (b *bucket) remove(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caches = slices.DeleteFunc(b.caches, func(c *cache) bool { return c.id == id })
}

// finish says that nothing will be folded any more. It must be called once at most.
func (b *bucket) finish() { close(b.last) }

// run claims the bucket and publishes until ctx ends, or all is published after finish. A superseded owner leaves the bucket alone for a while, claims it
// again and publishes every engine anew: whoever should not own it is told so by the fleet view and ends ctx.
func (b *bucket) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := b.own(ctx)
		if ctx.Err() != nil || err == nil {
			return
		}
		pause := time.Second
		if errors.Is(err, bus.ErrFenced) {
			b.m.fenced.Inc()
			pause = b.fenced
		}
		b.log.Warn("bucket lost", "bucket", b.name, "err", err, "again_in", pause)
		b.renew("bucket claimed again")
		select {
		case <-ctx.Done():
		case <-b.last:
			return // whoever owns the bucket now reads the engines itself
		case <-time.After(pause):
		}
	}
}

// again publishes a snapshot of every engine: a reader has asked for it.
func (b *bucket) again() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.caches {
		c.again()
	}
}

func (b *bucket) renew(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.caches {
		c.renew(reason)
	}
}

// own claims the bucket and publishes until that fails, or with nil all that there will ever be.
func (b *bucket) own(ctx context.Context) error {
	data, err := b.encode([]*eventsv1.Part{claimPart()})
	if err != nil {
		return err
	}
	if _, err := b.w.Claim(ctx, data); err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	b.log.Info("bucket claimed", "bucket", b.name)
	for final := false; ; {
		parts, resets := b.next()
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
		for _, c := range resets {
			c.published(seq)
		}
	}
}

func (b *bucket) encode(parts []*eventsv1.Part) ([]byte, error) {
	b.counter++
	data, err := proto.Marshal(&eventsv1.Message{Version: eventlog.Version, Owner: b.owner, Counter: b.counter, Parts: parts})
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return data, nil
}

// next gathers one message, beginning with another engine each time.
func (b *bucket) next() (parts []*eventsv1.Part, resets []*cache) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, left := len(b.caches), maxMessage-headroom
	for i := range n {
		c := b.caches[(b.turn+i)%n]
		more, size, reset := c.take(left, len(parts) == 0)
		parts, left = append(parts, more...), left-size
		if reset {
			resets = append(resets, c)
		}
		if left < 2*headroom {
			break
		}
	}
	if n > 0 {
		b.turn = (b.turn + 1) % n
	}
	if len(parts) > 0 {
		b.wake() // there may be more
	}
	return parts, resets
}
