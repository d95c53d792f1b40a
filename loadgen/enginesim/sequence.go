package enginesim

import (
	"slices"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/kvevent"
)

// Request is what an engine is asked to compute. The core keeps the pointer until the request is finished, refused
// or aborted, and reads it; events of its last step may point into Prompt.
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
	// once more. They must be QuickHash's of the core's seed; with another Hasher, or extra keys, they are not read.
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
	gliding bool // see glide; length, done and output are as of base
	base    int64
	phase   int

	blocks  []int32  // physical blocks, those of hashes first
	hashes  []uint64 // engine hashes of full blocks, as far as they were needed
	tail    []uint32 // tokens behind the prompt's last full block, as far as blocks with hashes hold them
	digest  []byte   // digest of the last hash, or the root; not where the quick way is taken
	cached  int      // blocks entered in the pool's map, or hit there, since the last admission
	scratch []byte
}

// start makes s the sequence of r, keeping its slices, and hashes the prompt. It touches nothing else.
func (c *Core) start(s *sequence, r *Request) {
	*s = sequence{
		req:     r,
		length:  len(r.Prompt),
		most:    min(r.MaxTokens, c.o.MaxModelLen-len(r.Prompt)),
		tail:    s.tail[:0],
		hashes:  s.hashes[:0],
		digest:  append(s.digest[:0], c.root...),
		blocks:  s.blocks[:0],
		scratch: s.scratch,
		plain:   r.LoRA == "" && r.Salt == "" && len(r.Items) == 0,
	}
	if c.o.NoPrefixCache {
		return
	}
	s.tail = append(s.tail, r.Prompt[c.whole(r):]...)
	if c.quick != nil && s.plain {
		s.hashes = append(s.hashes, r.Hashes...)
	}
	c.hashBlocks(s, len(r.Prompt)/c.o.BlockSize)
}

// whole is how many tokens the full blocks of a prompt hold.
func (c *Core) whole(r *Request) int { return len(r.Prompt) / c.o.BlockSize * c.o.BlockSize }

// tokens returns those of blocks first to last-1, which must have hashes; valid until the step after next.
func (c *Core) tokens(s *sequence, first, last int) []uint32 {
	from, to, whole := first*c.o.BlockSize, last*c.o.BlockSize, c.whole(s.req)
	switch {
	case to <= whole:
		return s.req.Prompt[from:to:to]
	case from >= whole:
		return s.tail[from-whole : to-whole : to-whole]
	}
	return slices.Concat(s.req.Prompt[from:whole], s.tail[:to-whole]) // computed again after a preemption
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
	if len(s.hashes) >= n {
		return
	}
	size := c.o.BlockSize
	for i := c.whole(s.req) + len(s.tail); i < n*size; i++ {
		s.tail = append(s.tail, c.o.Answer(s.req, i-len(s.req.Prompt)))
	}
	for i := len(s.hashes); i < n; i++ {
		tokens := c.tokens(s, i, i+1)
		if c.quick != nil && s.plain {
			parent := c.quick.Seed
			if i > 0 {
				parent = s.hashes[i-1]
			}
			s.hashes = append(s.hashes, c.quick.sum(parent, tokens))
			continue
		}
		s.scratch = c.o.Hash.Next(s.scratch[:0], s.digest, tokens, c.extra(s, i))
		s.digest = append(s.digest[:0], s.scratch...)
		s.hashes = append(s.hashes, blockkey.Low64(s.digest))
	}
}
