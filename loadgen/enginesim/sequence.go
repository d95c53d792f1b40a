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
	// Remote says that a prefill engine has computed the prompt: its KV is here when the request is admitted, and only
	// the last token is computed again. The transfer takes no time.
	Remote bool
	Tag    any // the caller's own

	prepared *sequence // by Prepare of the core by
	by       *Core
}

// sequence is a request in the core.
type sequence struct {
	req     *Request
	tokens  []uint32 // prompt and answer so far
	hashes  []uint64 // engine hashes of all full blocks of tokens
	digest  []byte   // digest of the last of them, or the root
	blocks  []int32  // physical blocks, those of hashes first
	cached  int      // blocks entered in the pool's map, or hit there, since the last admission
	done    int      // tokens computed
	n       int      // tokens computed in this step
	output  int      // tokens generated
	hit     int      // prompt tokens found at first admission
	decodes bool     // has generated since its last admission
	seen    bool     // was admitted once
	plain   bool     // no block has extra keys
	gone    bool     // finished or aborted
	scratch []byte
}

// start makes s the sequence of r, keeping its slices.
func (s *sequence) start(r *Request, root []byte) {
	*s = sequence{
		req:     r,
		tokens:  append(s.tokens[:0], r.Prompt...),
		hashes:  s.hashes[:0],
		digest:  append(s.digest[:0], root...),
		blocks:  s.blocks[:0],
		scratch: s.scratch,
		plain:   r.LoRA == "" && r.Salt == "" && len(r.Items) == 0,
	}
}

// rewind forgets what was computed: the sequence waits again, with all its tokens.
func (s *sequence) rewind() {
	s.blocks, s.cached, s.done, s.n, s.decodes = s.blocks[:0], 0, 0, 0, false
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

// hashBlocks hashes the blocks of s that have become full. It touches nothing else.
func (c *Core) hashBlocks(s *sequence) {
	size := c.o.BlockSize
	for i := len(s.hashes); (i+1)*size <= len(s.tokens); i++ {
		s.scratch = c.o.Hash.Next(s.scratch[:0], s.digest, s.tokens[i*size:(i+1)*size], c.extra(s, i))
		s.digest = append(s.digest[:0], s.scratch...)
		s.hashes = append(s.hashes, blockkey.Low64(s.digest))
	}
}
