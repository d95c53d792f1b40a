package blockkey

import (
	"encoding/binary"
	"testing"

	"github.com/zeebo/xxh3"
)

func TestExtendHashesLittleEndianWords(t *testing.T) {
	for n := range MaxPiece + 1 {
		piece := someTokens(9, n)
		var raw []byte
		for _, token := range piece {
			raw = binary.LittleEndian.AppendUint32(raw, token)
		}
		if got, want := Extend(42, piece), xxh3.HashSeed(raw, 42); got != want {
			t.Errorf("%d tokens: %x, want %x", n, got, want)
		}
	}
}

// Keys lie in event logs that outlive a release: these values never change.
func TestKeysAreStable(t *testing.T) {
	s := Scope{Seed: Seed{1, 2, 3}, Pool: "qwen3-32b-01234567", BlockSize: 32, LoRA: "sql", Salt: "tenant"}
	tokens := make([]uint32, 64)
	for i := range tokens {
		tokens[i] = uint32(1000 * i)
	}
	got := Keys([]uint64{s.Root()}, s, tokens, []Item{{"image", 20}})
	got = append(got, MixBytes(1, []byte("digest")))
	want := []uint64{0xb74147da2d3ecaee, 0xab375c5baade7423, 0x6f1ebb575b76e992, 0x9d2a769f93d60dfc}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("value %d is %#x, was %#x in every release", i, got[i], want[i])
		}
	}
}
