package kvwire

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	czmq "github.com/zeromq/goczmq"
)

// PublisherOptions says how a Publisher behaves. The zero value is vLLM's default, in its form since v0.26.
type PublisherOptions struct {
	Topic       string // first frame of each message; vLLM's default is empty
	BufferSteps int    // batches kept for replay; 0 means 10,000, vLLM's default
	Legacy      bool   // replies without topic, as before v0.26
	// ReplayLimit is how many replies wait for one client before the ROUTER drops the next; 0 means no limit. vLLM
	// has 1,000, but sends slowly enough for most clients to keep up.
	ReplayLimit int
}

// Publisher publishes batches as a vLLM engine does: a PUB socket that numbers them from 0, and a ROUTER that replays
// the last of them. Each socket has a goroutine of its own. All methods may be called from any goroutine.
type Publisher struct {
	o           PublisherOptions
	pub, replay string // connectable endpoints; replay is empty where there is none
	queue       chan [][]byte
	stop        chan struct{}
	done        sync.WaitGroup

	mu     sync.Mutex // held while a batch is numbered, kept and queued
	closed bool
	next   uint64
	kept   []Frame // oldest first; at most o.BufferSteps
	faults faults
}

// Listen binds both sockets: endpoints like tcp://127.0.0.1:5557, port 0 for a free one. Without a replayEndpoint
// nothing can be replayed, which is vLLM's default. A port that was released a moment ago is tried for a second.
func Listen(pubEndpoint, replayEndpoint string, o PublisherOptions) (*Publisher, error) {
	if o.BufferSteps == 0 {
		o.BufferSteps = 10_000
	}
	p := &Publisher{o: o, queue: make(chan [][]byte, 100_000), stop: make(chan struct{})}
	var err error
	if p.pub, err = p.own(czmq.Pub, pubEndpoint, p.send); err != nil {
		return nil, err
	}
	if replayEndpoint == "" {
		return p, nil
	}
	if p.replay, err = p.own(czmq.Router, replayEndpoint, p.serve); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// own starts the goroutine that creates, serves and destroys a socket, and returns the socket's endpoint.
func (p *Publisher) own(kind int, endpoint string, serve func(*czmq.Sock)) (string, error) {
	if err := Check(endpoint); err != nil {
		return "", err
	}
	type bound struct {
		endpoint string
		err      error
	}
	ready := make(chan bound, 1)
	p.done.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		s, err := open(kind)
		if err != nil {
			ready <- bound{err: err}
			return
		}
		defer s.Destroy()
		if kind == czmq.Pub {
			s.SetSndhwm(100_000) // vLLM's hwm
		} else {
			s.SetSndhwm(p.o.ReplayLimit)
		}
		if err := bind(s, endpoint); err != nil {
			ready <- bound{err: err}
			return
		}
		ready <- bound{endpoint: connectable(s.LastEndpoint())}
		serve(s)
	})
	b := <-ready
	return b.endpoint, b.err
}

// bind retries for a second, because libzmq releases the port of a destroyed socket in the background.
func bind(s *czmq.Sock, endpoint string) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(retry) {
		_, err := s.Bind(endpoint)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("bind %q: %w", endpoint, err)
		}
	}
}

// connectable turns the address of a socket that listens everywhere into one that can be connected to.
func connectable(endpoint string) string {
	for _, all := range []string{"tcp://0.0.0.0:", "tcp://[::]:", "tcp://*:"} {
		if port, ok := strings.CutPrefix(endpoint, all); ok {
			return "tcp://127.0.0.1:" + port
		}
	}
	return endpoint
}

// Endpoints returns where a subscriber of this host connects; replay is empty where there is none.
func (p *Publisher) Endpoints() (pub, replay string) { return p.pub, p.replay }

// Publish numbers the payload, keeps it for replay, queues it for the subscribers and returns its sequence. It blocks
// while 100,000 messages wait. The payload must not be changed afterwards. After Close it does nothing.
func (p *Publisher) Publish(payload []byte) (seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seq = p.next
	p.next++
	f := Frame{Topic: []byte(p.o.Topic), Seq: seq, Payload: payload}
	if p.kept = append(p.kept, f); len(p.kept) > p.o.BufferSteps {
		p.kept = p.kept[1:]
	}
	p.deliver([][]byte{f.Topic, sequence(seq), payload})
	return seq
}

// enqueue hands a message to the PUB socket's goroutine. The caller holds mu, so messages keep their order.
func (p *Publisher) enqueue(parts [][]byte) {
	if p.closed {
		return
	}
	p.queue <- parts
}

// Close publishes what is queued, releases both ports and waits for the goroutines. It may be called again.
func (p *Publisher) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.queue)
		close(p.stop)
	}
	p.mu.Unlock()
	if p.replay != "" { // something to receive, so that its thread looks up at once
		if s, err := connect(czmq.Dealer, p.replay, 0); err == nil {
			defer s.Destroy()
			_ = s.SendMessage([][]byte{{}})
		}
	}
	p.done.Wait()
}

// send is the PUB socket's goroutine. A PUB socket never blocks: a slow subscriber loses messages.
func (p *Publisher) send(s *czmq.Sock) {
	for parts := range p.queue {
		_ = s.SendMessage(parts) // fails only where the process runs out of memory
	}
	_ = s.Unbind(s.LastEndpoint())
}

// serve is the ROUTER's goroutine.
func (p *Publisher) serve(s *czmq.Sock) {
	for {
		select {
		case <-p.stop:
			_ = s.Unbind(s.LastEndpoint())
			return
		default:
		}
		parts, count := receive(s)
		if count == 3 { // identity, "", start; vLLM ignores everything else
			p.answer(s, parts[0], number(parts[2]))
		}
	}
}

// answer sends what is kept from a sequence on, then the end mark.
func (p *Publisher) answer(s *czmq.Sock, client []byte, from uint64) {
	frames, end := p.replayed(from)
	for _, f := range frames {
		_ = s.SendMessage(p.reply(client, f.Topic, sequence(f.Seq), f.Payload))
	}
	if end {
		_ = s.SendMessage(p.reply(client, nil, sequence(endSeq), nil))
	}
}

// replayed is what an answer to a replay holds, and whether its end is marked.
func (p *Publisher) replayed(from uint64) (frames []Frame, end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, _ := slices.BinarySearchFunc(p.kept, from, func(f Frame, from uint64) int { return cmp.Compare(f.Seq, from) })
	return p.faults.spoilt(slices.Clip(p.kept[i:]))
}

func (p *Publisher) reply(client, topic, seq, payload []byte) [][]byte {
	if p.o.Legacy {
		return [][]byte{client, {}, seq, payload}
	}
	return [][]byte{client, {}, topic, seq, payload}
}

// sequence is a sequence as it lies on the wire.
func sequence(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// number reads a big-endian integer of any length; what exceeds 64 bits is the greatest.
func number(b []byte) uint64 {
	var n uint64
	for _, c := range b {
		if n>>56 != 0 {
			return ^uint64(0)
		}
		n = n<<8 | uint64(c)
	}
	return n
}
