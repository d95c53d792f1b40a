package enginesim

import (
	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// Request is what an engine is asked to compute. The core keeps the pointer until the request is finished, refused
// or aborted, and reads it; Prompt it copies.
type Request struct {
	ID     string // unique among the requests in the core
	Prompt []uint32
	// MaxTokens is how many tokens to generate, at least 1; the context's end may come first. There is no other end:
	// without a model nothing generates a stop token.
	MaxTokens int
	// Answer names the generated tokens: token i is OutputToken(core seed, Answer, i).
	Answer uint64
	LoRA   string // adapter name, empty for the base model
	LoRAID int64  // adapter number, only with LoRA
	Salt   string // cache_salt
	Items  []blockkey.Feature
	// Remote says that a prefill engine has computed the prompt: its KV is fetched first (Pull), and only the last token
	// is computed again.
	Remote bool
	// Hashes are the engine hashes of the prompt's full blocks, where the caller knows them: then they are not computed
	// once more. Only with QuickHash of the core's seed, and without what extra keys stand for.
	Hashes []uint64
	// Pin keeps the blocks in use when the request is finished, until Unpin: a decode engine is to fetch them.
	Pin bool
	Tag any // the caller's own

	prepared *sequence // by Prepare of the core by
	by       *Core
}

// sequence is a request in the core.
type sequence struct {
	// What each step reads, in one line of the processor's cache.
	req     *Request
	length  int  // tokens of the prompt and of the answer so far
	done    int  // tokens computed
	edge    int  // up to here tokens computed one by one neither begin nor fill a block
	output  int  // tokens generated
	most    int  // tokens to generate
	n       int  // tokens computed in this step
	decodes bool // has generated since its last admission
	seen    bool // was admitted once
	plain   bool // no block has extra keys
	gone    bool // finished or aborted
	pulling bool // has its blocks and waits for the KV in them
	pulled  bool // has its blocks and the KV in them, and waits for a step
	hit     int  // prompt tokens found at first admission

	tokens  []uint32 // prompt and, as far as its blocks are full, answer
	hashes  []uint64 // engine hashes of full blocks, as far as they were needed
	digest  []byte   // digest of the last of them, or the root
	blocks  []int32  // physical blocks, those of hashes first
	cached  int      // blocks entered in the pool's map, or hit there, since the last admission
	scratch []byte
}

// start makes s the sequence of r, keeping its slices, and hashes the prompt. It touches nothing else.
func (c *Core) start(s *sequence, r *Request) {
	*s = sequence{
		req:     r,
		length:  len(r.Prompt),
		most:    min(r.MaxTokens, c.o.MaxModelLen-len(r.Prompt)),
		tokens:  append(s.tokens[:0], r.Prompt...),
		hashes:  append(s.hashes[:0], r.Hashes...),
		digest:  append(s.digest[:0], c.root...),
		blocks:  s.blocks[:0],
		scratch: s.scratch,
		plain:   r.LoRA == "" && r.Salt == "" && len(r.Items) == 0,
	}
	if n := len(r.Hashes); n > 0 {
		s.digest = QuickHash{}.digest(s.digest[:0], r.Hashes[n-1])
	}
	c.hashBlocks(s, len(r.Prompt)/c.o.BlockSize)
}

// rewind forgets what was computed: the sequence waits again, with all its tokens.
func (s *sequence) rewind() {
	s.blocks, s.cached, s.done, s.edge, s.n, s.decodes = s.blocks[:0], 0, 0, 0, 0, false
}

// extra returns the extra keys of block i, or nil.
func (c *Core) extra(s *sequence, i int) []kvevent.ExtraKey {
	if s.plain {
		return nil
	}
	r := s.req
	return blockkey.Rules{BlockSize: c.o.BlockSize}.ExtraKeys(&blockkey.Request{
		LoRAName: r.LoRA, LoRAID: r.LoRAID, Salt: r.Salt, Features: r.Items,
	}, i*c.o.BlockSize)
}

// hashBlocks makes the hashes of the first n blocks of s known, and the answer's tokens in them. It touches nothing else.
func (c *Core) hashBlocks(s *sequence, n int) {
	size := c.o.BlockSize
	for i := len(s.tokens); i < n*size; i++ {
		s.tokens = append(s.tokens, c.o.Answer(s.req, i-len(s.req.Prompt)))
	}
	for i := len(s.hashes); i < n; i++ {
		s.scratch = c.o.Hash.Next(s.scratch[:0], s.digest, s.tokens[i*size:(i+1)*size], c.extra(s, i))
		s.digest = append(s.digest[:0], s.scratch...)
		s.hashes = append(s.hashes, blockkey.Low64(s.digest))
	}
}
