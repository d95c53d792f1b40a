package kvwire

// The faults that real engines and networks produce, for tests of those who read a Publisher.

// DropLive loses the next n live messages; their batches can still be replayed.
func (p *Publisher) DropLive(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = n
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
