package workload

import "math/bits"

// reserved ids at the start of a vocabulary are never drawn: many tokenizers keep control and byte tokens there.
const reserved = 256

// Tokens turns block ids into token ids. The zero value draws from a vocabulary of 32,000.
type Tokens struct {
	Vocabulary int    // ids are below it; 0 means 32000, anything under 512 means 512
	Seed       uint64 // other seeds give other prompts of the same shape
}

// Append appends the prompt of a request: r.Input token ids in [256, Vocabulary). Equal block ids give equal tokens,
// so prompts share prefixes as the trace says; the same Tokens gives the same ids on every run. Does not allocate
// beyond dst.
func (t Tokens) Append(dst []uint32, r Request) []uint32 {
	left := r.Input
	for _, id := range r.Blocks {
		n := min(left, BlockTokens)
		dst = t.Run(dst, id, n)
		left -= n
	}
	return dst
}

// Run appends the first n tokens of those that a block id stands for; there is no end of them.
func (t Tokens) Run(dst []uint32, id uint64, n int) []uint32 {
	vocabulary := t.Vocabulary
	if vocabulary == 0 {
		vocabulary = 32_000
	}
	span := uint64(max(vocabulary, 2*reserved) - reserved)
	state := mix64(t.Seed ^ mix64(id))
	for range n {
		state += 0x9e3779b97f4a7c15
		high, _ := bits.Mul64(mix64(state), span)
		dst = append(dst, uint32(reserved+high))
	}
	return dst
}

// mix64 is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
func mix64(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
