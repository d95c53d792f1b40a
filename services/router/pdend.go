package router

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/openai"
)

const (
	maxAbandoned = 256 // prompts at a time that are read only to free their blocks
	abandonTime  = 15 * time.Second
)

// abandoned counts the prompts that prefill engines hold for clients that have left.
type abandoned struct {
	now  atomic.Int64
	done sync.WaitGroup
}

// wait returns when all are freed, or given up; within abandonTime.
func (a *abandoned) wait() { a.done.Wait() }

// settle frees what nobody fetched, and notes what came of the split.
func (x *exchange) settle(ctx context.Context) {
	s := &x.apart
	if s.params != nil && !s.sent.Load() {
		x.abandon(ctx)
		s.line.Outcome = splitCancelled
	}
	if s.line == nil {
		return
	}
	if s.usage != nil && x.q.stream && !x.first.IsZero() {
		transfer := x.first.Sub(s.computed).Seconds()
		s.line.Transfer = &transfer
	}
	x.rt.metrics.splits.WithLabelValues(s.line.Outcome).Inc()
}

// remote says that another engine than the one that decodes computed the prompt.
func (s *split) remote() bool {
	return s.usage != nil || s.line != nil && s.line.Outcome == splitSidecar
}

// abandon frees the blocks that a prefill engine keeps for a decode engine that was never asked: it has the decode
// engine read them and generate one token. To ask and hang up at once would be less work, but an engine may then drop the
// request before it has looked at it, and the blocks stay until their lease is over.
func (x *exchange) abandon(ctx context.Context) {
	rt, engine := x.rt, x.res.Engine
	if rt.given.now.Add(1) > maxAbandoned || engine.ID == x.apart.by.ID {
		rt.given.now.Add(-1)
		rt.metrics.stranded.Inc()
		return
	}
	leg := x.q.prefillLeg(x.apart.params)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	out, err := x.request(ctx, &engine, leg)
	rt.given.done.Go(func() {
		defer rt.given.now.Add(-1)
		defer cancel()
		defer leg.Release()
		var resp *http.Response
		if err == nil {
			resp, err = rt.engines.RoundTrip(out)
		}
		if err != nil || resp.StatusCode != http.StatusOK {
			rt.metrics.stranded.Inc()
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxRead)) // so that the connection is used again
			_ = resp.Body.Close()
		}
	})
}

// corrected passes an answer that does not stream with the prefill engine's cached tokens in its usage. One that is too
// long to be kept passes as it is.
func (x *exchange) corrected(out *client, in io.Reader) error {
	kept, err := io.ReadAll(io.LimitReader(&begun{in, x}, maxRead+1))
	if err == nil && len(kept) <= maxRead {
		x.readUsage(kept)
		if x.usage != nil {
			x.usage.Cached, x.usage.HasCached = x.apart.usage.Cached, x.apart.usage.HasCached
		}
		var b openai.Body
		if b.Scan(kept) == nil {
			if fixed := openai.WithCached(&b, x.apart.usage); fixed != nil {
				kept = fixed
			}
		}
	}
	if len(kept) > 0 {
		if failed := out.write(kept); failed != nil {
			return failed
		}
	}
	if err != nil || len(kept) <= maxRead {
		return err
	}
	return x.whole(out, in)
}

// begun notes when an answer begins, and how it goes on.
type begun struct {
	in io.Reader
	x  *exchange
}

func (f *begun) Read(p []byte) (int, error) {
	n, err := f.in.Read(p)
	if n > 0 {
		f.x.started(time.Now())
	}
	return n, err
}
