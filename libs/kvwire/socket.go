// Package kvwire is the ZeroMQ side of vLLM's KV-cache events: it subscribes to an engine's batches, asks for those
// that the engine still keeps, and publishes as vLLM does, for simulated engines and tests.
//
// It is the only package that touches ZeroMQ. A socket belongs to one goroutine, locked to its thread, from its
// creation to its destruction; the C library aborts the process otherwise. It does not decode payloads, compare
// sequences or decide anything: libs/kvevent and the ingest service do.
//
// A frame larger than 8 MiB ends its connection (libzmq then connects anew); a message of any other wrong shape is
// dropped and its reason reported. libzmq itself holds a message until its last frame has come, so a publisher that
// sends frames without end is bounded by nothing here: subscribe to engines, not to strangers.
//
// Format: vllm/distributed/kv_events.py, ZmqEventPublisher, of the vLLM releases v0.9.0 to v0.29.
package kvwire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	czmq "github.com/zeromq/goczmq"
)

// Frame is one event batch as it came off the wire. Its slices are its own.
type Frame struct {
	Topic    []byte // empty in replies of engines before v0.26
	Seq      uint64 // counts from 0 in each life of a publisher
	Payload  []byte // for kvevent.Decoder
	Received time.Time
}

// The reasons for which a message is dropped and reported.
const (
	WrongParts    = "wrong_parts"    // not topic, sequence, payload
	WrongSequence = "wrong_sequence" // the sequence is not 8 bytes long
)

// Errors that callers may want to tell apart.
var (
	ErrEndpoint = errors.New("kvwire: unusable endpoint")
	ErrIdle     = errors.New("kvwire: no answer in time")
	ErrTooLarge = errors.New("kvwire: replay too large")
)

const (
	wait       = 500 * time.Millisecond // how long a receive blocks before it looks for cancellation: a thread of each socket wakes so often
	retry      = 10 * time.Millisecond  // pause after a receive that failed at once
	maxMessage = 8 << 20                // bytes in one frame
	maxParts   = 5                      // frames of a message that are kept; the rest is read and dropped
	endSeq     = ^uint64(0)             // sequence of the message that ends a replay
)

// prepare readies czmq, once for the process. It raises the limit of 1,024 sockets, which czmq enforces by aborting the
// process, and creates a first socket alone: that one initialises czmq, and two at once abort the process.
var prepare = sync.OnceValue(func() error {
	if err := os.Setenv("ZSYS_MAX_SOCKETS", "65535"); err != nil {
		return err
	}
	czmq.NewSock(czmq.Pair).Destroy()
	return nil
})

// Check returns an error that wraps ErrEndpoint unless the endpoint can be given to Subscribe or Replay: czmq reads
// it as a printf format and splits it on commas.
func Check(endpoint string) error {
	switch {
	case endpoint == "":
		return fmt.Errorf("%w: it is empty", ErrEndpoint)
	case strings.ContainsAny(endpoint, "%,\x00"):
		return fmt.Errorf("%w %q: it holds a percent sign, a comma or a zero byte", ErrEndpoint, endpoint)
	case !strings.Contains(endpoint, "://"):
		return fmt.Errorf("%w %q: want tcp://HOST:PORT", ErrEndpoint, endpoint)
	}
	return nil
}

// open creates a socket of the kind with the options that every socket has. The caller destroys it.
func open(kind int) (*czmq.Sock, error) {
	if err := prepare(); err != nil {
		return nil, fmt.Errorf("prepare czmq: %w", err)
	}
	s := czmq.NewSock(kind)
	blocks(s, wait)
	s.SetMaxmsgsize(maxMessage)
	s.SetLinger(0)
	s.SetTcpKeepalive(1) // or the loss of a host would never be noticed
	s.SetTcpKeepaliveIdle(15)
	s.SetTcpKeepaliveIntvl(5)
	s.SetTcpKeepaliveCnt(3)
	return s, nil
}

// blocks sets how long a receive blocks at most.
func blocks(s *czmq.Sock, most time.Duration) { s.SetRcvtimeo(int(most / time.Millisecond)) }

// connect opens a socket that connects to the endpoint, which need not be there yet.
func connect(kind int, endpoint string, receiveLimit int) (*czmq.Sock, error) {
	if err := Check(endpoint); err != nil {
		return nil, err
	}
	s, err := open(kind)
	if err != nil {
		return nil, err
	}
	s.SetRcvhwm(receiveLimit)
	if kind == czmq.Sub {
		s.SetSubscribe("")
	}
	if err := s.Connect(endpoint); err != nil {
		s.Destroy()
		return nil, fmt.Errorf("%w %q: %w", ErrEndpoint, endpoint, err)
	}
	return s, nil
}

// receive returns the next message, its surplus frames dropped but counted, or nil when it has blocked long enough.
func receive(s *czmq.Sock) (parts [][]byte, count int) {
	for {
		part, more, err := s.RecvFrame()
		if err != nil { // nothing came in time, or the call was interrupted
			return nil, 0
		}
		if count++; count <= maxParts {
			parts = append(parts, part)
		}
		if more != czmq.FlagMore {
			return parts, count
		}
	}
}

// frame makes a Frame of topic, sequence and payload, or says why it cannot.
func frame(topic, seq, payload []byte) (Frame, string) {
	if len(seq) != 8 {
		return Frame{}, WrongSequence
	}
	return Frame{Topic: topic, Seq: binary.BigEndian.Uint64(seq), Payload: payload, Received: time.Now()}, ""
}

// sleep pauses where a library call failed at once, so that a loop around it does not spin.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
