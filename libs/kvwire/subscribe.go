package kvwire

import (
	"context"
	"runtime"
	"time"

	czmq "github.com/zeromq/goczmq"
)

const (
	renewAfter = 15 * time.Second // silence after which a subscription gets a new connection
	overlap    = time.Second      // how long the old connection is still read
)

// Subscribe connects to a publisher and calls fn for each batch, in the order of arrival, until ctx ends; then it
// returns nil, about 100 ms later. It returns an error at once where the endpoint cannot be used. A publisher that
// is not there yet, goes away or comes back is no error: the connection is kept up in the background, and what was
// published meanwhile shows as a gap in the sequences.
//
// libzmq gives a connection up for ever when the other side breaks the protocol, be it with one frame over 8 MiB, and
// tells nobody. So after 15 s of silence a second connection is made and the first closed a second later; a batch
// that comes in that second is given to fn twice.
//
// fn runs on the socket's own thread and must be quick: while it runs, at most 1,000 messages wait in memory and the
// others wait at the publisher, which drops what exceeds its own limit. bad, where not nil, is told the reason of each
// message that had to be dropped. Each call costs one thread.
func Subscribe(ctx context.Context, endpoint string, fn func(Frame), bad func(reason string)) error {
	return subscribe(ctx, endpoint, renewAfter, overlap, fn, bad)
}

func subscribe(ctx context.Context, endpoint string, renew, overlap time.Duration, fn func(Frame), bad func(string)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := connect(czmq.Sub, endpoint, 1000)
	if err != nil {
		return err
	}
	var old *czmq.Sock // the previous connection while it is still read
	defer func() {
		s.Destroy()
		if old != nil {
			old.Destroy()
		}
	}()
	heard := time.Now() // or opened
	for ctx.Err() == nil {
		if old != nil {
			for hear(ctx, old, fn, bad) {
			}
			if time.Since(heard) > overlap {
				old.Destroy()
				old = nil
				blocks(s, wait)
			}
		}
		if hear(ctx, s, fn, bad) {
			if old == nil {
				heard = time.Now()
			}
			continue
		}
		if old == nil && time.Since(heard) > renew {
			if next, err := connect(czmq.Sub, endpoint, 1000); err == nil {
				old, s = s, next
				blocks(old, retry) // the two are read by turns
				blocks(s, retry)
			}
			heard = time.Now()
		}
	}
	return nil
}

// hear reads one message, and returns whether there was one in time.
func hear(ctx context.Context, s *czmq.Sock, fn func(Frame), bad func(string)) bool {
	began := time.Now()
	parts, count := receive(s)
	if count == 0 {
		if time.Since(began) < retry {
			sleep(ctx, retry)
		}
		return false
	}
	f, reason := live(parts, count)
	switch {
	case reason == "":
		fn(f)
	case bad != nil:
		bad(reason)
	}
	return true
}

// live reads a message of the PUB socket.
func live(parts [][]byte, count int) (Frame, string) {
	if count != 3 {
		return Frame{}, WrongParts
	}
	return frame(parts[0], parts[1], parts[2])
}
