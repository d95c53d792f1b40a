package bus

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Watch calls fn, from one goroutine, with every key that matches pattern (">" for all), then with an Entry whose Key
// is empty, once, and then with every change. After a loss of the connection it goes on: fn hears of what changed or
// vanished meanwhile, and of nothing else. It returns nil when ctx ends.
func (k *KV) Watch(ctx context.Context, pattern string, fn func(Entry)) error {
	w := watch{prefix: "$KV." + k.name + ".", fn: fn, known: make(map[string]version)}
	cfg := jetstream.ConsumerConfig{
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
		FilterSubjects: []string{w.prefix + pattern},
	}
	for n := 0; ; n++ {
		err := k.c.consume(ctx, "KV_"+k.name, cfg, w.begin, w.each)
		if w.listed {
			n = 0
		}
		if ctx.Err() != nil {
			return nil
		}
		if n == 4 {
			k.c.log.Warn("cannot watch yet", "bucket", k.name, "err", err)
		}
		if k.c.pause(ctx, backoff(n)) != nil {
			return nil
		}
	}
}

// A version names one value of a key: a store that was lost and made anew hands out the same revisions again.
type version struct {
	revision uint64
	stored   int64 // Unix nanoseconds
}

// watch is the state of one Watch over its consumers.
type watch struct {
	prefix string
	fn     func(Entry)
	known  map[string]version // of every key that fn believes to exist
	told   bool               // fn has heard of the end of the first listing

	listed  bool            // this consumer has listed what exists
	pending uint64          // messages of the listing
	seen    map[string]bool // keys in this listing
}

func (w *watch) begin(pending uint64) error {
	w.listed, w.pending, w.seen = false, pending, make(map[string]bool)
	if pending == 0 {
		w.endListing()
	}
	return nil
}

func (w *watch) each(m jetstream.Msg, meta *jetstream.MsgMetadata) {
	e := Entry{Key: strings.TrimPrefix(m.Subject(), w.prefix), Revision: meta.Sequence.Stream, Time: meta.Timestamp}
	e.Deleted, e.Expired = removal(m.Headers())
	old, known := w.known[e.Key]
	now := version{e.Revision, e.Time.UnixNano()}
	switch {
	case e.Deleted:
		delete(w.known, e.Key)
		if known || w.listed {
			w.fn(e)
		}
	default:
		w.known[e.Key] = now
		if !w.listed {
			w.seen[e.Key] = true
		}
		if e.Value = m.Data(); w.listed || !known || old != now {
			w.fn(e)
		}
	}
	// Messages overtaken during the listing never arrive, so their number alone does not end it.
	if !w.listed && (meta.Sequence.Consumer >= w.pending || meta.NumPending == 0) {
		w.endListing()
	}
}

func (w *watch) endListing() {
	w.listed = true
	for key := range w.known {
		if !w.seen[key] {
			delete(w.known, key)
			w.fn(Entry{Key: key, Deleted: true, Expired: true})
		}
	}
	w.seen = nil
	if !w.told {
		w.told = true
		w.fn(Entry{})
	}
}

// removal reads from a message's headers whether it marks the end of a key's value, and whether nobody asked for it.
func removal(h nats.Header) (deleted, expired bool) {
	switch h.Get("KV-Operation") {
	case "DEL", "PURGE":
		return true, false
	}
	switch h.Get(jetstream.MarkerReasonHeader) {
	case "MaxAge":
		return true, true
	case "Purge", "Remove":
		return true, false
	}
	return false, false
}
