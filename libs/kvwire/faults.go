package kvwire

import "slices"

// The faults that real engines and networks produce, for tests of those who read a Publisher.
type faults struct {
	drop, twice, reverse int        // live messages that it still happens to
	reversed             [][][]byte // messages that wait for the last of theirs, which comes first
	spoil                func([]Frame) ([]Frame, bool)
	spoils               int // answers that it still happens to
}

// DropLive loses the next n live messages; their batches can still be replayed.
func (p *Publisher) DropLive(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults.drop = n
}

// RepeatLive sends each of the next n live messages twice.
func (p *Publisher) RepeatLive(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults.twice = n
}

// ReverseLive holds the next n live messages back and sends them in reverse order with the last of them.
func (p *Publisher) ReverseLive(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults.reverse = n
}

// SpoilReplays lets spoil change the next n answers to replays: it is given the batches that should be sent and returns
// those that are, and whether the end is marked. It runs under the Publisher's lock. With n = 0 it ends.
func (p *Publisher) SpoilReplays(n int, spoil func(due []Frame) (sent []Frame, end bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults.spoils, p.faults.spoil = n, spoil
}

// deliver sends a live message as the faults will have it. The caller holds mu.
func (p *Publisher) deliver(parts [][]byte) {
	f := &p.faults
	switch {
	case f.drop > 0:
		f.drop--
	case f.reverse > 0:
		f.reverse--
		if f.reversed = append(f.reversed, parts); f.reverse == 0 {
			for _, m := range slices.Backward(f.reversed) {
				p.enqueue(m)
			}
			f.reversed = nil
		}
	case f.twice > 0:
		f.twice--
		p.enqueue(parts)
		p.enqueue(parts)
	default:
		p.enqueue(parts)
	}
}

// spoilt is an answer as the faults will have it.
func (f *faults) spoilt(due []Frame) (sent []Frame, end bool) {
	if f.spoils == 0 {
		return due, true
	}
	f.spoils--
	return f.spoil(due)
}

// Skip uses up a sequence without a batch, as vLLM does when it cannot encode one: a gap that no replay fills.
func (p *Publisher) Skip() (seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seq = p.next
	p.next++
	return seq
}

// Forget empties the replay buffer, as if BufferSteps further batches had been published and lost.
func (p *Publisher) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = nil
}

// Restart begins a new life on the same sockets: sequences count from 0 again and nothing is kept.
func (p *Publisher) Restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.kept = 0, nil
}

// SendRaw publishes a message of any shape. It is not kept and uses up no sequence.
func (p *Publisher) SendRaw(parts ...[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enqueue(parts)
}
