package kvwire

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	czmq "github.com/zeromq/goczmq"
)

// ReplayOptions bounds a replay. The zero value is ready to use.
type ReplayOptions struct {
	Idle     time.Duration       // how long to wait for the next message; 0 means 5 s
	MaxBytes int                 // what the payloads may hold together; 0 means 256 MiB
	Bad      func(reason string) // told why a message had to be dropped; nil ignores them
}

// Replay asks the ROUTER at endpoint for the batches that it still keeps from sequence `from` on and calls fn for
// each, oldest first, on the socket's thread. It returns nil when the engine said that it had sent all, which does
// not mean that all arrived: the engine drops what the connection cannot take, so the caller checks that sequences
// follow one another. An engine whose buffer begins later answers from there; one that has nothing sends no batch.
//
// It fails with ErrIdle when nothing came for o.Idle, with ErrTooLarge beyond o.MaxBytes, with ErrEndpoint, or with
// the error of ctx. Batches already given to fn stay valid. The socket lives only as long as the call.
func Replay(ctx context.Context, endpoint string, from uint64, o ReplayOptions, fn func(Frame)) error {
	if o.Idle == 0 {
		o.Idle = 5 * time.Second
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 20
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := connect(czmq.Dealer, endpoint, 0) // with a receive limit the ROUTER would drop
	if err != nil {
		return err
	}
	defer s.Destroy()
	s.SetSndtimeo(int(wait / time.Millisecond))
	blocks(s, min(wait, o.Idle/4)) // so that the end of patience is seen
	if err := s.SendMessage([][]byte{{}, binary.BigEndian.AppendUint64(nil, from)}); err != nil {
		return fmt.Errorf("ask for a replay: %w", err)
	}
	return replies(ctx, s, o, fn)
}

// replies reads until the end of a replay.
func replies(ctx context.Context, s *czmq.Sock, o ReplayOptions, fn func(Frame)) error {
	heard, size := time.Now(), 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		parts, count := receive(s)
		if count == 0 {
			if time.Since(heard) > o.Idle {
				return fmt.Errorf("replay: %w", ErrIdle)
			}
			if time.Since(began) < retry {
				sleep(ctx, retry)
			}
			continue
		}
		heard = time.Now()
		f, reason := reply(parts, count)
		if reason != "" {
			if o.Bad != nil {
				o.Bad(reason)
			}
			continue
		}
		if f.Seq == endSeq && len(f.Payload) == 0 {
			return nil
		}
		if size += len(f.Payload); size > o.MaxBytes {
			return fmt.Errorf("replay of over %d bytes: %w", o.MaxBytes, ErrTooLarge)
		}
		fn(f)
	}
}

// reply reads one message of a replay: "", sequence, payload before vLLM v0.26, and "", topic, sequence, payload
// since.
func reply(parts [][]byte, count int) (Frame, string) {
	if (count != 3 && count != 4) || len(parts[0]) != 0 {
		return Frame{}, WrongParts
	}
	if count == 3 {
		return frame(nil, parts[1], parts[2])
	}
	return frame(parts[1], parts[2], parts[3])
}
