package blockkey

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

// Root is the state of the scope's chains before their first piece: XXH3-64 of the scope's encoding.
func (s Scope) Root() uint64 {
	var buf [256]byte
	return xxh3.Hash(s.encode(buf[:0]))
}

// encode appends the scope such that no two scopes have the same bytes: what has a fixed length first, then each
// string behind its length.
func (s Scope) encode(dst []byte) []byte {
	dst = append(dst, s.Seed[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.BlockSize))
	for _, text := range [...]string{s.Pool, s.LoRA, s.Salt} {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(len(text)))
		dst = append(dst, text...)
	}
	return dst
}
